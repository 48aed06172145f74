package head

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

func TestParseRequest(t *testing.T) {
	const first = "CONNECT a.test:443 HTTP/1.1\r\n"
	for _, tc := range []struct {
		name, in      string
		target, agent string // empty target: left to net/http
	}{
		{"minimal", first + "\r\n", "a.test:443", ""},
		{"with host and agent", first + "Host: a.test:443\r\nUser-Agent:  curl/8 \r\nProxy-Connection: Keep-Alive\r\n\r\n", "a.test:443", "curl/8"},
		{"bytes behind the head", first + "Host: a\r\n\r\n\x16\x03\x01\n\n", "a.test:443", ""},
		{"IPv6", "CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n", "[2001:db8::1]:443", ""},
		{"header case", first + "uSER-aGENT: x\r\n\r\n", "a.test:443", "x"},
		{"empty value", first + "X-Empty:\r\n\r\n", "a.test:443", ""},
		{"incomplete line", "CONNECT a.test:443 HTT", "", ""},
		{"incomplete head", first + "Host: a\r\n", "", ""},
		{"empty", "", "", ""},
		{"no target", "CONNECT  HTTP/1.1\r\n\r\n", "", ""},
		{"method alone", "CONNECT HTTP/1.1\r\n\r\n", "", ""},
		{"HTTP/1.0", "CONNECT a.test:443 HTTP/1.0\r\n\r\n", "", ""},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", ""},
		{"GET", "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", "http://a.test/", ""},
		{"connection close", first + "Connection: close\r\n\r\n", "a.test:443", ""},
		{"nominated header", first + "Connection: x-secret\r\nX-Secret: 1\r\n\r\n", "", ""},
		{"nominated beside close", first + "Connection: close, x-secret\r\n\r\n", "", ""},
		{"upgrade", first + "Upgrade: websocket\r\n\r\n", "", ""},
		{"trailer", first + "Trailer: x\r\n\r\n", "", ""},
		{"te", first + "TE: trailers\r\n\r\n", "", ""},
		{"lower-case method", "connect a.test:443 HTTP/1.1\r\n\r\n", "", ""},
		{"space in target", "CONNECT a.test :443 HTTP/1.1\r\n\r\n", "", ""},
		{"control in target", "CONNECT a\x00.test:443 HTTP/1.1\r\n\r\n", "", ""},
		{"bare LF after request line", "CONNECT a.test:443 HTTP/1.1\n\r\n", "", ""},
		{"bare LF after header", first + "Host: a\n\r\n", "", ""},
		{"bare LF at the end", first + "Host: a\r\n\n", "", ""},
		{"bare CR in value", first + "Host: a\rb\r\n\r\n", "", ""},
		{"folded line", first + "X: a\r\n b\r\n\r\n", "", ""},
		{"space before colon", first + "Host : a\r\n\r\n", "", ""},
		{"no colon", first + "Host\r\n\r\n", "", ""},
		{"no name", first + ": a\r\n\r\n", "", ""},
		{"NUL in value", first + "X: \x00\r\n\r\n", "", ""},
		{"byte above ASCII", first + "X: \xff\r\n\r\n", "", ""},
		{"credentials", first + "Authorization: Basic YTpi\r\n\r\n", "a.test:443", ""},
		{"credentials of the connection", first + "Authorization: NTLM TlRM\r\n\r\n", "", ""},
		{"the same in another case", first + "authorization: negotiate\r\n\r\n", "", ""},
		{"the same behind a tab", first + "Authorization: NTLM\tTlRM\r\n\r\n", "", ""},
		{"the same beside others", first + "Authorization: Basic YTpi\r\nAuthorization: Negotiate YII\r\n\r\n", "", ""},
		{"two hosts", first + "Host: a\r\nhost: b\r\n\r\n", "", ""},
		{"content length", first + "Content-Length: 0\r\n\r\n", "", ""},
		{"transfer encoding", first + "Transfer-Encoding: chunked\r\n\r\n", "", ""},
		{"expect", first + "Expect: 100-continue\r\n\r\n", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, ok := ParseRequest([]byte(tc.in))
			if ok != (tc.target != "") || ok && (string(h.Target) != tc.target || string(h.Agent) != tc.agent) {
				t.Fatalf("parsed %q %q, %v", h.Target, h.Agent, ok)
			}
			if ok && !strings.HasSuffix(tc.in[:h.Len], "\r\n\r\n") {
				t.Errorf("the head ends after %q", tc.in[:h.Len])
			}
		})
	}
}

// Whatever the strict parser takes, net/http reads the same way.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nUser-Agent: curl/8\r\n\r\nrest"))
	f.Add([]byte("CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\nX-Y:z\r\n\r\n"))
	f.Add([]byte("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := ParseRequest(b)
		if !ok {
			return
		}
		r := bytes.NewReader(b)
		br := bufio.NewReaderSize(r, len(b)+16)
		req, err := http.ReadRequest(br)
		if err != nil {
			return // net/http knows more reasons to refuse a target
		}
		if req.Method != string(h.Method) || req.RequestURI != string(h.Target) || req.UserAgent() != string(h.Agent) && len(req.Header["User-Agent"]) < 2 {
			t.Errorf("net/http reads %s %s %q, the parser %q %q", req.Method, req.RequestURI, req.UserAgent(), h.Target, h.Agent)
		}
		if consumed := len(b) - r.Len() - br.Buffered(); consumed != h.Len {
			t.Errorf("net/http's head has %d bytes, the parser's %d", consumed, h.Len)
		}
	})
}
