package auth

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"espalier/policy/cache"
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
	now       func() time.Time
	addresses *cache.Cache[string, strikes]
	names     *cache.Cache[string, strikes]
}

// strikes are the failures of an address or a name; not modified.
type strikes struct {
	n     float64
	at    time.Time // n is as of then
	until time.Time // nothing is tried before
}

func newDamper() *damper {
	d := &damper{now: time.Now}
	now := func() time.Time { return d.now() }
	d.addresses = cache.New[string](maxDamped, ofAddress.forgiven, now)
	d.names = cache.New[string](maxDamped, ofName.forgiven, now)
	return d
}

// forgiven is how long it takes until nothing is left of s.
func (l limit) forgiven(s *strikes) time.Duration { return time.Duration(s.n * float64(l.leak)) }

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
	now := d.now()
	if s := d.names.Get(foldName(name)); s != nil && s.until.After(now) {
		return &DampedError{ByName: true, Wait: s.until.Sub(now)}
	}
	if s := d.addresses.Get(foldAddress(from)); s != nil && s.until.After(now) {
		return &DampedError{Wait: s.until.Sub(now)}
	}
	return nil
}

// failed counts a failure, once for a name that is given twice.
func (d *damper) failed(from netip.Addr, names ...string) {
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
	for _, name := range names {
		d.names.Delete(foldName(name))
	}
}

func strike(all *cache.Cache[string, strikes], key string, l limit, now time.Time) {
	all.Update(key, func(before *strikes) *strikes {
		s := &strikes{n: 1, at: now}
		if before != nil {
			s.n += max(0, before.n-now.Sub(before.at).Seconds()/l.leak.Seconds())
			s.until = before.until
		}
		if over := s.n - l.free; over > 0 {
			s.until = now.Add(min(l.longest, time.Second<<min(int(over), 20)))
		}
		return s
	})
}

// foldName makes one of the names that a directory may take for the same.
func foldName(name string) string {
	return strings.Join(strings.Fields(strings.ToLower(norm.NFKC.String(name))), " ")
}

// foldAddress makes one of the IPv6 addresses that a device can give itself.
func foldAddress(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	return a.String()
}
