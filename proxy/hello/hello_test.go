package hello

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves plain HTTP on loopback; what the server logs comes back from the
// last result, which closes the server.
func serve(t *testing.T) (*Listener, func() string) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := NewListener(inner)
	var logged bytes.Buffer
	s := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "plain") }),
		ErrorLog: log.New(&logged, "", 0),
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	end := func() string {
		s.Close()
		<-done
		return logged.String()
	}
	t.Cleanup(func() { end() })
	return l, end
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

func TestTLSClientIsRefused(t *testing.T) {
	l, end := serve(t)
	c := dial(t, l)
	err := tls.Client(c, &tls.Config{ServerName: strings.Repeat("a.", 100) + "example"}).Handshake()
	var alert tls.AlertError
	if !errors.As(err, &alert) && !strings.Contains(err.Error(), "handshake failure") {
		t.Errorf("handshake: %v, want a handshake_failure alert", err)
	}
	c.Close()
	if n := l.Refused(); n != 1 {
		t.Errorf("Refused() = %d, want 1", n)
	}
	if logged := end(); logged != "" {
		t.Errorf("the server logged %q", logged)
	}
}

// The alert arrives, and then the end, however the hello is cut into pieces and
// whatever stands behind it.
func TestAlertArrives(t *testing.T) {
	for name, hello := range map[string][]byte{
		"one byte":  {22},
		"a record":  append([]byte{22, 3, 1, 2, 0}, make([]byte, 512)...),
		"oversized": append([]byte{22, 3, 1, 64, 0}, make([]byte, 16384)...),
		"two flights": append([]byte{22, 3, 1, 0, 1, 1, 22, 3, 1, 1, 0},
			make([]byte, 6000)...),
	} {
		t.Run(name, func(t *testing.T) {
			l, _ := serve(t)
			c := dial(t, l)
			if _, err := c.Write(hello); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, alert) {
				t.Errorf("got % x, %v; want % x and the end", got, err, alert)
			}
		})
	}
}

func TestPlainPasses(t *testing.T) {
	l, _ := serve(t)
	c := dial(t, l)
	r := bufio.NewReader(c)
	for range 3 { // bytes that look like TLS later on do not matter
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n\x16\x03"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "plain" {
			t.Errorf("body %q, %v", body, err)
		}
	}
	if n := l.Refused(); n != 0 {
		t.Errorf("Refused() = %d, want 0", n)
	}
}

// A client that sends nothing does not keep others from being accepted.
func TestSilentClientsDoNotDelayOthers(t *testing.T) {
	l, _ := serve(t)
	for range 50 {
		dial(t, l)
	}
	c := dial(t, l)
	if _, err := c.Write([]byte{22}); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, alert) {
		t.Errorf("got % x, %v", got, err)
	}
}

func TestUnwrap(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := NewListener(inner)
	defer l.Close()
	client := dial(t, l)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, ok := c.(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn); !ok {
		t.Error("NetConn is no *net.TCPConn")
	}
	if _, err := client.Write([]byte("G\x16")); err != nil {
		t.Fatal(err)
	}
	var p [1]byte
	for _, want := range []byte("G\x16") {
		if _, err := io.ReadFull(c, p[:]); err != nil || p[0] != want {
			t.Errorf("read %q, %v; want %q", p[0], err, want)
		}
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(p[:]); err != io.EOF {
		t.Errorf("after CloseWrite: %v, want io.EOF", err)
	}
}
