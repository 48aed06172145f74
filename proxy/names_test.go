package proxy

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"espalier/policy"
)

// strictness orders what may become of a connection; 0 is Apple's, untouched.
const (
	untouched = iota
	tunnelled
	inspected
	refused
)

var strictnesses = []string{"untouched", "tunnelled", "inspected", "refused"}

// An opener opens a CONNECT to a target, or returns nil if that is refused.
type opener func(target string) net.Conn

// plainly opens CONNECTs by HTTP/1.1.
func (r *rig) plainly(target string) net.Conn { return r.dial().tunnelTo(target) }

// tunnelTo sends a CONNECT.
func (c *client) tunnelTo(target string) net.Conn {
	c.send(connectTo(target))
	if c.head(http.MethodConnect).StatusCode != http.StatusOK {
		c.Close()
		return nil
	}
	return c.TCPConn
}

// byTLS opens CONNECTs by HTTP/1.1 inside TLS.
func (r *rig) byTLS(trust *tls.Config) opener {
	return func(target string) net.Conn {
		c := r.dialTLS(trust, "http/1.1")
		if c.tunnelTo(target) == nil {
			return nil
		}
		return c.tls
	}
}

// tunnelTo opens a CONNECT in a stream.
func (m *multiplexer) tunnelTo(target string) net.Conn {
	v := m.open(target, nil)
	if v.StatusCode != http.StatusOK {
		v.up.Close()
		return nil
	}
	return v.pipe()
}

// outcome is what a client sees of a CONNECT to connect with sni in TLS and host inside.
func outcome(t *testing.T, r *rig, open opener, site *site, connect, sni, host string) int {
	t.Helper()
	c := open(site.at(connect))
	if c == nil {
		return refused
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	conn := tls.Client(c, &tls.Config{ServerName: sni, InsecureSkipVerify: true}) // the certificate is compared
	if conn.Handshake() != nil {
		return refused
	}
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", site.at(host))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return refused
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	shown := conn.ConnectionState().PeerCertificates[0]
	if _, err := shown.Verify(x509.VerifyOptions{Roots: r.trusted()}); err == nil {
		if resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusMisdirectedRequest {
			return refused
		}
		return inspected
	}
	return tunnelled
}

// Whatever a client names in its CONNECT, in TLS and inside, the strictest of what the policy
// says of these names holds, on every entry, and the record says what was reached.
func TestNamesAgree(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	hosts := []string{"free.example", "denied.example", "inspected.example", "www.apple.com", "other.example", "bank.example", "gs.apple.com"}
	base := setup{
		roots: site.roots, hosts: map[string]string{},
		rules: []policy.Rule{
			{Name: "denied", Then: "deny", When: policy.When{Hosts: []string{"denied.example", "gs.apple.com"}}},
			{Name: "inspected", Then: "inspect", When: policy.When{Hosts: []string{"inspected.example"}}},
			{Name: "bank", Then: "tunnel", When: policy.When{Hosts: []string{"bank.example"}}},
		},
	}
	for _, h := range hosts {
		base.hosts[h] = "127.0.0.1"
	}
	some := hosts[:4]
	n := 0
	for _, mode := range []string{policy.InspectListed, policy.InspectAll} {
		cfg := base
		cfg.inspect = mode
		for _, way := range []struct {
			name  string
			hosts []string
			start func(*testing.T) (*rig, opener)
		}{
			{"engine", hosts, func(t *testing.T) (*rig, opener) { r := start(t, cfg, false); return r, r.plainly }},
			{"net-http", hosts, func(t *testing.T) (*rig, opener) { r := start(t, cfg, true); return r, r.plainly }},
			{"TLS", some, func(t *testing.T) (*rig, opener) { r, trust := secured(t, cfg); return r, r.byTLS(trust) }},
			{"HTTP2", some, func(t *testing.T) (*rig, opener) {
				r, trust := secured(t, cfg)
				m := r.multiplexer(trust)
				t.Cleanup(func() { m.conn.Close() })
				return r, m.tunnelTo
			}},
		} {
			t.Run(mode+" "+way.name, func(t *testing.T) {
				r, open := way.start(t)
				n += namesAgree(t, r, open, site, way.hosts)
			})
		}
	}
	if n < 500 {
		t.Errorf("%d combinations", n)
	}
}

// namesAgree tries all combinations of hosts, and returns how many there are.
func namesAgree(t *testing.T, r *rig, open opener, site *site, hosts []string) (n int) {
	decide := func(host string) policy.Decision {
		name, addr, err := policy.ParseHost(host)
		if err != nil {
			t.Fatal(err)
		}
		ask := policy.Request{Target: policy.Target{Host: name, Addr: addr, Port: site.port}, Client: netip.MustParseAddr("127.0.0.1"), Connect: true}
		return r.server.pipeline.State().Policy.Decide(&ask)
	}
	strict := func(host string) int {
		switch d := decide(host); {
		case d.Action == policy.Deny:
			return refused
		case d.Action == policy.Inspect:
			return inspected
		case !d.Match.OK():
			return tunnelled
		}
		return untouched
	}
	for _, connect := range slices.Concat(hosts, []string{"127.0.0.1"}) {
		for _, sni := range append([]string{""}, hosts...) {
			for _, host := range hosts {
				n++
				got := outcome(t, r, open, site, connect, sni, host)
				want := strict(connect)
				if sni != "" {
					want = max(want, strict(sni))
				}
				if want == untouched && got == tunnelled {
					got = untouched // nothing tells them apart on the wire
				}
				if got == inspected { // what is inside is seen
					want = max(want, strict(host))
				}
				if got < want {
					t.Errorf("CONNECT %s, TLS %q, Host %s: %s, want %s at least", connect, sni, host, strictnesses[got], strictnesses[want])
				}
				if sni != "" && decide(sni).Match.OK() && !decide(connect).Match.OK() && got != refused {
					t.Errorf("CONNECT %s with Apple's %s is %s", connect, sni, strictnesses[got])
				}
				if connect == sni && sni == host && got != want {
					t.Errorf("CONNECT %s as any browser's: %s, want %s", connect, strictnesses[got], strictnesses[want])
				}
			}
		}
	}
	connects := 0
	for _, rec := range r.stop() {
		if rec.Method != http.MethodConnect {
			continue
		}
		connects++
		if rec.Service != "other" && rec.Action == policy.Tunnel && rec.Rule != policy.RuleApple {
			t.Errorf("a tunnel by %s counts for %s", rec.Rule, rec.Service)
		}
	}
	if connects != n {
		t.Errorf("%d records of %d CONNECTs", connects, n)
	}
	return n
}

// What is not Apple's behind a CONNECT to Apple counts as other; the rule is that of the name.
func TestForeignNameBehindApple(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	for _, x := range []struct {
		name, sni     string
		action        policy.Action
		rule, service string
		err           string
	}{
		{"Apple's own", "www.apple.com", policy.Tunnel, policy.RuleApple, "", ""},
		{"a free name", "free.example", policy.Tunnel, policy.RuleDefault, "other", ""},
		{"a denied name", "denied.example", policy.Deny, "denied", "other", "TLS names denied.example, which this CONNECT may not carry"},
		{"an invalid name", "a_b..example", policy.Deny, "invalid-tls", "", "TLS for an invalid name: host has an empty label"},
	} {
		t.Run(x.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
				r := start(t, setup{
					hosts: map[string]string{"*.example": "127.0.0.1", "www.apple.com": "127.0.0.1"},
					rules: []policy.Rule{{Name: "denied", Then: "deny", When: policy.When{Hosts: []string{"denied.example"}}}},
				})
				c := r.connected(site.at("www.apple.com"))
				conn := c.secure(&tls.Config{ServerName: x.sni, InsecureSkipVerify: true})
				err := conn.Handshake()
				if (err != nil) != (x.action == policy.Deny) || err != nil && !strings.Contains(err.Error(), "remote error: tls: ") {
					t.Error(err)
				}
				conn.Close()
				rec := r.record()
				if rec.Action != x.action || rec.Rule != x.rule || x.err != "" && rec.Error != x.err || x.service != "" && rec.Service != x.service || rec.Host != "www.apple.com" {
					t.Errorf("%+v", rec)
				}
			})
		})
	}
}

// Bytes of a destination that speaks first, and of clients that do not speak TLS, pass at once
// and as they are; TLS that cannot be read does not.
func TestTunnelOpenings(t *testing.T) {
	greeting := newOrigin(t, func(c net.Conn) { io.WriteString(c, "220 ready\r\n"); echo(c) })
	silent := newOrigin(t, echo)
	for _, x := range []struct {
		name   string
		origin net.Addr
		says   []string
		hears  string
		action policy.Action
		err    string
	}{
		{"the destination first", net.TCPAddrFromAddrPort(greeting), []string{"EHLO here\r\n"}, "220 ready\r\nEHLO here\r\n", policy.Tunnel, ""},
		{"a byte at a time", net.TCPAddrFromAddrPort(silent), []string{"S", "S", "H"}, "SSH", policy.Tunnel, ""},
		{"binary", net.TCPAddrFromAddrPort(silent), []string{"\x16\x00\x01"}, "\x16\x00\x01", policy.Tunnel, ""},
		{"not a ClientHello", net.TCPAddrFromAddrPort(silent), []string{"\x16\x03\x01\x00\x04\x02\x00\x00\x00"}, "", policy.Deny, "the TLS handshake does not begin with a ClientHello"},
		{"an empty record", net.TCPAddrFromAddrPort(silent), []string{"\x16\x03\x01\x00\x00"}, "", policy.Deny, "no TLS handshake"},
		{"an alert before a ClientHello", net.TCPAddrFromAddrPort(silent), []string{"\x15", "\x03\x01\x00\x02\x01\x5a\x16\x03\x01\x00\x80"}, "", policy.Deny, "no TLS handshake"},
		{"a byte that TLS could begin with", net.TCPAddrFromAddrPort(silent), []string{"\x17", "\x00"}, "\x17\x00", policy.Tunnel, ""},
		{"a ClientHello that ends", net.TCPAddrFromAddrPort(silent), []string{"\x16\x03\x01\x00\x80\x01\x00"}, "", policy.Deny, "the client's first message is not complete at the client's end"},
	} {
		t.Run(x.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
				r := start(t, setup{})
				c := r.connected(x.origin.String())
				for _, s := range x.says {
					c.send(s)
				}
				if x.hears != "" {
					c.expect(x.hears)
				}
				c.finish()
				_, _ = io.ReadAll(c.in)
				c.Close()
				if rec := r.record(); rec.Action != x.action || rec.Error != x.err {
					t.Errorf("%+v", rec)
				}
			})
		})
	}
}

// TLS behind what the destination has sent is not answered by the proxy; the record still says
// which rule denies it, and counts for what the greeting did.
func TestNameBehindGreeting(t *testing.T) {
	greeting := newOrigin(t, func(c net.Conn) { io.WriteString(c, "220 ready\r\n"); echo(c) })
	for _, x := range []struct{ name, host, sni, rule, err string }{
		{"a denied name", "free.example", "denied.example", "denied", "TLS names denied.example, which this CONNECT may not carry"},
		{"an inspected name", "free.example", "inspected.example", policy.RuleName, "TLS for inspected.example, which is to be inspected, comes behind what the destination has sent"},
		{"a free name behind Apple's", "www.apple.com", "free.example", policy.RuleName, "TLS names free.example, which this CONNECT may not carry"},
	} {
		t.Run(x.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
				r := start(t, setup{
					inspect: policy.InspectListed, denyPage: true, extra: []string{"www.apple.com"},
					hosts: map[string]string{"*.example": "127.0.0.1", "www.apple.com": "127.0.0.1"},
					rules: []policy.Rule{
						{Name: "denied", Then: "deny", When: policy.When{Hosts: []string{"denied.example"}}},
						{Name: "inspected", Then: "inspect", When: policy.When{Hosts: []string{"inspected.example"}}},
					},
				})
				c := r.connected(fmt.Sprintf("%s:%d", x.host, greeting.Port()))
				c.expect("220 ready\r\n")
				conn := c.secure(&tls.Config{ServerName: x.sni, InsecureSkipVerify: true})
				if err := conn.Handshake(); err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
					t.Error(err)
				}
				conn.Close()
				rec := r.record()
				if rec.Action != policy.Deny || rec.Rule != x.rule || rec.Error != x.err || (rec.Service == "other") != (x.host == "free.example") || rec.Down != 11 {
					t.Errorf("%+v", rec)
				}
			})
		})
	}
}

// A page says why a name is denied, by the rule that does, whatever the CONNECT was for.
func TestPageForName(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	for _, connect := range []string{"free.example", "www.apple.com", "inspected.example"} {
		for _, x := range []struct {
			host   string
			status int
		}{{"denied.example", http.StatusForbidden}, {"other.example", http.StatusMisdirectedRequest}} {
			t.Run(connect+" "+x.host, func(t *testing.T) {
				everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
					r := start(t, setup{
						inspect: policy.InspectListed, denyPage: true, roots: site.roots,
						hosts: map[string]string{"*.example": "127.0.0.1", "www.apple.com": "127.0.0.1"},
						rules: []policy.Rule{
							{Name: "denied", Then: "deny", When: policy.When{Hosts: []string{"denied.example"}}},
							{Name: "inspected", Then: "inspect", When: policy.When{Hosts: []string{"inspected.example"}}},
						},
					})
					c := r.connected(site.at(connect))
					conn := c.secure(&tls.Config{ServerName: "denied.example", RootCAs: r.trusted()})
					fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", site.at(x.host))
					resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err != nil {
						t.Fatal(err)
					}
					body, _ := io.ReadAll(resp.Body)
					if resp.StatusCode != x.status || strings.Contains(string(body), "hello") || x.host == "denied.example" && !strings.Contains(string(body), "denied") {
						t.Errorf("%s %q", resp.Status, body)
					}
				})
			})
		}
	}
}
