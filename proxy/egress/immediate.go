package egress

import (
	"net"
	"net/netip"
	"time"

	"espalier/policy"
)

// Immediate appends to room the addresses to try for t, in that order, where they
// are known without asking a name server, and permitted; it returns none
// otherwise. It does not block. With egress.parent there are none, since a parent
// has to be asked first.
func (d *Dialer) Immediate(t policy.Target, room []netip.AddrPort) []netip.AddrPort {
	if len(d.parents) > 0 {
		return nil
	}
	addrs := d.known(t)
	if addrs == nil {
		addrs = d.names.peek(t.Host)
	}
	found, err := d.permitted(room, addrs, t, false)
	if err != nil {
		return nil
	}
	return found
}

// Timeout is Config.ConnectTimeout.
func (d *Dialer) Timeout() time.Duration { return d.timeout }

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
