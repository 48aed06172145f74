package egress

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ownAddressesAge is how long the addresses of this machine are believed. They
// change with leases and prefixes, and to ask the system takes a while.
const ownAddressesAge = 5 * time.Second

// self is what tells requests that would lead to Espalier itself. It is safe for
// concurrent use.
type self struct {
	ports map[uint16]bool     // that Espalier listens on
	told  map[netip.Addr]bool // addresses that it was told to listen on

	mu      sync.Mutex
	machine map[netip.Addr]bool // nil: not known
	asked   time.Time
}

func newSelf(listeners []netip.AddrPort) *self {
	s := &self{ports: map[uint16]bool{}, told: map[netip.Addr]bool{}}
	for _, ap := range listeners {
		s.ports[ap.Port()] = true
		s.told[ap.Addr().Unmap().WithZone("")] = true
	}
	return s
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
	return own(a) || slices.ContainsFunc(embedded(a), own)
}
