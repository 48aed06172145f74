package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// blackHole is a port of addr that answers nothing: a listener that accepts
// nobody, whose queue is full, so that the kernel drops what comes.
func blackHole(t *testing.T, addr string, port uint16) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(addr).As4(), Port: int(port)}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	hole := netip.AddrPortFrom(netip.MustParseAddr(addr), port).String()
	for range 16 {
		c, err := net.DialTimeout("tcp", hole, 500*time.Millisecond)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("this kernel's queue has no end")
}

// An address that does not answer does not keep the next one waiting for long.
func TestDialBlackHole(t *testing.T) {
	o := listen(t, "127.0.0.2", 0)
	blackHole(t, "127.0.0.4", o.port)
	d := dialer(t, Config{Allow: []string{"loopback"}, Hosts: map[string]string{"x.example": "127.0.0.4,127.0.0.2"}, ConnectTimeout: time.Hour})
	if got, err := dial(t, d, fmt.Sprintf("x.example:%d", o.port)); err != nil || got.String() != "127.0.0.2" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestDialTimeout(t *testing.T) {
	o := listen(t, "127.0.0.2", 0) // takes the port that the holes have too
	blackHole(t, "127.0.0.4", o.port)
	blackHole(t, "127.0.0.5", o.port)
	d := dialer(t, Config{Allow: []string{"loopback"}, Hosts: map[string]string{"two.example": "127.0.0.4,127.0.0.5"}, ConnectTimeout: 400 * time.Millisecond})
	for _, host := range []string{"127.0.0.4", "two.example"} {
		_, err := dial(t, d, fmt.Sprintf("%s:%d", host, o.port))
		if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// A client that goes away ends the attempts that were made for it.
func TestDialCancel(t *testing.T) {
	o := listen(t, "127.0.0.2", 0)
	blackHole(t, "127.0.0.4", o.port)
	blackHole(t, "127.0.0.5", o.port)
	d := dialer(t, Config{Allow: []string{"loopback"}, Hosts: map[string]string{"two.example": "127.0.0.4,127.0.0.5"}, ConnectTimeout: time.Hour})
	for _, host := range []string{"127.0.0.4", "two.example"} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if c, err := d.Dial(ctx, target(t, fmt.Sprintf("%s:%d", host, o.port))); c != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, %v", host, c, err)
		}
	}
}

// Tablets sleep: what keeps an idle connection alive comes minutes apart.
func TestDialKeepAlive(t *testing.T) {
	o := listen(t, "127.0.0.2", 0)
	d := dialer(t, Config{Allow: []string{"loopback"}})
	c, err := d.Dial(t.Context(), target(t, fmt.Sprintf("127.0.0.2:%d", o.port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		for _, o := range []struct{ level, name, want int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 300},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 60},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
		} {
			if got, err := unix.GetsockoptInt(int(fd), o.level, o.name); err != nil || got != o.want {
				t.Errorf("socket option %d/%d: %d, %v; want %d", o.level, o.name, got, err, o.want)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// A request whose name has many addresses, of which none answers, leaves the last
// descriptors to others.
func TestDialKeepsBelow(t *testing.T) {
	at := listen(t, "127.0.0.1", 0)
	d := dialer(t, Config{Allow: []string{"loopback"}})
	d.KeepBelow(1)
	_, err := dial(t, d, fmt.Sprintf("127.0.0.1:%d", at.port))
	if !errors.Is(err, syscall.EMFILE) || at.accepted.Load() != 0 {
		t.Errorf("%v, %d connections", err, at.accepted.Load())
	}
	d.KeepBelow(1 << 30)
	if _, err := dial(t, d, fmt.Sprintf("127.0.0.1:%d", at.port)); err != nil {
		t.Error(err)
	}
}
