package egress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"espalier/policy/cache"
)

const (
	// maxNames bounds the cached answers. A fleet's working set is a few thousand names.
	maxNames = 10_000
	// maxLookups bounds the look-ups under way, each of which holds sockets and
	// goroutines, whatever names clients think of while name servers are silent.
	maxLookups = 256
)

// names caches answers, also negative ones, for their TTL, and lets those who ask for
// the same name at the same time share one look-up.
type names struct {
	resolver resolver
	timeout  time.Duration // of a look-up, whoever waits for it
	slots    chan struct{} // one for each look-up under way
	flight   singleflight.Group
	known    *cache.Cache[string, answer]
}

// newNames returns a cache without names; now is as in cache.New.
func newNames(r resolver, timeout time.Duration, now func() time.Time) *names {
	return &names{
		resolver: r, timeout: timeout, slots: make(chan struct{}, maxLookups),
		known: cache.New[string](maxNames, func(a *answer) time.Duration { return a.ttl }, now),
	}
}

// peek returns the addresses of a name if they are cached, without waiting. They must
// not be modified.
func (n *names) peek(name string) []netip.Addr {
	if a := n.known.Get(name); a != nil {
		return a.addrs
	}
	return nil
}

// lookup returns the addresses of a name, which must not be modified. The look-up itself
// goes on when ctx ends, for the others who wait for it.
func (n *names) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if a := n.known.Get(name); a != nil {
		return a.addrs, a.err
	}
	name = strings.Clone(name) // it may be a piece of a long URL
	done := n.flight.DoChan(name, func() (any, error) {
		if a := n.known.Get(name); a != nil { // looked up since
			return a.addrs, a.err
		}
		a := n.resolve(name)
		if a.err == nil || errors.Is(a.err, errNotFound) { // a name server's failure says nothing of the name
			n.known.Set(name, &a)
		}
		return a.addrs, a.err
	})
	select {
	case r := <-done:
		addrs, _ := r.Val.([]netip.Addr)
		return addrs, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// resolve asks the resolver when it is this look-up's turn.
func (n *names) resolve(name string) (a answer) {
	defer kept(&a.err)
	ctx, cancel := context.WithTimeout(context.Background(), n.timeout)
	defer cancel()
	select {
	case n.slots <- struct{}{}:
		defer func() { <-n.slots }()
	case <-ctx.Done():
		return answer{err: fmt.Errorf("%d look-ups are under way: %w", maxLookups, ctx.Err())}
	}
	a.addrs, a.ttl, a.err = n.resolver.lookup(ctx, name)
	return a
}
