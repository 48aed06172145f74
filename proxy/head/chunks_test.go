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
