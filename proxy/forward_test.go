package proxy

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/websocket"

	"espalier/policy"
)

// lines are a head's first line and its header lines, sorted by name. Neither the
// order of headers with different names has a meaning (RFC 9110, 5.3) nor how
// the name is written.
func lines(head string) []string {
	list := strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")
	for i, line := range list[1:] {
		name, value, _ := strings.Cut(line, ":")
		list[i+1] = http.CanonicalHeaderKey(name) + ":" + value
	}
	slices.SortStableFunc(list[1:], func(a, b string) int {
		a, _, _ = strings.Cut(a, ":")
		b, _, _ = strings.Cut(b, ":")
		return strings.Compare(a, b)
	})
	return list
}

func compareLines(t *testing.T, who, head string, want ...string) {
	t.Helper()
	if got := lines(head); !slices.Equal(got, want) {
		t.Errorf("the %s received\n%s\nwant\n%s", who, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Not a header is added and not one changed, but for those that concern a
// connection.
func TestForwardChangesNothing(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		for _, tt := range []struct {
			name             string
			request          string // %s is the origin
			wantRequest      []string
			answer           string
			wantAnswer       []string
			body             string
			status           int
			up, down         int64
			agent, url, host string
		}{
			{
				name:        "nothing but what must be",
				request:     "GET http://%s/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
				wantRequest: []string{"GET / HTTP/1.1", "Host: %s"},
				answer:      "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
				wantAnswer:  []string{"HTTP/1.1 200 OK", "Connection: close", "Content-Length: 2"},
				body:        "ok", status: 200, down: 2, url: "/",
			},
			{
				name: "headers of both",
				request: "GET http://%s/a/../b%%20c?q=1&q=%%zz HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\nAccept-Encoding: br\r\n" +
					"Cookie: a=b\r\nUser-Agent: Test/1\r\nX-One: 1\r\nX-One: 2\r\nConnection: close\r\n\r\n",
				wantRequest: []string{"GET /a/../b%20c?q=1&q=%zz HTTP/1.1", "Accept: */*", "Accept-Encoding: br",
					"Cookie: a=b", "Host: %s", "User-Agent: Test/1", "X-One: 1", "X-One: 2"},
				answer: "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nContent-Encoding: br\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n" +
					"Content-Type: x/y\r\nServer: o\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nVia: 1.0 cdn\r\n\r\nnone",
				wantAnswer: []string{"HTTP/1.1 404 Not Found", "Connection: close", "Content-Encoding: br", "Content-Length: 4", "Content-Type: x/y",
					"Date: Thu, 01 Jan 1970 00:00:00 GMT", "Server: o", "Set-Cookie: a", "Set-Cookie: b", "Via: 1.0 cdn"},
				body: "none", status: 404, down: 4, agent: "Test/1", url: "/a/../b%20c",
			},
			{
				name: "what concerns a connection only",
				request: "GET http://%s/ HTTP/1.1\r\nHost: %s\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-Stay: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n" +
					"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic c2VjcmV0OnNlY3JldA==\r\nUpgrade: h2c\r\n\r\n",
				wantRequest: []string{"GET / HTTP/1.1", "Host: %s", "X-Stay: 1"},
				answer: "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nX-Stay: 1\r\nKeep-Alive: timeout=5\r\n" +
					"Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\n\r\n",
				wantAnswer: []string{"HTTP/1.1 200 OK", "Connection: close", "Content-Length: 0", "X-Stay: 1"},
				status:     200, url: "/",
			},
			{
				name:        "the URL's host and not the Host header's",
				request:     "GET http://%s/ HTTP/1.1\r\nHost: apple.com\r\nConnection: close\r\n\r\n",
				wantRequest: []string{"GET / HTTP/1.1", "Host: %s"},
				answer:      "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
				wantAnswer:  []string{"HTTP/1.1 200 OK", "Connection: close", "Content-Length: 0"},
				status:      200, url: "/",
			},
			{
				name:        "HEAD",
				request:     "HEAD http://%s/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
				wantRequest: []string{"HEAD / HTTP/1.1", "Host: %s"},
				answer:      "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nContent-Type: x/y\r\n\r\n",
				wantAnswer:  []string{"HTTP/1.1 200 OK", "Connection: close", "Content-Length: 1000", "Content-Type: x/y"},
				status:      200, url: "/",
			},
			{
				name:        "204",
				request:     "GET http://%s/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
				wantRequest: []string{"GET / HTTP/1.1", "Host: %s"},
				answer:      "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
				wantAnswer:  []string{"HTTP/1.1 204 No Content", "Connection: close", "X-A: b"},
				status:      204, url: "/",
			},
			{
				name:        "304",
				request:     "GET http://%s/ HTTP/1.1\r\nHost: %s\r\nIf-None-Match: \"a\"\r\nConnection: close\r\n\r\n",
				wantRequest: []string{"GET / HTTP/1.1", "Host: %s", "If-None-Match: \"a\""},
				answer:      "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
				wantAnswer:  []string{"HTTP/1.1 304 Not Modified", "Connection: close", "Etag: \"a\""},
				status:      304, url: "/",
			},
			{
				name:        "a body each way",
				request:     "POST http://%s/ HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
				wantRequest: []string{"POST / HTTP/1.1", "Content-Length: 0", "Host: %s"},
				answer:      "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nsorry",
				wantAnswer:  []string{"HTTP/1.1 500 Internal Server Error", "Connection: close", "Content-Length: 5"},
				body:        "sorry", status: 500, down: 5, url: "/",
			},
			{
				name:        "a chunked answer",
				request:     "GET http://%s/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
				wantRequest: []string{"GET / HTTP/1.1", "Host: %s"},
				answer:      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
				wantAnswer:  []string{"HTTP/1.1 200 OK", "Connection: close", "Transfer-Encoding: chunked"},
				body:        "3\r\nabc\r\n0\r\n\r\n", status: 200, down: 3, url: "/",
			},
		} {
			t.Run(tt.name, func(t *testing.T) {
				o := newAnswering(t, tt.answer)
				r := start(t, setup{})
				c := r.dial()
				fill := func(s string) string { return strings.ReplaceAll(s, "%s", o.String()) }
				c.send(strings.ReplaceAll(fill(tt.request), "%%", "%"))
				head, body, _ := strings.Cut(c.raw(), "\r\n\r\n")
				compareLines(t, "client", head, tt.wantAnswer...)
				if body != tt.body {
					t.Errorf("body %q, want %q", body, tt.body)
				}
				heads, _ := o.seen()
				if len(heads) != 1 {
					t.Fatalf("the origin saw %q", heads)
				}
				for i := range tt.wantRequest {
					tt.wantRequest[i] = fill(tt.wantRequest[i])
				}
				compareLines(t, "origin", heads[0], tt.wantRequest...)
				method, _, _ := strings.Cut(tt.request, " ")
				rec := r.record()
				if rec.Method != method || rec.Action != policy.Forward || rec.Rule != policy.RuleDefault || rec.Status != tt.status || rec.Error != "" ||
					rec.Up != tt.up || rec.Down != tt.down || rec.Agent != tt.agent || rec.Upstream != o.AddrPort || rec.Connect <= 0 ||
					rec.Host != "127.0.0.1" || rec.Port != o.Port() || rec.URL != "http://"+o.String()+tt.url {
					t.Errorf("record %+v", rec)
				}
			})
		}
	})
}

// Connections to clients and to origins are kept.
func TestForwardKeepsConnections(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		o := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		r := start(t, setup{hosts: map[string]string{"*.apple.com": "127.0.0.1"}})
		c := r.dial()
		const requests = 5
		for range requests {
			c.send(fmt.Sprintf("GET http://captive.apple.com:%d/hotspot-detect.html HTTP/1.1\r\nHost: captive.apple.com\r\n\r\n", o.Port()))
			if a := c.answer("GET"); a.body != "ok" || a.Close {
				t.Fatalf("%+v", a)
			}
		}
		c.Close()
		if heads, conns := o.seen(); len(heads) != requests || conns != 1 {
			t.Errorf("the origin saw %d requests on %d connections", len(heads), conns)
		}
		list := r.stop()
		if len(list) != requests {
			t.Fatalf("%d records, want %d", len(list), requests)
		}
		for i, rec := range list {
			if rec.Service != "apple-other" || rec.Action != policy.Forward || rec.Rule != policy.RuleApple || rec.Upstream != o.AddrPort || (rec.Connect > 0) != (i == 0) {
				t.Errorf("record %d: %+v", i, rec)
			}
		}
	})
}

// An origin that closes a kept connection does not make the next request fail.
func TestForwardAfterOriginClosed(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		closed := make(chan struct{}, 8)
		at := newOrigin(t, func(c net.Conn) {
			if _, err := readHead(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
			c.Close()
			closed <- struct{}{}
		})
		r := start(t, setup{})
		c := r.dial()
		for range 4 {
			c.send("GET http://" + at.String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
			if a := c.answer("GET"); a.StatusCode != 200 || a.body != "ok" {
				t.Fatalf("%s %q", a.Status, a.body)
			}
			<-closed
		}
	})
}

func TestForwardUploads(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 20_000)
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		for _, tt := range []struct {
			name, headers, body string
			want                string // "length, transfer encoding, trailers" as the origin sees them
			payload             string
		}{
			{"of known length", "Content-Length: 5\r\n", "hello", "5 [] map[]", "hello"},
			{"large", fmt.Sprintf("Content-Length: %d\r\n", len(big)), big, fmt.Sprintf("%d [] map[]", len(big)), big},
			{"chunked", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "-1 [chunked] map[]", "hello world"},
			{"with trailers", "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n", "5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n", "-1 [chunked] map[X-Sum:[42]]", "hello"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				at := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
					body, err := io.ReadAll(r.Body)
					fmt.Fprintf(w, "%d %v %v %t %v", r.ContentLength, r.TransferEncoding, r.Trailer, string(body) == tt.payload, err)
				})
				r := start(t, setup{})
				c := r.dial()
				c.send("POST http://" + at + "/ HTTP/1.1\r\nHost: x\r\n" + tt.headers + "\r\n" + tt.body)
				if a := c.answer("POST"); a.body != tt.want+" true <nil>" {
					t.Errorf("the origin saw %q, want %q", a.body, tt.want)
				}
				c.Close()
				if rec := r.record(); rec.Up != int64(len(tt.payload)) || rec.Method != "POST" {
					t.Errorf("record %+v", rec)
				}
			})
		}
	})
}

// An answer may begin before the request's last byte was passed on, and even
// before it was sent.
func TestForwardAnswersAmidUploads(t *testing.T) {
	upload, answer := strings.Repeat("up", 100_000), strings.Repeat("down", 100_000)
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		more := make(chan struct{})
		at := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			_ = rc.EnableFullDuplex()
			if r.URL.Path == "/early" {
				_ = rc.Flush()
				more <- struct{}{}
			}
			if n, err := io.Copy(io.Discard, r.Body); n == int64(len(upload)) && err == nil {
				_, _ = io.WriteString(w, answer)
			}
		})
		r := start(t, setup{})
		c := r.dial()
		head := fmt.Sprintf(" HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(upload))
		const rounds = 50 // the moment that matters is short
		for range rounds {
			c.send("POST http://" + at + "/" + head + upload)
			if a := c.answer("POST"); a.body != answer {
				t.Fatalf("%s, %d bytes of the answer", a.Status, len(a.body))
			}
		}
		c.send("POST http://" + at + "/early" + head + upload[:1000])
		<-more
		c.send(upload[1000:])
		if a := c.answer("POST"); a.body != answer {
			t.Errorf("%s, %d bytes of the answer", a.Status, len(a.body))
		}
		c.Close()
		for _, rec := range r.stop() {
			if rec.Error != "" || rec.Up != int64(len(upload)) || rec.Down != int64(len(answer)) {
				t.Errorf("record %+v", rec)
			}
		}
	})
}

// httpOrigin is an origin made of net/http.
func httpOrigin(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return l.Addr().String()
}

func TestForwardExpectContinue(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		t.Run("taken", func(t *testing.T) {
			at := newOrigin(t, func(c net.Conn) {
				in := bufio.NewReader(c)
				if head, err := readHead(in); err != nil || !strings.Contains(head, "Expect: 100-continue\r\n") {
					t.Errorf("head %q, %v", head, err)
				}
				_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
				body := make([]byte, 5)
				_, _ = io.ReadFull(in, body)
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n%s", body)
			})
			r := start(t, setup{})
			c := r.dial()
			c.send("PUT http://" + at.String() + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
			c.expect("HTTP/1.1 100 Continue\r\n\r\n")
			c.send("hello")
			if a := c.answer("PUT"); a.StatusCode != 200 || a.body != "hello" {
				t.Errorf("%s %q", a.Status, a.body)
			}
			c.Close()
			if rec := r.record(); rec.Status != 200 || rec.Up != 5 || rec.Down != 5 {
				t.Errorf("record %+v", rec)
			}
		})
		t.Run("not known to the origin", func(t *testing.T) {
			at := newOrigin(t, func(c net.Conn) {
				in := bufio.NewReader(c)
				_, _ = readHead(in)
				body := make([]byte, 5)
				_, _ = io.ReadFull(in, body)
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n%s", body)
			})
			r := start(t, setup{})
			c := r.dial()
			c.send("PUT http://" + at.String() + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")
			if a := c.answer("PUT"); a.StatusCode != 200 || a.body != "hello" {
				t.Errorf("%s %q", a.Status, a.body)
			}
			c.Close()
			if rec := r.record(); rec.Status != 200 || rec.Up != 5 || rec.Down != 5 {
				t.Errorf("record %+v", rec)
			}
		})
		t.Run("refused", func(t *testing.T) {
			at := newOrigin(t, func(c net.Conn) {
				_, _ = readHead(bufio.NewReader(c))
				_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
			})
			r := start(t, setup{})
			c := r.dial()
			c.send("PUT http://" + at.String() + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
			if a := c.answer("PUT"); a.StatusCode != 413 || a.body != "big" {
				t.Errorf("%s %q", a.Status, a.body)
			}
			c.Close()
			if rec := r.record(); rec.Status != 413 || rec.Up != 0 || rec.Down != 3 {
				t.Errorf("record %+v", rec)
			}
		})
	})
}

// What an origin sends reaches the client before the answer has ended.
func TestForwardStreams(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		for _, tt := range []struct {
			name, head, first, second, end string
			together                       bool // the head comes with the first event
		}{
			{"chunked", "Transfer-Encoding: chunked\r\n", "6\r\nevent1\r\n", "6\r\nevent2\r\n", "0\r\n\r\n", false},
			{"until the end of the connection", "Connection: close\r\n", "event1", "event2", "", false},
			{"of known length", "Content-Length: 12\r\n", "event1", "event2", "", true},
		} {
			t.Run(tt.name, func(t *testing.T) {
				seen := make(chan struct{})
				at := newOrigin(t, func(c net.Conn) {
					_, _ = readHead(bufio.NewReader(c))
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+tt.head+"\r\n")
					if !tt.together {
						<-seen
					}
					_, _ = io.WriteString(c, tt.first)
					<-seen
					_, _ = io.WriteString(c, tt.second+tt.end)
				})
				r := start(t, setup{})
				c := r.dial()
				defer c.Close()
				c.send("GET http://" + at.String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
				resp, err := http.ReadResponse(c.in, nil)
				if err != nil {
					close(seen)
					t.Fatalf("the head did not arrive by itself: %v", err)
				}
				if !tt.together {
					seen <- struct{}{}
				}
				for i, want := range []string{"event1", "event2"} {
					got := make([]byte, len(want))
					if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != want {
						close(seen)
						t.Fatalf("received %q, %v", got, err)
					}
					if i == 0 {
						seen <- struct{}{}
					}
				}
				if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
					t.Errorf("received %q, %v", rest, err)
				}
				if rec := r.record(); rec.Down != 12 || rec.Error != "" {
					t.Errorf("record %+v", rec)
				}
			})
		}
	})
}

func TestForwardTrailersOfAnswers(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		o := newAnswering(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n")
		r := start(t, setup{})
		c := r.dial()
		c.send("GET http://" + o.String() + "/ HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n")
		a := c.answer("GET")
		if a.body != "hello" || a.err != nil || a.Trailer.Get("X-Sum") != "42" {
			t.Errorf("%q %v, trailers %v", a.body, a.err, a.Trailer)
		}
	})
}

// An answer that ends too early must not look whole.
func TestForwardCutAnswer(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		for name, answer := range map[string]string{
			"of known length": "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhalf",
			"chunked":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nhalf\r\n",
			"in a chunk":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nff\r\nhalf",
		} {
			t.Run(name, func(t *testing.T) {
				o := newAnswering(t, answer)
				r := start(t, setup{})
				c := r.dial()
				c.send("GET http://" + o.String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
				if a := c.answer("GET"); a.err == nil || a.body != "half" && a.body != "" {
					t.Errorf("body %q, %v", a.body, a.err)
				}
				if rec := r.record(); rec.Action != policy.Error || rec.Error == "" || rec.Status != 200 {
					t.Errorf("record %+v", rec)
				}
			})
		}
	})
}

func TestForwardLargeAnswer(t *testing.T) {
	const size = 20 << 20
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(size))
			chunk := make([]byte, 64<<10)
			for i := range size / len(chunk) {
				binary.BigEndian.PutUint32(chunk, uint32(i))
				_, _ = w.Write(chunk)
			}
		})
		r := start(t, setup{})
		c := r.dial()
		c.send("GET http://" + at + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		a := c.answer("GET")
		if len(a.body) != size || a.err != nil {
			t.Fatalf("%d bytes, %v", len(a.body), a.err)
		}
		for i := range size / (64 << 10) {
			if binary.BigEndian.Uint32([]byte(a.body[i*64<<10:])) != uint32(i) {
				t.Fatalf("block %d is another", i)
			}
		}
		c.Close()
		if rec := r.record(); rec.Down != size {
			t.Errorf("record %+v", rec)
		}
	})
}

// A client that leaves in the middle of an answer is noted.
func TestForwardClientLeaves(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := httpOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			chunk := make([]byte, 64<<10)
			for r.Context().Err() == nil {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		})
		r := start(t, setup{})
		c := r.dial()
		c.send("GET http://" + at + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := io.CopyN(io.Discard, c.in, 1<<20); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if rec := r.record(); rec.Down < 1<<20-1000 || rec.Error == "" || rec.Status != 200 {
			t.Errorf("record %+v", rec)
		}
	})
}

func TestForwardWebSocket(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := httpOrigin(t, websocket.Handler(func(c *websocket.Conn) { _, _ = io.Copy(c, c) }).ServeHTTP)
		r := start(t, setup{})
		c := r.dial()
		frame := "\x81\x85\x00\x00\x00\x00hello" // final, text, masked with zeros
		c.send("GET http://" + at + "/ws HTTP/1.1\r\nHost: " + at + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://" + at +
			"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + frame)
		resp, err := http.ReadResponse(c.in, &http.Request{Method: "GET"})
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" ||
			!strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
			t.Fatalf("%s %v", resp.Status, resp.Header)
		}
		c.expect("\x81\x05hello")
		for range 3 {
			c.send(frame)
			c.expect("\x81\x05hello")
		}
		c.Close()
		rec := r.record()
		if rec.Action != policy.Forward || rec.Status != 101 || rec.Up != 4*int64(len(frame)) || rec.Down < 4*7 {
			t.Errorf("record %+v", rec)
		}
	})
}

func TestForwardRefuses(t *testing.T) {
	deny := []policy.Rule{{Name: "no-games", When: policy.When{Hosts: []string{"games.example"}}, Then: "deny"}}
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		refusing := refusingPort(t)
		closing := newOrigin(t, func(c net.Conn) { _, _ = readHead(bufio.NewReader(c)) })
		garbage := newAnswering(t, "Connection: close\r\nThis is no HTTP.\r\n\r\n")
		for _, tt := range []struct {
			name   string
			setup  setup
			uri    string
			header string
			status int
			error  string
			action policy.Action
			rule   string
			why    string
		}{
			{name: "denied by a rule", setup: setup{rules: deny}, uri: "http://games.example/", status: 403, error: "http_request_denied", action: policy.Deny, rule: "no-games"},
			{name: "denied by a rule, whatever Host says", setup: setup{rules: deny}, uri: "http://games.example/", header: "Host: gs.apple.com\r\n", status: 403, error: "http_request_denied", action: policy.Deny, rule: "no-games"},
			{name: "client outside proxy.clients", setup: setup{clients: []string{"192.0.2.1"}}, uri: "http://captive.apple.com/", status: 403, error: "http_request_denied", action: policy.Deny, rule: policy.RuleClients},
			{name: "nobody signed in", setup: setup{users: map[string]string{"a": "b"}}, uri: "http://www.example.org/", status: 407, error: "http_request_denied", action: policy.Challenge, rule: policy.RuleAuth},
			{name: "a port that proxy.ports does not have", uri: "http://mail.example:25/", status: 403, error: "http_request_denied", action: policy.Deny, rule: policy.RulePorts},
			{name: "loopback", setup: setup{guarded: true}, uri: "http://127.0.0.1/", status: 403, error: "destination_ip_prohibited", action: policy.Deny, rule: "address-guard", why: "loopback"},
			{name: "mapped loopback", setup: setup{guarded: true}, uri: "http://[::ffff:127.0.0.1]/", status: 403, error: "destination_ip_prohibited", action: policy.Deny, rule: "address-guard", why: "loopback"},
			{name: "connection refused", uri: "http://" + refusing + "/", status: 502, error: "connection_refused", action: policy.Error, rule: policy.RuleDefault, why: "refused"},
			{name: "origin closes without an answer", uri: "http://" + closing.String() + "/", status: 502, error: "connection_terminated", action: policy.Error, rule: policy.RuleDefault, why: "EOF"},
			{name: "origin speaks something else", uri: "http://" + garbage.String() + "/", status: 502, error: "http_protocol_error", action: policy.Error, rule: policy.RuleDefault, why: "malformed"},
			{name: "https URL", uri: "https://www.example.org/", status: 501, error: "http_protocol_error", action: policy.Deny, rule: "scheme"},
			{name: "ftp URL", uri: "ftp://www.example.org/", status: 501, error: "http_protocol_error", action: policy.Deny, rule: "scheme"},
			{name: "no name", uri: "http://a..b/", status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target"},
			{name: "port 0", uri: "http://www.example.org:0/", status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target"},
			{name: "half an address", uri: "http://127.1/", status: 403, error: "http_request_error", action: policy.Deny, rule: "invalid-target"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := start(t, tt.setup)
				c := r.dial()
				if tt.header == "" {
					tt.header = "Host: x\r\n"
				}
				c.send("GET " + tt.uri + " HTTP/1.1\r\n" + tt.header + "\r\n")
				a := c.answer("GET")
				if a.StatusCode != tt.status || a.Header.Get("Proxy-Status") != "espalier; error="+tt.error || (a.Header.Get("Proxy-Authenticate") != "") != (tt.status == 407) {
					t.Errorf("%s %v, want %d %s", a.Status, a.Header, tt.status, tt.error)
				}
				c.Close()
				rec := r.record()
				if rec.Action != tt.action || rec.Rule != tt.rule || rec.Status != tt.status || rec.Up != 0 || rec.Down != 0 || !strings.Contains(rec.Error, tt.why) {
					t.Errorf("record %+v", rec)
				}
				if !strings.Contains(a.body, "Reference: "+rec.ID.String()+"\n") {
					t.Errorf("body %q does not refer to record %s", a.body, rec.ID)
				}
			})
		}
	})
}

// A browser that was pointed here, and not through here, is told so.
func TestOriginForm(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, setup{})
		c := r.dial()
		c.send("GET / HTTP/1.1\r\nHost: proxy.example\r\n\r\n")
		if a := c.answer("GET"); a.StatusCode != 404 || !strings.Contains(a.body, "This is a proxy") {
			t.Errorf("%s %q", a.Status, a.body)
		}
		if list := r.stop(); len(list) != 0 {
			t.Errorf("records %+v", list)
		}
	})
}

// A password is for the proxy, and no origin sees it.
func TestForwardSignsIn(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		o := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		r := start(t, setup{users: map[string]string{"alice": "secret"}})
		c := r.dial()
		for _, header := range []string{basic("alice", "secret"), strings.ToUpper(basic("", "")[:20]) + basic("alice", "secret")[20:]} {
			c.send("GET http://" + o.String() + "/ HTTP/1.1\r\nHost: x\r\n" + header + "\r\n\r\n")
			if a := c.answer("GET"); a.StatusCode != 200 {
				t.Errorf("%s", a.Status)
			}
		}
		heads, _ := o.seen()
		for _, head := range heads {
			compareLines(t, "origin", head, "GET / HTTP/1.1", "Host: "+o.String())
		}
		c.Close()
		for _, rec := range r.stop() {
			if rec.User != "alice" {
				t.Errorf("record %+v", rec)
			}
		}
	})
}

// Via names the proxy in plain requests, so that loops are found, but not in Apple's, which
// are not changed, nor in those inside TLS.
func TestVia(t *testing.T) {
	eachLane(t, func(t *testing.T, l lane) {
		var via atomic.Pointer[string]
		o := l.newOrigin(t, func(c net.Conn) {
			for in := bufio.NewReader(c); ; {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				got := strings.Join(r.Header["Via"], "|")
				via.Store(&got)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		})
		r := l.start(t, setup{hosts: map[string]string{"gs.apple.com": "127.0.0.1", "www.example.com": "127.0.0.1"}})
		for host, want := range map[string]*regexp.Regexp{
			"www.example.com": regexp.MustCompile(`^1\.1 other\|1\.1 espalier-[0-9a-z]{16}$`),
			"gs.apple.com":    regexp.MustCompile(`^1\.1 other$`),
		} {
			if l.cert != nil {
				if want = regexp.MustCompile(`^1\.1 other$`); host != "www.example.com" {
					continue // it is not intercepted
				}
				host = "127.0.0.1"
			}
			at := name(fmt.Sprintf("%s:%d", host, o.Port()))
			c := l.dial(r, at)
			c.send(l.get(at, "/", "Via: 1.1 other\r\n"))
			if a := c.answer("GET"); a.StatusCode != 200 {
				t.Fatalf("%s: %s", host, a.Status)
			}
			if got := *via.Load(); !want.MatchString(got) {
				t.Errorf("%s: Via %q", host, got)
			}
			c.Close()
		}
		r.stop()
	})
}

type name string

func (n name) String() string { return string(n) }
