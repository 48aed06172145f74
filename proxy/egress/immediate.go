package egress

import (
	"net"
	"net/netip"

	"espalier/policy"
)

// Immediate returns the address to try first for t where it is known without
// asking a name server, and permitted. It does not block. With egress.parent there
// is none, since a parent has to be asked first.
func (d *Dialer) Immediate(t policy.Target) (netip.AddrPort, bool) {
	if len(d.parents) > 0 {
		return netip.AddrPort{}, false
	}
	var machine map[netip.Addr]bool
	listens := d.self.ports[t.Port]
	if listens {
		if machine = d.self.addresses(false); machine == nil {
			return netip.AddrPort{}, false
		}
	}
	addrs := d.known(t)
	if addrs == nil {
		addrs = d.cache.peek(t.Host)
	}
	var first netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		if listens && d.self.is(a, machine) || d.self.fronts(t, a) {
			continue
		}
		if d.guard.check(a) == nil && (!first.IsValid() || first.Is6() != d.v6 && a.Is6() == d.v6) {
			first = a
		}
	}
	return netip.AddrPortFrom(first, t.Port), first.IsValid()
}

// routed6 reports whether this machine has a way to the IPv6 Internet. Nothing
// is sent: connecting a UDP socket only asks the routing table.
func routed6() bool {
	c, err := net.Dial("udp6", "[2001:db8::1]:9")
	if err != nil {
		return false
	}
	c.Close()
	return true
}
