package proxy

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"espalier/policy"
	"espalier/proxy/accesslog"
)

func connectTo(target string, headers ...string) string {
	return "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n"
}

func basic(name, password string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}

func TestConnectRelays(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		for _, tt := range []struct {
			name string
			host string // in place of courier.push.apple.com
			// segments go out one after the other, the last ones behind the answer.
			// %s is the target.
			before, behind []string
			answer         string
			want           string // what the echo sends back
		}{
			{name: "bytes behind the answer", before: []string{"CONNECT %s HTTP/1.1\r\n\r\n"}, behind: []string{"ping"}, want: "ping"},
			{name: "bytes behind the head in one segment", before: []string{"CONNECT %s HTTP/1.1\r\n\r\nhello"}, behind: []string{" world"}, want: "hello world"},
			{name: "bytes behind the head at once after", before: []string{"CONNECT %s HTTP/1.1\r\n\r\n", "hello"}, behind: []string{" world"}, want: "hello world"},
			{name: "many bytes behind the head", before: []string{"CONNECT %s HTTP/1.1\r\n\r\n" + strings.Repeat("x", 300_000)}, want: strings.Repeat("x", 300_000)},
			{name: "head in two segments", before: []string{"CONN", "ECT %s HTTP/1.1\r\nHost: a\r\n\r", "\nhello"}, want: "hello"},
			{name: "HTTP/1.0", before: []string{"CONNECT %s HTTP/1.0\r\n\r\nhello"}, want: "hello"},
			{name: "capitals and final dot", host: "Courier.PUSH.Apple.com.", before: []string{"CONNECT %s HTTP/1.1\r\n\r\nhello"}, want: "hello"},
			{name: "credentials nobody asked for", before: []string{"CONNECT %s HTTP/1.1\r\nProxy-Authorization: Basic bm86bm8=\r\n\r\nhello"}, want: "hello"},
			{name: "headers that need net/http", before: []string{"CONNECT %s HTTP/1.1\r\nConnection: keep-alive, x\r\nX: y\r\nContent-Length: 0\r\n\r\nhello"}, want: "hello"},
			{name: "no bytes at all", before: []string{"CONNECT %s HTTP/1.1\r\n\r\n"}, want: ""},
		} {
			t.Run(tt.name, func(t *testing.T) {
				at := newOrigin(t, echo)
				r := start(t, setup{hosts: map[string]string{"*.push.apple.com": "127.0.0.1"}})
				c := r.dial()
				if tt.host == "" {
					tt.host = "courier.push.apple.com"
				}
				for _, s := range tt.before {
					c.send(strings.ReplaceAll(s, "%s", fmt.Sprintf("%s:%d", tt.host, at.Port())))
				}
				c.expect("HTTP/1.1 200 Connection established\r\n\r\n")
				for _, s := range tt.behind {
					c.send(s)
				}
				c.finish()
				c.expect(tt.want)
				c.expectEnd()

				rec := r.record()
				if rec.Method != "CONNECT" || rec.Host != "courier.push.apple.com" || rec.Port != at.Port() || rec.URL != "" ||
					rec.Action != policy.Tunnel || rec.Rule != policy.RuleApple || rec.Service != "apple-other" || rec.Status != 200 || rec.Error != "" ||
					rec.Client != netip.MustParseAddr("127.0.0.1") || rec.User != "" || rec.Upstream != at || rec.Connect <= 0 || rec.Duration < rec.Connect ||
					rec.Up != int64(len(tt.want)) || rec.Down != int64(len(tt.want)) {
					t.Errorf("record %+v", rec)
				}
			})
		}
	})
}

func TestConnectAgent(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		r := start(t, setup{})
		c := r.dial()
		c.send(connectTo(at.String(), "User-Agent: apsd/1.0"))
		c.expect(established)
		c.Close()
		if rec := r.record(); rec.Agent != "apsd/1.0" || rec.Service != "other" || rec.Rule != policy.RuleDefault {
			t.Errorf("record %+v", rec)
		}
	})
}

func TestConnectIPv6Literal(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		l, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			t.Skipf("no IPv6 loopback: %v", err)
		}
		serveOrigin(t, l, echo)
		r := start(t, setup{})
		c := r.dial()
		c.send(connectTo(l.Addr().String()) + "hello")
		c.expect(established + "hello")
		c.finish()
		c.expectEnd()
		if rec := r.record(); rec.Host != "::1" || rec.Upstream.String() != l.Addr().String() || rec.Up != 5 || rec.Down != 5 {
			t.Errorf("record %+v", rec)
		}
	})
}

func TestConnectHalfClose(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		t.Run("client first", func(t *testing.T) {
			at := newOrigin(t, func(c net.Conn) {
				all, _ := io.ReadAll(c)
				_, _ = fmt.Fprintf(c, "%d bytes", len(all))
			})
			r := start(t, setup{})
			c := r.dial()
			c.send(connectTo(at.String()) + "123")
			c.expect(established)
			c.send("456")
			c.finish()
			c.expect("6 bytes")
			c.expectEnd()
			if rec := r.record(); rec.Up != 6 || rec.Down != 7 || rec.Error != "" {
				t.Errorf("record %+v", rec)
			}
		})
		t.Run("destination first", func(t *testing.T) {
			got := make(chan string, 1)
			at := newOrigin(t, func(c net.Conn) {
				_, _ = io.WriteString(c, "bye")
				_ = c.(*net.TCPConn).CloseWrite()
				all, _ := io.ReadAll(c)
				got <- string(all)
			})
			r := start(t, setup{})
			c := r.dial()
			c.send(connectTo(at.String()))
			c.expect(established + "bye")
			c.expectEnd()
			c.send("still here")
			c.finish()
			if s := <-got; s != "still here" {
				t.Errorf("the destination received %q", s)
			}
			if rec := r.record(); rec.Up != 10 || rec.Down != 3 || rec.Error != "" {
				t.Errorf("record %+v", rec)
			}
		})
	})
}

// A name that has to be looked up is looked up, and its tunnel is like any other.
func TestConnectLooksUp(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		r := start(t, setup{dns: []string{nameServer(t, map[string]string{"www.example.org.": "127.0.0.1"})}})
		for range 2 { // the second finds the name in the cache
			c := r.dial()
			c.send(connectTo(fmt.Sprintf("www.example.org:%d", at.Port())) + "hello")
			c.expect(established + "hello")
			c.finish()
			c.expectEnd()
		}
		for _, rec := range r.stop() {
			if rec.Host != "www.example.org" || rec.Upstream != at || rec.Up != 5 {
				t.Errorf("record %+v", rec)
			}
		}
		if n := len(r.records); n != 2 {
			t.Errorf("%d records, want 2", n)
		}
	})
}

// nameServer answers for the IPv4 addresses of names; others do not exist,
// "silent.example." gets no answer and "broken.example." a failure.
func nameServer(t *testing.T, names map[string]string) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	server := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		name := q.Question[0].Name
		switch addr, ok := names[name]; {
		case name == "silent.example.":
			return
		case name == "broken.example.":
			m.Rcode = dns.RcodeServerFailure
		case !ok:
			m.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(addr),
			})
		}
		_ = w.WriteMsg(m)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-done
	})
	return conn.LocalAddr().String()
}

func TestConnectRefuses(t *testing.T) {
	deny := []policy.Rule{{Name: "no-games", When: policy.When{Hosts: []string{"games.example", "gc.apple.com"}}, Then: "deny"}}
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		names := nameServer(t, nil)
		full := blackHole(t)
		refusing := refusingPort(t)
		for _, tt := range []struct {
			name    string
			setup   setup
			target  string
			headers []string
			status  int
			error   string // of Proxy-Status
			action  policy.Action
			rule    string
			service string // other, where empty
			text    string // in the body
			why     string // in the record's error
		}{
			{name: "denied by a rule", setup: setup{rules: deny}, target: "games.example:443",
				status: 403, error: "http_request_denied", action: policy.Deny, rule: "no-games", text: "Rule: no-games\n"},
			{name: "Apple denied by an explicit rule", setup: setup{rules: deny, users: map[string]string{"a": "b"}}, target: "gc.apple.com:443",
				status: 403, error: "http_request_denied", action: policy.Deny, rule: "no-games", service: "apple-other", text: "Rule: no-games\n"},
			{name: "Private Relay blocked", setup: setup{relay: "block"}, target: "mask.icloud.com:443",
				status: 403, error: "http_request_denied", action: policy.Deny, rule: policy.RuleRelay, service: "icloud"},
			{name: "client outside proxy.clients", setup: setup{clients: []string{"192.0.2.0/24"}}, target: "gs.apple.com:443",
				status: 403, error: "http_request_denied", action: policy.Deny, rule: policy.RuleClients, service: "device-setup", text: "This address may not use this proxy."},
			{name: "a port that proxy.ports does not have", target: "mail.example:25",
				status: 403, error: "http_request_denied", action: policy.Deny, rule: policy.RulePorts, text: "This proxy does not connect to this port."},
			{name: "a port that proxy.ports does not have, before sign-in", setup: setup{users: map[string]string{"a": "b"}}, target: "192.0.2.1:25",
				status: 403, error: "http_request_denied", action: policy.Deny, rule: policy.RulePorts, text: "Rule: proxy-ports\n"},
			{name: "loopback", setup: setup{guarded: true}, target: "127.0.0.1:443",
				status: 403, error: "destination_ip_prohibited", action: policy.Deny, rule: "address-guard", text: "Rule: address-guard\n", why: "loopback"},
			{name: "a name with a private address", setup: setup{hosts: map[string]string{"intranet.example": "10.0.0.1"}}, target: "intranet.example:443",
				status: 403, error: "destination_ip_prohibited", action: policy.Deny, rule: "address-guard", why: "private"},
			{name: "an Apple name with a private address", setup: setup{hosts: map[string]string{"gs.apple.com": "169.254.169.254"}}, target: "gs.apple.com:443",
				status: 403, error: "destination_ip_prohibited", action: policy.Deny, rule: "address-guard", service: "device-setup", why: "169.254.169.254"},
			{name: "no such name", setup: setup{dns: []string{names}}, target: "none.example:443",
				status: 502, error: `dns_error; rcode="NXDOMAIN"`, action: policy.Error, rule: policy.RuleDefault, text: "does not exist", why: "look up none.example"},
			{name: "name server fails", setup: setup{dns: []string{names}, connectTimeout: time.Second}, target: "broken.example:443",
				status: 502, error: "dns_error", action: policy.Error, rule: policy.RuleDefault, text: "could not be looked up"},
			{name: "name server is silent", setup: setup{dns: []string{names}, connectTimeout: time.Second / 4}, target: "silent.example:443",
				status: 504, error: "dns_timeout", action: policy.Error, rule: policy.RuleDefault, text: "in time"},
			{name: "connection refused", target: refusing,
				status: 502, error: "connection_refused", action: policy.Error, rule: policy.RuleDefault, why: "refused"},
			{name: "Apple refuses", setup: setup{hosts: map[string]string{"*.apple.com": "127.0.0.1"}}, target: "x.apple.com:" + portOf(refusing),
				status: 502, error: "connection_refused", action: policy.Error, rule: policy.RuleApple, service: "apple-other", why: "refused"},
			{name: "no answer to connecting", setup: setup{connectTimeout: time.Second / 4}, target: full,
				status: 504, error: "connection_timeout", action: policy.Error, rule: policy.RuleDefault, why: "timeout"},
			{name: "nobody signed in", setup: setup{users: map[string]string{"alice": "secret"}}, target: "www.example.org:443",
				status: 407, error: "http_request_denied", action: policy.Challenge, rule: policy.RuleAuth, text: "sign in"},
			{name: "wrong password", setup: setup{users: map[string]string{"alice": "secret"}}, target: "www.example.org:443",
				headers: []string{basic("alice", "guess")},
				status:  407, error: "http_request_denied", action: policy.Challenge, rule: policy.RuleAuth},
			{name: "a deny asks nobody to sign in", setup: setup{rules: deny, users: map[string]string{"alice": "secret"}}, target: "games.example:443",
				status: 403, error: "http_request_denied", action: policy.Deny, rule: "no-games"},

			{name: "no port", target: "www.example.org", status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target", why: "missing port"},
			{name: "port 0", target: "www.example.org:0", status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target", why: "port"},
			{name: "port too high", target: "www.example.org:65536", status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target", why: "port"},
			{name: "no host", target: ":443", status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target"},
			{name: "half an address", target: "127.1:443", status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target", why: "address"},
			{name: "a URL", target: "http://www.example.org/", status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target"},
			{name: "an origin form", target: "/index.html", status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target"},
			{name: "bare IPv6 address", target: "2001:db8::1:443", status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target"},
			{name: "user information", target: "a:b@www.example.org:443", status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target"},
			{name: "no name, with authentication on", setup: setup{users: map[string]string{"a": "b"}}, target: "a..example:443",
				status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target"},
			{name: "a body", target: "gs.apple.com:443", headers: []string{"Content-Length: 5"},
				status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target", why: "body"},
			{name: "a chunked body", target: "gs.apple.com:443", headers: []string{"Transfer-Encoding: chunked"},
				status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target", why: "body"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := start(t, tt.setup)
				c := r.dial()
				c.send(connectTo(tt.target, tt.headers...))
				a := c.answer("CONNECT")
				if a.StatusCode != tt.status || a.Header.Get("Proxy-Status") != "espalier; error="+tt.error {
					t.Errorf("status %d, Proxy-Status %q, want %d and %s", a.StatusCode, a.Header.Get("Proxy-Status"), tt.status, tt.error)
				}
				if challenge := a.Header.Get("Proxy-Authenticate"); (challenge != "") != (tt.status == 407) {
					t.Errorf("Proxy-Authenticate: %q", challenge)
				}
				if !strings.Contains(a.body, tt.text) {
					t.Errorf("body %q, want %q in it", a.body, tt.text)
				}
				c.Close()
				rec := r.record()
				if tt.service == "" {
					tt.service = "other"
				}
				if rec.Action != tt.action || rec.Rule != tt.rule || rec.Status != tt.status || rec.Service != tt.service ||
					rec.Up != 0 || rec.Down != 0 || !strings.Contains(rec.Error, tt.why) || tt.action == policy.Error && rec.Error == "" {
					t.Errorf("record %+v", rec)
				}
				if !strings.Contains(a.body, "Reference: "+rec.ID.String()+"\n") {
					t.Errorf("body %q does not refer to record %s", a.body, rec.ID)
				}
			})
		}
	})
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// refusingPort is an address on which nothing listens.
func refusingPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// blackHole is an address that answers no attempt to connect: its queue is full.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", sa.(*syscall.SockaddrInet4).Port)
	for range 16 {
		c, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("this system's listen queues do not fill")
	return ""
}

// Requests that net/http itself does not take are answered like any other bad
// CONNECT: after a 400 an iPad would go on without the proxy.
func TestConnectMalformed(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		for name, request := range map[string]string{
			"behind empty lines": "\r\n\r\nCONNECT [::1:443 HTTP/1.1\r\n\r\n",
			"open bracket":       "CONNECT [::1:443 HTTP/1.1\r\n\r\n",
			"escape":             "CONNECT %zz:443 HTTP/1.1\r\n\r\n",
			"letters in a port":  "CONNECT a.example:https HTTP/1.1\r\n\r\n",
			"blank in a target":  "CONNECT a b:443 HTTP/1.1\r\n\r\n",
			"bad version":        "CONNECT a.example:443 HTTP/x\r\n\r\n",
			"bad header":         "CONNECT a.example:443 HTTP/1.1\r\nA b: c\r\n\r\n",
			"bad host header":    "CONNECT a.example:443 HTTP/1.1\r\nHost: a b\r\n\r\n",
			"two host headers":   "CONNECT a.example:443 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
			"bad length":         "CONNECT a.example:443 HTTP/1.1\r\nContent-Length: x\r\n\r\n",
			"control character":  "CONNECT a\x01.example:443 HTTP/1.1\r\n\r\n",
			"header too large":   "CONNECT a.example:443 HTTP/1.1\r\nA: " + strings.Repeat("a", 100_000) + "\r\n\r\n",
			"unknown encoding":   "CONNECT a.example:443 HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
			"unknown expectance": "CONNECT a.example HTTP/1.1\r\nExpect: miracles\r\n\r\n",
		} {
			t.Run(name, func(t *testing.T) {
				r := start(t, setup{users: map[string]string{"alice": "secret"}})
				c := r.dial()
				c.send(request)
				a := c.answer("CONNECT")
				if a.StatusCode != 403 || a.Header.Get("Proxy-Status") == "" {
					t.Errorf("status %s, Proxy-Status %q", a.Status, a.Header.Get("Proxy-Status"))
				}
				c.Close()
				if rec := r.record(); rec.Method != "CONNECT" || rec.Action != policy.Deny || rec.Rule != "invalid-target" || rec.Status != 403 || rec.Error == "" {
					t.Errorf("record %+v", rec)
				}
			})
		}
	})
}

// Empty lines before a request are no part of it.
func TestConnectBehindEmptyLines(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		r := start(t, setup{})
		c := r.dial()
		c.send("\r\n\r\n" + connectTo(at.String()))
		if a := c.head("CONNECT"); a.StatusCode != 200 {
			t.Errorf("status %s", a.Status)
		}
		c.Close()
		r.record()
	})
}

func TestConnectSignsIn(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		r := start(t, setup{users: map[string]string{"alice": "secret"}})
		c := r.dial()
		c.send(connectTo(at.String()))
		a := c.answer("GET")
		if a.StatusCode != 407 || !strings.HasPrefix(a.Header.Get("Proxy-Authenticate"), "Basic ") {
			t.Fatalf("%s, Proxy-Authenticate %q", a.Status, a.Header.Get("Proxy-Authenticate"))
		}
		// What follows a refused CONNECT is not read as a request.
		c.expectEnd()
		c = r.dial()
		c.send(connectTo(at.String(), basic("alice", "secret")) + "hello")
		c.expect(established + "hello")
		c.finish()
		c.expectEnd()
		list := r.stop()
		if len(list) != 2 || list[0].Action != policy.Challenge || list[0].User != "" ||
			list[1].Action != policy.Tunnel || list[1].User != "alice" || list[1].Up != 5 {
			t.Errorf("records %+v", list)
		}
	})
}

func TestConnectLimit(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		r := start(t, setup{maxTunnels: 2})
		var open []*client
		for range 2 {
			c := r.dial()
			c.send(connectTo(at.String()) + "x")
			c.expect(established + "x")
			open = append(open, c)
		}
		c := r.dial()
		c.send(connectTo(at.String()))
		if a := c.answer("GET"); a.StatusCode != 503 || a.Header.Get("Proxy-Status") != "espalier; error=connection_limit_reached" {
			t.Errorf("%s, Proxy-Status %q", a.Status, a.Header.Get("Proxy-Status"))
		}
		for _, c := range open {
			c.finish()
			c.expectEnd()
		}
		list := r.stop()
		i := slices.IndexFunc(list, func(rec accesslog.Record) bool { return rec.Status == 503 })
		if len(list) != 3 || i < 0 || list[i].Action != policy.Error || !strings.Contains(list[i].Error, "proxy.max_tunnels") {
			t.Errorf("records %+v", list)
		}
	})
}

// Bytes are counted while a tunnel flows.
func TestConnectCountsLive(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		r := start(t, setup{hosts: map[string]string{"*.apple.com": "127.0.0.1"}})
		c := r.dial()
		payload := strings.Repeat("0123456789", 5000)
		c.send(connectTo(fmt.Sprintf("gs.apple.com:%d", at.Port())))
		c.expect(established)
		c.send(payload)
		c.expect(payload)
		await(t, "the counters of an open tunnel", func() bool {
			s := r.snapshot("apple-other")
			return s.Up == int64(len(payload)) && s.Down == int64(len(payload)) && s.Tunnels == 1
		})
		c.finish()
		c.expectEnd()
		if rec := r.record(); rec.Up != int64(len(payload)) {
			t.Errorf("record %+v", rec)
		}
	})
}

// A reload leaves open tunnels alone, and holds for the next request, also where
// its client has been connected all along.
func TestApply(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		r := start(t, setup{})
		open, waiting := r.dial(), r.dial()
		open.send(connectTo(at.String()) + "a")
		open.expect(established + "a")
		r.server.Apply(r.state(setup{rules: []policy.Rule{{Name: "nothing", Then: "deny"}}}))
		waiting.send(connectTo(at.String()))
		if a := waiting.answer("GET"); a.StatusCode != 403 {
			t.Errorf("after the reload: %s", a.Status)
		}
		open.send("b")
		open.expect("b")
		open.finish()
		open.expectEnd()
		denied, opened := 0, 0
		for _, rec := range r.stop() {
			if rec.Rule == "nothing" {
				denied++
			} else if rec.Up == 2 {
				opened++
			}
		}
		if denied != 1 || opened != 1 {
			t.Errorf("%d records of the denied CONNECT, %d of the tunnel", denied, opened)
		}
	})
}

// The proxy is no way into itself.
func TestConnectToItself(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, setup{hosts: map[string]string{"*.apple.com": "127.0.0.1"}})
		c := r.dial()
		c.send(connectTo("gs.apple.com:" + portOf(r.listener.Addr().String())))
		if a := c.answer("GET"); a.StatusCode != 403 || a.Header.Get("Proxy-Status") != "espalier; error=destination_ip_prohibited" {
			t.Errorf("%s, Proxy-Status %q", a.Status, a.Header.Get("Proxy-Status"))
		}
		if rec := r.record(); rec.Rule != "address-guard" || !strings.Contains(rec.Error, "proxy's own") {
			t.Errorf("record %+v", rec)
		}
	})
}

// TLS on the plain port is refused at once, with an alert and without a record.
func TestTLSHello(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, setup{})
		c := r.dial()
		c.send("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 506))
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, []byte{21, 3, 1, 0, 2, 2, 40}) {
			t.Errorf("received % x, %v", got, err)
		}
		if list := r.stop(); len(list) != 0 {
			t.Errorf("records %+v", list)
		}
		if r.ops.Len() > 0 {
			t.Errorf("log: %+v", r.ops.All())
		}
	})
}
