package egress

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
)

const (
	// maxNames bounds the cache. A fleet's working set is a few thousand names.
	maxNames = 10_000
	// maxLookups bounds the look-ups under way, each of which holds sockets and
	// goroutines, whatever names clients think of while name servers are silent.
	maxLookups = 256
)

// cache remembers answers, also negative ones, for their TTL, and lets those who
// ask for the same name at the same time share one look-up.
type cache struct {
	resolver resolver
	timeout  time.Duration // of a look-up, whoever waits for it
	now      func() time.Time
	slots    chan struct{} // one for each look-up under way

	mu    sync.Mutex
	names map[string]*entry
}

type entry struct {
	done    chan struct{} // closed when the rest is set
	addrs   []netip.Addr  // never modified
	err     error
	expires time.Time
}

func newCache(r resolver, timeout time.Duration) *cache {
	return &cache{resolver: r, timeout: timeout, now: time.Now, slots: make(chan struct{}, maxLookups), names: map[string]*entry{}}
}

// peek returns the addresses of a name where they are known and fresh, without
// waiting.
func (c *cache) peek(name string) []netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.names[name]
	if e == nil || !e.finished() || !c.now().Before(e.expires) {
		return nil
	}
	return e.addrs
}

// lookup returns the addresses of a name. The look-up itself goes on when ctx
// ends, for the others who wait for it.
func (c *cache) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	c.mu.Lock()
	e := c.names[name]
	if e == nil || e.finished() && !c.now().Before(e.expires) {
		e = &entry{done: make(chan struct{})}
		c.makeRoom()
		name = strings.Clone(name) // it may be a piece of a long URL
		c.names[name] = e
		go c.fill(name, e)
	}
	c.mu.Unlock()
	select {
	case <-e.done:
		return e.addrs, e.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fill looks name up and sets e.
func (c *cache) fill(name string, e *entry) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	addrs, ttl, err := c.resolve(ctx, name)
	c.mu.Lock()
	defer c.mu.Unlock()
	e.addrs, e.err = addrs, err
	e.expires = c.now().Add(ttl)
	if err != nil && !errors.Is(err, errNotFound) && c.names[name] == e {
		delete(c.names, name) // a name server's failure says nothing of the name
	}
	close(e.done)
}

// resolve asks the resolver when it is this look-up's turn.
func (c *cache) resolve(ctx context.Context, name string) (_ []netip.Addr, _ time.Duration, err error) {
	defer kept(&err)
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return nil, 0, fmt.Errorf("%d look-ups are under way: %w", maxLookups, ctx.Err())
	}
	return c.resolver.lookup(ctx, name)
}

func (e *entry) finished() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// makeRoom keeps the cache below maxNames: expired names go first, then any.
func (c *cache) makeRoom() {
	if len(c.names) < maxNames {
		return
	}
	now := c.now()
	for name, e := range c.names {
		if e.finished() && !now.Before(e.expires) {
			delete(c.names, name)
		}
	}
	for name := range c.names {
		if len(c.names) < maxNames*9/10 {
			return
		}
		delete(c.names, name)
	}
}
