package auth

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/text/unicode/norm"

	"espalier/policy/cache"
)

// A limit says how failures of one kind are slowed down: free ones cost nothing, each
// further one doubles the wait up to longest, and one is forgiven every leak.
type limit struct {
	free    float64
	leak    time.Duration
	longest time.Duration
}

var (
	// One person at one device: twelve guesses an hour in the long run.
	ofPair = limit{free: 5, leak: 5 * time.Minute, longest: 5 * time.Minute}
	// Many people may share an address, so that the wait stays short: six guesses a minute
	// in the long run, by whatever names.
	ofAddress = limit{free: 20, leak: 10 * time.Second, longest: 30 * time.Second}
	// Guesses from many addresses: two a minute in the long run. The bound is this high
	// since reaching it keeps the user from signing in at new devices.
	ofName = limit{free: 200, leak: 30 * time.Second, longest: time.Minute}
)

// maxStrikes bounds the pairs, the addresses and the names that are watched, each.
const maxStrikes = 20_000

// A throttle slows guesses down: by name and client address first, then by address and by
// name alone, which do not stop a pair that is known to be good. Success forgives the pair
// only: otherwise users could clear their address between guesses. It is safe for
// concurrent use.
type throttle struct {
	pairs, addresses, names *strikeTable
}

func newThrottle(now func() time.Time) *throttle {
	return &throttle{newStrikeTable(ofPair, now), newStrikeTable(ofAddress, now), newStrikeTable(ofName, now)}
}

// A ThrottledError says that too many sign-ins have failed, so that this one was not
// tried.
type ThrottledError struct {
	Reason string
	Wait   time.Duration // until the next may be tried
}

func (e *ThrottledError) Error() string {
	return fmt.Sprintf("%s: retry in %s", e.Reason, e.Wait.Round(time.Second))
}

// An attempt is by whom and from where a sign-in is tried. The zero digest of name stands
// for none.
type attempt struct{ pair, address, name digest }

// allow returns a *ThrottledError if nothing may be tried yet. It does not depend on the
// password, so that a right one cannot be told from a wrong one. known says whether the
// pair is known to be good.
func (t *throttle) allow(a attempt, known func() bool) error {
	if wait := t.pairs.wait(a.pair); wait > 0 {
		return &ThrottledError{"too many sign-ins by this name from this address have failed", wait}
	}
	err := &ThrottledError{"too many sign-ins from this address have failed", t.addresses.wait(a.address)}
	if wait := t.names.wait(a.name); wait > err.Wait {
		err = &ThrottledError{"too many sign-ins by this name have failed", wait}
	}
	if err.Wait <= 0 || known() {
		return nil
	}
	return err
}

// failed counts a wrong guess.
func (t *throttle) failed(a attempt) {
	t.pairs.strike(a.pair, 0)
	t.addresses.strike(a.address, 0)
	t.names.strike(a.name, 0)
}

// refused counts a guess that was refused after the memory was asked: the pair has to wait,
// or else it could ask the memory without end.
func (t *throttle) refused(a attempt) {
	t.failed(a)
	t.pairs.strike(a.pair, ofPair.free)
}

// hasFailed reports whether failures of a pair are not forgiven yet.
func (t *throttle) hasFailed(a attempt) bool { return t.pairs.has(a.pair) }

// succeeded forgives the failures of a pair.
func (t *throttle) succeeded(a attempt) { t.pairs.forgive(a.pair) }

// Strikes are the failures of one key; not modified.
type strikes struct {
	N     float64   `json:"n"`
	At    time.Time `json:"at"`             // N is as of then
	Until time.Time `json:"until,omitzero"` // nothing is tried before
}

// A strikeTable counts failures by key. Keys that have to wait are held apart, so that
// no number of keys that have failed once displaces them. It is safe for concurrent use.
type strikeTable struct {
	limit
	now  func() time.Time
	mu   sync.Mutex // held while a strike moves from few to many
	few  *cache.Cache[digest, strikes]
	many *cache.Cache[digest, strikes]
}

func newStrikeTable(l limit, now func() time.Time) *strikeTable {
	t := &strikeTable{limit: l, now: now}
	// life is how long it takes until nothing is left.
	life := func(s *strikes) time.Duration { return time.Duration(t.left(s) * float64(l.leak)) }
	t.few = cache.New[digest](maxStrikes, life, now)
	t.many = cache.New[digest](maxStrikes, life, now)
	return t
}

// left is how many failures are not forgiven yet.
func (t *strikeTable) left(s *strikes) float64 {
	return max(0, s.N-float64(t.now().Sub(s.At))/float64(t.leak))
}

func (t *strikeTable) wait(key digest) time.Duration {
	if s := t.many.Get(key); s != nil {
		return max(0, s.Until.Sub(t.now()))
	}
	return 0
}

func (t *strikeTable) has(key digest) bool { return t.few.Get(key) != nil || t.many.Get(key) != nil }

// strike counts a failure, as one after least others.
func (t *strikeTable) strike(key digest, least float64) {
	if key == (digest{}) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &strikes{N: 1 + least, At: t.now()}
	before := t.many.Get(key)
	if before == nil {
		before = t.few.Get(key)
	}
	if before != nil {
		s.N = 1 + max(least, t.left(before))
		s.Until = before.Until
	}
	if over := s.N - t.free; over > 0 {
		s.Until = s.At.Add(min(t.longest, time.Second<<min(int(over), 20)))
	}
	t.set(key, s)
}

// set keeps s, also one that was read from a file.
func (t *strikeTable) set(key digest, s *strikes) {
	if s.N > t.free {
		t.many.Set(key, s)
		t.few.Delete(key)
	} else {
		t.few.Set(key, s)
		t.many.Delete(key)
	}
}

func (t *strikeTable) forgive(key digest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.few.Delete(key)
	t.many.Delete(key)
}

// foldName makes one of the names that a directory may take for the same.
func foldName(name string) string {
	if isFolded(name) {
		return name
	}
	return strings.Join(strings.Fields(strings.ToLower(norm.NFKC.String(name))), " ")
}

// isFolded reports whether folding leaves a name as it is, for most names at little cost.
func isFolded(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || 'A' <= r && r <= 'Z' })
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
