package limits

import (
	"encoding/binary"
	"net/netip"
	"sync"
)

// clients counts what each client has open: each address, and of IPv6 each network
// of 64 bits, all addresses of which one machine can have. A client without
// anything open takes no memory.
type clients struct {
	perAddress, perNetwork usage // bounds
	shards                 [64]struct {
		mu   sync.Mutex
		open map[netip.Addr]usage
		_    [48]byte // a cache line for each
	}
}

// usage is what a client has open, by Kind; at both, the sum.
type usage [3]int32

const both Kind = 0

// keys returns the keys of a client: its address, and its IPv6 network with the lower half
// zero, not valid for IPv4. No client has that address, since it is the anycast
// address of routers (RFC 4291, 2.6.1).
func keys(client netip.Addr) (address, network netip.Addr) {
	address = client.Unmap().WithZone("")
	if address.Is6() {
		p, _ := address.Prefix(64) // 64 bits are there
		network = p.Addr()
	}
	return address, network
}

// enter counts one of what for a client, unless its address or network has reached its
// bound.
func (c *clients) enter(client netip.Addr, what Kind) bool {
	address, network := keys(client)
	if network.IsValid() && !c.add(network, what, 1, &c.perNetwork) {
		return false
	}
	if c.add(address, what, 1, &c.perAddress) {
		return true
	}
	if network.IsValid() {
		c.add(network, what, -1, &c.perNetwork)
	}
	return false
}

// leave ends what enter counted.
func (c *clients) leave(client netip.Addr, what Kind) {
	address, network := keys(client)
	if network.IsValid() {
		c.add(network, what, -1, &c.perNetwork)
	}
	c.add(address, what, -1, &c.perAddress)
}

// add counts n of what for a, unless that exceeds most.
func (c *clients) add(a netip.Addr, what Kind, n int32, most *usage) bool {
	b := a.As16()
	key := binary.BigEndian.Uint64(b[:8]) ^ binary.BigEndian.Uint64(b[8:])
	s := &c.shards[key*0x9e3779b97f4a7c15>>58] // Fibonacci hashing
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.open[a]
	u[what] += n
	u[both] += n
	switch {
	case u[what] > most[what], u[both] > most[both]:
		return false
	case u[both] == 0:
		delete(s.open, a)
	case s.open == nil:
		s.open = map[netip.Addr]usage{a: u}
	default:
		s.open[a] = u
	}
	return true
}

// len is the number of addresses and networks that have anything open.
func (c *clients) len() (n int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += len(s.open)
		s.mu.Unlock()
	}
	return n
}
