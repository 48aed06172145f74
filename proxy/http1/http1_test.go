package http1

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"espalier/policy"
	"espalier/proxy/exchange"
	"espalier/proxy/tunnel"
)

// A request that could not be sent again goes nowhere twice, and any other not a third
// time (RFC 9110, 9.2.2).
func TestRetriesOnce(t *testing.T) {
	r, o := start(t, patient), newOrigin(t)
	var kept, clients [3]*peer
	for i := range kept { // three at a time, so that each has a connection
		clients[i] = r.dial()
		clients[i].send("%s", o.get("/", ""))
		kept[i] = o.accept()
		kept[i].head()
	}
	for i := range kept {
		kept[i].send(ok)
		clients[i].answer("GET")
	}
	await(t, "kept connections", func() bool { return r.cfg.Origins.Len() == 3 })
	clients[0].send("%s", o.get("/again", ""))
	asked := make(chan struct{}, 4)
	for _, p := range kept {
		go func() {
			if _, err := p.in.Peek(1); err == nil {
				asked <- struct{}{}
			}
			p.Close()
		}()
	}
	fresh := o.accept()
	fresh.head()
	fresh.Close()
	if status, _ := clients[0].answer("GET"); status != 502 {
		t.Errorf("status %d", status)
	}
	if n := len(asked); n != 1 {
		t.Errorf("%d kept connections were asked, want 1", n)
	}
}

// What an interim answer has come to is not asked again, though the client did not see it.
func TestNoRetryAfterInterim(t *testing.T) {
	for _, version := range []string{"1.0", "1.1"} {
		t.Run(version, func(t *testing.T) {
			r, o := start(t, patient), newOrigin(t)
			c := r.dial()
			request := strings.Replace(o.get("/", "Connection: keep-alive\r\n"), "HTTP/1.1", "HTTP/"+version, 1)
			c.send("%s", request)
			p := o.accept()
			p.head()
			p.send(ok)
			c.answer("GET")
			c.send("%s", request)
			p.head()
			p.send("HTTP/1.1 100 Continue\r\n\r\n")
			p.CloseWrite()
			if status, _ := c.answer("GET"); status != 502 {
				t.Errorf("status %d", status)
			}
		})
	}
}

// How much of a body was read is not known when its sending fails, so that nothing behind
// it may be taken for a request, nor a request for the rest of it.
func TestFailedUploadEndsConnection(t *testing.T) {
	r, o := start(t, patient), newOrigin(t)
	c := r.dial()
	c.send("POST http://%s/ HTTP/1.1\r\nHost: %[1]s\r\nContent-Length: 60000\r\n\r\n", o.at())
	p := o.accept()
	p.head()
	_ = p.SetLinger(0)
	p.Close()
	half := strings.Repeat("x", 20000)
	c.send("%s", half)
	c.send("%s", half) // at least one of them cannot be sent
	head := c.head()
	if !strings.HasPrefix(head, "HTTP/1.1 502 ") || !strings.Contains(head, "Connection: close") {
		t.Errorf("got %q", head)
	}
}

// The connection that a client has signed in on is its own, and no longer than the user
// and the rules stay.
func TestPrivateConnection(t *testing.T) {
	signed := "Authorization: NTLM abc\r\n"
	for _, tt := range []struct {
		name   string
		change func(r *rig, c *peer) *peer
		fresh  bool
	}{
		{"the same client", func(_ *rig, c *peer) *peer { return c }, false},
		{"another client", func(r *rig, _ *peer) *peer { return r.dial() }, true},
		{"after a reload", func(r *rig, c *peer) *peer { r.apply(); return c }, true},
		{"after another user has signed in", func(r *rig, c *peer) *peer {
			await(t, "the next request", func() bool {
				k := r.last.Load()
				k.mu.Lock()
				defer k.mu.Unlock()
				if k.phase == idle {
					k.owner = "eve"
				}
				return k.phase == idle
			})
			return c
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, o := start(t, patient), newOrigin(t)
			c := r.dial()
			c.send("%s", o.get("/", signed))
			p := o.accept()
			p.head()
			p.send(ok)
			c.answer("GET")
			if n := r.cfg.Origins.Len(); n != 0 {
				t.Errorf("%d connections are kept for all", n)
			}
			c = tt.change(r, c)
			c.send("%s", o.get("/", ""))
			if tt.fresh {
				p = o.accept()
			}
			p.head()
			p.send(ok)
			c.answer("GET")
			recs := r.stop()
			if len(recs) != 2 || (recs[1].Connect > 0) != tt.fresh {
				t.Errorf("records %+v", recs)
			}
		})
	}
}

// A private connection that the origin has closed in the moment is replaced.
func TestPrivateConnectionCloses(t *testing.T) {
	r, o := start(t, patient), newOrigin(t)
	c := r.dial()
	c.send("%s", o.get("/", "Authorization: NTLM abc\r\n"))
	p := o.accept()
	p.head()
	p.send(ok)
	c.answer("GET")
	c.send("%s", o.get("/", ""))
	p.head()
	p.Close()
	p = o.accept()
	p.head()
	p.send(ok)
	if status, _ := c.answer("GET"); status != 200 {
		t.Errorf("status %d", status)
	}
}

// A client that sends TLS leaves nothing behind.
func TestRefusedTLS(t *testing.T) {
	r := start(t, patient)
	c := r.dial()
	c.send("\x16\x03\x01\x00\x05hello")
	for b := make([]byte, 100); ; {
		if _, err := c.Read(b); err != nil {
			break
		}
	}
	r.stop()
}

func TestOptions(t *testing.T) {
	for _, tt := range []struct{ name, target, lines, want string }{
		{"the server", "http://%s", "", "OPTIONS * HTTP/1.1"},
		{"its root", "http://%s/", "", "OPTIONS / HTTP/1.1"},
		{"a query", "http://%s?x", "", "OPTIONS /?x HTTP/1.1"},
		{"a path that ends in the authority", "http://%s/at/%[1]s", "", "OPTIONS /at/%s HTTP/1.1"},
		{"forwards", "http://%s/", "Max-Forwards: 7\r\n", "Max-Forwards: 6\r\n"},
		{"forwards with zeros", "http://%s/", "Max-Forwards: 07\r\n", "Max-Forwards: 6\r\n"},
		{"no more forwards", "http://%s/", "Max-Forwards: 0\r\n", ""},
		{"no more forwards, twice", "http://%s/", "Max-Forwards: 00\r\n", ""},
		{"forwards of two minds", "http://%s/", "Max-Forwards: 0\r\nMax-Forwards: 1\r\n", "Max-Forwards: 0\r\nMax-Forwards: 0\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, o := start(t, patient), newOrigin(t)
			c := r.dial()
			c.send("OPTIONS %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", fmt.Sprintf(tt.target+"%.0[1]s", o.at()), o.at(), tt.lines)
			if tt.want != "" {
				p := o.accept()
				want := tt.want
				if strings.Contains(want, "%s") {
					want = fmt.Sprintf(want, o.at())
				}
				if h := p.head(); !strings.Contains(h, want) {
					t.Errorf("the origin got %q", h)
				}
				p.send(ok)
			}
			if status, _ := c.answer("OPTIONS"); status != 200 {
				t.Errorf("status %d", status)
			}
		})
	}
}

// Pipelined requests keep their order and bytes, however long they are.
func TestPipelineBehindLargeHead(t *testing.T) {
	r, o := start(t, patient), newOrigin(t)
	c := r.dial()
	large := o.get("/", "X: "+strings.Repeat("x", 60<<10)+"\r\n")
	chunked := fmt.Sprintf("POST http://%s/ HTTP/1.1\r\nHost: %[1]s\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", o.at())
	go func() {
		for range 2 { // the POST takes a fresh connection
			p := o.accept()
			go func() {
				for chunked := false; ; {
					line, err := p.in.ReadString('\n')
					if err != nil {
						return
					}
					if strings.HasPrefix(line, "Transfer-Encoding:") {
						chunked = true
					} else if line == "0\r\n" {
						chunked = false
					} else if line == "\r\n" && !chunked {
						p.send(ok)
					}
				}
			}()
		}
	}()
	c.send("%s", large+chunked+o.get("/", "X: "+strings.Repeat("y", 60<<10)+"\r\n"))
	for range 3 {
		if status, _ := c.answer("GET"); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	c.Close()
	if recs := r.stop(); len(recs) != 3 {
		t.Errorf("%d records", len(recs))
	}
}

// Heads take no memory while their connections wait for another request.
func TestIdleConnectionsAreSmall(t *testing.T) {
	r, o := start(t, patient), newOrigin(t)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	go func() {
		for {
			c, err := o.Accept()
			if err != nil {
				return
			}
			p := newPeer(t, c)
			go func() {
				defer p.Close()
				for {
					line, err := p.in.ReadString('\n')
					if err != nil {
						return
					}
					if line == "\r\n" {
						p.send(ok)
					}
				}
			}()
		}
	}()
	const n = 100
	for range n {
		c := r.dial()
		c.send("%s", o.get("/", "X: "+strings.Repeat("x", 60<<10)+"\r\n"))
		c.answer("GET")
	}
	await(t, "the last to wait", func() bool { return r.cfg.Room.Len() == n })
	if after := heap(); after > before+n*(40<<10) {
		t.Errorf("%d KB for each of %d idle connections", (after-before)>>10/n, n)
	}
}

// A 204 has no body. What an origin sends in its place answers no other request.
func TestBodyBehind204(t *testing.T) {
	for _, framing := range []string{"Content-Length: 5", "Transfer-Encoding: chunked"} {
		t.Run(framing, func(t *testing.T) {
			r, o := start(t, patient), newOrigin(t)
			c := r.dial()
			c.send("%s", o.get("/", ""))
			p := o.accept()
			p.head()
			p.send("HTTP/1.1 204 No Content\r\n%s\r\n\r\n", framing)
			if h := c.head(); strings.Contains(h, framing) {
				t.Errorf("the client got %q", h)
			}
			p.ended()
			r.stop()
		})
	}
}

// Credentials in a destination stay out of the log.
func TestNoCredentialsInRecord(t *testing.T) {
	for _, head := range []string{
		"GET http://user:secret@127.0.0.1/path HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"GET ftp://user:secret@127.0.0.1/path HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"GET http://user:secret@127.0.0.1/path HTTP/1.1\r\n\r\n", // malformed
		"CONNECT user:secret@127.0.0.1:443 HTTP/1.1\r\n\r\n",
		"CONNECT user:secret@127.0.0.1:443 HTTP/1.1\r\n : \r\n\r\n",
	} {
		t.Run(head[:12], func(t *testing.T) {
			r := start(t, patient)
			c := r.dial()
			c.send("%s", head)
			c.head()
			c.Close()
			recs := r.stop()
			if len(recs) != 1 {
				t.Fatalf("%d records", len(recs))
			}
			if s := fmt.Sprintf("%+v", recs[0]); strings.Contains(s, "secret") {
				t.Errorf("record %s", s)
			}
		})
	}
}

// The place of a refused request is free once the client knows.
func TestPlaceIsFreeAfterRefusal(t *testing.T) {
	r := start(t, patient)
	for range 50 {
		c := r.dial()
		c.send("GET http://127.0.0.1:1/ HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
		c.head()
		if tunnels, requests, _ := r.cfg.Pipeline.Limits.Open(); tunnels+requests != 0 {
			t.Fatalf("%d requests are counted", tunnels+requests)
		}
		c.Close()
	}
}

// A session that begins after Shutdown has looked ends with its time all the same.
func TestSessionDuringShutdown(t *testing.T) {
	r := start(t, patient)
	ctx, cancel := context.WithCancel(context.Background())
	r.l.Close()
	r.cfg.Conns.Shutdown(ctx)
	client, server := net.Pipe()
	defer client.Close()
	x := r.cfg.Pipeline.Begin(netip.MustParseAddr("127.0.0.1"), "CONNECT", "")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.ServeSession(server, &exchange.Session{Exchange: x, Accepted: func() {}})
	}()
	await(t, "the session", func() bool { return r.cfg.Conns.Len() == 1 })
	cancel()
	select {
	case <-ended:
	case <-time.After(limit):
		t.Fatal("it goes on")
	}
	x.Drop()
}

// A CONNECT behind another request does not inherit its deadlines.
func TestInspectWithoutDeadline(t *testing.T) {
	taken := make(chan net.Conn, 1)
	times := patient
	times.Stall = 50 * time.Millisecond
	r := start(t, times, func(c *Config, p *policy.Config) {
		p.Inspect.Mode = policy.InspectAll
		c.Inspect = func(x *exchange.Exchange, client net.Conn) { x.Finish(200); taken <- client }
	})
	c := r.dial()
	c.send("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
	c.head()
	time.Sleep(2 * times.Stall) // the bound that the answer had
	c.send("CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\n")
	client := <-taken
	defer client.Close()
	if _, err := client.Write([]byte("x")); err != nil {
		t.Error(err)
	}
}

// A URL that the policy hides is hidden too where the request is refused before the policy
// is asked.
func TestHiddenURLOfRefused(t *testing.T) {
	for _, url := range []string{"http://user@clinic.example/secret", "ftp://clinic.example/secret", "http://clinic.example#/secret"} {
		t.Run(url, func(t *testing.T) {
			r := start(t, patient, func(_ *Config, p *policy.Config) {
				p.Rules = []policy.Rule{{Name: "clinic", Then: "allow", HideURL: true, When: policy.When{Hosts: []string{"clinic.example"}}}}
			})
			c := r.dial()
			c.send("GET %s HTTP/1.1\r\nHost: clinic.example\r\n\r\n", url)
			c.head()
			c.Close()
			if recs := r.stop(); len(recs) != 1 || recs[0].URL != "" {
				t.Errorf("records %+v", recs)
			}
		})
	}
}

// clumsy is an Engine that cannot start a tunnel.
type clumsy struct{ tunnel.Engine }

func (clumsy) Start(tunnel.Tunnel) { panic("clumsy") }

// A panic costs one request: it has a record, and both connections are closed.
func TestPanic(t *testing.T) {
	r, o := start(t, patient, func(c *Config, _ *policy.Config) { c.Tunnels = clumsy{c.Tunnels} }), newOrigin(t)
	r.panics = 1
	c := r.dial()
	c.send("%s", o.get("/", "Connection: upgrade\r\nUpgrade: websocket\r\n"))
	p := o.accept()
	p.head()
	p.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	for _, end := range []*peer{p, c} {
		if _, err := io.Copy(io.Discard, end); isTimeout(err) {
			t.Error("a connection stays open")
		}
	}
	if recs := r.stop(); len(recs) != 1 || !strings.Contains(recs[0].Error, "panic") {
		t.Errorf("records %+v", recs)
	}
}

// What a client has pipelined behind its last request does not cost it the answer.
func TestPipelinedBehindClose(t *testing.T) {
	r, o := start(t, patient), newOrigin(t)
	c := r.dial()
	c.send("%s", o.get("/", "Connection: close\r\n")+strings.Repeat(o.get("/", ""), 1000))
	p := o.accept()
	p.head()
	p.send(ok)
	if status, body := c.answer("GET"); status != 200 || body != "ok" {
		t.Errorf("%d %q", status, body)
	}
	c.ended()
}

// A client of HTTP/1.0 need not name the host, which is that of the session.
func TestSessionWithoutHost(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			l, err := net.Listen("tcp", at)
			if err != nil {
				t.Skipf("no such address here: %v", err)
			}
			defer l.Close()
			r, o := start(t, patient), &origin{l, t}
			ap := netip.MustParseAddrPort(o.at())
			x := r.cfg.Pipeline.Begin(netip.MustParseAddr("127.0.0.1"), "CONNECT", "")
			x.SetTarget(policy.Target{Host: ap.Addr().String(), Addr: ap.Addr(), Port: ap.Port()})
			client, server := net.Pipe()
			defer client.Close()
			r.serving.Go(func() {
				r.ServeSession(server, &exchange.Session{Exchange: x, Accepted: func() {}})
				x.Drop()
			})
			_ = client.SetDeadline(time.Now().Add(limit))
			if _, err := io.WriteString(client, "GET /path HTTP/1.0\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			go func() {
				p := o.accept()
				p.head()
				p.send(ok)
			}()
			b, _ := io.ReadAll(client)
			if !strings.HasPrefix(string(b), "HTTP/1.1 200 ") {
				t.Errorf("got %q", b)
			}
		})
	}
}
