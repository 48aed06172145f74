package egress

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestReachability(t *testing.T) {
	now := time.Now()
	r := newReachability(func() time.Time { return now })
	a := netip.MustParseAddrPort("192.0.2.1:443")
	check := func(what string, want bool) {
		t.Helper()
		if got := r.unreachable(a); got != want {
			t.Errorf("%s: unreachable is %v", what, got)
		}
	}
	check("at first", false)
	for _, err := range []error{syscall.EMFILE, os.NewSyscallError("socket", syscall.ENFILE), syscall.EADDRNOTAVAIL} {
		r.Failed(a, err)
		check(err.Error(), false)
	}
	r.Failed(a, syscall.ECONNREFUSED)
	check("after a failure", true)
	if r.unreachable(netip.MustParseAddrPort("192.0.2.1:80")) {
		t.Error("another port is unreachable too")
	}
	now = now.Add(deadTTL - 1)
	check("before its time is over", true)
	r.Failed(a, os.ErrDeadlineExceeded)
	now = now.Add(deadTTL - 1)
	check("after another failure", true)
	now = now.Add(1)
	check("after its time", false)
	r.Failed(a, syscall.ECONNREFUSED)
	r.Reached(a)
	check("after a success", false)
	for i := range 2 * maxDead {
		r.Failed(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 443), syscall.ECONNREFUSED)
		if i == maxDead {
			now = now.Add(deadTTL / 2)
		}
	}
	if n := r.dead.Len(); n > maxDead {
		t.Errorf("%d addresses are remembered", n)
	}
	r.Failed(a, syscall.ECONNREFUSED)
	check("when much is remembered", true)
}

// An address that did not answer is tried last by every way to dial, until it is
// reached again.
func TestDeadAddressIsTriedLast(t *testing.T) {
	const dead = "127.0.0.2"
	for _, way := range []struct {
		name string
		dial func(d *Dialer, hostport string) error
	}{
		{"Dial", func(d *Dialer, hostport string) error { _, err := dial(t, d, hostport); return err }},
		{"DialPlain", func(d *Dialer, hostport string) error {
			c, _, err := d.DialPlain(t.Context(), target(t, hostport))
			if err == nil {
				c.Close()
			}
			return err
		}},
		{"an attempt made elsewhere", func(d *Dialer, hostport string) error {
			d.Reachability().Failed(d.Immediate(target(t, hostport), nil)[0], syscall.ECONNREFUSED)
			return nil
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			o := listen(t, "127.0.0.1", 0)
			d := dialer(t, Config{Allow: []string{"loopback"}, Hosts: map[string]string{"x.example": dead + ",127.0.0.1,127.0.0.3"}})
			hostport := fmt.Sprintf("x.example:%d", o.port)
			order := func() string {
				var list []string
				for _, ap := range d.Immediate(target(t, hostport), nil) {
					list = append(list, ap.Addr().String())
				}
				addrs, err := d.Lookup(t.Context(), target(t, hostport))
				if got := strings.Join(list, " "); err != nil || fmt.Sprint(addrs) != "["+got+"]" {
					t.Errorf("Lookup: %v, %v; Immediate: %s", addrs, err, got)
				}
				return strings.Join(list, " ")
			}
			if err := way.dial(d, hostport); err != nil {
				t.Fatal(err)
			}
			if got, want := order(), "127.0.0.1 127.0.0.3 "+dead; got != want {
				t.Errorf("order %s, want %s", got, want)
			}
			listen(t, dead, o.port)
			if _, err := dial(t, d, fmt.Sprintf("%s:%d", dead, o.port)); err != nil {
				t.Fatal(err)
			}
			if got, want := order(), dead+" 127.0.0.1 127.0.0.3"; got != want {
				t.Errorf("when it answers again: order %s, want %s", got, want)
			}
		})
	}
}

// A hostile zone does not hide the addresses that answer behind those that do not,
// nor has it more tried than maxAttempts.
func TestManyDeadAddresses(t *testing.T) {
	var hosts []string
	for i := range 3 * maxAttempts {
		hosts = append(hosts, fmt.Sprintf("8.8.8.%d", i))
	}
	d := dialer(t, Config{Hosts: map[string]string{"x.example": strings.Join(hosts, ",")}})
	x := target(t, "x.example:443")
	for _, ap := range d.Immediate(x, nil) {
		d.Reachability().Failed(ap, syscall.ECONNREFUSED)
	}
	got := d.Immediate(x, nil)
	if len(got) != maxAttempts || got[0].Addr().String() != hosts[maxAttempts] {
		t.Errorf("%v", got)
	}
}

func BenchmarkImmediate(b *testing.B) {
	d := dialer(b, Config{Hosts: map[string]string{"x.example": "8.8.8.8,8.8.4.4,2403:300::1,2403:300::2"}})
	x := target(b, "x.example:443")
	room := make([]netip.AddrPort, 0, 8)
	d.answers.Failed(netip.MustParseAddrPort("8.8.8.8:443"), syscall.ECONNREFUSED)
	b.ReportAllocs()
	for b.Loop() {
		if len(d.Immediate(x, room)) != 4 {
			b.Fatal("not all")
		}
	}
}
