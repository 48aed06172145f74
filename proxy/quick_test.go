package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"espalier/policy"
	"espalier/proxy/accesslog"
	"espalier/proxy/tunnel"
	"espalier/proxy/wire"
)

// get is a plain request of the strict common form.
func get(o fmt.Stringer, path, fields string) string { return plainLane.get(o, path, fields) }

// A lane is one of the two uses of the short way: by requests of a proxy, and by
// those within TLS that is intercepted.
type lane struct {
	name   string
	prefix string // of a request's target, before the authority; empty: there is none
	action policy.Action
	cert   *tls.Certificate // of destinations; nil: they are plain
	roots  *x509.CertPool
}

var plainLane = lane{name: "plain", prefix: "http://", action: policy.Forward}

// eachLane runs a test once in each lane.
func eachLane(t *testing.T, f func(t *testing.T, l lane)) {
	t.Run(plainLane.name, func(t *testing.T) { f(t, plainLane) })
	t.Run("intercepted", func(t *testing.T) { f(t, interceptedLane(t)) })
}

func interceptedLane(t *testing.T) lane {
	t.Helper()
	site := newSite(t, nil)
	return lane{name: "intercepted", action: policy.Inspect, cert: &site.TLS.Certificates[0], roots: site.roots}
}

// start starts a proxy whose clients are served in the lane.
func (l lane) start(t *testing.T, c setup) *rig { return start(t, l.setup(c), false) }

func (l lane) setup(c setup) setup {
	if l.cert != nil {
		c.inspect, c.roots = policy.InspectAll, l.roots
	}
	return c
}

// target is what a request in the lane names.
func (l lane) target(o fmt.Stringer, path string) string {
	if l.prefix == "" {
		return path
	}
	return l.prefix + o.String() + path
}

func (l lane) scheme() string {
	if l.cert == nil {
		return "http"
	}
	return "https"
}

// get is a request of the strict common form.
func (l lane) get(o fmt.Stringer, path, fields string) string {
	return "GET " + l.target(o, path) + " HTTP/1.1\r\nHost: " + o.String() + "\r\n" + fields + "\r\n"
}

// dial opens a connection for requests to o.
func (l lane) dial(r *rig, o fmt.Stringer, headers ...string) *client {
	r.t.Helper()
	c := r.dial()
	if l.cert == nil {
		return c
	}
	c.send(connectTo(o.String(), headers...))
	c.expect(established)
	conn := c.secure(&tls.Config{ServerName: "127.0.0.1", RootCAs: r.trusted()})
	if err := conn.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	return c.within(conn)
}

// newOrigin is a destination of the lane.
func (l lane) newOrigin(t *testing.T, handle func(c net.Conn)) netip.AddrPort {
	t.Helper()
	return newOrigin(t, func(c net.Conn) {
		if l.cert == nil {
			handle(c)
			return
		}
		conn := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*l.cert}})
		if conn.Handshake() == nil {
			handle(conn)
		}
		conn.Close()
	})
}

func (l lane) newAnswering(t *testing.T, answer string) *answering {
	t.Helper()
	o := &answering{}
	o.AddrPort = l.newOrigin(t, o.serve(answer))
	return o
}

// records are those of requests: without the CONNECT that holds them.
func (l lane) records(r *rig) []accesslog.Record {
	r.t.Helper()
	_, inner := byMethod(r.stop())
	return inner
}

// record is the one record of a request that there must be.
func (l lane) record(r *rig) accesslog.Record {
	r.t.Helper()
	list := l.records(r)
	if len(list) != 1 {
		r.t.Fatalf("%d records, want 1: %+v", len(list), list)
	}
	return list[0]
}

// Every byte of a request and of its answer passes as it was sent, but for the
// lines that concern one connection.
func TestQuickChangesNothing(t *testing.T) { eachLane(t, quickChangesNothing) }

func quickChangesNothing(t *testing.T, l lane) {
	o := l.newAnswering(t, "HTTP/1.1 203 Non-Authoritative, \xe9\r\nx-OdD-cASE:   spaced  \r\nContent-LENGTH: 2\r\nKeep-Alive: timeout=5\r\nX: 1\r\nX: 2\r\nConnection: Keep-Alive\r\n\r\nok")
	r := l.start(t, setup{})
	c := l.dial(r, o)
	host := o.String()
	if l.prefix != "" {
		host = "ignored.test"
	}
	c.send("GET " + l.target(o, "/a//b/../%7e?q=1&x=%20") + " HTTP/1.1\r\n" +
		"hOST: " + host + "\r\nx-fIRST:\t1 \r\nAccept: a\r\nProxy-Authorization: Basic eDp5\r\nAccept: b\r\nEmpty:\r\n" +
		"Proxy-Connection: keep-alive\r\nKeep-Alive: 300\r\nConnection: keep-alive\r\n\r\n")
	c.expect("HTTP/1.1 203 Non-Authoritative, \xe9\r\nx-OdD-cASE:   spaced  \r\nContent-LENGTH: 2\r\nX: 1\r\nX: 2\r\n\r\nok")
	c.Close()
	want := "GET /a//b/../%7e?q=1&x=%20 HTTP/1.1\r\nhOST: " + o.String() + "\r\nx-fIRST:\t1 \r\nAccept: a\r\nAccept: b\r\nEmpty:\r\n\r\n"
	if heads, _ := o.seen(); len(heads) != 1 || heads[0] != want {
		t.Errorf("the origin saw %q, want %q", heads, want)
	}
	if rec := l.record(r); rec.Status != 203 || rec.Down != 2 || rec.Up != 0 || rec.Action != l.action || rec.Error != "" {
		t.Errorf("record %+v", rec)
	}
}

// Bodies of every framing arrive byte for byte, and say whether the connections
// stay.
func TestQuickBodies(t *testing.T) { eachLane(t, quickBodies) }

func quickBodies(t *testing.T, l lane) {
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
			o := l.newOrigin(t, func(c net.Conn) {
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
			r := l.start(t, setup{})
			c := l.dial(r, o)
			req := strings.Replace(l.get(o, "/", ""), "GET", tc.method, 1)
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
			list := l.records(r)
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
func TestQuickCutBodies(t *testing.T) { eachLane(t, quickCutBodies) }

func quickCutBodies(t *testing.T, l lane) {
	const first = "HTTP/1.1 200 OK\r\n"
	for name, answer := range map[string]string{
		"length":          first + "Content-Length: 10\r\n\r\nhello",
		"chunked":         first + "Transfer-Encoding: chunked\r\n\r\na\r\nhello",
		"between chunks":  first + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"malformed chunk": first + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			o := l.newOrigin(t, func(c net.Conn) {
				_, _ = readHead(bufio.NewReader(c))
				_, _ = io.WriteString(c, answer)
			})
			r := l.start(t, setup{})
			c := l.dial(r, o)
			c.send(l.get(o, "/", ""))
			if _, err := io.ReadAll(c.in); err == nil {
				t.Error("the answer ends in order")
			}
			if rec := l.record(r); rec.Action != policy.Error || !strings.HasPrefix(rec.Error, "read the answer's body: ") || rec.Status != 200 {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// A client that leaves during a body is not the origin's fault.
func TestQuickClientLeaves(t *testing.T) { eachLane(t, quickClientLeaves) }

func quickClientLeaves(t *testing.T, l lane) {
	o := l.newOrigin(t, func(c net.Conn) {
		_, _ = readHead(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		for buf := make([]byte, 1<<20); ; {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	})
	r := l.start(t, setup{})
	c := l.dial(r, o)
	c.send(l.get(o, "/", ""))
	c.expect("HTTP/1.1 200 OK\r\n")
	_ = c.SetLinger(0)
	c.Close()
	if rec := l.record(r); rec.Action != l.action || rec.Error != "client_closed" {
		t.Errorf("record %+v", rec)
	}
}

// A client that ends its direction right behind the request gets the answer, and
// is not taken for one that does not like the certificate.
func TestQuickGoodbyeBehindRequest(t *testing.T) { eachLane(t, quickGoodbyeBehindRequest) }

func quickGoodbyeBehindRequest(t *testing.T, l lane) {
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			o := l.newAnswering(t, answer)
			r := l.start(t, setup{})
			if l.cert == nil {
				c := r.dial()
				c.send(l.get(o, "/", ""))
				_ = c.CloseWrite()
				c.expect(answer)
				c.expectEnd()
			} else {
				c := r.connected(o.String())
				together := &gathering{Conn: c.TCPConn}
				conn := tls.Client(together, &tls.Config{ServerName: "127.0.0.1", RootCAs: r.trusted(), MaxVersion: version})
				if err := conn.Handshake(); err != nil {
					t.Fatal(err)
				}
				together.hold = true
				_, _ = io.WriteString(conn, l.get(o, "/", ""))
				_ = conn.CloseWrite()
				_ = c.SetDeadline(time.Now().Add(limit))
				if _, err := c.Write(together.held); err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(conn); string(got) != answer || err != nil {
					t.Errorf("received %q, %v", got, err)
				}
			}
			connects, inner := byMethod(r.stop())
			if len(inner) != 1 || inner[0].Status != 200 || inner[0].Error != "" {
				t.Errorf("records %+v", inner)
			}
			for _, rec := range connects {
				if rec.Error != "" {
					t.Errorf("record %+v", rec)
				}
			}
		})
	}
}

// gathering is a connection that keeps what is written while hold is set.
type gathering struct {
	net.Conn
	hold bool
	held []byte
}

func (c *gathering) Write(p []byte) (int, error) {
	if !c.hold {
		return c.Conn.Write(p)
	}
	c.held = append(c.held, p...)
	return len(p), nil
}

// A client that leaves while its answer is waited for does not keep the
// destination waiting; one that asks for more does not count as gone.
func TestQuickClientLeavesBeforeTheAnswer(t *testing.T) {
	eachLane(t, func(t *testing.T, l lane) {
		for _, tt := range []struct {
			name  string
			leave func(c *client)
		}{
			{"in order", func(c *client) {
				if conn, ok := c.out.(*tls.Conn); ok {
					conn.Close()
				}
				c.Close()
			}},
			{"without a goodbye", func(c *client) { c.Close() }},
			{"by a reset", func(c *client) { _ = c.SetLinger(0); c.Close() }},
		} {
			t.Run(tt.name, func(t *testing.T) {
				asked, left := make(chan struct{}), make(chan struct{})
				o := l.newOrigin(t, func(c net.Conn) {
					in := bufio.NewReader(c)
					if _, err := readHead(in); err != nil {
						return
					}
					close(asked)
					_, _ = in.ReadByte()
					close(left)
				})
				r := l.start(t, setup{timeouts: Timeouts{HalfClosed: short, Watch: 1}})
				c := l.dial(r, o)
				c.send(l.get(o, "/", ""))
				<-asked
				tt.leave(c)
				select {
				case <-left:
				case <-time.After(limit):
					t.Error("the destination is kept waiting")
				}
				if rec := l.record(r); rec.Action != l.action || rec.Status != 0 || rec.Error != "client_closed" {
					t.Errorf("record %+v", rec)
				}
			})
		}
	})
}

// What a client sends while the answer is waited for is the next request.
func TestQuickAsksAheadOfASlowAnswer(t *testing.T) { eachLane(t, quickAsksAheadOfASlowAnswer) }

func quickAsksAheadOfASlowAnswer(t *testing.T, l lane) {
	asked, answer := make(chan struct{}), make(chan struct{})
	o := l.newOrigin(t, func(c net.Conn) {
		for in := bufio.NewReader(c); ; {
			head, err := readHead(in)
			if err != nil {
				return
			}
			asked <- struct{}{}
			<-answer
			line, _, _ := strings.Cut(head, " HTTP")
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(line), line)
		}
	})
	r := l.start(t, hurried(func(t *Timeouts) { t.Watch = 1 }))
	c := l.dial(r, o)
	c.send(l.get(o, "/1", ""))
	<-asked
	for i := range 30 {
		c.send(l.get(o, fmt.Sprintf("/%d", i+2), ""))
		answer <- struct{}{}
		if a, want := c.answer("GET"), fmt.Sprintf("GET /%d", i+1); a.body != want {
			t.Fatalf("answer %q, want %q", a.body, want)
		}
		<-asked
	}
	answer <- struct{}{}
	if a := c.answer("GET"); a.body != "GET /31" {
		t.Fatalf("last answer %q", a.body)
	}
	c.Close()
	if list := l.records(r); len(list) != 31 {
		t.Errorf("%d records", len(list))
	}
}

// What comes may make TLS write, an alert or a new key. A peer that takes nothing
// holds nobody up by that.
func TestQuickWaitsForNoAlert(t *testing.T) {
	site := newSite(t, nil)
	// open returns a connection within TLS to a peer who has sent what is no record,
	// and reads nothing; alerted is closed when somebody tells it so.
	open := func(t *testing.T, client bool) (c net.Conn, alerted <-chan struct{}) {
		pipe, b := net.Pipe()
		t.Cleanup(func() { pipe.Close(); b.Close() })
		a := &telling{Conn: pipe, writes: make(chan struct{})}
		together := &gathering{Conn: b}
		trust := &tls.Config{ServerName: "example.com", RootCAs: site.roots}
		own := &tls.Config{Certificates: site.TLS.Certificates, SessionTicketsDisabled: true}
		conn, peer := tls.Client(a, trust), tls.Server(together, own)
		if client {
			conn, peer = tls.Server(a, own), tls.Client(together, trust)
		}
		go func() {
			if peer.Handshake() != nil {
				return
			}
			together.hold = true
			_, _ = io.WriteString(peer, "ok")
			_, _ = b.Write(append(together.held, "\x17\x03\x03\x00\x20"+strings.Repeat("x", 32)...))
		}()
		if _, err := io.ReadFull(conn, make([]byte, 2)); err != nil {
			t.Error(err)
		}
		a.armed = true
		return conn, a.writes
	}
	for name, f := range map[string]func(t *testing.T){
		"a kept connection": func(t *testing.T) {
			conn, _ := open(t, false)
			if wire.New(conn, nil).Quiet() {
				t.Error("it is taken for a good one")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			go func() { defer close(done); f(t) }()
			select {
			case <-done:
			case <-time.After(limit):
				t.Error("it waits")
			}
		})
	}
}

// telling is a connection that tells when it is written to for the first time after
// armed was set.
type telling struct {
	net.Conn
	armed  bool
	once   sync.Once
	writes chan struct{}
}

func (c *telling) Write(p []byte) (int, error) {
	if c.armed {
		c.once.Do(func() { close(c.writes) })
	}
	return c.Conn.Write(p)
}

// Requests that come together are answered in turn, over the same connections,
// whatever comes behind them.
func TestQuickPipelining(t *testing.T) { eachLane(t, quickPipelining) }

func quickPipelining(t *testing.T, l lane) {
	o := l.newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	r := l.start(t, setup{})
	c := l.dial(r, o)
	c.send(l.get(o, "/1", "") + l.get(o, "/2", "") + l.get(o, "/3", "Connection: close\r\n"))
	const answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
	c.expect(answer + "\r\nok" + answer + "\r\nok" + answer + "Connection: close\r\n\r\nok")
	c.expectEnd()
	heads, conns := o.seen()
	if len(heads) != 3 || conns != 1 || !strings.HasPrefix(heads[2], "GET /3 ") || strings.Contains(heads[2], "close") {
		t.Errorf("the origin saw %q on %d connections", heads, conns)
	}
	if list := l.records(r); len(list) != 3 {
		t.Errorf("%d records", len(list))
	}
}

// What the short way does not take goes on on the same connection, and nothing
// that was read is lost.
func TestQuickHandsOver(t *testing.T) { eachLane(t, quickHandsOver) }

func quickHandsOver(t *testing.T, l lane) {
	for _, tc := range []struct{ name, next, want string }{
		{"POST", "POST TARGET/ HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\n\r\nbody", "POST /"},
		{"trailers", "GET TARGET/u HTTP/1.1\r\nHost: HOST\r\nTE: trailers\r\n\r\n", "GET /u"},
		{"nominated header", "GET TARGET/n HTTP/1.1\r\nHost: HOST\r\nConnection: x-secret\r\nX-Secret: 1\r\n\r\n", "GET /n"},
		{"absolute URL", "GET SCHEME://HOST/a HTTP/1.1\r\nHost: HOST\r\nTE: trailers\r\n\r\n", "GET /a"},
		{"no path", "GET SCHEME://HOST HTTP/1.1\r\nHost: HOST\r\n\r\n", "GET /"},
	} {
		for _, pipelined := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, pipelined %v", tc.name, pipelined), func(t *testing.T) {
				o := l.newOrigin(t, func(c net.Conn) {
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
				r := l.start(t, setup{})
				c := l.dial(r, o)
				next := strings.NewReplacer("TARGET", l.target(o, ""), "HOST", o.String(), "SCHEME", l.scheme()).Replace(tc.next)
				if pipelined {
					c.send(l.get(o, "/first", "") + next)
				} else {
					c.send(l.get(o, "/first", ""))
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
				c.send(l.get(o, "/last", ""))
				if a := c.answer("GET"); a.body != "GET /last" {
					t.Fatalf("last answer %q", a.body)
				}
				c.Close()
				if list := l.records(r); len(list) != 3 {
					t.Errorf("%d records, want 3", len(list))
				}
			})
		}
	}
}

// Answers that the short way cannot read go the general way; those that it can
// are asked for once.
func TestQuickOddAnswers(t *testing.T) { eachLane(t, quickOddAnswers) }

func quickOddAnswers(t *testing.T, l lane) {
	for _, tc := range []struct {
		name, answer string
		asked        int32
	}{
		{"1xx first", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1},
		{"nominated header", "HTTP/1.1 200 OK\r\nConnection: X-Y\r\nX-Y: 1\r\nContent-Length: 2\r\n\r\nok", 1},
		{"offer of an upgrade", "HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade, Keep-Alive\r\nContent-Length: 2\r\n\r\nok", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var asked atomic.Int32
			o := l.newOrigin(t, func(c net.Conn) {
				for in := bufio.NewReader(c); ; {
					if _, err := readHead(in); err != nil {
						return
					}
					asked.Add(1)
					_, _ = io.WriteString(c, tc.answer)
				}
			})
			r := l.start(t, setup{})
			c := l.dial(r, o)
			c.send(l.get(o, "/", ""))
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
			if rec := l.record(r); rec.Status != 200 || rec.Down != 2 {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

// An answer that has two lengths is no way to smuggle another one past.
func TestQuickRefusesAmbiguousAnswers(t *testing.T) { eachLane(t, quickRefusesAmbiguousAnswers) }

func quickRefusesAmbiguousAnswers(t *testing.T, l lane) {
	o := l.newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 60\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
	r := l.start(t, setup{})
	c := l.dial(r, o)
	c.send(l.get(o, "/", ""))
	if a := c.answer("GET"); a.StatusCode != 502 {
		t.Errorf("answer %s %q", a.Status, a.body)
	}
	c.Close()
	l.record(r)
}

// More than was announced never becomes the answer to another request.
func TestQuickLeftoversAreNoAnswer(t *testing.T) { eachLane(t, quickLeftoversAreNoAnswer) }

func quickLeftoversAreNoAnswer(t *testing.T, l lane) {
	o := l.newOrigin(t, func(c net.Conn) {
		for in := bufio.NewReader(c); ; {
			head, err := readHead(in)
			if err != nil {
				return
			}
			line, _, _ := strings.Cut(head, " HTTP")
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", len(line), line)
		}
	})
	r := l.start(t, setup{})
	c := l.dial(r, o)
	for i := range 5 {
		path := fmt.Sprintf("/%d", i)
		c.send(l.get(o, path, ""))
		if a := c.answer("GET"); a.body != "GET "+path {
			t.Fatalf("answer to %s: %q", path, a.body)
		}
	}
}

// Connections that the origin closes between requests, with or without a
// goodbye, or as the next one arrives, cost no request.
func TestQuickStaleConnections(t *testing.T) { eachLane(t, quickStaleConnections) }

func quickStaleConnections(t *testing.T, l lane) {
	const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	const late = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	for name, second := range map[string]func(c net.Conn, in *bufio.Reader){
		"closed while idle": func(c net.Conn, in *bufio.Reader) {},
		"408 while idle":    func(c net.Conn, in *bufio.Reader) { _, _ = io.WriteString(c, late) },
		"closed on the request": func(c net.Conn, in *bufio.Reader) {
			_, _ = readHead(in)
		},
		"reset on the request": func(c net.Conn, in *bufio.Reader) {
			_, _ = readHead(in)
			if secure, ok := c.(*tls.Conn); ok {
				c = secure.NetConn()
			}
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		},
		"408 on the request": func(c net.Conn, in *bufio.Reader) {
			_, _ = readHead(in)
			_, _ = io.WriteString(c, late)
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := l.newOrigin(t, func(c net.Conn) {
				in := bufio.NewReader(c)
				if _, err := readHead(in); err != nil {
					return
				}
				_, _ = io.WriteString(c, ok)
				second(c, in)
			})
			r := l.start(t, setup{})
			c := l.dial(r, o)
			for range 4 {
				c.send(l.get(o, "/", ""))
				c.expect(ok)
			}
			c.Close()
			for _, rec := range l.records(r) {
				if rec.Status != 200 || rec.Error != "" {
					t.Errorf("record %+v", rec)
				}
			}
		})
	}
}

// An answer that was cut in its head is not asked for again, for the request may
// have been acted upon.
func TestQuickCutHead(t *testing.T) { eachLane(t, quickCutHead) }

func quickCutHead(t *testing.T, l lane) {
	var asked atomic.Int32
	o := l.newOrigin(t, func(c net.Conn) {
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
	r := l.start(t, setup{})
	c := l.dial(r, o)
	c.send(l.get(o, "/", ""))
	c.expect("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	c.send(l.get(o, "/", ""))
	if a := c.answer("GET"); a.StatusCode != 502 {
		t.Errorf("answer %s", a.Status)
	}
	c.Close()
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
	if list := l.records(r); len(list) != 2 || list[1].Action != policy.Error {
		t.Errorf("records %+v", list)
	}
}

// A reload closes kept connections, also those that were in use: they were
// dialed by the old rules.
func TestReloadClosesKeptConnections(t *testing.T) {
	for name, general := range map[string]bool{"short way": false, "general way": true} {
		t.Run(name, func(t *testing.T) {
			eachLane(t, func(t *testing.T, l lane) { reloadClosesKeptConnections(t, l, general) })
		})
	}
}

func reloadClosesKeptConnections(t *testing.T, l lane, general bool) {
	fields := ""
	if general {
		fields = "TE: trailers\r\n"
	}
	asked, answer := make(chan struct{}), make(chan struct{})
	var conns atomic.Int32
	o := l.newOrigin(t, func(c net.Conn) {
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
	r := start(t, l.setup(setup{}), general)
	c := l.dial(r, o)
	do := func(meanwhile func()) {
		t.Helper()
		c.send(l.get(o, "/", fields))
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
	r.server.Apply(r.state(l.setup(setup{})))
	do(nothing)
	if n := conns.Load(); n != 2 {
		t.Fatalf("%d connections, the second after a reload", n)
	}
	do(func() { r.server.Apply(r.state(l.setup(setup{}))) })
	do(nothing)
	if n := conns.Load(); n != 3 {
		t.Fatalf("%d connections, the third after a reload during a request", n)
	}
	if l.cert != nil {
		strangers := l.setup(setup{})
		strangers.roots = x509.NewCertPool()
		r.server.Apply(r.state(strangers))
		c.send(l.get(o, "/", fields))
		if a := c.answer("GET"); a.StatusCode != 502 {
			t.Errorf("a kept connection got past other roots: %s", a.Status)
		}
	}
	r.server.Apply(r.state(l.setup(setup{guarded: true})))
	c.send(l.get(o, "/", fields))
	if a := c.answer("GET"); a.StatusCode != 403 {
		t.Errorf("a kept connection got past the address guard: %s", a.Status)
	}
}

// A connection that was in use during a reload is not kept: it was dialed by rules that
// are not in force any more.
func TestReloadAmidRequest(t *testing.T) {
	closed := make(chan struct{})
	var r *rig
	o := newOrigin(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		if _, err := readHead(in); err != nil {
			return
		}
		r.server.Apply(r.state(setup{}))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_, _ = in.ReadByte()
		close(closed)
	})
	r = start(t, setup{}, true)
	c := r.dial()
	c.send("POST http://" + o.String() + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	if a := c.answer("POST"); a.body != "ok" {
		t.Fatalf("%s %q", a.Status, a.body)
	}
	select {
	case <-closed:
	case <-time.After(limit):
		t.Error("the origin's connection is kept")
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

// While the proxy drains, an intercepted client that was told that its CONNECT is
// established may still ask once, whichever way that goes; one that had its answer
// is closed.
func TestQuickDrainsIntercepted(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Method) })
	r := start(t, site.everything(), false)
	open := func() *client {
		c := r.connected(site.at("example.com"))
		conn := c.secure(&tls.Config{ServerName: "example.com", RootCAs: r.trusted()})
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		return c.within(conn)
	}
	ask := func(c *client, method string) {
		t.Helper()
		c.send(method + " / HTTP/1.1\r\nHost: " + site.at("example.com") + "\r\nContent-Type: x\r\n\r\n")
		if a := c.answer(method); a.body != method {
			t.Fatalf("%s %q", a.Status, a.body)
		}
	}
	quick, general, asked := open(), open(), open()
	ask(asked, "GET")
	await(t, "all sessions to be served", func() bool { return r.server.clients.Len() == 6 })
	done := r.shutdown(context.Background())
	asked.expectEnd()
	ask(quick, "GET")
	quick.expectEnd()
	ask(general, "DELETE")
	general.expectEnd()
	<-done
	if _, inner := byMethod(r.stop()); len(inner) != 3 {
		t.Errorf("%d records", len(inner))
	}
}
