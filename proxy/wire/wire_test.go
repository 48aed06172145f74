package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns both ends of a TCP connection.
func pair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	return c.(*net.TCPConn), d.(*net.TCPConn)
}

func TestUnread(t *testing.T) {
	a, b := pair(t)
	c := New(a, []byte("one "))
	if string(c.Unread()) != "one " {
		t.Fatalf("unread %q", c.Unread())
	}
	if _, err := io.WriteString(b, "two"); err != nil {
		t.Fatal(err)
	}
	if err := c.More(time.Minute); err != nil {
		t.Fatal(err)
	}
	if string(c.Unread()) != "one two" {
		t.Fatalf("unread %q", c.Unread())
	}
	c.Use(4)
	buf := make([]byte, 2)
	if n, err := c.Take(buf, time.Minute); err != nil || string(buf[:n]) != "tw" {
		t.Fatalf("took %q, %v", buf[:n], err)
	}
	c.Use(1)
	c.PutBack([]byte("w"))
	if n, err := c.Take(buf, time.Minute); err != nil || string(buf[:n]) != "w" {
		t.Fatalf("took %q, %v", buf[:n], err)
	}
	c.Free()
	b.Close()
	if err := c.More(time.Minute); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// A head of any size fits, and what is in use does not move away.
func TestMoreGrows(t *testing.T) {
	a, b := pair(t)
	want := bytes.Repeat([]byte("0123456789"), 20_000)
	go func() { _, _ = b.Write(want) }()
	c := New(a, nil)
	for len(c.Unread()) < len(want) {
		if err := c.More(time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(c.Unread(), want) {
		t.Error("other bytes")
	}
}

// Reading that is halted ends at once, whatever deadline it sets meanwhile.
func TestHalt(t *testing.T) {
	a, _ := pair(t)
	c := New(a, nil)
	done := make(chan error)
	go func() {
		for {
			if err := c.More(time.Minute); err != nil {
				done <- err
				return
			}
		}
	}()
	c.Halt()
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	c.Resume()
}

const stall = 200 * time.Millisecond

// slowly reads from c for several times stall, a little at a time, and then the rest.
func slowly(c net.Conn, n int) {
	buf := make([]byte, 64<<10)
	for begin := time.Now(); time.Since(begin) < 4*stall && n > 0; {
		k, err := c.Read(buf[:min(8<<10, n)])
		if n -= k; err != nil {
			return
		}
		time.Sleep(stall / 20) // part of the input
	}
	_, _ = io.CopyN(io.Discard, c, int64(n))
}

// A peer that takes bytes slowly is not cut; one that takes nothing is.
func TestSend(t *testing.T) {
	large := make([]byte, 8<<20)
	for _, tt := range []struct {
		name string
		send func(a *net.TCPConn, peer *net.TCPConn) error
	}{
		{"plain", func(a, _ *net.TCPConn) error { return New(a, nil).Send(large, stall) }},
		{"beneath TLS", func(a, _ *net.TCPConn) error { _, err := NewSteady(a, stall).Write(large); return err }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := pair(t)
			go slowly(b, len(large))
			if err := tt.send(a, b); err != nil {
				t.Errorf("slow: %v", err)
			}
			a, b = pair(t)
			if err := tt.send(a, b); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("stalled: %v", err)
			}
		})
	}
}

func TestSplice(t *testing.T) {
	const n = 8 << 20
	origin := func(t *testing.T, bytes int) *Conn {
		a, b := pair(t)
		go func() { _, _ = b.Write(make([]byte, bytes)) }()
		return New(a, nil)
	}
	t.Run("a slow receiver", func(t *testing.T) {
		a, b := pair(t)
		done := make(chan struct{})
		go func() { slowly(b, n); close(done) }()
		c, src := New(a, nil), origin(t, n)
		for left := int64(n); left > 0; {
			moved, _, err := c.Splice(src, left, stall)
			if left -= moved; err != nil {
				t.Fatalf("after %d bytes: %v", n-left, err)
			}
		}
		<-done
	})
	t.Run("a receiver that takes nothing", func(t *testing.T) {
		if !canSplice {
			t.Skip("there is no splice here")
		}
		a, _ := pair(t)
		c, src := New(a, nil), origin(t, n)
		var err error
		var sender bool
		for err == nil {
			_, sender, err = c.Splice(src, n, stall)
		}
		if sender || !errors.Is(err, ErrStalled) {
			t.Errorf("of the sender: %v, %v", sender, err)
		}
	})
	t.Run("a sender that stops", func(t *testing.T) {
		a, b := pair(t)
		go func() { _, _ = io.Copy(io.Discard, b) }()
		c, src := New(a, nil), origin(t, 1000)
		if moved, _, err := c.Splice(src, n, stall); moved != 1000 || err != nil {
			t.Fatalf("moved %d, %v", moved, err)
		}
		if moved, sender, err := c.Splice(src, n, stall); moved != 0 || !sender || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("moved %d, of the sender: %v, %v", moved, sender, err)
		}
	})
}

// A peer that takes no goodbye of TLS holds up nobody that closes.
func TestCloseWaitsForNoGoodbye(t *testing.T) {
	a, b := net.Pipe() // which holds nothing
	defer b.Close()
	c := New(tls.Client(a, &tls.Config{InsecureSkipVerify: true}), nil)
	done := make(chan struct{})
	go func() { c.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("it waits")
	}
}

func TestQuiet(t *testing.T) {
	a, b := pair(t)
	c := New(a, nil)
	if !c.Quiet() {
		t.Error("a new connection is not quiet")
	}
	if _, err := io.WriteString(b, "x"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); c.Quiet(); {
		if time.Now().After(end) {
			t.Fatal("what has come is not seen")
		}
	}
	b.Close()
	if _, err := c.Take(make([]byte, 1), time.Minute); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); c.Quiet(); {
		if time.Now().After(end) {
			t.Fatal("the end is not seen")
		}
	}
}

// What was put back comes before the rest, wherever it was held.
func TestPutBackBeforeRest(t *testing.T) {
	all := strings.Repeat("0123456789", 10)
	c := New(nil, []byte(all))
	var p [30]byte
	n, err := c.Take(p[:], time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c.PutBack(p[10:n])
	if got := string(c.Unread()); got != all[10:] {
		t.Errorf("unread %q, want %q", got, all[10:])
	}
}
