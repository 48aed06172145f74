package http2_test

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"

	"espalier/proxy/http2"
)

// Download through a tunnel, as the relay writes it, beside net/http's server.
func BenchmarkTunnelDown(b *testing.B) {
	chunk := make([]byte, 32<<10)
	count := func(target string) int { n, _ := strconv.Atoi(target); return n }
	ours := func(s *http2.Stream, r *http2.Request) {
		defer s.Close()
		_ = s.Tunnel()
		for range count(r.Authority) {
			_, _ = s.Write(chunk)
		}
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, s)
	}
	theirs := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range count(r.Host) {
			_, _ = w.Write(chunk)
			_ = http.NewResponseController(w).Flush()
		}
	})
	for _, bb := range []struct {
		name  string
		serve func(net.Listener)
	}{
		{"espalier", func(l net.Listener) {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { _ = http2.New(c, http2.Config{}, ours).Serve() }()
			}
		}},
		{"net-http", func(l net.Listener) {
			srv := &http.Server{Handler: theirs, Protocols: new(http.Protocols)}
			srv.Protocols.SetUnencryptedHTTP2(true)
			_ = srv.Serve(l)
		}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			go bb.serve(l)
			tr := newTransport(b)
			in, out := io.Pipe()
			req, _ := http.NewRequest(http.MethodConnect, "http://"+l.Addr().String(), in)
			req.Host = strconv.Itoa(b.N)
			b.SetBytes(int64(len(chunk)))
			b.ResetTimer()
			resp, err := tr.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			defer resp.Body.Close()
			if n, err := io.Copy(io.Discard, resp.Body); n != int64(b.N*len(chunk)) || err != nil {
				b.Errorf("got %d bytes, %v", n, err)
			}
			out.Close()
		})
	}
}
