package head

import (
	"bufio"
	"bytes"
	"net/http"
	"slices"
	"testing"
)

func TestParseResponse(t *testing.T) {
	const first = "HTTP/1.1 200 OK\r\n"
	for _, tc := range []struct {
		name, in string
		status   int // 0: left to net/http
		length   int64
		close    bool
	}{
		{"length", first + "Content-Length: 12\r\n\r\n", 200, 12, false},
		{"chunked", first + "transfer-ENCODING: Chunked\r\n\r\n", 200, Chunked, false},
		{"until close", first + "\r\n", 200, UntilClose, false},
		{"bytes behind the head", first + "Content-Length: 2\r\n\r\nok", 200, 2, false},
		{"close", first + "Content-Length: 1\r\nConnection: close\r\n\r\n", 200, 1, true},
		{"no reason", "HTTP/1.1 404\r\n\r\n", 404, UntilClose, false},
		{"empty reason", "HTTP/1.1 404 \r\n\r\n", 404, UntilClose, false},
		{"bytes above ASCII", "HTTP/1.1 200 D\xe9j\xe0\r\nX: \xff\r\n\r\n", 200, UntilClose, false},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", 200, 1, true},
		{"HTTP/1.0 kept", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n", 200, 1, false},
		{"offer of an upgrade", first + "Upgrade: h2c\r\nConnection: Upgrade, Keep-Alive\r\n\r\n", 200, UntilClose, false},
		{"offer of an upgrade, and close", first + "Connection: Upgrade, close\r\n\r\n", 200, UntilClose, true},
		{"two Connection headers", first + "Connection: close\r\nConnection: keep-alive\r\n\r\n", 200, UntilClose, true},

		{"nominated header", first + "Connection: close, x-secret\r\n\r\n", 200, UntilClose, true},
		{"two lengths", first + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", 0, 0, false},
		{"list of lengths", first + "Content-Length: 1, 1\r\n\r\n", 0, 0, false},
		{"signed length", first + "Content-Length: +1\r\n\r\n", 0, 0, false},
		{"endless length", first + "Content-Length: 1234567890123456789\r\n\r\n", 0, 0, false},
		{"no length", first + "Content-Length:\r\n\r\n", 0, 0, false},
		{"length and chunked", first + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, false},
		{"chunked and length", first + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 0, 0, false},
		{"chunked twice", first + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, false},
		{"another coding", first + "Transfer-Encoding: gzip, chunked\r\n\r\n", 0, 0, false},
		{"chunked in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 0, false},
		{"upgrade", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", 101, UntilClose, false},
		{"other protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n", 0, 0, false},
		{"status of letters", "HTTP/1.1 2x0 OK\r\n\r\n", 0, 0, false},
		{"control in the reason", "HTTP/1.1 200 O\x00K\r\n\r\n", 0, 0, false},
		{"HTTP/2", "HTTP/2.0 200 OK\r\n\r\n", 0, 0, false},
		{"four digits", "HTTP/1.1 2000 OK\r\n\r\n", 0, 0, false},
		{"two digits", "HTTP/1.1 20 OK\r\n\r\n", 0, 0, false},
		{"below 100", "HTTP/1.1 099 OK\r\n\r\n", 0, 0, false},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 1\n\n", 0, 0, false},
		{"bare CR in a value", first + "X: a\rY: b\r\n\r\n", 0, 0, false},
		{"bare CR in the reason", "HTTP/1.1 200 O\rK\r\n\r\n", 0, 0, false},
		{"folded line", first + "X: a\r\n b\r\n\r\n", 0, 0, false},
		{"space before colon", first + "Content-Length : 1\r\n\r\n", 0, 0, false},
		{"incomplete", first + "Content-Length: 1\r\n", 0, 0, false},
		{"empty", "", 0, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, err := ParseResponse([]byte(tc.in))
			ok := err == nil
			if ok != (tc.status != 0) {
				t.Fatalf("parsed %+v, %v", r, ok)
			}
			if ok && (r.Status != tc.status || r.Length != tc.length || r.Close != tc.close) {
				t.Errorf("status %d, length %d, close %v; want %d, %d, %v", r.Status, r.Length, r.Close, tc.status, tc.length, tc.close)
			}
		})
	}
}

// Whatever the strict parser takes, net/http reads the same way, or refuses.
func FuzzParseResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"))
	f.Add([]byte("HTTP/1.0 404\r\nConnection: keep-alive, upgrade\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\ntransfer-encoding:chunked\r\nX: a\r\n b\r\n\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseResponse(b)
		if err != nil {
			return
		}
		in := bytes.NewReader(b)
		br := bufio.NewReaderSize(in, len(b)+16)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return
		}
		if consumed := len(b) - in.Len() - br.Buffered(); consumed != r.Len {
			t.Errorf("net/http's head has %d bytes, the parser's %d", consumed, r.Len)
		}
		chunked := slices.Equal(resp.TransferEncoding, []string{"chunked"})
		if resp.StatusCode != r.Status || chunked != (r.Length == Chunked) {
			t.Errorf("net/http reads %d, chunked %v; the parser %d and length %d", resp.StatusCode, chunked, r.Status, r.Length)
		}
		// Answers to which no body belongs, whatever they announce.
		if r.Status >= 200 && r.Status != 204 && r.Status != 304 && !chunked && resp.ContentLength != r.Length {
			t.Errorf("net/http reads a length of %d, the parser %d", resp.ContentLength, r.Length)
		}
	})
}
