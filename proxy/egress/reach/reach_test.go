package reach

import (
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestMemory(t *testing.T) {
	now := time.Now()
	m := New(func() time.Time { return now })
	a := netip.MustParseAddrPort("192.0.2.1:443")
	check := func(what string, want bool) {
		t.Helper()
		if got := m.Unreachable(a); got != want {
			t.Errorf("%s: unreachable is %v", what, got)
		}
	}
	check("at first", false)
	for _, err := range []error{syscall.EMFILE, os.NewSyscallError("socket", syscall.ENFILE), syscall.EADDRNOTAVAIL} {
		m.Failed(a, err)
		check(err.Error(), false)
	}
	m.Failed(a, syscall.ECONNREFUSED)
	check("after a failure", true)
	if m.Unreachable(netip.MustParseAddrPort("192.0.2.1:80")) {
		t.Error("another port is unreachable too")
	}
	now = now.Add(deadTTL - 1)
	check("before its time is over", true)
	m.Failed(a, os.ErrDeadlineExceeded)
	now = now.Add(deadTTL - 1)
	check("after another failure", true)
	now = now.Add(1)
	check("after its time", false)
	m.Failed(a, syscall.ECONNREFUSED)
	m.Reached(a)
	check("after a success", false)
	for i := range 2 * maxDead {
		m.Failed(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 443), syscall.ECONNREFUSED)
		if i == maxDead {
			now = now.Add(deadTTL / 2)
		}
	}
	if n := m.dead.Len(); n > maxDead {
		t.Errorf("%d addresses are remembered", n)
	}
	m.Failed(a, syscall.ECONNREFUSED)
	check("when much is remembered", true)
}
