package http2_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"espalier/proxy/http2"
)

// listen serves connections by TCP until the test ends.
func listen(t *testing.T, cfg http2.Config, h http2.Handler) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go http2.New(c, cfg, h).Serve()
		}
	}()
	return l.Addr()
}

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
	addr := listen(t, http2.Config{}, http2.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, "hello")
	})))
	host, port, _ := net.SplitHostPort(addr.String())
	out, err := exec.Command(tool, "-h", host, "-p", port, "-o", "2").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else {
		t.Logf("%s", out[len(out)-200:])
	}
}
