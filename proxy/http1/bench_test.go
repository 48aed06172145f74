package http1

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// BenchmarkRequest asks for a small answer, on one kept connection. A POST takes a
// connection to the origin of its own.
func BenchmarkRequest(b *testing.B) {
	for _, bb := range []struct{ name, method, lines, body string }{
		{"GET", "GET", "", ""},
		{"POST", "POST", "Content-Length: 100\r\n", string(make([]byte, 100))},
	} {
		b.Run(bb.name, func(b *testing.B) {
			r, o := start(b, patient), newOrigin(b)
			requestEnd := []byte("\r\n\r\n" + bb.body)
			go func() {
				for {
					c, err := o.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						buf, n := make([]byte, 4<<10), 0
						for {
							m, err := c.Read(buf[n:])
							if err != nil {
								return
							}
							if n += m; bytes.HasSuffix(buf[:n], requestEnd) {
								_, _ = io.WriteString(c, ok)
								n = 0
							}
						}
					}()
				}
			}()
			c, err := net.Dial("tcp", r.l.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			request := []byte(bb.method + " http://" + o.at() + "/ HTTP/1.1\r\nHost: " + o.at() + "\r\n" + bb.lines + "\r\n" + bb.body)
			answer := make([]byte, len(ok))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(request); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(c, answer); err != nil {
					b.Fatal(err)
				}
			}
			if string(answer) != ok {
				b.Fatalf("got %q", answer)
			}
			c.Close()
			r.stop()
		})
	}
}
