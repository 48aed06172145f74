package egress

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
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
// and never left out. The zero value is ready. It is safe for concurrent use.
type Reachability struct {
	now   func() time.Time // nil: time.Now
	count atomic.Int32     // of dead, so that most requests take no lock

	mu   sync.RWMutex
	dead map[netip.AddrPort]time.Time // until when
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
	now := r.clock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.dead) >= maxDead {
		for a, until := range r.dead {
			if !now.Before(until) {
				delete(r.dead, a)
			}
		}
		for a := range r.dead { // any
			if len(r.dead) < maxDead*9/10 {
				break
			}
			delete(r.dead, a)
		}
	}
	if r.dead == nil {
		r.dead = map[netip.AddrPort]time.Time{}
	}
	r.dead[to] = now.Add(deadTTL)
	r.count.Store(int32(len(r.dead)))
}

// Reached notes that an address answers.
func (r *Reachability) Reached(to netip.AddrPort) {
	if r.count.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.dead, to)
	r.count.Store(int32(len(r.dead)))
}

// unreachable reports whether an address is known not to answer.
func (r *Reachability) unreachable(a netip.AddrPort) bool {
	if r.count.Load() == 0 {
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	until, ok := r.dead[a]
	return ok && r.clock().Before(until)
}

func (r *Reachability) clock() time.Time {
	if r.now != nil {
		return r.now()
	}
	return time.Now()
}
