package head

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestParseRequest(t *testing.T) {
	const first = "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n"
	for _, tc := range []struct {
		name, in string
		want     Request // its flags
	}{
		{"minimal", first + "\r\n", Request{}},
		{"CONNECT without a host", "CONNECT a.test:443 HTTP/1.1\r\n\r\n", Request{}},
		{"CONNECT with an empty body", "CONNECT a.test:443 HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Request{}},
		{"HTTP/1.0", "GET http://a.test/ HTTP/1.0\r\n\r\n", Request{Close: true}},
		{"HTTP/1.0 kept", "GET http://a.test/ HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Request{}},
		{"HTTP/1.0 kept by a proxy's client", "GET http://a.test/ HTTP/1.0\r\nProxy-Connection: keep-alive\r\n\r\n", Request{}},
		{"agent", first + "uSER-aGENT:  curl/8 \r\n\r\n", Request{Agent: []byte("curl/8")}},
		{"bytes behind the head", first + "\r\n\x16\x03\x01\n\n", Request{}},
		{"bytes above ASCII", "GET http://a.test/\xe9 HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n", Request{}},
		{"length", first + "Content-Length: 12\r\n\r\n", Request{Length: 12}},
		{"chunked", first + "TRANSFER-encoding:\tChunked \r\n\r\n", Request{Length: Chunked}},
		{"expectation", first + "Content-Length: 1\r\nExpect: 100-Continue\r\n\r\n", Request{Length: 1, Expect: true}},
		{"expectation without a body", first + "Expect: 100-continue\r\n\r\n", Request{}},
		{"close", first + "Connection: keep-alive, close\r\n\r\n", Request{Close: true}},
		{"close, to a proxy", first + "Proxy-Connection: close\r\n\r\n", Request{Close: true}},
		{"nominated header", first + "Connection: close, x-secret\r\nX-Secret: 1\r\n\r\n", Request{Close: true, Nominates: true}},
		{"WebSocket", first + "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n", Request{WebSocket: true}},
		{"WebSocket of a POST", "POST http://a/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Request{}},
		{"another upgrade", first + "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", Request{}},
		{"credentials", first + "Authorization: Basic YTpi\r\n\r\n", Request{}},
		{"credentials of the connection", first + "Authorization: NTLM TlRM\r\n\r\n", Request{SignsIn: true}},
		{"the same in another case", first + "authorization: negotiate\r\n\r\n", Request{SignsIn: true}},
		{"the same behind a tab", first + "Authorization: NTLM\tTlRM\r\n\r\n", Request{SignsIn: true}},
		{"the same beside others", first + "Authorization: Basic YTpi\r\nAuthorization: Negotiate YII\r\n\r\n", Request{SignsIn: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := ParseRequest([]byte(tc.in))
			if err != nil {
				t.Fatal(err)
			}
			if r.Length != tc.want.Length || r.Close != tc.want.Close || r.Expect != tc.want.Expect || r.WebSocket != tc.want.WebSocket ||
				r.Nominates != tc.want.Nominates || r.SignsIn != tc.want.SignsIn || !bytes.Equal(r.Agent, tc.want.Agent) {
				t.Errorf("parsed %+v", r)
			}
			if !strings.HasSuffix(tc.in[:r.Len], "\r\n\r\n") {
				t.Errorf("the head ends after %q", tc.in[:r.Len])
			}
			for n := range r.Len {
				if _, err := ParseRequest([]byte(tc.in[:n])); err != ErrIncomplete {
					t.Fatalf("%q: %v", tc.in[:n], err)
				}
			}
		})
	}
}

func TestMalformedRequests(t *testing.T) {
	const first = "GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n"
	for _, tc := range []struct {
		name, in string
		status   int
	}{
		{"no target", "CONNECT  HTTP/1.1\r\n\r\n", 400},
		{"method alone", "CONNECT HTTP/1.1\r\n\r\n", 400},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"lower-case method", "connect a.test:443 HTTP/1.1\r\n\r\n", 501},
		{"space in target", "CONNECT a.test :443 HTTP/1.1\r\n\r\n", 400},
		{"control in target", "CONNECT a\x00.test:443 HTTP/1.1\r\n\r\n", 400},
		{"no host", "GET http://a.test/ HTTP/1.1\r\n\r\n", 400},
		{"two hosts", first + "host: b\r\n\r\n", 400},
		{"host with a slash", "GET http://a.test/ HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		{"bare LF after request line", "GET http://a.test/ HTTP/1.1\nHost: a\r\n\r\n", 400},
		{"bare LF after header", first + "X: a\n\r\n", 400},
		{"bare LF at the end", first + "\n", 400},
		{"bare CR in value", first + "X: a\rb\r\n\r\n", 400},
		{"folded line", first + " b\r\n\r\n", 400},
		{"space before colon", first + "X : a\r\n\r\n", 400},
		{"no colon", first + "X\r\n\r\n", 400},
		{"no name", first + ": a\r\n\r\n", 400},
		{"NUL in value", first + "X: \x00\r\n\r\n", 400},
		{"two lengths", first + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
		{"signed length", first + "Content-Length: +1\r\n\r\n", 400},
		{"length and chunks", first + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"another coding", first + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501},
		{"chunks in HTTP/1.0", "POST http://a/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		{"a CONNECT with a body", "CONNECT a.test:443 HTTP/1.1\r\nContent-Length: 1\r\n\r\n", 400},
		{"unknown expectation", first + "Expect: a-lot\r\n\r\n", 417},
		{"too many fields", first + strings.Repeat("A: b\r\n", MaxFields) + "\r\n", 431},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ParseRequest([]byte(tc.in))
			if e, ok := errors.AsType[*Error](err); !ok || e.Status != tc.status {
				t.Errorf("%v, want status %d", err, tc.status)
			}
		})
	}
}

func BenchmarkParseRequest(b *testing.B) {
	in := []byte("GET http://example.com/a/b.ipsw HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8\r\nAccept: */*\r\nAccept-Language: en\r\nConnection: keep-alive\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRequest(in); err != nil {
			b.Fatal(err)
		}
	}
}

// What is taken net/http reads in the same way.
func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{
		"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nUser-Agent: curl/8\r\n\r\nrest",
		"CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\nX-Y:z\r\n\r\n",
		"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
		"POST http://a/ HTTP/1.0\r\ntransfer-encoding:\tChunked \r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\nHost: a\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRequest(b)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n\x1b") {
				t.Errorf("error %q", err)
			}
			return
		}
		if end := End(b, 0); end != r.Len {
			t.Errorf("End finds %d bytes, the parser %d", end, r.Len)
		}
		in := bytes.NewReader(b)
		br := bufio.NewReaderSize(in, len(b)+16)
		req, err := http.ReadRequest(br)
		if err != nil {
			return // net/http knows more reasons to refuse a target
		}
		if consumed := len(b) - in.Len() - br.Buffered(); consumed != r.Len {
			t.Errorf("net/http's head has %d bytes, the parser's %d", consumed, r.Len)
		}
		length := r.Length
		if length == Chunked {
			length = -1
		}
		if req.ContentLength != length || req.Method != string(r.Method) || req.RequestURI != string(r.Target) {
			t.Errorf("net/http reads %s %s with a length of %d, the parser %+v", req.Method, req.RequestURI, req.ContentLength, r)
		}
	})
}
