package lookup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"espalier/proxy/egress/dnstest"
	"espalier/proxy/egress/reach"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const soa = "ns example. %d IN SOA ns.example. admin.example. 1 2 3 4 %d"

func TestDNSAnswers(t *testing.T) {
	type list = []string
	rcode := func(rcode int, records ...string) func(*dns.Msg, string) *dns.Msg {
		return func(q *dns.Msg, _ string) *dns.Msg { return dnstest.Reply(q, rcode, records...) }
	}
	tests := []struct {
		name   string
		server func(*dns.Msg, string) *dns.Msg
		want   string // addresses, or the error
		ttl    time.Duration
	}{
		{"both families", dnstest.ByType(list{"x. 60 A 192.0.2.1", "x. 60 A 192.0.2.2"}, list{"x. 50 AAAA 2001:db8::1"}), "192.0.2.1 192.0.2.2 2001:db8::1", 50 * time.Second},
		{"only IPv4", dnstest.ByType(list{"x. 60 A 192.0.2.1"}, nil), "192.0.2.1", 60 * time.Second},
		{"only IPv6", dnstest.ByType(nil, list{"x. 60 AAAA 2001:db8::1"}), "2001:db8::1", 60 * time.Second},
		{"alias", dnstest.ByType(list{"x. 300 CNAME y.", "y. 20 CNAME z.", "z. 60 A 192.0.2.1"}, nil), "192.0.2.1", 20 * time.Second},
		{"twice the same", dnstest.ByType(list{"x. 60 A 192.0.2.1", "x. 60 A 192.0.2.1"}, nil), "192.0.2.1", 60 * time.Second},
		{"mapped", dnstest.ByType(list{"x. 60 A 192.0.2.1"}, list{"x. 60 AAAA ::ffff:192.0.2.9"}), "192.0.2.1 192.0.2.9", 60 * time.Second},
		{"the other family's records", dnstest.ByType(list{"x. 60 A 192.0.2.1"}, list{"x. 5 A 192.0.2.2"}), "192.0.2.1", 60 * time.Second},
		{"other records beside", dnstest.ByType(list{"x. 5 TXT \"v=1\"", "x. 60 A 192.0.2.1"}, nil), "192.0.2.1", 60 * time.Second},
		{"TTL 0", dnstest.ByType(list{"x. 0 A 192.0.2.1"}, nil), "192.0.2.1", time.Second},
		{"TTL of a week", dnstest.ByType(list{"x. 604800 A 192.0.2.1"}, nil), "192.0.2.1", time.Hour},
		{"no such name", rcode(dns.RcodeNameError), "no such name", 10 * time.Second},
		{"no such name, SOA", rcode(dns.RcodeNameError, fmt.Sprintf(soa, 600, 5)), "no such name", 5 * time.Second},
		{"no such name, SOA with a short TTL", rcode(dns.RcodeNameError, fmt.Sprintf(soa, 3, 600)), "no such name", 3 * time.Second},
		{"no such name, SOA of a day", rcode(dns.RcodeNameError, fmt.Sprintf(soa, 86400, 86400)), "no such name", 10 * time.Second},
		{"no such name, SOA of nothing", rcode(dns.RcodeNameError, fmt.Sprintf(soa, 0, 0)), "no such name", time.Second},
		{"no address", rcode(dns.RcodeSuccess, fmt.Sprintf(soa, 600, 7)), "the name has no address", 7 * time.Second},
		{"alias to nowhere", rcode(dns.RcodeNameError, "x. 60 CNAME y."), "no such name", 10 * time.Second},
		{"IPv6 fails", func(q *dns.Msg, _ string) *dns.Msg {
			if q.Question[0].Qtype == dns.TypeAAAA {
				return dnstest.Reply(q, dns.RcodeServerFailure)
			}
			return dnstest.Reply(q, dns.RcodeSuccess, "x. 60 A 192.0.2.1")
		}, "192.0.2.1", 10 * time.Second},
		{"IPv6 fails, and there is no IPv4", func(q *dns.Msg, _ string) *dns.Msg {
			if q.Question[0].Qtype == dns.TypeAAAA {
				return dnstest.Reply(q, dns.RcodeServerFailure)
			}
			return dnstest.Reply(q, dns.RcodeSuccess)
		}, "name server SERVER: answers SERVFAIL", 0},
		{"failure", rcode(dns.RcodeServerFailure), "name server SERVER: answers SERVFAIL", 0},
		{"refusal", rcode(dns.RcodeRefused), "name server SERVER: answers REFUSED", 0},
		{"not implemented", rcode(dns.RcodeNotImplemented), "name server SERVER: answers NOTIMP", 0},
		{"alias to another zone, without its address", func(q *dns.Msg, _ string) *dns.Msg {
			switch {
			case q.Question[0].Name == "x.":
				return dnstest.Reply(q, dns.RcodeSuccess, "x. 300 CNAME y.")
			case q.Question[0].Name == "y.":
				return dnstest.Reply(q, dns.RcodeSuccess, "y. 20 CNAME z.")
			case q.Question[0].Qtype == dns.TypeA:
				return dnstest.Reply(q, dns.RcodeSuccess, "z. 60 A 192.0.2.1")
			}
			return dnstest.Reply(q, dns.RcodeSuccess, fmt.Sprintf(soa, 600, 7))
		}, "192.0.2.1", 20 * time.Second},
		{"aliases out of order", dnstest.ByType(list{"z. 60 A 192.0.2.1", "y. 20 CNAME z.", "x. 300 CNAME Y."}, nil), "192.0.2.1", 20 * time.Second},
		{"aliases in a circle", dnstest.ByType(list{"x. 300 CNAME y.", "y. 300 CNAME x."}, list{"x. 300 CNAME x."}), "the name has no address", 10 * time.Second},
		{"cut over UDP, whole over TCP", func(q *dns.Msg, network string) *dns.Msg {
			if network == "udp" {
				m := dnstest.Reply(q, dns.RcodeSuccess, "x. 60 A 192.0.2.1")
				m.Truncated = true
				return m
			}
			if q.Question[0].Qtype == dns.TypeAAAA {
				return dnstest.Reply(q, dns.RcodeSuccess)
			}
			return dnstest.Reply(q, dns.RcodeSuccess, "x. 60 A 192.0.2.1", "x. 60 A 192.0.2.2")
		}, "192.0.2.1 192.0.2.2", 60 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := dnstest.Serve(t, tt.server)
			r := &dnsResolver{answers: reach.New(nil), servers: []string{s.Addr}, timeout: 10 * time.Second}
			addrs, ttl, err := r.lookup(t.Context(), "x")
			got := strings.Trim(fmt.Sprint(addrs), "[]")
			if err != nil {
				got = strings.ReplaceAll(err.Error(), s.Addr, "SERVER")
			}
			if got != tt.want || ttl != tt.ttl {
				t.Errorf("%s for %v, want %s for %v", got, ttl, tt.want, tt.ttl)
			}
		})
	}
}

// An answer to another question is forged, or late: the proxy waits for the right one. Where none comes the next server is asked.
func TestDNSOtherAnswers(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoof func(m *dns.Msg) []byte // from an answer to the question
	}{
		{"another ID", func(m *dns.Msg) []byte { m.Id++; return packed(m) }},
		{"another name", func(m *dns.Msg) []byte { m.Question[0].Name = "evil."; return packed(m) }},
		{"another type", func(m *dns.Msg) []byte { m.Question[0].Qtype = dns.TypeTXT; return packed(m) }},
		{"another class", func(m *dns.Msg) []byte { m.Question[0].Qclass = dns.ClassCHAOS; return packed(m) }},
		{"no question", func(m *dns.Msg) []byte { m.Question = nil; return packed(m) }},
		{"an echo", func(m *dns.Msg) []byte { m.Response = false; return packed(m) }},
		{"no message", func(m *dns.Msg) []byte { return packed(m)[:20] }},
		{"nothing", func(m *dns.Msg) []byte { return nil }},
	} {
		for _, last := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, nothing else %v", tc.name, last), func(t *testing.T) {
				pc, err := net.ListenPacket("udp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					buf := make([]byte, 2048)
					for {
						n, from, err := pc.ReadFrom(buf)
						if err != nil {
							return
						}
						q := new(dns.Msg)
						if q.Unpack(buf[:n]) != nil {
							continue
						}
						_, _ = pc.WriteTo(tc.spoof(dnstest.Reply(q, dns.RcodeSuccess, "x. 60 A 203.0.113.66")), from)
						if !last {
							_, _ = pc.WriteTo(packed(dnstest.Reply(q, dns.RcodeSuccess, "x. 60 A 192.0.2.1")), from)
						}
					}
				}()
				t.Cleanup(func() { pc.Close(); <-done })
				second := dnstest.Serve(t, dnstest.ByType([]string{"x. 60 A 192.0.2.2"}, nil))
				r := &dnsResolver{answers: reach.New(nil), servers: []string{pc.LocalAddr().String(), second.Addr}, timeout: 10 * time.Second}
				want := "[192.0.2.1]"
				if last {
					r.timeout, want = 100*time.Millisecond, "[192.0.2.2]"
				}
				addrs, _, err := r.lookup(t.Context(), "x")
				if err != nil || fmt.Sprint(addrs) != want {
					t.Errorf("%v, %v; want %s", addrs, err, want)
				}
			})
		}
	}
}

func packed(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// A server that does not know EDNS is asked without it, and only then.
func TestDNSWithoutEDNS(t *testing.T) {
	for _, tc := range []struct {
		name  string
		edns  func(q *dns.Msg) *dns.Msg
		plain int64 // questions without EDNS
	}{
		{"knows it", func(q *dns.Msg) *dns.Msg { return dnstest.ByType([]string{"x. 60 A 192.0.2.1"}, nil)(q, "") }, 0},
		{"FORMERR", func(q *dns.Msg) *dns.Msg { return dnstest.Reply(q, dns.RcodeFormatError) }, 2},
		{"FORMERR without the question", func(q *dns.Msg) *dns.Msg {
			m := dnstest.Reply(q, dns.RcodeFormatError)
			m.Question = nil
			return m
		}, 2},
		{"NOTIMP", func(q *dns.Msg) *dns.Msg { return dnstest.Reply(q, dns.RcodeNotImplemented) }, 2},
		{"BADVERS", func(q *dns.Msg) *dns.Msg {
			m := dnstest.Reply(q, dns.RcodeBadVers)
			m.SetEdns0(ednsSize, false)
			return m
		}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var plain atomic.Int64
			s := dnstest.Serve(t, func(q *dns.Msg, _ string) *dns.Msg {
				if q.IsEdns0() != nil {
					return tc.edns(q)
				}
				plain.Add(1)
				return dnstest.ByType([]string{"x. 60 A 192.0.2.1"}, nil)(q, "")
			})
			r := &dnsResolver{answers: reach.New(nil), servers: []string{s.Addr}, timeout: 10 * time.Second}
			addrs, _, err := r.lookup(t.Context(), "x")
			if err != nil || fmt.Sprint(addrs) != "[192.0.2.1]" || plain.Load() != tc.plain {
				t.Errorf("%v, %v, after %d questions without EDNS", addrs, err, plain.Load())
			}
		})
	}
}

// Where TCP does not work, what the cut answer has is better than nothing; where it
// has nothing, a longer one is asked for.
func TestDNSCutWithoutTCP(t *testing.T) {
	for _, tc := range []struct {
		name string
		cut  []string // what the cut answer has
		long bool     // a longer datagram comes whole
		mute bool     // TCP is accepted, and nothing comes
		want string
		ttl  time.Duration
	}{
		{"addresses are there", []string{"x. 600 A 192.0.2.1"}, false, false, "[192.0.2.1]", negativeTTL},
		{"addresses are there, TCP is silent", []string{"x. 600 A 192.0.2.1"}, false, true, "[192.0.2.1]", negativeTTL},
		{"none are there, a longer answer is", nil, true, false, "[192.0.2.1 192.0.2.2]", 60 * time.Second},
		{"none are there", nil, false, false, "refused", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pc, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if tc.mute {
				l, err := net.Listen("tcp", pc.LocalAddr().String())
				if err != nil {
					t.Skip(err)
				}
				defer l.Close()
			}
			handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
				var m *dns.Msg
				switch edns := q.IsEdns0(); {
				case q.Question[0].Qtype == dns.TypeAAAA:
					m = dnstest.Reply(q, dns.RcodeSuccess, fmt.Sprintf(soa, 600, 600))
				case tc.long && edns != nil && edns.UDPSize() > ednsSize:
					m = dnstest.Reply(q, dns.RcodeSuccess, "x. 60 A 192.0.2.1", "x. 60 A 192.0.2.2")
				default:
					m = dnstest.Reply(q, dns.RcodeSuccess, tc.cut...)
					m.Truncated = true
				}
				_ = w.WriteMsg(m)
			})
			started, done := make(chan struct{}), make(chan struct{})
			server := &dns.Server{PacketConn: pc, Handler: handler, NotifyStartedFunc: func() { close(started) }}
			go func() { defer close(done); _ = server.ActivateAndServe() }()
			<-started
			defer func() { _ = server.Shutdown(); <-done }()
			r := &dnsResolver{answers: reach.New(nil), servers: []string{pc.LocalAddr().String()}, timeout: 10 * time.Second}
			addrs, ttl, err := r.lookup(t.Context(), "x")
			if got := fmt.Sprint(addrs); ttl != tc.ttl || err == nil && got != tc.want || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s for %s, %v; want %s for %s", got, ttl, err, tc.want, tc.ttl)
			}
		})
	}
}

// A server that did not answer is asked last for a while.
func TestDNSSilentServerIsAskedLast(t *testing.T) {
	silent := dnstest.Serve(t, func(*dns.Msg, string) *dns.Msg { return nil })
	good := dnstest.Serve(t, dnstest.ByType([]string{"x. 60 A 192.0.2.1"}, []string{"x. 60 AAAA 2001:db8::1"}))
	r := &dnsResolver{answers: reach.New(nil), servers: []string{silent.Addr, good.Addr}, timeout: 100 * time.Millisecond}
	for range 3 {
		if _, _, err := r.lookup(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if n := silent.Asked.Load(); n != 2 { // once for each family
		t.Errorf("the silent one was asked %d times", n)
	}
}

// "No such name" holds for both families and does not wait for the other, whose
// timeout here is longer than the test's, but what it has by then counts.
func TestDNSNoNameForOneFamily(t *testing.T) {
	for _, tc := range []struct {
		name  string
		no    uint16 // the family of which there is no such name
		other string // what the other says, "" nothing
		want  string
	}{
		{"IPv4, nothing for IPv6", dns.TypeA, "", "no such name"},
		{"IPv6, nothing for IPv4", dns.TypeAAAA, "", "no such name"},
		{"IPv4, but IPv6 has one", dns.TypeA, "x. 60 AAAA 2001:db8::1", "[2001:db8::1]"},
		{"IPv6, but IPv4 has one", dns.TypeAAAA, "x. 60 A 192.0.2.1", "[192.0.2.1]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := dnstest.Serve(t, func(q *dns.Msg, _ string) *dns.Msg {
				switch {
				case q.Question[0].Qtype == tc.no:
					return dnstest.Reply(q, dns.RcodeNameError)
				case tc.other == "":
					return nil
				}
				return dnstest.Reply(q, dns.RcodeSuccess, tc.other)
			})
			r := &dnsResolver{answers: reach.New(nil), servers: []string{s.Addr}, timeout: time.Hour, v6: true}
			addrs, _, err := r.lookup(t.Context(), "x")
			got := fmt.Sprint(addrs)
			if err != nil {
				got = err.Error()
			}
			if got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

// The next server is asked where one fails, is silent or is not there, but not
// where it has said that there is no such name.
func TestDNSNextServer(t *testing.T) {
	good := dnstest.ByType([]string{"x. 60 A 192.0.2.1"}, nil)
	closed := func(t *testing.T) string {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		return pc.LocalAddr().String()
	}
	tests := []struct {
		name  string
		first func(*dns.Msg, string) *dns.Msg // nil: nobody listens there
		want  string
		next  bool // the second server is asked
	}{
		{"answers", dnstest.ByType([]string{"x. 60 A 192.0.2.9"}, nil), "[192.0.2.9]", false},
		{"no such name", func(q *dns.Msg, _ string) *dns.Msg { return dnstest.Reply(q, dns.RcodeNameError) }, errNoName.Error(), false},
		{"no address", dnstest.ByType(nil, nil), errNoAddress.Error(), false},
		{"fails", func(q *dns.Msg, _ string) *dns.Msg { return dnstest.Reply(q, dns.RcodeServerFailure) }, "[192.0.2.1]", true},
		{"refuses", func(q *dns.Msg, _ string) *dns.Msg { return dnstest.Reply(q, dns.RcodeRefused) }, "[192.0.2.1]", true},
		{"is silent", func(*dns.Msg, string) *dns.Msg { return nil }, "[192.0.2.1]", true},
		{"is silent over TCP", func(q *dns.Msg, network string) *dns.Msg {
			if network == "tcp" {
				return nil
			}
			m := dnstest.Reply(q, dns.RcodeSuccess)
			m.Truncated = true
			return m
		}, "[192.0.2.1]", true},
		{"is not there", nil, "[192.0.2.1]", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			second := dnstest.Serve(t, good)
			r := &dnsResolver{answers: reach.New(nil), servers: []string{"", second.Addr}, timeout: 500 * time.Millisecond}
			if tt.first == nil {
				r.servers[0] = closed(t)
			} else {
				r.servers[0] = dnstest.Serve(t, tt.first).Addr
			}
			addrs, _, err := r.lookup(t.Context(), "x")
			got := fmt.Sprint(addrs)
			if err != nil {
				got = err.Error()
			}
			if got != tt.want || (second.Asked.Load() > 0) != tt.next {
				t.Errorf("%s, want %s; the second server was asked %d times", got, tt.want, second.Asked.Load())
			}
		})
	}
}

// A question that was lost is asked again, and an answer that never comes ends
// as a timeout that names the server.
func TestDNSAsksTwice(t *testing.T) {
	var lost [2]atomic.Bool // by family
	s := dnstest.Serve(t, func(q *dns.Msg, _ string) *dns.Msg {
		if lost[q.Question[0].Qtype&1].CompareAndSwap(false, true) {
			return nil
		}
		return dnstest.ByType([]string{"x. 60 A 192.0.2.1"}, nil)(q, "")
	})
	r := &dnsResolver{answers: reach.New(nil), servers: []string{s.Addr}, timeout: 500 * time.Millisecond}
	if addrs, _, err := r.lookup(t.Context(), "x"); err != nil || fmt.Sprint(addrs) != "[192.0.2.1]" {
		t.Errorf("%v, %v", addrs, err)
	}

	silent := dnstest.Serve(t, func(*dns.Msg, string) *dns.Msg { return nil })
	r.servers = []string{silent.Addr}
	_, _, err := r.lookup(t.Context(), "x")
	timeout := net.Error(nil)
	if !errors.As(err, &timeout) || !timeout.Timeout() || !strings.HasPrefix(err.Error(), "name server "+silent.Addr+": ") {
		t.Errorf("a silent server: %v", err)
	}
	if n := silent.Asked.Load(); n != 2*rounds {
		t.Errorf("a silent server was asked %d times, want %d", n, 2*rounds)
	}
}

// IPv4 addresses do not wait for a server that drops questions for IPv6, whose
// timeout here is longer than the test's.
func TestDNSWithoutAnswerForIPv6(t *testing.T) {
	s := dnstest.Serve(t, func(q *dns.Msg, _ string) *dns.Msg {
		if q.Question[0].Qtype == dns.TypeAAAA {
			return nil
		}
		return dnstest.Reply(q, dns.RcodeSuccess, "x. 600 A 192.0.2.1")
	})
	r := &dnsResolver{answers: reach.New(nil), servers: []string{s.Addr}, timeout: time.Hour}
	addrs, ttl, err := r.lookup(t.Context(), "x")
	if err != nil || fmt.Sprint(addrs) != "[192.0.2.1]" || ttl != negativeTTL {
		t.Errorf("%v for %v, %v", addrs, ttl, err)
	}
}

// Where IPv6 leads nowhere its addresses wait for those of IPv4; otherwise they
// wait no longer than the other way round, and IPv4 is soon asked for again.
func TestDNSLateIPv4(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6 %v", v6), func(t *testing.T) {
			release := make(chan struct{})
			s := dnstest.Serve(t, func(q *dns.Msg, _ string) *dns.Msg {
				if q.Question[0].Qtype == dns.TypeA {
					<-release
					return dnstest.Reply(q, dns.RcodeSuccess, "x. 60 A 192.0.2.1")
				}
				if !v6 {
					time.AfterFunc(4*resolutionDelay, func() { close(release) }) // a slow server
				}
				return dnstest.Reply(q, dns.RcodeSuccess, "x. 60 AAAA 2001:db8::1")
			})
			r := &dnsResolver{answers: reach.New(nil), servers: []string{s.Addr}, timeout: 10 * time.Second, v6: v6}
			want, wantTTL := "[192.0.2.1 2001:db8::1]", 60*time.Second
			if v6 {
				want, wantTTL = "[2001:db8::1]", minTTL
			}
			if addrs, ttl, err := r.lookup(t.Context(), "x"); err != nil || fmt.Sprint(addrs) != want || ttl != wantTTL {
				t.Errorf("%v for %s, %v", addrs, ttl, err)
			}
			if v6 {
				close(release)
			}
		})
	}
}

// The end of the context ends a look-up that waits for a silent server.
func TestDNSCancel(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := dnstest.Serve(t, func(q *dns.Msg, over string) *dns.Msg {
				if over == network {
					cancel()
					return nil
				}
				m := dnstest.Reply(q, dns.RcodeSuccess)
				m.Truncated = true
				return m
			})
			r := &dnsResolver{answers: reach.New(nil), servers: []string{s.Addr}, timeout: time.Hour}
			if _, _, err := r.lookup(ctx, "x"); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestQuestionTimeout(t *testing.T) {
	for _, tt := range []struct {
		total   time.Duration
		servers int
		want    time.Duration
	}{
		{10 * time.Second, 1, 2 * time.Second},
		{10 * time.Second, 5, time.Second},
		{2 * time.Second, 2, 500 * time.Millisecond},
		{time.Millisecond, 3, 100 * time.Millisecond},
	} {
		if got := questionTimeout(tt.total, tt.servers); got != tt.want {
			t.Errorf("questionTimeout(%v, %d) = %v, want %v", tt.total, tt.servers, got, tt.want)
		}
	}
}

// The system's resolver knows what every machine knows without asking anybody.
func TestSystemResolver(t *testing.T) {
	addrs, ttl, err := systemResolver{}.lookup(t.Context(), "localhost")
	if err != nil || ttl != systemTTL || len(addrs) == 0 {
		t.Fatalf("localhost: %v for %v, %v", addrs, ttl, err)
	}
	for _, a := range addrs {
		if !a.IsLoopback() || a.Is4In6() {
			t.Errorf("localhost: %v", a)
		}
	}
}

// Whatever a name server sends, the look-up ends with addresses or an error.
func FuzzAddresses(f *testing.F) {
	q := new(dns.Msg).SetQuestion("x.", dns.TypeA)
	for _, m := range []*dns.Msg{dnstest.Reply(q, 0, "x. 60 A 192.0.2.1", "x. 1 CNAME y."), dnstest.Reply(q, 3, fmt.Sprintf(soa, 1, 2)), dnstest.Reply(q, 0, "x. 0 AAAA ::ffff:1.2.3.4")} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, dns.TypeA)
		f.Add(b, dns.TypeAAAA)
	}
	f.Fuzz(func(t *testing.T, b []byte, qtype uint16) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		a := addresses(m, "x.", qtype)
		if (len(a.addrs) == 0) != (a.err != nil) || a.ttl < minTTL || a.ttl > maxTTL {
			t.Fatalf("%+v", a)
		}
		for _, addr := range a.addrs {
			if !addr.IsValid() || addr.Is4In6() || addr == (netip.Addr{}) {
				t.Fatalf("%+v", a)
			}
		}
	})
}
