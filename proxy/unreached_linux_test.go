package proxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"espalier/policy"
	"espalier/proxy/egress"
)

// hang listens on ip, where a connection is neither accepted nor refused.
func hang(t *testing.T, ip string, port uint16) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", ip, port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) })
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // fill the backlog
		c, err := net.DialTimeout("tcp", l.Addr().String(), 100*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("this system's backlog has no end")
}

// An address that does not answer costs one CONNECT AttemptDelay, and the next
// one nothing; the record tells both, and which address it was.
func TestConnectFirstAddressIsSilent(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		hang(t, "127.0.0.2", at.Port())
		r := start(t, setup{hosts: map[string]string{"two.example": "127.0.0.2,127.0.0.1"}})
		for range 2 {
			c := r.dial()
			c.send(connectTo(fmt.Sprintf("two.example:%d", at.Port())) + "hello")
			c.expect(established + "hello")
			c.finish()
			c.expectEnd()
		}
		slow := 0
		for _, rec := range r.stop() {
			if rec.Connect >= egress.AttemptDelay {
				slow++
			}
			if rec.Upstream != at || rec.Error != "" || rec.Duration < rec.Connect {
				t.Errorf("record %+v", rec)
			}
		}
		if slow != 1 {
			t.Errorf("%d of 2 were slow", slow)
		}
	})
}

// A CONNECT none of whose addresses answers is refused, has one record with the
// time that it took, and is closed, so that what follows is not read as requests.
func TestConnectUnreached(t *testing.T) {
	for _, tc := range []struct {
		name   string
		listen bool // and say nothing
		status int
		kind   string
		err    string
	}{
		{"refused", false, 502, "connection_refused", "connect: connection refused"},
		{"silent", true, 504, "connection_timeout", "i/o timeout"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			at := newOrigin(t, func(net.Conn) { t.Error("the wrong address was asked") })
			if tc.listen {
				hang(t, "127.0.0.2", at.Port())
			}
			const timeout = 300 * time.Millisecond
			r := start(t, setup{hosts: map[string]string{"gone.example": "127.0.0.2"}, connectTimeout: timeout}, false)
			c := r.dial()
			c.send(connectTo(fmt.Sprintf("gone.example:%d", at.Port())) + "GET http://gone.example/ HTTP/1.1\r\nHost: gone.example\r\n\r\n")
			got, err := io.ReadAll(c.in)
			if err != nil || !strings.HasPrefix(string(got), fmt.Sprintf("HTTP/1.1 %d ", tc.status)) || strings.Count(string(got), "HTTP/1.1 ") != 1 ||
				!strings.Contains(string(got), "Proxy-Status: espalier; error="+tc.kind+"\r\n") || !strings.Contains(string(got), "Connection: close\r\n") {
				t.Errorf("answer %q, %v", got, err)
			}
			rec := r.record()
			if rec.Status != tc.status || rec.Action != policy.Error || !strings.HasSuffix(rec.Error, tc.err) ||
				rec.Upstream != netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), at.Port()) || tc.listen != (rec.Connect >= timeout) || rec.Duration < rec.Connect {
				t.Errorf("record %+v", rec)
			}
		})
	}
}
