package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"espalier/policy"
	"espalier/proxy/exchange"
)

// recording is an origin that keeps every byte it receives, and answers each
// request with its request line.
type recording struct {
	netip.AddrPort
	mu  sync.Mutex
	raw bytes.Buffer
}

func (o *recording) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.raw.Write(p)
}

// received returns what has come since it was last called.
func (o *recording) received() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.raw.Reset()
	return ownVia.ReplaceAllString(o.raw.String(), "")
}

// ownVia is what the proxy says in Via, which TestVia is about.
var ownVia = regexp.MustCompile("(?m)^Via: 1\\.1 espalier-.*\r\n")

func newRecording(t *testing.T) *recording { return plainLane.newRecording(t) }

func (l lane) newRecording(t *testing.T) *recording {
	o := &recording{}
	o.AddrPort = l.newOrigin(t, func(c net.Conn) {
		for in := bufio.NewReader(io.TeeReader(c, o)); ; {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			line := r.Method + " " + r.RequestURI
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(line))
			if r.Method != "HEAD" {
				_, _ = io.WriteString(c, line)
			}
		}
	})
	return o
}

// everyEntry runs test for each way on which a request comes to be read: first on
// its connection or behind another request, by the tunnel engine or by net/http.
func everyEntry(t *testing.T, test func(t *testing.T, r *rig, enter func(t *testing.T, o *recording) *client)) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, setup{})
		for _, behind := range []string{"", "GET", "POST"} {
			t.Run("behind "+behind, func(t *testing.T) {
				test(t, r, func(t *testing.T, o *recording) *client {
					c := dial(t, r.listener.Addr().String())
					if behind != "" {
						c.send(behind + " http://" + o.String() + "/first HTTP/1.1\r\nHost: x\r\n" + map[string]string{"POST": "Content-Length: 0\r\n"}[behind] + "\r\n")
						if a := c.answer(behind); a.body != behind+" /first" {
							t.Fatalf("the first answer is %s %q", a.Status, a.body)
						}
						o.received()
					}
					return c
				})
			})
		}
	})
}

// smuggling are requests that two recipients might read differently. None of
// them reaches an origin; the connection ends with the refusal, and with it
// whatever hides behind. %s is the origin.
var smuggling = []struct {
	name, request string
	status        int
}{
	// Two lengths, or an odd one.
	{"Content-Length and Transfer-Encoding", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"Transfer-Encoding and Content-Length", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400},
	{"both, of a GET", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"two different lengths", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\nGET ", 400},
	{"two equal lengths", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400},
	{"a list of lengths", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 4\r\n\r\nGET ", 400},
	{"a list of equal lengths", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0, 0\r\n\r\n", 400},
	{"a length with a plus", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n", 400},
	{"a negative length", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
	{"a length in hexadecimal", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0x0\r\n\r\n", 400},
	{"a length with a point", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0.0\r\n\r\n", 400},
	{"a length with an underscore", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0_0\r\n\r\n", 400},
	{"a length with a blank inside", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0 0\r\n\r\n", 400},
	{"a length in other digits", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: \xd9\xa0\r\n\r\n", 400},
	{"an empty length", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n", 400},
	{"a length too long for 64 bits", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551616\r\n\r\n", 400},

	// Encodings.
	{"chunked, identity", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501},
	{"identity", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", 501},
	{"identity, and a length", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n", 501},
	{"gzip, chunked", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
	{"chunked, chunked", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501},
	{"chunked twice", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"chunked and another", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 501},
	{"xchunked", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
	{"chunked in quotes", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 501},
	{"chunked with a parameter", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 501},
	{"chunked behind a vertical tab", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400},
	{"chunked behind a form feed", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0cchunked\r\n\r\n0\r\n\r\n", 400},
	{"chunked behind a no-break space", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n", 501},
	{"an empty encoding", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n\r\n", 501},
	{"chunked on a folded line", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 501},
	{"chunked in HTTP/1.0", "POST http://%s/ HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
	{"chunked behind a blank before the colon", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
	{"a length before a blank before the colon", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length : 0\r\n\r\n", 400},
	{"a tab before the colon", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length\t: 0\r\n\r\n", 400},

	// Lines.
	{"bare LF everywhere", "GET http://%s/ HTTP/1.1\nHost: x\n\n", 400},
	{"bare LF behind the request line", "GET http://%s/ HTTP/1.1\nHost: x\r\n\r\n", 400},
	{"bare LF behind a header", "GET http://%s/ HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400},
	{"bare LF at the end of the head", "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\n", 400},
	{"bare CR in a value", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nX: a\rContent-Length: 4\r\n\r\n", 400},
	{"bare CR in a name", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nX\rY: a\r\n\r\n", 400},
	{"bare CR in the target", "GET http://%s/\r HTTP/1.1\r\nHost: x\r\n\r\n", 400},
	{"two CR before an LF", "GET http://%s/ HTTP/1.1\r\nHost: x\r\r\n\r\n", 400},
	{"a folded value", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n", 400},
	{"a folded first header", "GET http://%s/ HTTP/1.1\r\n Host: x\r\n\r\n", 400},
	{"a folded value by a tab", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nX: a\r\n\tb\r\n\r\n", 400},
	{"NUL in a value", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", 400},
	{"NUL in a name", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nX\x00: b\r\n\r\n", 400},
	{"NUL in the target", "GET http://%s/\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
	{"an escape sequence in a value", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nX: \x1b[2J\r\n\r\n", 400},
	{"DEL in a value", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nX: \x7f\r\n\r\n", 400},
	{"a line without a colon", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n", 400},
	{"a name that is empty", "GET http://%s/ HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n", 400},
	{"a name in other letters", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-\xc3\x8bncoding: chunked\r\n\r\n", 400},

	// Where to.
	{"two hosts", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
	{"two equal hosts", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n", 400},
	{"no host", "GET http://%s/ HTTP/1.1\r\nAccept: x\r\n\r\n", 400},
	{"a host with a blank", "GET http://%s/ HTTP/1.1\r\nHost: x y\r\n\r\n", 400},
	{"a host with user information", "GET http://%s/ HTTP/1.1\r\nHost: a@x\r\n\r\n", 400},
	{"a host with a path", "GET http://%s/ HTTP/1.1\r\nHost: x/y\r\n\r\n", 400},
	{"a host in other letters", "GET http://%s/ HTTP/1.1\r\nHost: \xc3\xbc\r\n\r\n", 400},
	{"user information in the URL", "GET http://user:password@%s/ HTTP/1.1\r\nHost: x\r\n\r\n", 403},
	{"an at sign in the URL", "GET http://@%s/ HTTP/1.1\r\nHost: x\r\n\r\n", 403},
	{"another host before an at sign", "GET http://apple.com@%s/ HTTP/1.1\r\nHost: x\r\n\r\n", 403},

	// Methods and versions.
	{"a method in lower case", "get http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", 501},
	{"a method in mixed case", "Post http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 501},
	{"connect in lower case", "connect %s HTTP/1.1\r\nHost: x\r\n\r\n", 501},
	{"HTTP/2.0", "GET http://%s/ HTTP/2.0\r\nHost: x\r\n\r\n", 505},
	{"HTTP/1.2", "GET http://%s/ HTTP/1.2\r\nHost: x\r\n\r\n", 505},
	{"HTTP/0.9 by name", "GET http://%s/ HTTP/0.9\r\nHost: x\r\n\r\n", 505},
	{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
	{"HTTP/0.9", "GET http://%s/\r\n\r\n", 400},
	{"http in lower case", "GET http://%s/ http/1.1\r\nHost: x\r\n\r\n", 400},
	{"a version with two digits", "GET http://%s/ HTTP/1.10\r\nHost: x\r\n\r\n", 400},
	{"a version with a sign", "GET http://%s/ HTTP/+1.1\r\nHost: x\r\n\r\n", 400},
	{"two blanks before the version", "GET http://%s/  HTTP/1.1\r\nHost: x\r\n\r\n", 400},
	{"two blanks before the target", "GET  http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
	{"a tab before the target", "GET\thttp://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
	{"a blank behind the version", "GET http://%s/ HTTP/1.1 \r\nHost: x\r\n\r\n", 400},
	{"a blank before the method", " GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
	{"a method that is no token", "G@T http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
	{"an expectation that nobody knows", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: miracles\r\n\r\n", 417},

	// Bounds.
	{"too many headers", "GET http://%s/ HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 200) + "\r\n", 431},
	{"too many headers of a POST", "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n" + strings.Repeat("A: b\r\n", 199) + "\r\n", 431},
	{"a header too large", "GET http://%s/ HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", 431},
	{"a request line too long", "GET http://%s/" + strings.Repeat("a", 64<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431},
	{"a method too long", strings.Repeat("A", 64<<10) + " http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", 431},

	// CONNECT is never answered with 400: iOS would go on without the proxy.
	{"CONNECT with a length", "CONNECT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nGET ", 403},
	{"CONNECT with chunks", "CONNECT %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 403},
	{"CONNECT with both", "CONNECT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", 403},
	{"CONNECT with two lengths", "CONNECT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\n", 403},
	{"CONNECT with an odd length", "CONNECT %s HTTP/1.1\r\nHost: x\r\nContent-Length: +0\r\n\r\n", 403},
	{"CONNECT with an odd encoding", "CONNECT %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", 403},
	{"CONNECT with bare LF", "CONNECT %s HTTP/1.1\nHost: x\n\n", 403},
	{"CONNECT with a bare CR", "CONNECT %s HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 403},
	{"CONNECT with a folded line", "CONNECT %s HTTP/1.1\r\nHost: x\r\n y\r\n\r\n", 403},
	{"CONNECT with a blank before a colon", "CONNECT %s HTTP/1.1\r\nHost : x\r\n\r\n", 403},
	{"CONNECT with NUL", "CONNECT %s HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n", 403},
	{"CONNECT with two hosts", "CONNECT %s HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 403},
	{"CONNECT with user information", "CONNECT a@%s HTTP/1.1\r\nHost: x\r\n\r\n", 403},
	{"CONNECT to a URL", "CONNECT http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", 403},
	{"CONNECT in HTTP/2.0", "CONNECT %s HTTP/2.0\r\nHost: x\r\n\r\n", 403},
	{"CONNECT with two blanks", "CONNECT  %s HTTP/1.1\r\nHost: x\r\n\r\n", 403},
	{"CONNECT with too many headers", "CONNECT %s HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 200) + "\r\n", 403},
	{"CONNECT with a header too large", "CONNECT %s HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", 403},
}

// expectRefusal reads an answer with status that ends the connection, and sees that
// nothing has reached o.
func (c *client) expectRefusal(method string, status int, o *recording) {
	c.t.Helper()
	a := c.answer(method)
	if a.StatusCode != status || !a.Close || a.err != nil {
		c.t.Errorf("%s, closes %v, %v; want %d and the end", a.Status, a.Close, a.err, status)
	}
	if rest, _ := io.ReadAll(c.in); len(rest) > 0 {
		c.t.Errorf("the refusal is followed by %q", rest)
	}
	if got := o.received(); got != "" {
		c.t.Errorf("the origin received %q", got)
	}
}

func TestSmuggling(t *testing.T) {
	o := newRecording(t)
	everyEntry(t, func(t *testing.T, r *rig, enter func(*testing.T, *recording) *client) {
		for _, tt := range smuggling {
			t.Run(tt.name, func(t *testing.T) {
				c := enter(t, o)
				c.send(strings.ReplaceAll(tt.request, "%s", o.String()) + get(o, "/smuggled", ""))
				method, _, _ := strings.Cut(tt.request, " ")
				if method != "CONNECT" {
					method = "GET"
				}
				c.expectRefusal(method, tt.status, o)
			})
		}
	})
}

// Inside TLS that is intercepted the same goes, and the records name the user of
// the CONNECT.
func TestSmugglingIntercepted(t *testing.T) {
	l := interceptedLane(t)
	o := l.newRecording(t)
	r := l.start(t, setup{users: map[string]string{"alice": "secret"}})
	inside := strings.NewReplacer("http://%s", "", "Host: x\r\n", "Host: "+o.String()+"\r\n", "%s", o.String())
	for _, behind := range []string{"", "GET", "POST"} {
		t.Run("behind "+behind, func(t *testing.T) {
			for _, tt := range smuggling {
				if strings.HasPrefix(tt.request, "CONNECT") || strings.Contains(tt.request, "@%s") {
					continue // for a proxy
				}
				t.Run(tt.name, func(t *testing.T) {
					c := l.dial(r, o, basic("alice", "secret"))
					c.t = t
					if behind != "" {
						c.send(behind + " /first HTTP/1.1\r\nHost: " + o.String() + "\r\n" + map[string]string{"POST": "Content-Length: 0\r\n"}[behind] + "\r\n")
						if a := c.answer(behind); a.body != behind+" /first" {
							t.Fatalf("the first answer is %s %q", a.Status, a.body)
						}
						o.received()
					}
					c.send(inside.Replace(tt.request) + l.get(o, "/smuggled", ""))
					c.expectRefusal("GET", tt.status, o)
				})
			}
		})
	}
	refused := 0
	for _, x := range l.records(r) {
		if x.User != "alice" || x.Host != "127.0.0.1" || x.Port != o.Port() {
			t.Errorf("record %+v", x)
		}
		if x.Rule == exchange.RuleMalformed {
			refused++
		}
	}
	if refused < 3*len(smuggling)/2 {
		t.Errorf("%d records of refusals", refused)
	}
}

// What follows a chunked body or its framing never becomes a request of its own
// where the framing is broken.
func TestBrokenUploads(t *testing.T) {
	o := newRecording(t)
	everyEntry(t, func(t *testing.T, r *rig, enter func(*testing.T, *recording) *client) {
		for _, tt := range []struct{ name, body string }{
			{"a size that overflows", "10000000000000001\r\na\r\n0\r\n\r\n"},
			{"a size that is negative", "-1\r\na\r\n0\r\n\r\n"},
			{"a size with a sign", "+1\r\na\r\n0\r\n\r\n"},
			{"a size with a prefix", "0x1\r\na\r\n0\r\n\r\n"},
			{"a size behind a blank", " 1\r\na\r\n0\r\n\r\n"},
			{"no size", "\r\na\r\n0\r\n\r\n"},
			{"a size with an underscore", "1_0\r\na\r\n0\r\n\r\n"},
			{"bare LF behind a size", "1\na\r\n0\r\n\r\n"},
			{"bare LF behind the data", "1\r\na\n0\r\n\r\n"},
			{"bare LF in an extension", "1;a\nb\r\na\r\n0\r\n\r\n"},
			{"bare CR in an extension", "1;a\rb\r\na\r\n0\r\n\r\n"},
			{"an endless extension", "1;" + strings.Repeat("a", 5000) + "\r\na\r\n0\r\n\r\n"},
			{"more data than announced", "1\r\nab\r\n0\r\n\r\n"},
			{"bare LF at the end", "1\r\na\r\n0\n\n"},
			{"a trailer with a bare LF", "1\r\na\r\n0\r\nX: y\n\r\n"},
			{"endless trailers", "1\r\na\r\n0\r\n" + strings.Repeat("X: y\r\n", 5000) + "\r\n"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				c := enter(t, o)
				c.send("POST http://" + o.String() + "/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + tt.body + get(o, "/smuggled", ""))
				// A reset may overtake the answer, as nobody reads the rest.
				all, _ := io.ReadAll(c.in)
				if len(all) > 0 && !strings.HasPrefix(string(all), "HTTP/1.1 400 ") || strings.Count(string(all), "HTTP/1.1 ") > 1 {
					t.Errorf("answered %q", all)
				}
				if got := o.received(); strings.Contains(got, "smuggled") || strings.Contains(got, "0\r\n\r\n") {
					t.Errorf("the origin received %q", got)
				}
			})
		}
	})
}

// What may look odd and can be read in one way only goes on, and says the same on
// each way.
func TestOddRequests(t *testing.T) {
	o := newRecording(t)
	at := o.String()
	everyEntry(t, func(t *testing.T, r *rig, enter func(*testing.T, *recording) *client) {
		for _, tt := range []struct {
			name, request string
			status        int
			body          string   // of the answer
			want          []string // what reaches the origin, as lines; nil: nothing
			payload       string
		}{
			{name: "the URL's host and not the Host header's", request: "GET http://%s/ HTTP/1.1\r\nHost: apple.com\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "Host: " + at}},
			{name: "an empty Host header", request: "GET http://%s/ HTTP/1.1\r\nHost:\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "Host: " + at}},
			{name: "Host not first", request: "GET http://%s/ HTTP/1.1\r\nA: b\r\nHost: x\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "A: b", "Host: " + at}},
			{name: "HTTP/1.0 without Host", request: "GET http://%s/ HTTP/1.0\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "Host: " + at}},
			{name: "no blanks behind colons", request: "GET http://%s/ HTTP/1.1\r\nHost:x\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "Host: " + at}},
			{name: "a tab as white space", request: "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\tchunked\t\r\n\r\n1\r\na\r\n0\r\n\r\n", status: 200, body: "POST /",
				want: []string{"POST / HTTP/1.1", "Host: " + at, "Transfer-Encoding: chunked"}, payload: "1\r\na\r\n0\r\n\r\n"},
			{name: "chunked in capitals", request: "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n", status: 200, body: "POST /",
				want: []string{"POST / HTTP/1.1", "Host: " + at, "Transfer-Encoding: chunked"}, payload: "1\r\na\r\n0\r\n\r\n"},
			{name: "extensions of chunks", request: "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\"b\"\r\na\r\n0;c\r\n\r\n", status: 200, body: "POST /",
				want: []string{"POST / HTTP/1.1", "Host: " + at, "Transfer-Encoding: chunked"}, payload: "1;a=\"b\"\r\na\r\n0;c\r\n\r\n"},
			{name: "trailers that were not announced", request: "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Evil: 1\r\n\r\n", status: 200, body: "POST /",
				want: []string{"POST / HTTP/1.1", "Host: " + at, "Transfer-Encoding: chunked"}, payload: "1\r\na\r\n0\r\nX-Evil: 1\r\n\r\n"},
			{name: "trailers that frame go no further", request: "POST http://%s/ HTTP/1.1\r\nHost: x\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nHost: evil\r\nContent-Length: 5\r\nConnection: x\r\nAuthorization: y\r\nX-Sum: 1\r\n\r\n", status: 200, body: "POST /",
				want: []string{"POST / HTTP/1.1", "Host: " + at, "Trailer: X-Sum", "Transfer-Encoding: chunked"}, payload: "1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"},
			{name: "a length with zeros before it", request: "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0001\r\n\r\na", status: 200, body: "POST /",
				want: []string{"POST / HTTP/1.1", "Content-Length: 1", "Host: " + at}, payload: "a"},
			{name: "a GET with a body", request: "GET http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "Content-Length: 1", "Host: " + at}, payload: "a"},
			{name: "a method that nobody knows", request: "FROB-NICATE http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", status: 200, body: "FROB-NICATE /",
				want: []string{"FROB-NICATE / HTTP/1.1", "Host: " + at}},
			{name: "as many headers as may be", request: "GET http://%s/ HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 199) + "\r\n", status: 200, body: "GET /",
				want: slices.Concat([]string{"GET / HTTP/1.1"}, slices.Repeat([]string{"A: b"}, 199), []string{"Host: " + at})},
			{name: "a header as large as may be", request: "GET http://%s/ HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 60<<10) + "\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "A: " + strings.Repeat("a", 60<<10), "Host: " + at}},
			{name: "empty lines before a request", request: "\r\n\r\nGET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "Host: " + at}},
			{name: "Connection may not take out what frames", request: "POST http://%s/ HTTP/1.1\r\nHost: x\r\nConnection: Content-Length, Host, X\r\nX: y\r\nContent-Length: 1\r\n\r\na", status: 200, body: "POST /",
				want: []string{"POST / HTTP/1.1", "Content-Length: 1", "Host: " + at}, payload: "a"},
			{name: "every hop-by-hop header", request: "GET http://%s/ HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 1\r\nTE: trailers\r\n" +
				"Trailer: X\r\nUpgrade: h2c, websocket\r\nProxy-Authorization: Basic YTpi\r\nProxy-Authenticate: Basic\r\nProxy-Authentication-Info: x\r\nA: b\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "A: b", "Host: " + at, "Trailer: X"}},
			{name: "hop-by-hop headers of the common form", request: "GET http://%s/ HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 1\r\n" +
				"Proxy-Authorization: Basic YTpi\r\nProxy-Authenticate: Basic\r\nProxy-Authentication-Info: x\r\nA: b\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "A: b", "Host: " + at}},
			{name: "two Connection headers", request: "GET http://%s/ HTTP/1.1\r\nHost: x\r\nConnection: x-a,, X-B\r\nConnection:\tx-c\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\nX-D: 4\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "Host: " + at, "X-D: 4"}},
			{name: "an upgrade to HTTP/2", request: "GET http://%s/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "Host: " + at}},
			{name: "a WebSocket in HTTP/1.0", request: "GET http://%s/ HTTP/1.0\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "Host: " + at}},
			{name: "an expectation without a body", request: "GET http://%s/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "Host: " + at}},
			{name: "an expectation in HTTP/1.0", request: "POST http://%s/ HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na", status: 200, body: "POST /",
				want: []string{"POST / HTTP/1.1", "Content-Length: 1", "Host: " + at}, payload: "a"},

			{name: "TRACE", request: "TRACE http://%s/ HTTP/1.1\r\nHost: x\r\nCookie: secret\r\n\r\n", status: 405},
			{name: "TRACE to the last hop", request: "TRACE http://%s/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\nCookie: secret\r\n\r\n", status: 405},
			{name: "OPTIONS of the proxy", request: "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", status: 200},
			{name: "OPTIONS of the origin", request: "OPTIONS http://%s HTTP/1.1\r\nHost: x\r\n\r\n", status: 200, body: "OPTIONS *",
				want: []string{"OPTIONS * HTTP/1.1", "Host: " + at}},
			{name: "OPTIONS of a page", request: "OPTIONS http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", status: 200, body: "OPTIONS /",
				want: []string{"OPTIONS / HTTP/1.1", "Host: " + at}},
			{name: "OPTIONS to the last hop", request: "OPTIONS http://%s/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n", status: 200},
			{name: "OPTIONS counts down", request: "OPTIONS http://%s/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 10\r\n\r\n", status: 200, body: "OPTIONS /",
				want: []string{"OPTIONS / HTTP/1.1", "Host: " + at, "Max-Forwards: 9"}},
			{name: "Max-Forwards of another method", request: "GET http://%s/ HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n", status: 200, body: "GET /",
				want: []string{"GET / HTTP/1.1", "Host: " + at, "Max-Forwards: 0"}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				c := enter(t, o)
				c.send(strings.ReplaceAll(tt.request, "%s", at))
				a := c.answer("GET")
				if a.StatusCode != tt.status || tt.status == 200 && a.body != tt.body {
					t.Errorf("answered %s %q, want %d %q", a.Status, a.body, tt.status, tt.body)
				}
				head, payload, _ := strings.Cut(o.received(), "\r\n\r\n")
				if tt.want == nil {
					if head != "" {
						t.Errorf("the origin received %q", head)
					}
				} else if compareLines(t, "origin", head, tt.want...); payload != tt.payload {
					t.Errorf("the origin received %q behind the head, want %q", payload, tt.payload)
				}
				if !a.Close && a.ProtoMinor == 1 {
					c.send(get(o, "/next", ""))
					if a := c.answer("GET"); a.body != "GET /next" {
						t.Errorf("the next answer is %s %q", a.Status, a.body)
					}
					o.received()
				}
			})
		}
	})
}

// Each refusal of a malformed request has its record; noise that is no request
// has none.
func TestMalformedIsRecorded(t *testing.T) {
	for _, tt := range []struct{ name, request, method, rule, why string }{
		{"two lengths", "POST http://a.test/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 4\r\n\r\n", "POST", exchange.RuleMalformed, "malformed request: it has two Content-Length headers"},
		{"version", "PRI * HTTP/2.0\r\n\r\n", "PRI", exchange.RuleMalformed, "malformed request: its version is neither HTTP/1.1 nor HTTP/1.0"},
		{"CONNECT", "CONNECT a.test:443 HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n", "CONNECT", exchange.RuleTarget, "malformed request: a header line is malformed, or has a control character"},
		{"no request", "hello\r\n\r\n", "", "", ""},
		{"binary", "\x00\x01\x02\xff\r\n", "", "", ""},
	} {
		everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
			t.Run(tt.name, func(t *testing.T) {
				r := start(t, setup{})
				c := r.dial()
				c.send(tt.request)
				_, _ = io.ReadAll(c.in)
				list := r.stop()
				if tt.method == "" {
					if len(list) > 0 {
						t.Errorf("records %+v", list)
					}
					return
				}
				if len(list) != 1 || list[0].Method != tt.method || list[0].Rule != tt.rule || list[0].Error != tt.why || list[0].Action != policy.Deny {
					t.Errorf("records %+v", list)
				}
			})
		})
	}
}
