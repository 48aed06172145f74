package egress

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
)

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
