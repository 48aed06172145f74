package head

import (
	"bytes"
	"errors"
	"io"
	"net/http/httputil"
	"testing"
)

func TestChunks(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		used     int // -1: malformed
		payload  int64
		done     bool
	}{
		{"one chunk", "5\r\nhello\r\n0\r\n\r\n", 15, 5, true},
		{"two chunks and what follows", "1\r\na\r\n2\r\nbc\r\n0\r\n\r\nHTTP/1.1", 18, 3, true},
		{"hexadecimal", "A\r\n0123456789\r\n0\r\n\r\n", 20, 10, true},
		{"extension", "1;a=\"b\"\r\nx\r\n0;c\r\n\r\n", 19, 1, true},
		{"trailers", "0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", 21, 0, true},
		{"incomplete data", "5\r\nhel", 6, 3, false},
		{"incomplete end", "0\r\n\r", 4, 0, false},
		{"no size", "\r\n", -1, 0, false},
		{"no digit", "x\r\n", -1, 0, false},
		{"bare line feed after the size", "1\na\r\n", -1, 0, false},
		{"no end of data", "1\r\nab\r\n", -1, 0, false},
		{"negative", "-1\r\n", -1, 0, false},
		{"too large", "1000000000000000\r\n", -1, 0, false},
		{"bare line feed in trailers", "0\r\nX: 1\n\r\n", -1, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var whole Chunks
			n, payload, err := whole.Scan([]byte(tc.in))
			if tc.used < 0 {
				if !errors.Is(err, ErrChunks) {
					t.Fatalf("scanned %d bytes, %v", n, err)
				}
				return
			}
			if err != nil || n != tc.used || payload != tc.payload || whole.Done != tc.done {
				t.Fatalf("scanned %d bytes, %d payload, done %v, %v", n, payload, whole.Done, err)
			}
			var split Chunks // byte by byte it is the same
			var sum int64
			for i := range tc.used {
				n, payload, err := split.Scan([]byte{tc.in[i]})
				if err != nil || n != 1 {
					t.Fatalf("byte %d: %d, %v", i, n, err)
				}
				sum += payload
			}
			if sum != tc.payload || split.Done != tc.done {
				t.Errorf("byte by byte: %d payload, done %v", sum, split.Done)
			}
		})
	}
}

// A body that is scanned to its end reads the same in net/http.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"))
	f.Add([]byte("1;x\r\na\r\n0\r\nA: b\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Chunks
		_, payload, err := c.Scan(b)
		if err != nil || !c.Done {
			return
		}
		got, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(b)))
		if err == nil && int64(len(got)) != payload {
			t.Errorf("net/http reads %d bytes, the scanner %d", len(got), payload)
		}
	})
}

func TestParseResponse(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		status   int // 0: not for the short way
		length   int64
		close    bool
	}{
		{"length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, 5, false},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, Chunked, false},
		{"until close", "HTTP/1.1 200 OK\r\n\r\n", 200, UntilClose, false},
		{"close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 200, 0, true},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", 200, 1, true},
		{"HTTP/1.0 kept alive", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n", 200, 1, false},
		{"no reason", "HTTP/1.1 204 \r\n\r\n", 204, UntilClose, false},
		{"no reason and no space", "HTTP/1.1 204\r\n\r\n", 204, UntilClose, false},
		{"incomplete", "HTTP/1.1 200 OK\r\nContent-", 0, 0, false},
		{"both length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, false},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", 0, 0, false},
		{"list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", 0, 0, false},
		{"signed length", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", 0, 0, false},
		{"other encoding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 0, 0, false},
		{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, false},
		{"upgrade", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", 0, 0, false},
		{"nominated header", "HTTP/1.1 200 OK\r\nConnection: x-secret\r\n\r\n", 0, 0, false},
		{"folded line", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", 0, 0, false},
		{"bare line feed", "HTTP/1.1 200 OK\nX: a\n\n", 0, 0, false},
		{"other protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n", 0, 0, false},
		{"HTTP/2", "HTTP/2 200\r\n\r\n", 0, 0, false},
		{"status of letters", "HTTP/1.1 2x0 OK\r\n\r\n", 0, 0, false},
		{"status too long", "HTTP/1.1 2000 OK\r\n\r\n", 0, 0, false},
		{"status too low", "HTTP/1.1 099 OK\r\n\r\n", 0, 0, false},
		{"control in reason", "HTTP/1.1 200 O\x00K\r\n\r\n", 0, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, ok := ParseResponse([]byte(tc.in))
			if ok != (tc.status != 0) {
				t.Fatalf("parsed %+v, %v", r, ok)
			}
			if ok && (r.Status != tc.status || r.Length != tc.length || r.Close != tc.close) {
				t.Errorf("status %d, length %d, close %v", r.Status, r.Length, r.Close)
			}
		})
	}
}
