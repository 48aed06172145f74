package head

import (
	"bytes"
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
		{"incomplete end", "0\r\n\r", 3, 0, false},
		{"a name with a space in trailers", "0\r\nX : 1\r\n\r\n", -1, 0, false},
		{"no size", "\r\n", -1, 0, false},
		{"no digit", "x\r\n", -1, 0, false},
		{"bare line feed after the size", "1\na\r\n", -1, 0, false},
		{"no end of data", "1\r\nab\r\n", -1, 0, false},
		{"white space behind the size", "1 \t;a\r\nx\r\n0 \r\n\r\n", 16, 1, true},
		{"white space in the size", "1 0\r\n", -1, 0, false},
		{"negative", "-1\r\n", -1, 0, false},
		{"too large", "1000000000000000\r\n", -1, 0, false},
		{"bare line feed in trailers", "0\r\nX: 1\n\r\n", -1, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n, payload, done, err := scanWhole([]byte(tc.in))
			if tc.used < 0 {
				if err == nil || err == ErrIncomplete {
					t.Fatalf("scanned %d bytes, %v", n, err)
				}
				return
			}
			if err != nil || n != tc.used || payload != tc.payload || done != tc.done {
				t.Fatalf("scanned %d bytes, %d payload, done %v, %v", n, payload, done, err)
			}
			var split Chunks // byte by byte it is the same
			var sum int64
			for i := 0; i < tc.used && !split.Done; i++ {
				n, payload, err := split.Scan([]byte{tc.in[i]}, nil)
				if err != nil || n != 1 {
					t.Fatalf("byte %d: %d, %v", i, n, err)
				}
				sum += payload
			}
			if sum != tc.payload || tc.done && !split.Done {
				t.Errorf("byte by byte: %d payload, done %v", sum, split.Done)
			}
		})
	}
}

// scanWhole scans a body with its trailers.
func scanWhole(b []byte) (n int, payload int64, done bool, err error) {
	var c Chunks
	if n, payload, err = c.Scan(b, nil); err != nil || !c.Done {
		return n, payload, false, err
	}
	_, k, err := ParseTrailers(b[n:])
	if err == ErrIncomplete {
		return n, payload, false, nil
	}
	return n + k, payload, err == nil, err
}

// Pieces of payload are handed out in order, however the body arrives.
func TestChunksHandOutPayload(t *testing.T) {
	const in = "5;x\r\nhello\r\n1\r\n!\r\n0\r\n"
	for size := 1; size <= len(in); size++ {
		var c Chunks
		var got []byte
		for rest := []byte(in); len(rest) > 0; {
			part := rest[:min(size, len(rest))]
			n, _, err := c.Scan(part, func(piece []byte) { got = append(got, piece...) })
			if err != nil || n != len(part) {
				t.Fatalf("pieces of %d: %d, %v", size, n, err)
			}
			rest = rest[n:]
		}
		if string(got) != "hello!" || !c.Done {
			t.Errorf("pieces of %d: %q, done %v", size, got, c.Done)
		}
	}
}

func TestParseTrailers(t *testing.T) {
	f, n, err := ParseTrailers([]byte("A: 1\r\nb:2\r\n\r\nnext"))
	if err != nil || n != 13 || string(f) != "A: 1\r\nb:2\r\n" {
		t.Errorf("%q, %d, %v", f, n, err)
	}
	if _, n, err := ParseTrailers([]byte("\r\n")); n != 2 || err != nil {
		t.Errorf("none: %d, %v", n, err)
	}
	if _, _, err := ParseTrailers(bytes.Repeat([]byte("A: b\r\n"), 4000)); err != ErrChunks {
		t.Errorf("without an end: %v", err)
	}
}

// A body that is scanned to its end reads the same in net/http.
func FuzzChunks(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"))
	f.Add([]byte("1;x\r\na\r\n0\r\nA: b\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, payload, done, err := scanWhole(b)
		if err != nil || !done {
			return
		}
		got, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(b)))
		if err == nil && int64(len(got)) != payload {
			t.Errorf("net/http reads %d bytes, the scanner %d", len(got), payload)
		}
	})
}
