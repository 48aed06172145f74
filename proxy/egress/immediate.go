package egress

import (
	"net/netip"

	"espalier/policy"
)

// Immediate returns the address to try first for t where it is known without
// asking a name server, and permitted. It does not block.
func (d *Dialer) Immediate(t policy.Target) (netip.AddrPort, bool) {
	if d.self[t.Port] { // checkOwn asks the system
		return netip.AddrPort{}, false
	}
	addrs := d.known(t)
	if addrs == nil {
		addrs = d.cache.peek(t.Host)
	}
	var first netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		if d.guard.check(a) == nil && (!first.IsValid() || !first.Is6() && a.Is6()) {
			first = a
		}
	}
	return netip.AddrPortFrom(first, t.Port), first.IsValid()
}
