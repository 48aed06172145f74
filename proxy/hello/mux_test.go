package hello

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// serveMux serves plain HTTP and TLS on one port, and counts who waits.
func serveMux(t *testing.T) (addr string, waiting func() int, closeAll func()) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS()
	certificate.Close()
	var mu sync.Mutex
	waits := map[net.Conn]bool{}
	b := NewMux(inner, &tls.Config{Certificates: certificate.TLS.Certificates, NextProtos: []string{"h2", "http/1.1", "other"}},
		func(c net.Conn, state http.ConnState) {
			mu.Lock()
			defer mu.Unlock()
			if state == http.StateNew {
				waits[c] = true
			} else {
				delete(waits, c)
			}
		})
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			io.WriteString(w, r.Proto+" inside TLS")
			return
		}
		io.WriteString(w, r.Proto)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(b) }()
	end := sync.OnceFunc(func() { s.Close(); <-done })
	t.Cleanup(end)
	return inner.Addr().String(), func() int { mu.Lock(); defer mu.Unlock(); return len(waits) }, end
}

func TestMux(t *testing.T) {
	addr, _, _ := serveMux(t)
	for _, x := range []struct {
		name, url, want string
		http2           bool
	}{
		{"plain", "http://", "HTTP/1.1", false},
		{"TLS", "https://", "HTTP/1.1 inside TLS", false},
		{"HTTP/2", "https://", "HTTP/2.0 inside TLS", true},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
				TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: x.http2,
			}}
			defer c.CloseIdleConnections()
			for range 2 {
				resp, err := c.Get(x.url + addr)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(body) != x.want {
					t.Errorf("%q, %v; want %q", body, err, x.want)
				}
			}
		})
	}
}

// Whoever says nothing waits, and neither holds others up nor is forgotten when
// all is closed; another protocol inside TLS is closed.
func TestMuxStrangers(t *testing.T) {
	addr, waiting, end := serveMux(t)
	dialed := func() net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		return c
	}
	silent, half := dialed(), dialed()
	if _, err := half.Write([]byte{22, 3, 1}); err != nil {
		t.Fatal(err)
	}
	c := dialed()
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("%v, %v", resp, err)
	}
	secure := tls.Client(dialed(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"other"}})
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(secure); len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	for end := time.Now().Add(time.Minute); waiting() != 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d wait, want 2", waiting())
		}
	}
	end()
	for _, c := range []net.Conn{silent, half} {
		_, _ = io.Copy(io.Discard, c) // until it is closed
	}
	if n := waiting(); n != 0 {
		t.Errorf("%d still wait", n)
	}
}
