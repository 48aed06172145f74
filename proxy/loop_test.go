package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// leadBack is a parent that leads back to the proxy at to, which is set when that
// is known. It counts connections.
type leadBack struct {
	addr net.Addr
	to   atomic.Pointer[string]
	took atomic.Int64
}

func newLeadBack(t *testing.T) *leadBack {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &leadBack{addr: l.Addr()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.took.Add(1)
			wg.Go(func() { b.relay(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return b
}

func (b *leadBack) relay(c net.Conn) {
	defer c.Close()
	up, err := net.Dial("tcp", *b.to.Load())
	if err != nil {
		return
	}
	defer up.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(up, c)
		_ = up.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, up)
	_ = c.(*net.TCPConn).CloseWrite()
	c.Close()
	<-done
}

// A request that a parent sends back is found at its first return, by Via or, where
// requests carry none, by a question, and the client is told so.
func TestParentLeadsBack(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		const refused = "espalier; error=proxy_loop_detected"
		back := newLeadBack(t)
		r := start(t, setup{parent: "http://" + back.addr.String()})
		at := r.listener.Addr().String()
		back.to.Store(&at)
		c := r.dial()
		c.send(connectTo("courier.push.apple.com:443"))
		if a := c.answer("CONNECT"); a.StatusCode != 502 || a.Header.Get("Proxy-Status") != refused {
			t.Errorf("CONNECT: %d, %q", a.StatusCode, a.Header.Get("Proxy-Status"))
		}
		c.Close()
		if n := back.took.Load(); n != 1 {
			t.Errorf("the parent was asked %d times", n)
		}
		for _, method := range []string{"GET", "POST"} {
			c := r.dial()
			c.send(method + " http://name.example/ HTTP/1.1\r\nHost: name.example\r\nContent-Length: 0\r\n\r\n")
			if a := c.answer(method); a.StatusCode != 502 || a.Header.Get("Proxy-Status") != refused {
				t.Errorf("%s: %d, %q", method, a.StatusCode, a.Header.Get("Proxy-Status"))
			}
			c.Close()
		}
		if n := back.took.Load(); n != 1 {
			t.Errorf("the parent was asked %d times when it was known", n)
		}
		for _, rec := range r.stop() {
			if !strings.Contains(rec.Error, "leads back to this proxy") || rec.Status != 502 {
				t.Errorf("record %+v", rec)
			}
		}
	})
}

func TestParentLeadsBackByQuestion(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		back := newLeadBack(t)
		r := start(t, setup{parent: "http://" + back.addr.String()})
		at := r.listener.Addr().String()
		back.to.Store(&at)
		ctx, cancel := context.WithCancel(t.Context())
		told := make(chan string, 8)
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			r.server.pipeline.State().Dialer.Watch(ctx, func(parent string, loops bool) { told <- fmt.Sprint(parent, " ", loops) })
		}()
		if got, want := <-told, back.addr.String()+" true"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
		cancel()
		<-watched
		if n := back.took.Load(); n != 1 {
			t.Errorf("the parent was asked %d times", n)
		}
		c := r.dial()
		c.send("GET http://swscan.apple.com/ HTTP/1.1\r\nHost: swscan.apple.com\r\n\r\n")
		if a := c.answer("GET"); a.StatusCode != 502 || back.took.Load() != 1 {
			t.Errorf("%d, and the parent was asked %d times", a.StatusCode, back.took.Load())
		}
		c.Close()
	})
}

// A parent that leads back later on is found out by the connections of the first
// request that comes back.
func TestParentBeginsToLeadBack(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		asked := make(chan string, 1)
		fine := newOrigin(t, func(c net.Conn) {
			head, err := readHead(bufio.NewReader(c))
			if err == nil {
				asked <- head
				_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}
		}).String()
		back := newLeadBack(t)
		back.to.Store(&fine)
		r := start(t, setup{parent: "http://" + back.addr.String()})
		ctx, cancel := context.WithCancel(t.Context())
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			r.server.pipeline.State().Dialer.Watch(ctx, func(string, bool) {})
		}()
		if head := <-asked; !strings.Contains(head, ".espalier.invalid") {
			t.Errorf("asked %q", head)
		}
		at := r.listener.Addr().String()
		back.to.Store(&at)
		c := r.dial()
		c.send("GET http://swscan.apple.com/ HTTP/1.1\r\nHost: swscan.apple.com\r\n\r\n")
		if a := c.answer("GET"); a.StatusCode != 502 || a.Header.Get("Proxy-Status") != "espalier; error=proxy_loop_detected" {
			t.Errorf("%d, %q", a.StatusCode, a.Header.Get("Proxy-Status"))
		}
		c.Close()
		cancel()
		<-watched
		t.Logf("the parent was asked %d times", back.took.Load())
	})
}
