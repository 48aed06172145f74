package auth

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/text/unicode/norm"
)

// A limit says how soon failures of one kind are slowed down: free ones cost
// nothing, each further one doubles the wait up to longest, and one is forgiven
// every leak.
type limit struct {
	free    float64
	leak    time.Duration
	longest time.Duration
}

var (
	// Many people may stand behind an address, so the wait stays short: whoever
	// guesses gets six tries a minute in the long run.
	ofAddress = limit{free: 20, leak: 10 * time.Second, longest: 30 * time.Second}
	// One person has a name: twelve tries an hour in the long run.
	ofName = limit{free: 5, leak: 5 * time.Minute, longest: 5 * time.Minute}
)

// maxDamped bounds the addresses and the names that are watched, each.
const maxDamped = 20_000

// A damper slows down whoever guesses, by address and by name. Success clears
// the name only: whoever may sign in could otherwise clear the address between
// guesses. It is safe for concurrent use.
type damper struct {
	now func() time.Time

	mu        sync.Mutex
	addresses map[netip.Addr]*strikes
	names     map[string]*strikes
}

type strikes struct {
	n     float64
	at    time.Time // n is as of then
	until time.Time // nothing is tried before
}

func newDamper() *damper {
	return &damper{now: time.Now, addresses: map[netip.Addr]*strikes{}, names: map[string]*strikes{}}
}

// A DampedError says that too many sign-ins have failed, so that this one was
// not tried.
type DampedError struct {
	ByName bool          // those of the name; else those from the address
	Wait   time.Duration // until the next may be tried
}

func (e *DampedError) Error() string {
	what := "from this address"
	if e.ByName {
		what = "by this name"
	}
	return fmt.Sprintf("too many sign-ins %s have failed: none is tried for %s", what, e.Wait.Round(time.Second))
}

// allow returns a *DampedError where nothing may be tried yet.
func (d *damper) allow(from netip.Addr, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	if s := d.names[foldName(name)]; s != nil && s.until.After(now) {
		return &DampedError{ByName: true, Wait: s.until.Sub(now)}
	}
	if s := d.addresses[foldAddress(from)]; s != nil && s.until.After(now) {
		return &DampedError{Wait: s.until.Sub(now)}
	}
	return nil
}

// failed counts a failure, once for a name that is given twice.
func (d *damper) failed(from netip.Addr, names ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	strike(d.addresses, foldAddress(from), ofAddress, now)
	counted := ""
	for _, name := range names {
		if name = foldName(name); name != counted {
			strike(d.names, name, ofName, now)
			counted = name
		}
	}
}

// succeeded forgives what happened by a name.
func (d *damper) succeeded(names ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range names {
		delete(d.names, foldName(name))
	}
}

func strike[K comparable](all map[K]*strikes, key K, l limit, now time.Time) {
	s := all[key]
	if s == nil {
		if len(all) >= maxDamped {
			makeRoom(all, l, now)
		}
		s = &strikes{at: now}
		all[key] = s
	}
	s.n = s.after(l, now) + 1
	s.at = now
	if over := s.n - l.free; over > 0 {
		s.until = now.Add(min(l.longest, time.Second<<min(int(over), 20)))
	}
}

// after is what is left of n.
func (s *strikes) after(l limit, now time.Time) float64 {
	return max(0, s.n-now.Sub(s.at).Seconds()/l.leak.Seconds())
}

// makeRoom forgets what is forgiven, and where that is not a tenth, anything.
func makeRoom[K comparable](all map[K]*strikes, l limit, now time.Time) {
	for key, s := range all {
		if s.after(l, now) == 0 {
			delete(all, key)
		}
	}
	for key := range all {
		if len(all) <= maxDamped*9/10 {
			return
		}
		delete(all, key)
	}
}

// foldName makes one of the names that a directory may take for the same.
func foldName(name string) string {
	return strings.Join(strings.Fields(strings.ToLower(norm.NFKC.String(name))), " ")
}

// foldAddress makes one of the IPv6 addresses that a device can give itself.
func foldAddress(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
