// Package reach remembers which addresses answer.
package reach

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

// A Memory remembers the addresses that did not answer. They are tried last,
// and never left out. It is safe for concurrent use.
type Memory struct {
	dead *cache.Cache[netip.AddrPort, struct{}]
}

// New returns a Memory without addresses; now is as in cache.New.
func New(now func() time.Time) *Memory {
	return &Memory{cache.New[netip.AddrPort](maxDead, func(*struct{}) time.Duration { return deadTTL }, now)}
}

// Failed notes an attempt that failed, or lost to one that began after it. What
// this machine has run out of says nothing about an address.
func (m *Memory) Failed(to netip.AddrPort, err error) {
	for _, local := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, local) {
			return
		}
	}
	m.dead.Set(to, &struct{}{})
}

// Reached notes that an address answers.
func (m *Memory) Reached(to netip.AddrPort) {
	if m.Unreachable(to) {
		m.dead.Delete(to)
	}
}

// Unreachable reports whether an address is known not to answer.
func (m *Memory) Unreachable(to netip.AddrPort) bool {
	return m.dead.Len() > 0 && m.dead.Get(to) != nil
}
