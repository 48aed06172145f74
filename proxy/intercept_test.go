package proxy

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/accesslog"
	"espalier/proxy/inspect"
	"espalier/proxy/refusal"
)

// intercepting gives st what it needs to intercept, the same for every state of
// the rig.
func (r *rig) intercepting(st *State, roots *x509.CertPool) {
	r.t.Helper()
	var err error
	if r.ca == nil {
		dir := filepath.Join(r.t.TempDir(), "ca")
		if r.ca, _, err = inspect.Init(dir, inspect.InitOptions{Exclude: catalog.Embedded()}); err != nil {
			r.t.Fatal(err)
		}
		if r.exceptions, err = inspect.OpenExceptions(dir); err != nil {
			r.t.Fatal(err)
		}
		r.exceptions.SetDuration(time.Hour)
	}
	if st.Leaves, err = inspect.NewLeaves(r.ca, func(string, netip.Addr) bool { return false }); err != nil {
		r.t.Fatal(err)
	}
	st.Exceptions, st.Roots = r.exceptions, roots
}

// trusted is a pool that has the rig's CA alone.
func (r *rig) trusted() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(r.ca.Root())
	return pool
}

// site is a destination with a certificate for example.com, 127.0.0.1 and ::1.
type site struct {
	*httptest.Server
	roots *x509.CertPool
	port  uint16
}

func newSite(t *testing.T, h http.HandlerFunc) *site {
	t.Helper()
	s := &site{Server: httptest.NewUnstartedServer(h), roots: x509.NewCertPool()}
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not like the certificate
	s.StartTLS()
	t.Cleanup(s.Close)
	s.roots.AddCert(s.Certificate())
	s.port = s.Listener.Addr().(*net.TCPAddr).AddrPort().Port()
	return s
}

// at is a name and the site's port.
func (s *site) at(host string) string { return fmt.Sprintf("%s:%d", host, s.port) }

// everything intercepts all that it may, with the site behind every name that
// these tests use.
func (s *site) everything() setup {
	return setup{inspect: policy.InspectAll, roots: s.roots, hosts: map[string]string{
		"example.com": "127.0.0.1", "*.example": "127.0.0.1", "www.apple.com": "127.0.0.1",
	}}
}

// browser returns a client that goes through the rig and trusts its CA.
func (r *rig) browser() *http.Client {
	r.t.Helper()
	t := &http.Transport{
		Proxy:              http.ProxyURL(&url.URL{Scheme: "http", Host: r.listener.Addr().String()}),
		TLSClientConfig:    &tls.Config{RootCAs: r.trusted()},
		ForceAttemptHTTP2:  true,
		DisableCompression: true,
	}
	r.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t, Timeout: limit}
}

// connected opens a CONNECT to target, which must succeed.
func (r *rig) connected(target string) *client {
	r.t.Helper()
	c := r.dial()
	c.send(connectTo(target))
	if a := c.head(http.MethodConnect); a.StatusCode != 200 {
		r.t.Fatalf("CONNECT %s: %s", target, a.Status)
	}
	return c
}

// head reads an answer without its body.
func (c *client) head(method string) *http.Response {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

// secure speaks TLS as cfg says inside a CONNECT.
func (c *client) secure(cfg *tls.Config) *tls.Conn {
	conn := tls.Client(c.TCPConn, cfg)
	c.t.Cleanup(func() { conn.Close() })
	return conn
}

func fetch(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// byMethod splits records of CONNECTs from others.
func byMethod(records []accesslog.Record) (connects, inner []accesslog.Record) {
	for _, x := range records {
		if x.Method == http.MethodConnect {
			connects = append(connects, x)
		} else {
			inner = append(inner, x)
		}
	}
	return connects, inner
}

func TestIntercept(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %q", r.Proto, r.Host, r.URL, body)
	})
	for _, h2 := range []bool{true, false} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) {
			everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
				r := start(t, site.everything())
				c := r.browser()
				if !h2 {
					c.Transport.(*http.Transport).ForceAttemptHTTP2 = false
				}
				url := "https://" + site.at("example.com") + "/a?q=1"
				for range 3 {
					resp, err := c.Post(url, "text/plain", strings.NewReader("hello"))
					if err != nil {
						t.Fatal(err)
					}
					body, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					want := fmt.Sprintf("HTTP/1.1 %s /a?q=1 %q", site.at("example.com"), "hello")
					if h2 {
						want = strings.Replace(want, "HTTP/1.1", "HTTP/2.0", 1)
					}
					if string(body) != want || resp.TLS.PeerCertificates[0].Equal(site.Certificate()) {
						t.Errorf("%s %q, want %q", resp.Status, body, want)
					}
					if got := resp.ProtoMajor == 2; got != h2 {
						t.Errorf("the client is spoken to in %s", resp.Proto)
					}
				}
				c.CloseIdleConnections()
				connects, inner := byMethod(r.stop())
				if len(connects) != 1 || len(inner) != 3 {
					t.Fatalf("%d CONNECTs, %d requests", len(connects), len(inner))
				}
				if x := connects[0]; x.Action != policy.Inspect || x.Rule != policy.RuleInspect || x.Status != 200 || x.Up+x.Down != 0 || x.Error != "" {
					t.Errorf("the record of the CONNECT: %+v", x)
				}
				for _, x := range inner {
					if x.Action != policy.Inspect || x.Rule != policy.RuleInspect || x.URL != "https://"+site.at("example.com")+"/a" ||
						x.Status != 200 || x.Up != 5 || x.Down == 0 || x.Host != "example.com" || x.Port != site.port {
						t.Errorf("the record of a request: %+v", x)
					}
				}
			})
		})
	}
}

// What a CONNECT holds decides what becomes of it.
func TestInterceptOpening(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	ssh := newOrigin(t, func(c net.Conn) { io.WriteString(c, "SSH-2.0-there\r\n"); echo(c) })
	plain := newOrigin(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		if _, err := readHead(in); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
		}
	})
	tests := []struct {
		name   string
		target string
		sni    string // empty: no TLS
		send   string
		want   string // received, in or without TLS; "origin": the site's own certificate
		set    func(*setup)
		action policy.Action // of the CONNECT
		rule   string
		err    string // in its record
	}{
		{name: "TLS", target: site.at("example.com"), sni: "example.com", want: "intercepted", action: policy.Inspect, rule: policy.RuleInspect},
		{name: "SSH", target: ssh.String(), send: "SSH-2.0-here\r\n", want: "SSH-2.0-there\r\nSSH-2.0-here\r\n", action: policy.Tunnel, rule: policy.RuleUnknown},
		{name: "silence", target: ssh.String(), want: "SSH-2.0-there\r\n", action: policy.Tunnel, rule: policy.RuleUnknown},
		{name: "SSH, denied", target: ssh.String(), send: "SSH-2.0-here\r\n", set: func(c *setup) { c.unknown = policy.UnknownDeny }, action: policy.Deny, rule: policy.RuleUnknown, err: "neither TLS nor HTTP"},
		{name: "plain HTTP", target: plain.String(), send: "GET /x HTTP/1.1\r\nHost: " + plain.String() + "\r\nConnection: close\r\n\r\n", want: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nplain", action: policy.Inspect, rule: policy.RuleInspect},
		{name: "another name", target: site.at("front.example"), sni: "example.com", want: "intercepted", action: policy.Inspect, rule: policy.RuleInspect},
		{name: "an exempt name", target: site.at("front.example"), sni: "example.com", set: func(c *setup) { c.exempt = []string{"example.com"} }, want: "intercepted", action: policy.Inspect, rule: policy.RuleInspect},
		{name: "exempt", target: site.at("bank.example"), sni: "bank.example", set: func(c *setup) { c.exempt = []string{"bank.example"} }, want: "origin", action: policy.Tunnel, rule: policy.RuleDefault},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			set := site.everything()
			if tt.set != nil {
				tt.set(&set)
			}
			r := start(t, set, false)
			c := r.connected(tt.target)
			if tt.sni != "" {
				conn := c.secure(&tls.Config{ServerName: tt.sni, InsecureSkipVerify: true}) // the certificate is compared
				if err := conn.Handshake(); err != nil {
					t.Fatal(err)
				}
				got := conn.ConnectionState().PeerCertificates[0]
				if own := got.Equal(site.Certificate()); own != (tt.want == "origin") {
					t.Errorf("the certificate is the origin's: %v", own)
				} else if !own {
					if _, err := got.Verify(x509.VerifyOptions{Roots: r.trusted(), DNSName: tt.sni}); err != nil {
						t.Error(err)
					}
				}
				fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", site.at(tt.sni))
				if text, err := io.ReadAll(conn); err != nil || !bytes.HasSuffix(text, []byte("hello")) {
					t.Errorf("received %q, %v", text, err)
				}
			} else {
				c.send(tt.send)
				c.expect(tt.want)
				c.finish()
				c.expectEnd()
			}
			c.Close()
			connects, _ := byMethod(r.stop())
			if len(connects) != 1 {
				t.Fatalf("%d records", len(connects))
			}
			if x := connects[0]; x.Action != tt.action || x.Rule != tt.rule || x.Error != tt.err {
				t.Errorf("the CONNECT's record says %s by %s (%s), want %s by %s (%s)", x.Action, x.Rule, x.Error, tt.action, tt.rule, tt.err)
			}
		})
	}
}

// A client that is silent for long, while the destination waits for it, is
// intercepted all the same.
func TestInterceptLateClient(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	tests := []struct {
		name, sni string
		send      string // where there is no TLS
		own       bool   // the certificate is the site's
		refused   bool   // TLS is not answered
		action    policy.Action
		rule      string
	}{
		{name: "TLS", sni: "example.com", action: policy.Inspect, rule: policy.RuleInspect},
		{name: "TLS for Apple's name", sni: "www.apple.com", refused: true, action: policy.Deny, rule: policy.RuleName},
		{name: "another protocol", send: "\x00\x00", action: policy.Tunnel, rule: policy.RuleUnknown},
		{name: "nothing", action: policy.Inspect, rule: policy.RuleInspect},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
				t.Parallel()
				reached := make(chan bool, 10)
				front := newOrigin(t, func(c net.Conn) {
					reached <- true
					to, err := net.Dial("tcp", site.Listener.Addr().String())
					if err != nil {
						return
					}
					defer to.Close()
					go func() {
						_, _ = io.Copy(to, c)
						to.Close()
					}()
					_, _ = io.Copy(c, to)
				})
				at := func(host string) string { return fmt.Sprintf("%s:%d", host, front.Port()) }
				r := start(t, site.everything())
				c := r.connected(at("example.com"))
				<-reached // by the proxy, which looks who speaks first
				if tt.sni != "" {
					conn := c.secure(&tls.Config{ServerName: tt.sni, InsecureSkipVerify: true}) // the certificate is compared
					fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", at(tt.sni))
					text, err := io.ReadAll(conn)
					if tt.refused != (err != nil || len(text) == 0) || !tt.refused && !bytes.HasSuffix(text, []byte("hello")) {
						t.Fatalf("received %q, %v", text, err)
					}
					if tt.refused {
						c.Close()
					} else if own := conn.ConnectionState().PeerCertificates[0].Equal(site.Certificate()); own != tt.own {
						t.Errorf("the certificate is the site's: %v", own)
					}
				} else if tt.send != "" {
					c.send(tt.send)
					c.finish()
					_, _ = io.ReadAll(c.in) // the site makes nothing of it
				}
				c.Close()
				connects, _ := byMethod(r.stop())
				if len(connects) != 1 || connects[0].Action != tt.action || connects[0].Rule != tt.rule {
					t.Errorf("%+v, want %s by %s", connects, tt.action, tt.rule)
				}
			})
		})
	}
}

// With inspect.deny_page people are told inside TLS why a site is denied. Whatever
// else a client does there, nothing reaches the site.
func TestInterceptDenyPage(t *testing.T) {
	var reached atomic.Bool
	site := newOrigin(t, func(net.Conn) { reached.Store(true) })
	at := func(host string) string { return fmt.Sprintf("%s:%d", host, site.Port()) }
	tests := []struct {
		name     string
		off      bool
		target   string // empty: games.example
		sni      string // empty: no TLS
		distrust bool
		send     string
		status   int // of the CONNECT
		inner    int // 0: there is no answer
	}{
		{name: "a page", sni: "games.example", send: "GET /x HTTP/1.1\r\nHost: games.example\r\nAccept: text/html\r\n\r\n", status: 200, inner: 403},
		{name: "without TLS", send: "GET /x HTTP/1.1\r\nHost: " + at("games.example") + "\r\n\r\n", status: 200, inner: 403},
		{name: "another host inside", sni: "games.example", send: "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", status: 200, inner: 421},
		{name: "another name in TLS", sni: "example.com", send: "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", status: 200, inner: 421},
		{name: "Apple's name in TLS", sni: "www.apple.com", status: 200},
		{name: "another protocol", send: "SSH-2.0-here\r\n", status: 200},
		{name: "a client without the CA", sni: "games.example", distrust: true, status: 200},
		{name: "exempt", target: "bank.games.example", status: 403},
		{name: "off", off: true, status: 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
				r := start(t, setup{
					inspect: policy.InspectAll, denyPage: !tt.off, exempt: []string{"bank.games.example"},
					hosts: map[string]string{"*.example": "127.0.0.1", "www.apple.com": "127.0.0.1"},
					rules: []policy.Rule{{Name: "no-games", When: policy.When{Hosts: []string{"games.example", "*.games.example"}}, Then: "deny"}},
				})
				for range 3 {
					c := r.dial()
					c.send(connectTo(at(cmp.Or(tt.target, "games.example"))))
					if a := c.head(http.MethodConnect); a.StatusCode != tt.status {
						t.Fatalf("CONNECT: %s, want %d", a.Status, tt.status)
					}
					var conn net.Conn = c
					in := c.in
					if tt.sni != "" {
						cfg := &tls.Config{ServerName: tt.sni, RootCAs: r.trusted()}
						if tt.distrust {
							cfg.RootCAs = x509.NewCertPool()
						}
						secure := c.secure(cfg)
						conn, in = secure, bufio.NewReader(secure)
					}
					_, _ = io.WriteString(conn, tt.send)
					resp, err := http.ReadResponse(in, nil)
					switch {
					case tt.inner == 0 && err == nil:
						t.Errorf("answered %s", resp.Status)
					case tt.inner == 0:
					case err != nil || resp.StatusCode != tt.inner || !resp.Close:
						t.Errorf("%+v, %v, want %d and the end", resp, err, tt.inner)
					case tt.inner == 403:
						if body, _ := io.ReadAll(resp.Body); !strings.Contains(string(body), "no-games") {
							t.Errorf("body %q", body)
						}
					}
					c.Close()
				}
				connects, inner := byMethod(r.stop())
				if want := min(tt.inner, 1) * 3; len(connects) != 3 || len(inner) != want {
					t.Errorf("%d records of CONNECTs, %d of requests inside, want %d", len(connects), len(inner), want)
				}
				for _, x := range append(connects, inner...) {
					if x.Action != policy.Deny || x.Rule != "no-games" {
						t.Errorf("%+v", x)
					}
				}
				if list := r.exceptions.List(); len(list) > 0 {
					t.Errorf("an exception: %+v", list)
				}
			})
		})
	}
	if reached.Load() {
		t.Error("the site was connected to")
	}
}

// What requests inside ask for is decided anew, and for no other host than the
// connection was opened for.
func TestInterceptedRequests(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	set := site.everything()
	set.rules = []policy.Rule{
		{Name: "no-games", When: policy.When{Hosts: []string{"games.example"}}, Then: "deny"},
	}
	r := start(t, set, false)
	tests := []struct {
		name, target, sni, request string
		status                     int
		action                     policy.Action
		rule, body                 string
	}{
		{"the CONNECT's host", "example.com", "example.com", "GET / HTTP/1.1\r\nHost: example.com", 200, policy.Inspect, policy.RuleInspect, "example.com"},
		{"with another case and a dot", "example.com", "example.com", "GET / HTTP/1.1\r\nHost: EXAMPLE.com.", 200, policy.Inspect, policy.RuleInspect, "EXAMPLE.com."},
		{"the name in TLS", "front.example", "example.com", "GET / HTTP/1.1\r\nHost: example.com", 200, policy.Inspect, policy.RuleInspect, "example.com"},
		{"in absolute form", "example.com", "example.com", "GET https://example.com/ HTTP/1.1\r\nHost: x.example", 200, policy.Inspect, policy.RuleInspect, "example.com"},
		{"without a host", "example.com", "example.com", "GET / HTTP/1.0", 200, policy.Inspect, policy.RuleInspect, "example.com"},
		{"about the server", "example.com", "example.com", "OPTIONS * HTTP/1.1\r\nHost: example.com", 200, policy.Inspect, policy.RuleInspect, ""},
		{"another host", "example.com", "example.com", "GET / HTTP/1.1\r\nHost: other.example", 421, policy.Deny, "misdirected", ""},
		{"another host that is denied", "example.com", "example.com", "GET / HTTP/1.1\r\nHost: games.example", 421, policy.Deny, "no-games", ""},
		{"another port", "example.com", "example.com", "GET / HTTP/1.1\r\nHost: example.com:1", 421, policy.Deny, "misdirected", ""},
		{"Apple's host", "example.com", "example.com", "GET / HTTP/1.1\r\nHost: www.apple.com", 421, policy.Deny, "misdirected", ""},
		{"no host", "example.com", "example.com", "GET / HTTP/1.1\r\nHost: a_b..c", 403, policy.Deny, "invalid-target", ""},
		{"a denied name in TLS", "front.example", "games.example", "GET / HTTP/1.1\r\nHost: games.example", 403, policy.Deny, "no-games", ""},
		{"a CONNECT inside", "example.com", "example.com", "CONNECT example.com:%d HTTP/1.1\r\nHost: example.com:%[1]d", 501, policy.Deny, "scheme", ""},
		{"another scheme", "example.com", "example.com", "GET http://example.com:%d/ HTTP/1.1\r\nHost: example.com", 501, policy.Deny, "scheme", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn := r.connected(site.at(tt.target)).secure(&tls.Config{ServerName: tt.sni, RootCAs: r.trusted()})
			request := tt.request
			if strings.Contains(request, "%") {
				request = fmt.Sprintf(request, site.port)
			}
			io.WriteString(conn, request+"\r\nConnection: close\r\nX-Test: "+tt.name+"\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.status || tt.body != "" && string(body) != tt.body {
				t.Errorf("%s %q, want %d %q", resp.Status, body, tt.status, tt.body)
			}
		})
	}
	_, inner := byMethod(r.stop())
	if len(inner) != len(tests)-1 { // one is a CONNECT
		t.Errorf("%d records", len(inner))
	}
}

// A client that offers HTTP/1.0 alone is looked into like any other.
func TestInterceptHTTP10(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	r := start(t, site.everything(), false)
	c := r.connected(site.at("example.com"))
	conn := c.secure(&tls.Config{ServerName: "example.com", RootCAs: r.trusted(), NextProtos: []string{"http/1.0"}})
	io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	if text, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(text), "\r\n\r\nexample.com") {
		t.Errorf("received %q, %v", text, err)
	}
	if _, inner := byMethod(r.stop()); len(inner) != 1 || inner[0].Action != policy.Inspect || inner[0].Status != 200 {
		t.Errorf("records %+v", inner)
	}
}

func TestInterceptRecords(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	set := site.everything()
	set.users = map[string]string{"alice": "secret"}
	r := start(t, set, false)
	c := r.dial()
	c.send(connectTo(site.at("example.com"), basic("alice", "secret")))
	c.expect(established)
	conn := c.secure(&tls.Config{ServerName: "example.com", RootCAs: r.trusted()})
	io.WriteString(conn, "GET /secret?token=1 HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\nUser-Agent: test\r\n\r\n")
	io.ReadAll(conn)
	_, inner := byMethod(r.stop())
	if len(inner) != 1 {
		t.Fatalf("%d records", len(inner))
	}
	x := inner[0]
	if x.User != "alice" || x.Agent != "test" || x.URL != "https://other.example/secret" || x.Host != "other.example" || x.Status != 421 ||
		x.Error != "the connection is for example.com" {
		t.Errorf("%+v", x)
	}
}

// A destination whose certificate is bad is never reached: a page says what is
// wrong with it.
func TestInterceptVerifiesDestinations(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { t.Error("it was reached") })
	old := certificate(t, func(c *x509.Certificate) {
		c.DNSNames, c.NotAfter = []string{"example.com"}, time.Now().Add(-time.Hour)
	})
	expired := newOrigin(t, func(c net.Conn) {
		_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{old}}).Handshake() // which fails
	})
	wantsCert := newSite(t, func(w http.ResponseWriter, r *http.Request) { t.Error("it was reached") })
	wantsCert.TLS.ClientAuth = tls.RequireAnyClientCert
	wantsCert.TLS.MaxVersion = tls.VersionTLS12
	wantsCert13 := newSite(t, func(w http.ResponseWriter, r *http.Request) { t.Error("it was reached") })
	wantsCert13.TLS.ClientAuth = tls.RequireAnyClientCert // which is refused after the handshake
	noTLS := newOrigin(t, func(c net.Conn) { io.WriteString(c, "SSH-2.0-there\r\n"); io.Copy(io.Discard, c) })
	shakes := func(change func(*tls.Config)) uint16 {
		cfg := site.TLS.Clone()
		change(cfg)
		return newOrigin(t, func(c net.Conn) { _ = tls.Server(c, cfg).Handshake() }).Port()
	}
	oldVersion := shakes(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 })
	oldSuite := shakes(func(c *tls.Config) {
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
	})
	both := x509.NewCertPool()
	both.AddCert(site.Certificate())
	both.AddCert(wantsCert.Certificate())
	both.AddCert(wantsCert13.Certificate())
	leaf, err := x509.ParseCertificate(old.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	both.AddCert(leaf)
	tests := []struct {
		name, target string
		roots        *x509.CertPool
		refused      refusal.Refusal
	}{
		{"unknown CA", site.at("example.com"), x509.NewCertPool(), refusal.UnknownCA},
		{"another name", site.at("other.example"), both, refusal.OtherName},
		{"expired", fmt.Sprintf("example.com:%d", expired.Port()), both, refusal.Expired},
		{"wants a certificate", wantsCert.at("example.com"), both, refusal.ClientCertificate},
		{"wants a certificate by TLS 1.3", wantsCert13.at("example.com"), both, refusal.ClientCertificate},
		{"no TLS", fmt.Sprintf("example.com:%d", noTLS.Port()), both, refusal.TLS},
		{"TLS 1.1", fmt.Sprintf("example.com:%d", oldVersion), both, refusal.OldTLS},
		{"RSA key exchange", fmt.Sprintf("example.com:%d", oldSuite), both, refusal.OldTLS},
	}
	for _, tt := range tests {
		for _, h2 := range []bool{true, false} { // by the general way, and by the short one
			t.Run(fmt.Sprintf("%s, h2=%v", tt.name, h2), func(t *testing.T) {
				set := site.everything()
				set.roots = tt.roots
				r := start(t, set, false)
				c := r.browser()
				c.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
				resp, body := fetch(t, c, "https://"+tt.target+"/")
				if resp.StatusCode != tt.refused.Status || !strings.Contains(body, tt.refused.Text) ||
					!strings.Contains(resp.Header.Get("Proxy-Status"), tt.refused.Type) {
					t.Errorf("%s %q %v", resp.Status, body, resp.Header)
				}
				c.CloseIdleConnections()
				_, inner := byMethod(r.stop())
				if len(inner) != 1 || inner[0].Action != policy.Error || inner[0].Error == "" || inner[0].Status != 502 {
					t.Errorf("%+v", inner)
				}
			})
		}
	}
}

// own is a client that trusts the site's certificate alone, as an app that knows it.
func (s *site) own() *tls.Config { return &tls.Config{ServerName: "example.com", RootCAs: s.roots} }

// refusals are ways in which such a client refuses another certificate. Each returns an error
// if it has.
func (s *site) refusals() []refusing {
	checked := func(then func(*client)) func(*client) error {
		return func(c *client) error {
			cfg := s.own()
			cfg.InsecureSkipVerify = true
			cfg.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error {
				if bytes.Equal(raw[0], s.Certificate().Raw) {
					return nil
				}
				then(c)
				return errors.New("pinned")
			}
			return c.secure(cfg).Handshake()
		}
	}
	behind := func(then func(*client, *tls.Conn)) func(*client) error {
		return func(c *client) error {
			conn := c.secure(&tls.Config{ServerName: "example.com", InsecureSkipVerify: true})
			if err := conn.Handshake(); err != nil {
				return err
			}
			if conn.ConnectionState().PeerCertificates[0].Equal(s.Certificate()) {
				return nil
			}
			then(c, conn)
			return errors.New("pinned")
		}
	}
	reset := func(c *client) { c.SetLinger(0); c.Close() }
	return []refusing{
		{"an alert", true, func(c *client) error { return c.secure(s.own()).Handshake() }},
		{"closes in the handshake", false, checked(func(c *client) { c.Close() })},
		{"resets in the handshake", false, checked(reset)},
		{"closes behind the handshake", false, behind(func(c *client, _ *tls.Conn) { c.Close() })},
		{"says goodbye behind the handshake", false, behind(func(_ *client, conn *tls.Conn) { conn.Close() })},
		{"resets behind the handshake", false, behind(func(c *client, _ *tls.Conn) { reset(c) })},
	}
}

// trust has the client accept the CA's certificate, for an address of the site.
func (r *rig) trust(s *site) {
	r.t.Helper()
	b := r.browser()
	fetch(r.t, b, "https://"+s.at("127.0.0.1")+"/")
	b.CloseIdleConnections()
}

type refusing struct {
	name string
	sure bool // once is enough
	try  func(*client) error
}

// Clients that do not accept the certificate are tunnelled after one alert, or after they
// have closed on two occasions at least 30 s apart: if they have accepted the CA's
// certificate elsewhere, and where nothing but inspect.mode says inspect.
func TestInterceptPinned(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	tests := []struct {
		name   string
		change func(*setup)
		before func(*rig)
		never  bool
	}{
		{"a client that trusts the CA", nil, func(r *rig) { r.trust(site) }, false},
		{"a client without the CA", nil, func(*rig) {}, true},
		{"a client without the CA that is to be tunnelled", nil, func(r *rig) { r.exceptions.TunnelWithoutCA(true) }, false},
		{"a rule that says inspect", func(s *setup) {
			s.rules = []policy.Rule{{Name: "look", When: policy.When{Hosts: []string{"example.com"}}, Then: "inspect"}}
		}, func(r *rig) { r.trust(site) }, true},
		{"refused by an administrator", nil, func(r *rig) {
			r.trust(site)
			r.exceptions.Set("example.com", inspect.Refused)
		}, true},
	}
	for _, tt := range tests {
		for _, how := range site.refusals() {
			t.Run(tt.name+"/"+how.name, func(t *testing.T) {
				setup := site.everything()
				if tt.change != nil {
					tt.change(&setup)
				}
				r := start(t, setup, false)
				var passed atomic.Int64
				r.exceptions.Now = func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
				tt.before(r)
				try := func() error {
					c := r.connected(site.at("example.com"))
					defer await(t, "the end of the session", func() bool { return r.server.openTunnels() == 0 })
					defer c.Close()
					return how.try(c)
				}
				for range 3 {
					if try() == nil {
						t.Fatal("it passes without evidence")
					}
					if how.sure {
						break
					}
				}
				passed.Add(int64(30 * time.Second))
				if !how.sure && try() == nil {
					t.Fatal("it passes before the second occasion")
				}
				if passes := try() == nil; passes == tt.never {
					t.Errorf("it passes: %v", passes)
				}
				automatic := r.exceptions.Count()[inspect.Automatic]
				if told := r.ops.FilterMessageSnippet("refuses interception").Len(); automatic != told || (told == 1) == tt.never {
					t.Errorf("%d exceptions, %d messages", automatic, told)
				}
			})
		}
	}
}

// A client that has refused the CA's certificate at two hosts, and accepted it nowhere, is
// told how to install it, in place of pages by plain HTTP.
func TestInterceptWithoutCA(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "plain") }))
	t.Cleanup(plain.Close)
	r := start(t, site.everything(), false)
	get := func(accept string) string {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, plain.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := r.browser().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode == http.StatusForbidden && strings.Contains(string(body), refusal.WithoutCA.Text) && strings.Contains(string(body), policy.RuleWithoutCA) {
			return "told"
		}
		return string(body)
	}
	const page = "text/html,*/*;q=0.8"
	for i, x := range []struct {
		do   func()
		want string // of a page
	}{
		{func() {}, "plain"},
		{func() { _ = r.connected(site.at("a.example")).secure(site.own()).Handshake() }, "plain"},
		{func() { _ = r.connected(site.at("b.example")).secure(site.own()).Handshake() }, "told"},
		{func() { r.exceptions.TunnelWithoutCA(true) }, "told"}, // the policy decides
		{func() { r.trust(site) }, "plain"},
	} {
		x.do()
		await(t, fmt.Sprintf("step %d: %s", i, x.want), func() bool { return get(page) == x.want })
		if got := get("*/*"); got != "plain" {
			t.Errorf("step %d: what is not a page: %q", i, got)
		}
	}
}

// An exemption is for the CONNECT's host and the name in TLS together, and for one client.
func TestInterceptPinnedByName(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	r := start(t, site.everything(), false)
	r.trust(site)
	passes := func(host, name string) bool {
		t.Helper()
		c := r.connected(site.at(host))
		cfg := site.own()
		cfg.ServerName, cfg.InsecureSkipVerify = name, true
		conn := c.secure(cfg)
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		return conn.ConnectionState().PeerCertificates[0].Equal(site.Certificate())
	}
	pair := inspect.Pair{Host: "site.example", Name: "outer.example"}
	if v := r.exceptions.Refused(pair, netip.MustParseAddr("127.0.0.1"), inspect.ByAlert, "unknown CA"); !v.Exempt {
		t.Fatalf("%+v", v)
	}
	for _, x := range []struct {
		host, name string
		want       bool
	}{
		{"site.example", "outer.example", true}, {"site.example", "site.example", false}, {"outer.example", "outer.example", false},
		{"other.example", "outer.example", false}, {"site.example", "other.example", false},
	} {
		if got := passes(x.host, x.name); got != x.want {
			t.Errorf("CONNECT %s, TLS %s: passes %v", x.host, x.name, got)
		}
	}
}

// A destination that asks for client certificates sees a device's own, on the connection
// after the one on which the device has presented it to the proxy. One that merely asks
// exempts no client.
func TestInterceptClientCertificates(t *testing.T) {
	device := certificate(t, func(c *x509.Certificate) { c.Subject.CommonName = "device" })
	named := x509.NewCertPool()
	named.AddCert(&x509.Certificate{Raw: []byte("x"), RawSubject: []byte("another authority")})
	rule := []policy.Rule{{Name: "look", When: policy.When{Hosts: []string{"example.com"}}, Then: "inspect"}}
	for _, tt := range []struct {
		name     string
		auth     tls.ClientAuthType
		named    *x509.CertPool // authorities
		rules    []policy.Rule
		has      bool     // the client has a certificate
		connects []string // what each connection of the client sees
	}{
		{"optional, the client has one", tls.RequestClientCert, nil, nil, true, []string{"nobody", "nobody", "device", "device"}},
		{"required, the client has one", tls.RequireAnyClientCert, nil, nil, true, []string{"502", "502", "device"}},
		{"optional, the client has none", tls.RequestClientCert, nil, nil, false, []string{"nobody", "nobody", "nobody", "nobody"}},
		{"of an authority that the client's is not of", tls.RequestClientCert, named, nil, true, []string{"nobody", "nobody", "nobody"}},
		{"a rule says inspect", tls.RequestClientCert, nil, rule, true, []string{"nobody", "nobody", "nobody"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			site := newSite(t, func(w http.ResponseWriter, r *http.Request) {
				if list := r.TLS.PeerCertificates; len(list) > 0 {
					io.WriteString(w, list[0].Subject.CommonName)
				} else {
					io.WriteString(w, "nobody")
				}
			})
			site.TLS.ClientAuth, site.TLS.ClientCAs = tt.auth, tt.named
			set := site.everything()
			set.rules = tt.rules
			r := start(t, set, false)
			b := r.browser()
			cfg := b.Transport.(*http.Transport).TLSClientConfig
			cfg.RootCAs.AddCert(site.Certificate())
			if tt.has {
				cfg.Certificates = []tls.Certificate{device}
			}
			for i, want := range tt.connects {
				resp, body := fetch(t, b, "https://"+site.at("example.com")+"/")
				if resp.StatusCode == http.StatusBadGateway && strings.Contains(body, refusal.ClientCertificate.Text) {
					body = "502"
				}
				if body != want {
					t.Errorf("connection %d sees %q, want %q", i+1, body, want)
				}
				b.CloseIdleConnections()
				await(t, "the end of the session", func() bool { return r.server.openTunnels() == 0 })
			}
			if exempt := r.exceptions.Count()[inspect.Automatic]; (exempt == 1) != (tt.connects[len(tt.connects)-1] == "device") {
				t.Errorf("%d exceptions", exempt)
			}
		})
	}
}

// A client that speaks TLS that nobody can answer, or none that was ever
// finished, does not stay.
func TestInterceptShutdownCuts(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	r := start(t, site.everything(), false)
	silent := r.connected(site.at("example.com"))
	half := r.connected(site.at("example.com"))
	half.send("\x16\x03\x01")
	idle := r.connected(site.at("example.com")).secure(&tls.Config{ServerName: "example.com", RootCAs: r.trusted()})
	if err := idle.Handshake(); err != nil {
		t.Fatal(err)
	}
	c := r.browser()
	resp, err := c.Get("https://" + site.at("example.com") + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.server.Shutdown(ctx)
	for _, conn := range []net.Conn{silent, half, idle} {
		if _, err := io.ReadAll(conn); errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the answer was not cut")
	}
	if n := r.server.openTunnels(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
}

// A request that is under way when the proxy drains is answered.
func TestInterceptDrains(t *testing.T) {
	reached, release := make(chan bool), make(chan bool)
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		reached <- true
		<-release
		io.WriteString(w, "late")
	})
	r := start(t, site.everything(), false)
	c := r.browser()
	type result struct {
		body string
		err  error
	}
	got := make(chan result, 1)
	go func() {
		resp, err := c.Get("https://" + site.at("example.com") + "/")
		if err != nil {
			got <- result{err: err}
			return
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		got <- result{string(b), err}
	}()
	<-reached
	var stopped atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.stop()
		stopped.Store(true)
	}()
	await(t, "the drain", r.server.Draining)
	if stopped.Load() {
		t.Error("the drain did not wait")
	}
	close(release)
	if x := <-got; x.body != "late" || x.err != nil {
		t.Errorf("%+v", x)
	}
	<-done
}

// A WebSocket without TLS inside an intercepted CONNECT ends that too, and loses nothing of
// what came with it.
func TestInterceptPlainWebSocket(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := httpOrigin(t, websocket.Handler(func(c *websocket.Conn) { _, _ = io.Copy(c, c) }).ServeHTTP)
		r := start(t, setup{inspect: policy.InspectAll})
		c := r.dial()
		frame := "\x82\xfe\x20\x00\x00\x00\x00\x00" + strings.Repeat("x", 8192) // its mask is zero
		c.send(connectTo(at))
		c.expect(established)
		c.send("GET /ws HTTP/1.1\r\nHost: " + at + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://" + at +
			"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + frame)
		if resp := c.head("GET"); resp.StatusCode != 101 {
			t.Fatal(resp.Status)
		}
		for n := 0; n < 8192; { // it comes back in frames
			b, err := c.in.ReadByte()
			if err != nil {
				t.Fatal(err)
			}
			if b == 'x' {
				n++
			}
		}
		c.finish()
		for _, err := c.in.ReadByte(); err == nil; _, err = c.in.ReadByte() {
		}
		recs := r.stop()
		if len(recs) != 2 || recs[0].Status != 101 || recs[1].Method != "CONNECT" || recs[0].Up < 8192 {
			t.Errorf("records %+v", recs)
		}
	})
}
