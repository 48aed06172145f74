package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/elazarl/goproxy"

	"espalier/policy"
	"espalier/proxy/tunnel"
)

// get is a plain request of the strict common form.
func get(o fmt.Stringer, path, fields string) string {
	return "GET http://" + o.String() + path + " HTTP/1.1\r\nHost: " + o.String() + "\r\n" + fields + "\r\n"
}

// quickClients reports how many connections the short way has open.
func (r *rig) quickClients() int {
	q := &r.server.quick
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.clients)
}

// Every byte of a request and of its answer passes as it was sent, but for the
// lines that concern one connection.
func TestQuickChangesNothing(t *testing.T) {
	o := newAnswering(t, "HTTP/1.1 203 Non-Authoritative, \xe9\r\nx-OdD-cASE:   spaced  \r\nContent-LENGTH: 2\r\nKeep-Alive: timeout=5\r\nX: 1\r\nX: 2\r\nConnection: Keep-Alive\r\n\r\nok")
	r := start(t, setup{}, false)
	c := r.dial()
	c.send("GET http://" + o.String() + "/a//b/../%7e?q=1&x=%20 HTTP/1.1\r\n" +
		"hOST: ignored.test\r\nx-fIRST:\t1 \r\nAccept: a\r\nProxy-Authorization: Basic eDp5\r\nAccept: b\r\nEmpty:\r\n" +
		"Proxy-Connection: keep-alive\r\nKeep-Alive: 300\r\nConnection: keep-alive\r\n\r\n")
	c.expect("HTTP/1.1 203 Non-Authoritative, \xe9\r\nx-OdD-cASE:   spaced  \r\nContent-LENGTH: 2\r\nX: 1\r\nX: 2\r\n\r\nok")
	if n := r.quickClients(); n != 1 {
		t.Errorf("%d connections on the short way", n)
	}
	c.Close()
	want := "GET /a//b/../%7e?q=1&x=%20 HTTP/1.1\r\nHost: " + o.String() + "\r\nx-fIRST:\t1 \r\nAccept: a\r\nAccept: b\r\nEmpty:\r\n\r\n"
	if heads, _ := o.seen(); len(heads) != 1 || heads[0] != want {
		t.Errorf("the origin saw %q, want %q", heads, want)
	}
	if rec := r.record(); rec.Status != 203 || rec.Down != 2 || rec.Up != 0 || rec.Action != policy.Forward || rec.Error != "" {
		t.Errorf("record %+v", rec)
	}
}

// Bodies of every framing arrive byte for byte, and say whether the connections
// stay.
func TestQuickBodies(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 40_000)
	const first = "HTTP/1.1 200 OK\r\n"
	for _, tc := range []struct {
		name, method, answer string
		payload              int64
		closed               bool // the answer's end is the connection's
	}{
		{"length", "GET", first + "Content-Length: 5\r\n\r\nhello", 5, false},
		{"no length", "GET", first + "Content-Length: 0\r\n\r\n", 0, false},
		{"long", "GET", first + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(long)) + long, int64(len(long)), false},
		{"chunked", "GET", first + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer-X: 1\r\n\r\n", 11, false},
		{"chunked, long", "GET", first + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(long), long), int64(len(long)), false},
		{"until close", "GET", first + "\r\n" + long, int64(len(long)), true},
		{"HEAD", "HEAD", first + "Content-Length: 5000\r\n\r\n", 0, false},
		{"HEAD, chunked", "HEAD", first + "Transfer-Encoding: chunked\r\n\r\n", 0, false},
		{"HEAD, no length", "HEAD", first + "\r\n", 0, false},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", 0, false},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: \"x\"\r\n\r\n", 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var conns atomic.Int32
			o := newOrigin(t, func(c net.Conn) {
				conns.Add(1)
				for in := bufio.NewReader(c); ; {
					if _, err := readHead(in); err != nil {
						return
					}
					if _, err := io.WriteString(c, tc.answer); err != nil || tc.closed {
						return
					}
				}
			})
			r := start(t, setup{}, false)
			c := r.dial()
			req := strings.Replace(get(o, "/", ""), "GET", tc.method, 1)
			times := 3
			if tc.closed {
				times = 1
			}
			for range times {
				c.send(req)
				if tc.closed {
					if got, want := c.raw(), strings.Replace(tc.answer, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1); got != want {
						t.Fatalf("received %d bytes, want %d, or they differ", len(got), len(want))
					}
				} else {
					c.expect(tc.answer)
				}
			}
			c.Close()
			if n := conns.Load(); n != 1 {
				t.Errorf("%d connections to the origin", n)
			}
			list := r.stop()
			if len(list) != times {
				t.Fatalf("%d records, want %d", len(list), times)
			}
			for _, rec := range list {
				if rec.Down != tc.payload || rec.Error != "" || rec.Method != tc.method {
					t.Errorf("record %+v", rec)
				}
			}
		})
	}
}

// A body that the origin cuts does not look whole, and the record says why.
func TestQuickCutBodies(t *testing.T) {
	const first = "HTTP/1.1 200 OK\r\n"
	for name, answer := range map[string]string{
		"length":          first + "Content-Length: 10\r\n\r\nhello",
		"chunked":         first + "Transfer-Encoding: chunked\r\n\r\na\r\nhello",
		"between chunks":  first + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"malformed chunk": first + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t, func(c net.Conn) {
				_, _ = readHead(bufio.NewReader(c))
				_, _ = io.WriteString(c, answer)
			})
			r := start(t, setup{}, false)
			c := r.dial()
			c.send(get(o, "/", ""))
			if _, err := io.ReadAll(c.in); err == nil {
				t.Error("the answer ends in order")
			}
			if rec := r.record(); rec.Action != policy.Error || !strings.HasPrefix(rec.Error, "read the answer's body: ") || rec.Status != 200 {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// A client that leaves during a body is not the origin's fault.
func TestQuickClientLeaves(t *testing.T) {
	o := newOrigin(t, func(c net.Conn) {
		_, _ = readHead(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		for buf := make([]byte, 1<<20); ; {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	})
	r := start(t, setup{}, false)
	c := r.dial()
	c.send(get(o, "/", ""))
	c.expect("HTTP/1.1 200 OK\r\n")
	_ = c.SetLinger(0)
	c.Close()
	if rec := r.record(); rec.Action != policy.Forward || !strings.HasPrefix(rec.Error, "write to client: ") {
		t.Errorf("record %+v", rec)
	}
}

// Requests that come together are answered in turn, over the same connections,
// whatever comes behind them.
func TestQuickPipelining(t *testing.T) {
	o := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	r := start(t, setup{}, false)
	c := r.dial()
	c.send(get(o, "/1", "") + get(o, "/2", "") + get(o, "/3", "Connection: close\r\n"))
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
	c.expect(answer + "\r\nok" + answer + "\r\nok" + answer + "Connection: close\r\n\r\nok")
	c.expectEnd()
	heads, conns := o.seen()
	if len(heads) != 3 || conns != 1 || !strings.HasPrefix(heads[2], "GET /3 ") || strings.Contains(heads[2], "close") {
		t.Errorf("the origin saw %q on %d connections", heads, conns)
	}
	if list := r.stop(); len(list) != 3 {
		t.Errorf("%d records", len(list))
	}
}

// What the short way does not take goes on on the same connection, and nothing
// that was read is lost.
func TestQuickHandsOver(t *testing.T) {
	for _, tc := range []struct{ name, next, want string }{
		{"POST", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody", "POST /"},
		{"upgrade", "GET http://%s/u HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n", "GET /u"},
		{"nominated header", "GET http://%s/n HTTP/1.1\r\nHost: x\r\nConnection: x-secret\r\nX-Secret: 1\r\n\r\n", "GET /n"},
		{"no path", "GET http://%s HTTP/1.1\r\nHost: x\r\n\r\n", "GET /"},
	} {
		for _, pipelined := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, pipelined %v", tc.name, pipelined), func(t *testing.T) {
				o := newOrigin(t, func(c net.Conn) {
					for in := bufio.NewReader(c); ; {
						head, err := readHead(in)
						if err != nil {
							return
						}
						if strings.HasPrefix(head, "POST") {
							_, _ = in.Discard(4)
						}
						line, _, _ := strings.Cut(head, " HTTP")
						if strings.Contains(head, "Secret") {
							line = "a header that is none of its business"
						}
						fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(line), line)
					}
				})
				r := start(t, setup{}, false)
				c := r.dial()
				next := fmt.Sprintf(tc.next, o)
				if pipelined {
					c.send(get(o, "/first", "") + next)
				} else {
					c.send(get(o, "/first", ""))
				}
				if a := c.answer("GET"); a.body != "GET /first" {
					t.Fatalf("first answer %q", a.body)
				}
				if !pipelined {
					c.send(next)
				}
				if a := c.answer("GET"); a.body != tc.want {
					t.Fatalf("next answer %q", a.body)
				}
				c.send(get(o, "/last", ""))
				if a := c.answer("GET"); a.body != "GET /last" {
					t.Fatalf("last answer %q", a.body)
				}
				await(t, "the connection to leave the short way", func() bool { return r.quickClients() == 0 })
				c.Close()
				if list := r.stop(); len(list) != 3 {
					t.Errorf("%d records, want 3", len(list))
				}
			})
		}
	}
}

// Answers that the short way cannot read go the general way; those that it can
// are asked for once.
func TestQuickOddAnswers(t *testing.T) {
	for _, tc := range []struct {
		name, answer string
		asked        int32
	}{
		{"bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 2},
		{"1xx first", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1},
		{"nominated header", "HTTP/1.1 200 OK\r\nConnection: X-Y\r\nX-Y: 1\r\nContent-Length: 2\r\n\r\nok", 2},
		{"offer of an upgrade", "HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade, Keep-Alive\r\nContent-Length: 2\r\n\r\nok", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var asked atomic.Int32
			o := newOrigin(t, func(c net.Conn) {
				for in := bufio.NewReader(c); ; {
					if _, err := readHead(in); err != nil {
						return
					}
					asked.Add(1)
					_, _ = io.WriteString(c, tc.answer)
				}
			})
			r := start(t, setup{}, false)
			c := r.dial()
			c.send(get(o, "/", ""))
			a := c.answer("GET")
			for a.StatusCode == 103 {
				a = c.answer("GET")
			}
			if a.StatusCode != 200 || a.body != "ok" || a.Header.Get("Upgrade") != "" || a.Header.Get("X-Y") != "" {
				t.Errorf("answer %+v %q", a.Response, a.body)
			}
			c.Close()
			if n := asked.Load(); n != tc.asked {
				t.Errorf("the origin was asked %d times, want %d", n, tc.asked)
			}
			if rec := r.record(); rec.Status != 200 || rec.Down != 2 {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// An answer that has two lengths is no way to smuggle another one past.
func TestQuickRefusesAmbiguousAnswers(t *testing.T) {
	o := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 60\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
	r := start(t, setup{}, false)
	c := r.dial()
	c.send(get(o, "/", ""))
	if a := c.answer("GET"); a.StatusCode != 502 {
		t.Errorf("answer %s %q", a.Status, a.body)
	}
	c.Close()
	r.record()
}

// More than was announced never becomes the answer to another request.
func TestQuickLeftoversAreNoAnswer(t *testing.T) {
	o := newOrigin(t, func(c net.Conn) {
		for in := bufio.NewReader(c); ; {
			head, err := readHead(in)
			if err != nil {
				return
			}
			line, _, _ := strings.Cut(head, " HTTP")
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", len(line), line)
		}
	})
	r := start(t, setup{}, false)
	c := r.dial()
	for i := range 5 {
		path := fmt.Sprintf("/%d", i)
		c.send(get(o, path, ""))
		if a := c.answer("GET"); a.body != "GET "+path {
			t.Fatalf("answer to %s: %q", path, a.body)
		}
	}
}

// Connections that the origin closes between requests, with or without a
// goodbye, or as the next one arrives, cost no request.
func TestQuickStaleConnections(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	const late = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	for name, second := range map[string]func(c *net.TCPConn, in *bufio.Reader){
		"closed while idle": func(c *net.TCPConn, in *bufio.Reader) {},
		"408 while idle":    func(c *net.TCPConn, in *bufio.Reader) { _, _ = io.WriteString(c, late) },
		"closed on the request": func(c *net.TCPConn, in *bufio.Reader) {
			_, _ = readHead(in)
		},
		"reset on the request": func(c *net.TCPConn, in *bufio.Reader) {
			_, _ = readHead(in)
			_ = c.SetLinger(0)
		},
		"408 on the request": func(c *net.TCPConn, in *bufio.Reader) {
			_, _ = readHead(in)
			_, _ = io.WriteString(c, late)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t, func(c net.Conn) {
				in := bufio.NewReader(c)
				if _, err := readHead(in); err != nil {
					return
				}
				_, _ = io.WriteString(c, ok)
				second(c.(*net.TCPConn), in)
			})
			r := start(t, setup{}, false)
			c := r.dial()
			for range 4 {
				c.send(get(o, "/", ""))
				c.expect(ok)
			}
			c.Close()
			for _, rec := range r.stop() {
				if rec.Status != 200 || rec.Error != "" {
					t.Errorf("record %+v", rec)
				}
			}
		})
	}
}

// An answer that was cut in its head is not asked for again, for the request may
// have been acted upon.
func TestQuickCutHead(t *testing.T) {
	var asked atomic.Int32
	o := newOrigin(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for range 2 {
			if _, err := readHead(in); err != nil {
				return
			}
			if asked.Add(1) == 1 {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			} else {
				_, _ = io.WriteString(c, "HTTP/1.1 200")
			}
		}
	})
	r := start(t, setup{}, false)
	c := r.dial()
	c.send(get(o, "/", ""))
	c.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	c.send(get(o, "/", ""))
	if a := c.answer("GET"); a.StatusCode != 502 {
		t.Errorf("answer %s", a.Status)
	}
	c.Close()
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
	if list := r.stop(); len(list) != 2 || list[1].Action != policy.Error {
		t.Errorf("records %+v", list)
	}
}

// A reload closes kept connections, also those that were in use: they were
// dialed by the old rules.
func TestReloadClosesKeptConnections(t *testing.T) {
	for name, general := range map[string]bool{"short way": false, "general way": true} {
		t.Run(name, func(t *testing.T) { reloadClosesKeptConnections(t, general) })
	}
}

func reloadClosesKeptConnections(t *testing.T, general bool) {
	asked, answer := make(chan struct{}), make(chan struct{})
	var conns atomic.Int32
	o := newOrigin(t, func(c net.Conn) {
		conns.Add(1)
		for in := bufio.NewReader(c); ; {
			if _, err := readHead(in); err != nil {
				return
			}
			asked <- struct{}{}
			<-answer
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	r := start(t, setup{}, general)
	c := r.dial()
	do := func(meanwhile func()) {
		t.Helper()
		c.send(get(o, "/", ""))
		<-asked
		meanwhile()
		answer <- struct{}{}
		c.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
	nothing := func() {}
	do(nothing)
	do(nothing)
	if n := conns.Load(); n != 1 {
		t.Fatalf("%d connections before the reload", n)
	}
	r.server.Apply(r.state(setup{}))
	do(nothing)
	if n := conns.Load(); n != 2 {
		t.Fatalf("%d connections, the second after a reload", n)
	}
	do(func() { r.server.Apply(r.state(setup{})) })
	do(nothing)
	if n := conns.Load(); n != 3 {
		t.Fatalf("%d connections, the third after a reload during a request", n)
	}
	r.server.Apply(r.state(setup{guarded: true}))
	c.send(get(o, "/", ""))
	if a := c.answer("GET"); a.StatusCode != 403 {
		t.Errorf("a kept connection got past the address guard: %s", a.Status)
	}
}

// A reload between the decision and the connection keeps none either, by rules
// that are not in force any more.
func TestReloadAmidRequest(t *testing.T) {
	closed := make(chan struct{})
	o := newOrigin(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		if _, err := readHead(in); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_, _ = in.ReadByte()
		close(closed)
	})
	var r *rig
	reload := func(req *http.Request, _ *goproxy.ProxyCtx) (*http.Request, *http.Response) {
		r.server.Apply(r.state(setup{}))
		return req, nil
	}
	r = start(t, setup{prepare: func(s *Server) { s.forward.proxy.OnRequest().DoFunc(reload) }}, true)
	c := r.dial()
	c.send("POST http://" + o.String() + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	if a := c.answer("POST"); a.body != "ok" {
		t.Fatalf("%s %q", a.Status, a.body)
	}
	select {
	case <-closed:
	case <-time.After(limit):
		t.Error("the destination's connection is kept")
	}
}

// While the proxy drains, a client's exchange ends its connection, and one that
// waits is closed.
func TestQuickDrains(t *testing.T) {
	addr, asked, answer := slowOrigin(t)
	r := start(t, setup{}, false)
	o := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	waiting, busy := r.dial(), r.dial()
	waiting.send(get(o, "/", ""))
	waiting.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	busy.send(get(netip.MustParseAddrPort(addr), "/", ""))
	<-asked
	done := r.shutdown(context.Background())
	waiting.expectEnd()
	answer <- struct{}{}
	busy.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	busy.expectEnd()
	<-done
	if list := r.stop(); len(list) != 2 {
		t.Errorf("%d records", len(list))
	}
}

// An origin that does not answer does not hold up a shutdown whose time is over.
func TestQuickIsCut(t *testing.T) {
	addr, asked, answer := slowOrigin(t)
	defer close(answer)
	r := start(t, setup{}, false)
	c := r.dial()
	c.send(get(netip.MustParseAddrPort(addr), "/", ""))
	<-asked
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.server.Shutdown(ctx)
	if rec := r.record(); rec.Action != policy.Error || rec.Error != tunnel.ErrShutdown.Error() {
		t.Errorf("record %+v", rec)
	}
}

// What was handed to a listener before it closed is accepted, and what comes
// later is closed.
func TestHandedListener(t *testing.T) {
	l := newHandedListener(nil)
	a, b := net.Pipe()
	defer b.Close()
	if !l.hand(a) {
		t.Fatal("not taken")
	}
	l.Close()
	if c, err := l.Accept(); err != nil || c != a {
		t.Errorf("accepted %v, %v", c, err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepted after the end: %v", err)
	}
	if l.hand(a) {
		t.Error("taken after the end")
	}
	_ = b.SetDeadline(time.Now().Add(limit))
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("not closed: %v", err)
	}
}
