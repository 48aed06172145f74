package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"espalier/policy"
)

// bothAsk runs test with the two ways that ask an origin: the short one, and
// that of http.Transport. ask returns a request of the way.
func bothAsk(t *testing.T, test func(t *testing.T, r *rig, ask func(at fmt.Stringer, path string) string)) {
	t.Run("short", func(t *testing.T) {
		test(t, start(t, setup{}, false), func(at fmt.Stringer, path string) string { return get(at, path, "") })
	})
	t.Run("general", func(t *testing.T) {
		test(t, start(t, setup{}, false), func(at fmt.Stringer, path string) string {
			return get(at, path, "TE: trailers\r\n") // nothing that the short way takes
		})
	})
}

// hostile is an origin that sends answer to requests for /bad, and its request
// line to others. It counts connections and requests for /bad.
type hostile struct {
	fmt.Stringer
	conns, asked atomic.Int32
}

func newHostile(t *testing.T, answer string, thenClose bool) *hostile {
	o := &hostile{}
	var open sync.Map // the proxy keeps connections for longer than a test
	defer t.Cleanup(func() {
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
	})
	o.Stringer = newOrigin(t, func(c net.Conn) {
		o.conns.Add(1)
		open.Store(c, nil)
		for in := bufio.NewReader(c); ; {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			if r.URL.Path != "/bad" {
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(r.URL.Path), r.URL.Path)
				continue
			}
			o.asked.Add(1)
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
			if thenClose {
				return
			}
		}
	})
	return o
}

// evil is what would be taken for another answer.
const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

// Answers whose framing is wrong become 502, once; their connection is not used
// again, and the client's goes on.
func TestHostileHeads(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	long := strings.Repeat("a", 64<<10)
	bothAsk(t, func(t *testing.T, r *rig, ask func(fmt.Stringer, string) string) {
		for _, tt := range []struct{ name, answer string }{
			{"Content-Length and Transfer-Encoding", ok + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil},
			{"two lengths", ok + "Content-Length: 0\r\nContent-Length: 100\r\n\r\n" + evil},
			{"two equal lengths", ok + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nevil"},
			{"a list of lengths", ok + "Content-Length: 0, 100\r\n\r\n" + evil},
			{"a list of equal lengths", ok + "Content-Length: 0, 0\r\n\r\n" + evil},
			{"a negative length", ok + "Content-Length: -1\r\n\r\n" + evil},
			{"a length with a plus", ok + "Content-Length: +0\r\n\r\n" + evil},
			{"a length in hexadecimal", ok + "Content-Length: 0x0\r\n\r\n" + evil},
			{"a length too long for 64 bits", ok + "Content-Length: 18446744073709551616\r\n\r\n" + evil},
			{"an empty length", ok + "Content-Length:\r\n\r\n" + evil},
			{"an unknown encoding", ok + "Transfer-Encoding: xchunked\r\n\r\n" + evil},
			{"gzip, chunked", ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + evil},
			{"chunked, identity", ok + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + evil},
			{"chunked twice", ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil},
			{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil},
			{"chunked behind a vertical tab", ok + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + evil},
			{"a blank before a colon", ok + "Content-Length : 0\r\n\r\n" + evil},
			{"a folded line", ok + "X: a\r\n Content-Length: 0\r\n\r\n" + evil},
			{"a bare CR in a value", ok + "X: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n" + evil},
			{"NUL in a value", ok + "X: a\x00b\r\nContent-Length: 0\r\n\r\n"},
			{"NUL in a name", ok + "X\x00: b\r\nContent-Length: 0\r\n\r\n"},
			{"an escape sequence", ok + "X: \x1b[2J\r\nContent-Length: 0\r\n\r\n"},
			{"a line without a colon", ok + "nonsense\r\nContent-Length: 0\r\n\r\n"},
			{"an empty name", ok + ": x\r\nContent-Length: 0\r\n\r\n"},
			{"a garbage status line", "garbage\r\n\r\n" + evil},
			{"HTTP/0.9", "<html>hello</html>\r\n\r\n"},
			{"ICY", "ICY 200 OK\r\nContent-Length: 0\r\n\r\n"},
			{"HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
			{"HTTP/1.10", "HTTP/1.10 200 OK\r\nContent-Length: 0\r\n\r\n"},
			{"a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"},
			{"a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"},
			{"a status of letters", "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n"},
			{"a negative status", "HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n"},
			{"status 000", "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"},
			{"status 099", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"},
			{"a control character in the reason", "HTTP/1.1 200 O\x1bK\r\nContent-Length: 0\r\n\r\n"},
			{"a bare CR in the reason", "HTTP/1.1 200 O\rSet-Cookie: x\r\nContent-Length: 0\r\n\r\n"},
			{"too many headers", ok + strings.Repeat("A: b\r\n", 201) + "Content-Length: 0\r\n\r\n"},
			{"a header too large", ok + "A: " + long + "\r\nContent-Length: 0\r\n\r\n"},
			{"endless headers", ok + strings.Repeat("A: b\r\n", 20_000)},
			{"a head without an end", ok + long + long},
			{"a switch that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + evil},
			{"a switch without Upgrade", "HTTP/1.1 101 Switching Protocols\r\n\r\n" + evil},
			{"endless interim answers", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 1000)},
			{"an interim answer with a bad line", "HTTP/1.1 103 Early Hints\r\nLink : x\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				o := newHostile(t, tt.answer, false)
				c := dial(t, r.listener.Addr().String())
				c.send(ask(o, "/before"))
				if a := c.answer("GET"); a.body != "/before" {
					t.Fatalf("the first answer is %s %q", a.Status, a.body)
				}
				c.send(ask(o, "/bad"))
				a := c.answer("GET")
				for interims := 0; a.StatusCode == 103 && interims <= 10; interims++ {
					a = c.answer("GET")
				}
				if a.StatusCode != 502 || a.Header.Get("Proxy-Status") != "espalier; error=http_protocol_error" || a.err != nil {
					t.Errorf("%s %q %q", a.Status, a.Header.Get("Proxy-Status"), a.body)
				}
				if n := o.asked.Load(); n != 1 {
					t.Errorf("asked %d times", n)
				}
				c.send(ask(o, "/after"))
				if a := c.answer("GET"); a.body != "/after" {
					t.Errorf("the next answer is %s %q", a.Status, a.body)
				}
				if n := o.conns.Load(); n != 2 {
					t.Errorf("%d connections, want one before and one after", n)
				}
			})
		}
		for _, rec := range r.stop() {
			if strings.HasSuffix(rec.URL, "/bad") && (rec.Action != policy.Error || !strings.HasPrefix(rec.Error, "malformed answer: ")) {
				t.Errorf("record %+v", rec)
			}
		}
	})
}

// Bodies that are not what their heads say: the client gets what was announced or
// a cut connection, and no other request an answer from what is left.
func TestHostileBodies(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	bothAsk(t, func(t *testing.T, r *rig, ask func(fmt.Stringer, string) string) {
		for _, tt := range []struct {
			name, method, answer string
			close                bool   // by the origin, behind the answer
			body                 string // the client's
			cut                  bool
		}{
			{name: "more than announced", answer: ok + "Content-Length: 2\r\n\r\nok" + evil, body: "ok"},
			{name: "more than nothing", answer: ok + "Content-Length: 0\r\n\r\n" + evil},
			{name: "a body of HEAD", method: "HEAD", answer: ok + "Content-Length: 4\r\n\r\nevil"},
			{name: "chunks of HEAD", method: "HEAD", answer: ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"},
			{name: "another answer behind HEAD", method: "HEAD", answer: ok + "\r\n" + evil},
			{name: "a body of 204", answer: "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil"},
			{name: "chunks of 204", answer: "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"},
			{name: "a body of 304", answer: "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil"},
			{name: "more than the chunks", answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + evil, body: "ok"},
			{name: "less than announced", answer: ok + "Content-Length: 10\r\n\r\nok", close: true, body: "ok", cut: true},
			{name: "chunks without an end", answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", close: true, body: "ok", cut: true},
			{name: "a chunk that is no number", answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nxyz\r\n" + evil, body: "ok", cut: true},
			{name: "a negative chunk", answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n-1\r\n" + evil, body: "ok", cut: true},
			{name: "a chunk size that overflows", answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n10000000000000002\r\n" + evil, body: "ok", cut: true},
			{name: "bare LF behind a chunk size", answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2\nok\r\n0\r\n\r\n", body: "ok", cut: true},
			{name: "more data than the chunk has", answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2\r\nokay\r\n0\r\n\r\n", body: "okok", cut: true},
			{name: "an endless extension", answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2;" + strings.Repeat("a", 10_000) + "\r\nok\r\n0\r\n\r\n", body: "ok", cut: true},
			{name: "endless trailers", answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + strings.Repeat("A: b\r\n", 20_000), body: "ok", cut: true},
		} {
			t.Run(tt.name, func(t *testing.T) {
				o := newHostile(t, tt.answer, tt.close)
				c := dial(t, r.listener.Addr().String())
				if tt.method == "" {
					tt.method = "GET"
				}
				c.send(strings.Replace(ask(o, "/bad"), "GET", tt.method, 1))
				resp, err := http.ReadResponse(c.in, &http.Request{Method: tt.method})
				if err == nil {
					var body []byte
					body, err = io.ReadAll(resp.Body)
					if !strings.HasPrefix(tt.body, string(body)) || err == nil && string(body) != tt.body {
						t.Errorf("body %q", body)
					}
				}
				if (err != nil) != tt.cut {
					t.Errorf("the answer ends with %v", err)
				}
				if resp != nil && resp.StatusCode == 204 && (resp.Header.Get("Content-Length") != "" || resp.TransferEncoding != nil) {
					t.Errorf("204 with %v %v", resp.Header, resp.TransferEncoding)
				}
				if tt.cut {
					c = dial(t, r.listener.Addr().String())
				}
				for i := range 3 {
					path := fmt.Sprint("/after", i)
					c.send(ask(o, path))
					if a := c.answer("GET"); a.StatusCode != 200 || a.body != path {
						t.Errorf("a later answer is %s %q", a.Status, a.body)
					}
				}
				if n := o.asked.Load(); n != 1 {
					t.Errorf("asked %d times", n)
				}
			})
		}
	})
}

// What an origin sends while nobody asks is no answer to anybody.
func TestUnaskedAnswers(t *testing.T) {
	bothAsk(t, func(t *testing.T, r *rig, ask func(fmt.Stringer, string) string) {
		send, sent := make(chan struct{}), make(chan struct{})
		o := newOrigin(t, func(c net.Conn) {
			for in := bufio.NewReader(c); ; {
				q, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(q.URL.Path), q.URL.Path)
				if q.URL.Path == "/first" {
					<-send
					_, _ = io.WriteString(c, evil)
					close(sent)
				}
			}
		})
		a, b := r.dial(), r.dial()
		a.send(ask(o, "/first"))
		if x := a.answer("GET"); x.body != "/first" {
			t.Fatalf("%s %q", x.Status, x.body)
		}
		close(send)
		<-sent
		b.send(ask(o, "/second"))
		if x := b.answer("GET"); x.body != "/second" {
			t.Errorf("%s %q", x.Status, x.body)
		}
		r.stop() // so that the origin's connections end
	})
}

// Interim answers reach the client in order, without what concerns a connection.
func TestInterimAnswers(t *testing.T) {
	const hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: close\r\nKeep-Alive: 1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\nProxy-Authenticate: x\r\nUpgrade: h2c\r\n\r\n"
	const processing = "HTTP/1.1 102 Processing\r\n\r\n"
	const final = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n/bad"
	wantHints := strings.Join([]string{"HTTP/1.1 103 Early Hints", "Link: </a.css>; rel=preload"}, "\r\n") + "\r\n\r\n"
	for _, tt := range []struct {
		name, answer, want string
		request            string // in place of the way's
	}{
		{name: "hints", answer: strings.Replace(hints, "Transfer-Encoding: chunked\r\n", "", 1) + final, want: wantHints + final},
		{name: "several", answer: processing + strings.Replace(hints, "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "", 1) + processing + final, want: processing + wantHints + processing + final},
		{name: "nominated", answer: "HTTP/1.1 103 Early Hints\r\nLink: x\r\nX-Hop: 1\r\nConnection: x-hop\r\n\r\n" + final, want: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + final},
		{name: "100 to whom does not wait for it", answer: "HTTP/1.1 100 Continue\r\n\r\n" + final, want: final},
		{name: "as many as may be", answer: strings.Repeat(processing, 10) + final, want: strings.Repeat(processing, 10) + final},
		{name: "not in HTTP/1.0", request: "GET http://%s/bad HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", answer: strings.Replace(hints, "Transfer-Encoding: chunked\r\n", "", 1) + final,
			want: "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\n/bad"},
		{name: "of a POST", request: "POST http://%s/bad HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok", answer: processing + final, want: processing + final},
	} {
		bothAsk(t, func(t *testing.T, r *rig, ask func(fmt.Stringer, string) string) {
			t.Run(tt.name, func(t *testing.T) {
				o := newHostile(t, tt.answer, false)
				c := dial(t, r.listener.Addr().String())
				request := ask(o, "/bad")
				if tt.request != "" {
					request = strings.ReplaceAll(tt.request, "%s", o.String())
				}
				c.send(request)
				c.expect(tt.want)
				c.send(ask(o, "/after"))
				c.expect("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n/after")
			})
		})
	}
}

// A request is sent again only where it is safe to, and once.
func TestAsksAgain(t *testing.T) {
	for _, tt := range []struct {
		method, fields, body string
		again                bool
	}{
		{"GET", "", "", true},
		{"GET", "TE: trailers\r\n", "", true}, // by the general way
		{"HEAD", "", "", true},
		{"OPTIONS", "", "", true},
		{"POST", "Content-Length: 0\r\n", "", false},
		{"POST", "Content-Length: 2\r\n", "ok", false},
		{"PUT", "Content-Length: 2\r\n", "ok", false},
		{"DELETE", "", "", true},
		{"PATCH", "Content-Length: 2\r\n", "ok", false},
		{"FROB", "", "", false},
	} {
		everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
			t.Run(tt.method+" "+tt.body+tt.fields, func(t *testing.T) {
				var asked atomic.Int32
				o := newOrigin(t, func(c net.Conn) {
					for in, first := bufio.NewReader(c), true; ; first = false {
						q, err := http.ReadRequest(in)
						if err != nil {
							return
						}
						_, _ = io.Copy(io.Discard, q.Body)
						if q.URL.Path == "/count" {
							asked.Add(1)
							if !first {
								return // a kept connection ends as the request comes
							}
						}
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					}
				})
				r := start(t, setup{})
				c := r.dial()
				request := tt.method + " http://%s%s HTTP/1.1\r\nHost: x\r\n" + tt.fields + "\r\n" + tt.body
				c.send(fmt.Sprintf(request, o, "/first"))
				if a := c.answer(tt.method); a.StatusCode != 200 {
					t.Fatalf("%s", a.Status)
				}
				c.send(fmt.Sprintf(request, o, "/count"))
				times := int32(1) // on a connection of its own
				if tt.again {
					times = 2
				}
				if a := c.answer(tt.method); a.StatusCode != 200 {
					t.Errorf("%s", a.Status)
				}
				if n := asked.Load(); n != times {
					t.Errorf("asked %d times, want %d", n, times)
				}
			})
		})
	}
}

// What concerns the connection to the origin does not reach the client, and
// nobody can have that taken out which frames an answer.
func TestHopByHopOfAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, tt := range []struct {
		name, answer string
		want         []string
	}{
		{"each header", ok + "Connection: keep-alive\r\nProxy-Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nUpgrade: h2c\r\n" +
			"Proxy-Authenticate: Basic\r\nProxy-Authorization: x\r\nProxy-Authentication-Info: x\r\nX: y\r\nContent-Length: 4\r\n\r\n/bad",
			[]string{"HTTP/1.1 200 OK", "Content-Length: 4", "X: y"}},
		{"nominated ones", ok + "Connection: x-a,, X-B ,keep-alive\r\nConnection:\tx-c\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\nX-D: 4\r\nContent-Length: 4\r\n\r\n/bad",
			[]string{"HTTP/1.1 200 OK", "Content-Length: 4", "X-D: 4"}},
		{"a nominated length", ok + "Connection: Content-Length\r\nContent-Length: 4\r\n\r\n/bad",
			[]string{"HTTP/1.1 200 OK", "Content-Length: 4"}},
		{"a WebSocket in an answer that is none", ok + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\n/bad",
			[]string{"HTTP/1.1 200 OK", "Content-Length: 4"}},
		{"an upgrade that is required", "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 4\r\n\r\n/bad",
			[]string{"HTTP/1.1 426 Upgrade Required", "Content-Length: 4"}},
		{"an end", ok + "Connection: close\r\nContent-Length: 4\r\n\r\n/bad",
			[]string{"HTTP/1.1 200 OK", "Content-Length: 4"}},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\n/bad",
			[]string{"HTTP/1.1 200 OK", "Content-Length: 4"}},
	} {
		bothAsk(t, func(t *testing.T, r *rig, ask func(fmt.Stringer, string) string) {
			t.Run(tt.name, func(t *testing.T) {
				o := newHostile(t, tt.answer, false)
				c := dial(t, r.listener.Addr().String())
				c.send(ask(o, "/bad"))
				head, err := readHead(c.in)
				if err != nil {
					t.Fatal(err)
				}
				compareLines(t, "client", head, tt.want...)
				c.expect("/bad")
				c.send(ask(o, "/after"))
				if a := c.answer("GET"); a.body != "/after" {
					t.Errorf("the next answer is %s %q", a.Status, a.body)
				}
			})
		})
	}
}

// A connection changes its protocol only to a WebSocket, and only where both
// sides say so.
func TestSwitchingProtocols(t *testing.T) {
	const socket = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
	for _, tt := range []struct {
		name, fields, answer string
		want                 int
	}{
		{"to a WebSocket", socket, socket + "Keep-Alive: 1\r\nContent-Length: 4\r\n", 101},
		{"to nothing", socket, "", 502},
		{"to HTTP/2", socket, "Connection: Upgrade\r\nUpgrade: h2c\r\n", 502},
		{"that was not asked for", "TE: trailers\r\n", socket, 502},
		{"to HTTP/2 that was asked for", "Connection: Upgrade\r\nUpgrade: h2c\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n", 502},
		{"from a request with a body", socket + "Content-Length: 2\r\n", socket, 502},
	} {
		everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
			t.Run(tt.name, func(t *testing.T) {
				o := newHostile(t, "HTTP/1.1 101 Switching Protocols\r\n"+tt.answer+"\r\nraw", true)
				r := start(t, setup{})
				c := r.dial()
				body := ""
				if strings.Contains(tt.fields, "Content-Length") {
					body = "ok"
				}
				c.send(get(o, "/bad", tt.fields) + body)
				head, err := readHead(c.in)
				if err != nil || !strings.HasPrefix(head, fmt.Sprintf("HTTP/1.1 %d ", tt.want)) {
					t.Fatalf("%q, %v", head, err)
				}
				if tt.want == 101 {
					compareLines(t, "client", head, "HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket")
					c.expect("raw")
				} else if strings.Contains(c.rest(), "raw") {
					t.Error("bytes of another protocol got through")
				}
			})
		})
	}
}

// rest ends the sending direction and reads what is left.
func (c *client) rest() string {
	_ = c.CloseWrite()
	b, _ := io.ReadAll(c.in)
	return string(b)
}
