package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"espalier/policy"
	"espalier/proxy/accesslog"
	"espalier/proxy/doctor/doctortest"
)

// nameServer answers, over UDP and TCP, questions for IPv4 as answer says, of
// which nil is silence, and that there is no IPv6. overTCP tells the two apart.
func nameServer(t *testing.T, answer func(q *dns.Msg, overTCP bool) *dns.Msg) (addr string) {
	t.Helper()
	udp, tcp := samePort(t)
	handle := func(overTCP bool) dns.HandlerFunc {
		return func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			if q.Question[0].Qtype == dns.TypeA {
				m = answer(q, overTCP)
			}
			if m != nil {
				_ = w.WriteMsg(m)
			}
		}
	}
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handle(false)}, {Listener: tcp, Handler: handle(true)}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return udp.LocalAddr().String()
}

// samePort listens on a port that is free for both UDP and TCP.
func samePort(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for try := 1; ; try++ {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp
		}
		udp.Close()
		if try == 100 {
			t.Fatal(err)
		}
	}
}

// addresses is an answer to q.
func addresses(q *dns.Msg, list ...string) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	for _, a := range list {
		m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(a)})
	}
	return m
}

// broken answers a question as the name's first label says.
func broken(q *dns.Msg, overTCP bool) *dns.Msg {
	what, _, _ := strings.Cut(q.Question[0].Name, ".")
	switch {
	case what == "nowhere":
		return new(dns.Msg).SetRcode(q, dns.RcodeNameError)
	case what == "servfail":
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	case what == "silent":
		return nil
	case what == "long" && !overTCP:
		m := new(dns.Msg).SetReply(q)
		m.Truncated = true
		return m
	case what == "inside":
		return addresses(q, "10.0.0.1", "169.254.169.254")
	case what == "closed":
		return addresses(q, "127.0.0.2", "127.0.0.3")
	case what == "half-closed":
		return addresses(q, "127.0.0.2", "127.0.0.1")
	}
	return addresses(q, "127.0.0.1")
}

const faultPage = "a page that is long enough to be cut"

// misbehaving answers a request as its path says, through a tunnel or not.
func misbehaving(c net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", len(faultPage))
	switch r.URL.Path {
	case "/reset":
		_ = c.(*net.TCPConn).SetLinger(0)
	case "/close":
	case "/garbage":
		_, _ = io.WriteString(c, "220 mail.example ESMTP\r\n\r\n")
	case "/close-body":
		_, _ = io.WriteString(c, head+faultPage[:10])
	case "/close-chunk":
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n"+faultPage[:10])
	default:
		_, _ = io.WriteString(c, head+faultPage)
	}
}

// How an answer ended for the client.
const (
	whole   = "whole"     // the page
	partial = "partial"   // some of it, and an error
	nothing = "no answer" // not even a head
	refused = "refused"   // what the proxy says of it
)

// seen is what a client sees: of a tunnel, the status of the CONNECT and the end
// of what was asked through it.
type seen struct {
	status int
	token  string // of the proxy's own Proxy-Status
	end    string
}

// ask makes a request on one of the ways.
func (p *process) ask(way, target, path string) seen {
	p.t.Helper()
	url := path
	var c net.Conn
	var s seen
	if way == http.MethodConnect {
		s.status, s.token, c = p.connect(target)
		s.end = refused
		if s.status != http.StatusOK {
			return s
		}
		way = http.MethodGet
	} else {
		c, url = p.dial(), "http://"+target+path
	}
	defer c.Close()
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", way, url, target)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.end = nothing
		return s
	}
	if url != path {
		s.status, s.token = resp.StatusCode, resp.Header.Get("Proxy-Status")
	}
	body, err := io.ReadAll(resp.Body)
	switch {
	case s.token != "":
		s.end = refused
	case err != nil:
		s.end = partial
	case string(body) == faultPage:
		s.end = whole
	default:
		s.end = fmt.Sprintf("%q", body)
	}
	return s
}

// outcome is all that comes of a request.
type outcome struct {
	seen
	action   policy.Action
	recorded string // in the record's error; empty: it has none
}

// parentTo is a parent proxy for which every destination is origin.
func parentTo(origin string) func(net.Conn) {
	return func(c net.Conn) {
		in := bufio.NewReader(c)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", origin)
		if err != nil {
			return
		}
		defer up.Close()
		if r.Method == http.MethodConnect {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			go func() { _, _ = io.Copy(up, in) }()
		} else if r.Write(up) != nil {
			return
		}
		_, _ = io.Copy(c, up)
	}
}

// What a client sees, what the record says and what is counted, for each fault
// on the way to a destination and each way through the proxy.
func TestFaults(t *testing.T) {
	all := t // outlives the subtests, as the processes do
	origin := listen(t, "127.0.0.1:0", misbehaving)
	parent := listen(t, "127.0.0.1:0", parentTo(origin.String()))
	dnsAt := nameServer(t, broken)
	direct := "egress: {allow: [loopback], connect_timeout: 20s, dns: [\"" + dnsAt + "\"]}\n"
	hurried := "egress: {allow: [loopback], connect_timeout: 300ms, dns: [\"" + dnsAt + "\"]}\n"
	noDNS := "egress: {allow: [loopback], dns: [\"" + refusing(t) + "\", \"" + refusing(t) + "\"]}\n"
	through := func(parents string) string { return "egress: {parent: \"" + parents + "\"}\n" }
	fine := outcome{seen: seen{200, "", whole}, action: policy.Forward}
	failed := func(status int, token, recorded string) outcome {
		return outcome{seen{status, "espalier; error=" + token, refused}, policy.Error, recorded}
	}
	cutShort := outcome{seen{200, "", partial}, policy.Error, "read the answer's body: unexpected EOF"}
	tunnel := func(end, recorded string) outcome { return outcome{seen{200, "", end}, policy.Tunnel, recorded} }
	same := outcome{} // as a plain request, but for the action

	running := map[string]*process{}
	type expected struct {
		name, way, target string
		p                 *process
		outcome
	}
	var records []expected
	for _, f := range []struct {
		name, config string
		target, path string // of the request; without a port, the origin's
		plain        outcome
		tunnel       outcome
	}{
		{"no fault", direct, "fine", "/", fine, same},

		{"name does not exist", direct, "nowhere", "/", failed(502, `dns_error; rcode="NXDOMAIN"`, "no such name"), same},
		{"name server fails", direct, "servfail", "/", failed(502, "dns_error", "answers SERVFAIL"), same},
		{"name servers are down", noDNS, "fine", "/", failed(502, "dns_error", "connection refused"), same},
		{"name server is silent", hurried, "silent", "/", failed(504, "dns_timeout", "look up silent"), same},
		{"answer does not fit a datagram", direct, "long", "/", fine, same},
		{"name server points inside", direct, "inside", "/", outcome{seen{403, "espalier; error=destination_ip_prohibited", refused}, policy.Deny, "10.0.0.1"}, same},

		{"destination refuses", direct, refusing(t), "/", failed(502, "connection_refused", "connection refused"), same},
		{"all addresses refuse", direct, "closed", "/", failed(502, "connection_refused", "connection refused"), same},
		{"first address refuses", direct, "half-closed", "/", fine, same},
		{"destination swallows connections", hurried, doctortest.Hole(t, netip.MustParseAddrPort("127.0.0.1:0")), "/", failed(504, "connection_timeout", "timeout"), same},

		{"origin resets before it answers", direct, "reset", "/reset", failed(502, "connection_terminated", "reset"), tunnel(nothing, "reset")},
		{"origin closes before it answers", direct, "close", "/close", failed(502, "connection_terminated", "EOF"), tunnel(nothing, "")},
		{"origin speaks no HTTP", direct, "garbage", "/garbage", failed(502, "http_protocol_error", "malformed"), tunnel(nothing, "")},
		{"origin closes amid a body", direct, "body", "/close-body", cutShort, tunnel(partial, "")},
		{"origin closes amid a chunk", direct, "chunk", "/close-chunk", cutShort, tunnel(partial, "")},

		{"parent is down", through("http://" + refusing(t)), "fine", "/", failed(502, "destination_unavailable", "connection refused"), same},
		{"first parent is down", through("http://" + refusing(t) + ",http://" + parent.String()), "fine", "/", fine, same},
	} {
		for _, way := range []string{http.MethodConnect, http.MethodGet, http.MethodPost} {
			target := f.target
			if !strings.Contains(target, ":") {
				target = fmt.Sprintf("%s.%s.example:%d", target, strings.ToLower(way), origin.Port)
			}
			want := f.plain
			if way == http.MethodConnect {
				if f.tunnel != same {
					want = f.tunnel
				} else if want.action == policy.Forward {
					want.action = policy.Tunnel
				}
			}
			t.Run(f.name+"/"+way, func(t *testing.T) {
				p := running[f.config]
				if p == nil {
					p = launch(all, f.config)
					running[f.config] = p
				}
				counter := fmt.Sprintf("espalier_requests_total{action=%q,service=\"other\"}", want.action)
				before := p.metric(counter)
				if got := p.ask(way, target, f.path); got != want.seen {
					t.Fatalf("the client sees %+v, want %+v", got, want.seen)
				}
				p.await(counter, func() bool { return p.metric(counter) >= before+1 })
				records = append(records, expected{f.name, way, target, p, want})
			})
		}
	}
	// The access log is written every half second.
	for _, want := range records {
		host, port, _ := net.SplitHostPort(want.target)
		var got []accesslog.Record
		find := func() bool {
			list, _ := want.p.records()
			got = slices.DeleteFunc(list, func(r accesslog.Record) bool {
				return r.Method != want.way || r.Host != host || strconv.Itoa(int(r.Port)) != port
			})
			return len(got) > 0
		}
		want.p.await("the record of "+want.name, find)
		if len(got) != 1 || got[0].Action != want.action || got[0].Status != want.status ||
			(got[0].Error == "") != (want.recorded == "") || !strings.Contains(got[0].Error, want.recorded) {
			t.Errorf("%s, %s: records %+v, want one with %s, status %d and error %q", want.name, want.way, got, want.action, want.status, want.recorded)
		}
	}
}
