package egress

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestParseAnswer(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		status   int
		end      int // -1: all of it
		err      error
	}{
		{"established", "HTTP/1.1 200 Connection established\r\n\r\n", 200, -1, nil},
		{"HTTP/1.0 without a reason", "HTTP/1.0 200\r\nVia: x\r\n\r\n", 200, -1, nil},
		{"bytes behind the head", "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 500 x\r\n\r\n", 200, 19, nil},
		{"interim answers first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 403 Forbidden\r\n\r\n", 403, -1, nil},
		{"only an interim answer", "HTTP/1.1 100 Continue\r\n\r\n", 0, 0, nil},
		{"nothing", "", 0, 0, nil},
		{"beginning", "HTT", 0, 0, nil},
		{"no empty line", "HTTP/1.1 200 OK\r\nVia: x\r\n", 0, 0, nil},
		{"another protocol", "SSH-2.0-x\r\n", 0, 0, errBadAnswer},
		{"HTTP/2", "HTTP/2 200 OK\r\n\r\n", 0, 0, errBadAnswer},
		{"TLS", "\x15\x03\x01\x00\x02\x02\x16", 0, 0, errBadAnswer},
		{"line feed first", "\nHTTP/1.1 200 OK\r\n\r\n", 0, 0, errBadAnswer},
		{"bare line feeds", "HTTP/1.1 200 OK\n\n", 0, 0, errBadAnswer},
		{"bare line feed in a header", "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", 0, 0, errBadAnswer},
		{"folded header", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", 0, 0, errBadAnswer},
		{"no status", "HTTP/1.1 OK\r\n\r\n", 0, 0, errBadAnswer},
		{"another protocol agreed", "HTTP/1.1 101 Switching Protocols\r\n\r\n", 0, 0, errBadAnswer},
		// RFC 9110, 9.3.6: a 2xx to CONNECT has no body, whatever it says.
		{"a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, -1, nil},
		{"an invalid length", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", 200, -1, nil},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, -1, nil},
		{"chunks by HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 200, -1, nil},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 200, -1, nil},
		{"Connection nominates a field", "HTTP/1.1 200 OK\r\nConnection: X-Foo\r\nX-Foo: y\r\n\r\n", 200, -1, nil},
		{"a field without a name", "HTTP/1.1 200 OK\r\n: x\r\n\r\n", 0, 0, errBadAnswer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			end := tc.end
			if end < 0 {
				end = len(tc.in)
			}
			if status, n, err := parseAnswer([]byte(tc.in)); status != tc.status || n != end || !errors.Is(err, tc.err) {
				t.Errorf("status %d, end %d, %v; want %d, %d, %v", status, n, err, tc.status, end, tc.err)
			}
		})
	}
}

// An answer that is accepted means the same to net/http, and is the same
// however it comes in pieces.
func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nbytes"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 407\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 2\r\n\r\nno"))
	f.Add([]byte("HTTP/1.1 200 OK\nVia: x\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		status, end, err := parseAnswer(b)
		if err != nil || end == 0 {
			if status != 0 || end != 0 {
				t.Fatalf("status %d, end %d beside %v", status, end, err)
			}
			return
		}
		if !bytes.HasSuffix(b[:end], []byte("\r\n\r\n")) || status < 200 || status > 999 {
			t.Fatalf("status %d, end %d", status, end)
		}
		for i := range end {
			if s, n, err := parseAnswer(b[:i]); s != 0 || n != 0 || err != nil {
				t.Fatalf("after %d of %d bytes: status %d, end %d, %v", i, end, s, n, err)
			}
		}
		last := strings.LastIndex(string(b[:end-4]), "\r\n\r\n") // of the interim answers
		if last < 0 {
			last = -4
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b[last+4:end])), &http.Request{Method: http.MethodConnect})
		if err == nil && resp.StatusCode != status {
			t.Errorf("net/http reads %d, the parser %d", resp.StatusCode, status)
		}
	})
}
