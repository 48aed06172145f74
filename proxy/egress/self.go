package egress

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"espalier/policy"
)

// ownAddressesAge is how long the addresses of this machine are believed. They
// change with leases and prefixes, and to ask the system takes a while.
const ownAddressesAge = 5 * time.Second

// Self is where Espalier itself is reached.
type Self struct {
	// Listeners are the addresses that it listens on.
	Listeners []netip.AddrPort
	// Names are the targets that clients are told to reach it by. Behind a NAT or
	// a load balancer no address of this machine tells that they lead here.
	Names []policy.Target
}

// self is what tells requests that would lead to Espalier itself. It is safe for
// concurrent use.
type self struct {
	ports map[uint16]bool     // that Espalier listens on
	told  map[netip.Addr]bool // addresses that it was told to listen on
	names map[policy.Target]bool
	front map[netip.AddrPort]bool // of names, as far as no look-up tells them
	nat64 nat64

	mu      sync.Mutex
	machine map[netip.Addr]bool // nil: not known
	asked   time.Time
}

// newSelf returns the self of a Dialer that has the rest of its fields.
func (d *Dialer) newSelf(at Self) *self {
	s := &self{
		ports: map[uint16]bool{}, told: map[netip.Addr]bool{},
		names: map[policy.Target]bool{}, front: map[netip.AddrPort]bool{}, nat64: d.guard.nat64,
	}
	for _, ap := range at.Listeners {
		s.ports[ap.Port()] = true
		s.told[ap.Addr().Unmap().WithZone("")] = true
	}
	for _, t := range at.Names {
		s.names[t] = true
		for _, a := range d.known(t) {
			s.front[netip.AddrPortFrom(a, t.Port)] = true
		}
	}
	return s
}

// fronts reports whether clients are told to come to ap.
func (s *self) fronts(ap netip.AddrPort) bool {
	return len(s.front) > 0 && (s.front[ap] || slices.ContainsFunc(s.nat64.embedded(ap.Addr()), func(a netip.Addr) bool {
		return s.front[netip.AddrPortFrom(a, ap.Port())]
	}))
}

// addresses returns the addresses of this machine, nil where they are not known.
// Where the system would have to be asked for them it is if ask is set.
func (s *self) addresses(ask bool) map[netip.Addr]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.machine != nil && time.Since(s.asked) < ownAddressesAge {
		return s.machine
	}
	if !ask {
		return nil
	}
	s.machine = nil
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	s.machine, s.asked = map[netip.Addr]bool{}, time.Now()
	for _, n := range list {
		if p, ok := n.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(p.IP); ok {
				s.machine[a.Unmap()] = true
			}
		}
	}
	return s.machine
}

// is reports whether a is, or embeds, an address of this machine; machine are
// its addresses. Not to know them is no reason to connect to oneself.
func (s *self) is(a netip.Addr, machine map[netip.Addr]bool) bool {
	own := func(a netip.Addr) bool {
		a = a.WithZone("")
		return machine == nil || a.IsLoopback() || a.IsUnspecified() || s.told[a] || machine[a]
	}
	return own(a) || slices.ContainsFunc(s.nat64.embedded(a), own)
}
