package head

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

func TestEnd(t *testing.T) {
	for in, want := range map[string]int{
		"": 0, "A: b": 0, "A: b\r\n": 0, "A: b\r\n\r": 0, "A: b\r\n\r\nbody": 8, "A: b\n\nbody": 6, "A: b\n\r\n": 7, "A: b\r\n\n": 7, "\r\n": 0, "\r\n\r\n": 4, "\n\n": 2,
	} {
		for from := range len(in) + 1 {
			if want > 0 && from >= want {
				break // it is known not to be there
			}
			if got := End([]byte(in), from); got != want {
				t.Errorf("%q from %d: %d, want %d", in, from, got, want)
			}
		}
	}
}

func TestBody(t *testing.T) {
	for _, tt := range []struct {
		length int64
		in     string
		n      int
		done   bool
		err    error
	}{
		{0, "next", 0, true, nil},
		{2, "o", 1, false, nil},
		{2, "ok", 2, true, nil},
		{2, "oknext", 2, true, nil},
		{UntilClose, "anything", 8, false, nil},
		{Chunked, "2\r\nok\r\n0\r\n\r\nnext", 12, true, nil},
		{Chunked, "2\r\nok\r\n", 7, false, nil},
		{Chunked, "x", 0, false, ErrChunks},
	} {
		b := NewBody(tt.length)
		if n, err := b.Scan([]byte(tt.in)); n != tt.n || b.Done() != tt.done || err != tt.err {
			t.Errorf("%d %q: %d, done %v, %v", tt.length, tt.in, n, b.Done(), err)
		}
	}
}

// What the strict parser takes passes the check, and where the check finds the
// end of a request net/http finds it too.
func FuzzCheckRequest(f *testing.F) {
	for _, s := range []string{
		"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
		"POST http://a/ HTTP/1.0\r\ntransfer-encoding:\tChunked \r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\n\r\n\x16\x03\x01",
		"GET / HTTP/1.1\nHost: a\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		end := End(b, 0)
		if end == 0 {
			return
		}
		c, err := CheckRequest(b[:end])
		if r, ok := ParseRequest(b); ok && (r.Hosts > 0 || string(r.Method) == "CONNECT") {
			if err != nil || c.Length != 0 || r.Len != end || !bytes.Equal(c.Method, r.Method) {
				t.Fatalf("the parser takes %+v, the check says %+v, %v", r, c, err)
			}
		}
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n\x1b") {
				t.Errorf("error %q", err)
			}
			return
		}
		in := bytes.NewReader(b)
		br := bufio.NewReaderSize(in, len(b)+16)
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if consumed := len(b) - in.Len() - br.Buffered(); consumed != end {
			t.Errorf("net/http's head has %d bytes, the check's %d", consumed, end)
		}
		length := c.Length
		if length == Chunked {
			length = -1
		}
		if r.ContentLength != length || r.Method != string(c.Method) {
			t.Errorf("net/http reads %s with a length of %d, the check %s and %d", r.Method, r.ContentLength, c.Method, c.Length)
		}
	})
}

// The same for answers.
func FuzzCheckResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.0 404\nA: b\n\n",
		"HTTP/1.1 200 OK\r\ntransfer-encoding:chunked\r\nConnection: a\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		end := End(b, 0)
		if end == 0 {
			return
		}
		c, err := CheckResponse(b[:end])
		if r, ok := ParseResponse(b); ok {
			if err != nil || c.Length != r.Length || c.Status != r.Status || r.Len != end {
				t.Fatalf("the parser takes %+v, the check says %+v, %v", r, c, err)
			}
		}
		if err != nil {
			return
		}
		in := bytes.NewReader(b)
		br := bufio.NewReaderSize(in, len(b)+16)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return
		}
		if consumed := len(b) - in.Len() - br.Buffered(); consumed != end {
			t.Errorf("net/http's head has %d bytes, the check's %d", consumed, end)
		}
		if length := resp.ContentLength; c.Status >= 200 && c.Status != 204 && c.Status != 304 && length >= 0 && length != c.Length {
			t.Errorf("net/http reads a length of %d, the check %d", length, c.Length)
		}
	})
}
