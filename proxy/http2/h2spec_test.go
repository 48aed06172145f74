package http2_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"espalier/proxy/http2"
)

// listen serves connections by TCP until the test ends, inside TLS with a config.
func listen(t *testing.T, inside *tls.Config, cfg http2.Config, h http2.Handler) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				if inside != nil {
					secure := tls.Server(c, inside)
					if secure.Handshake() != nil {
						c.Close()
						return
					}
					c = secure
				}
				conn := http2.New(c, cfg, h)
				stop := context.AfterFunc(t.Context(), conn.Close)
				defer stop()
				_ = conn.Serve()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return l.Addr()
}

// selfSigned is a server's TLS config for HTTP/2.
func selfSigned(t *testing.T) *tls.Config {
	s := httptest.NewUnstartedServer(nil)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2"}}
}

// All of h2spec's cases pass.
func TestH2spec(t *testing.T) {
	tool, err := filepath.Abs("../../.tools/h2spec")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tool); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for name, args := range map[string][]string{"plain": nil, "TLS": {"-t", "-k"}} {
		t.Run(name, func(t *testing.T) {
			var inside *tls.Config
			if name == "TLS" {
				inside = selfSigned(t)
			}
			addr := listen(t, inside, http2.Config{}, func(s *http2.Stream, r *http2.Request) {
				_, _ = io.Copy(io.Discard, s)
				_ = s.Answer(200, nil, []byte("hello\n"), true)
			})
			host, port, _ := net.SplitHostPort(addr.String())
			out, err := exec.Command(tool, append(args, "-h", host, "-p", port)...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "145 tests, 145 passed, 0 skipped, 0 failed") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
