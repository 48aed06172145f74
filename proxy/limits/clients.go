package limits

import (
	"net/netip"
	"sync"
)

// clients counts what each client has open: each address, and of IPv6 each network
// of 64 bits, all addresses of which one machine can have. A client without
// anything open takes no memory. The zero value is ready.
type clients [64]struct {
	mu   sync.Mutex
	open map[netip.Addr]usage
	_    [48]byte // a cache line for each
}

// usage is what a client has open.
type usage struct{ tunnels, requests int32 }

// network is the IPv6 network of a, with its lower half zero; not valid for IPv4.
// No client has that address, since it is the anycast address of routers
// (RFC 4291, 2.6.1).
func network(a netip.Addr) netip.Addr {
	if a = a.Unmap(); !a.Is6() {
		return netip.Addr{}
	}
	p, _ := a.WithZone("").Prefix(64) // 64 bits are there
	return p.Addr()
}

// shard spreads addresses by Fibonacci hashing.
func shard(a netip.Addr) int {
	b := a.As16()
	var key uint64
	for i := range 8 {
		key = key<<8 | uint64(b[i]^b[i+8])
	}
	return int(key * 0x9e3779b97f4a7c15 >> 58)
}

// enter counts one of what for a, unless its address or network has reached its
// bound.
func (c *clients) enter(a netip.Addr, what Kind, address, net bound) bool {
	a = a.Unmap().WithZone("")
	n := network(a)
	if n.IsValid() && !c.add(n, what, net) {
		return false
	}
	if !c.add(a, what, address) {
		if n.IsValid() {
			c.remove(n, what)
		}
		return false
	}
	return true
}

// leave ends what enter counted.
func (c *clients) leave(a netip.Addr, what Kind) {
	a = a.Unmap().WithZone("")
	if n := network(a); n.IsValid() {
		c.remove(n, what)
	}
	c.remove(a, what)
}

func (c *clients) add(a netip.Addr, what Kind, most bound) bool {
	s := &c[shard(a)]
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.open[a]
	if what == Request {
		u.requests++
	} else {
		u.tunnels++
	}
	if u.tunnels > most.tunnels && what == Tunnel || u.requests > most.requests || u.tunnels+u.requests > most.both {
		return false
	}
	if s.open == nil {
		s.open = map[netip.Addr]usage{}
	}
	s.open[a] = u
	return true
}

func (c *clients) remove(a netip.Addr, what Kind) {
	s := &c[shard(a)]
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.open[a]
	if what == Request {
		u.requests--
	} else {
		u.tunnels--
	}
	if u == (usage{}) {
		delete(s.open, a)
	} else {
		s.open[a] = u
	}
}

// len is the number of addresses and networks that have anything open.
func (c *clients) len() int {
	n := 0
	for i := range c {
		c[i].mu.Lock()
		n += len(c[i].open)
		c[i].mu.Unlock()
	}
	return n
}
