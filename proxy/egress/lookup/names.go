// Package lookup finds the addresses of names: it asks name servers or the system, and
// caches what they answer.
package lookup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"espalier/policy/cache"
	"espalier/proxy/egress/reach"
	"espalier/proxy/panics"
)

// An Error says that a name could not be resolved.
type Error struct {
	Host string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("look up %s: %v", e.Host, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// NotFound reports whether the name does not exist or has no address, in
// contrast to a name server that failed.
func (e *Error) NotFound() bool { return errors.Is(e.Err, errNotFound) }

// NoAddress reports whether the name is known to exist, and has no address. The
// system's resolver does not tell.
func (e *Error) NoAddress() bool { return errors.Is(e.Err, errNoAddress) }

const (
	// maxNames bounds the cached answers. A fleet's working set is a few thousand names.
	maxNames = 10_000
	// maxLookups bounds the look-ups under way, each of which holds sockets and
	// goroutines, whatever names clients think of while name servers are silent.
	maxLookups = 256
)

// Names caches answers, also negative ones, for their TTL, and lets those who ask for
// the same name at the same time share one look-up. It is safe for concurrent use.
type Names struct {
	resolver resolver
	timeout  time.Duration // of a look-up, whoever waits for it
	slots    chan struct{} // one for each look-up under way
	flight   singleflight.Group
	known    *cache.Cache[string, answer]
}

// New returns a cache without names. It asks the name servers, address:port, or the
// system where there are none. timeout bounds a look-up. v6 says that IPv6 addresses
// alone are of use. now is as in cache.New.
func New(servers []string, timeout time.Duration, v6 bool, now func() time.Time) *Names {
	var r resolver = systemResolver{}
	if n := len(servers); n > 0 {
		r = &dnsResolver{servers: servers, timeout: questionTimeout(timeout, n), v6: v6, answers: reach.New(nil)}
	}
	return newNames(r, timeout, now)
}

func newNames(r resolver, timeout time.Duration, now func() time.Time) *Names {
	return &Names{
		resolver: r, timeout: timeout, slots: make(chan struct{}, maxLookups),
		known: cache.New[string](maxNames, func(a *answer) time.Duration { return a.ttl }, now),
	}
}

// Peek returns the addresses of a name if they are cached, without waiting. They must
// not be modified.
func (n *Names) Peek(name string) []netip.Addr {
	if a := n.known.Get(name); a != nil {
		return a.addrs
	}
	return nil
}

// Lookup returns the addresses of a name, which must not be modified, or an *Error. The
// look-up itself goes on when ctx ends, for the others who wait for it.
func (n *Names) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	addrs, err := n.find(ctx, name)
	if err != nil {
		return nil, &Error{name, err}
	}
	return addrs, nil
}

func (n *Names) find(ctx context.Context, name string) ([]netip.Addr, error) {
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
func (n *Names) resolve(name string) (a answer) {
	defer panics.Keep(&a.err)
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
