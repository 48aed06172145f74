package egress

import (
	"errors"
	"net/netip"
	"syscall"
	"time"

	"espalier/policy/cache"
)

const (
	// deadTTL is how long an address that did not answer is tried last: long enough
	// that a page's worth of requests does not wait for it, and short enough that
	// one that answers again is soon used.
	deadTTL = time.Minute
	// maxDead bounds the addresses remembered, which clients can choose.
	maxDead = 4096
)

// Reachability remembers the addresses that did not answer. They are tried last,
// and never left out. It is safe for concurrent use.
type Reachability struct {
	dead *cache.Cache[netip.AddrPort, struct{}]
}

func newReachability(now func() time.Time) *Reachability {
	return &Reachability{cache.New[netip.AddrPort](maxDead, func(*struct{}) time.Duration { return deadTTL }, now)}
}

// Reachability is what Dial and DialPlain remember of addresses, for attempts
// that are made elsewhere.
func (d *Dialer) Reachability() *Reachability { return d.answers }

// Failed notes an attempt that failed, or lost to one that began after it. What
// this machine has run out of says nothing about an address.
func (r *Reachability) Failed(to netip.AddrPort, err error) {
	for _, local := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, local) {
			return
		}
	}
	r.dead.Set(to, &struct{}{})
}

// Reached notes that an address answers.
func (r *Reachability) Reached(to netip.AddrPort) {
	if r.unreachable(to) {
		r.dead.Delete(to)
	}
}

// unreachable reports whether an address is known not to answer.
func (r *Reachability) unreachable(to netip.AddrPort) bool {
	return r.dead.Len() > 0 && r.dead.Get(to) != nil
}
