package auth

import (
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

// A Source is a way to sign in. Names of one are unrelated to those of another.
type Source string

const (
	Proxy   Source = "proxy"   // users of the proxy
	Console Source = "console" // users of the console
	Token   Source = "token"   // tokens of the API
)

// A Guard throttles, remembers and counts sign-ins of every source. It outlives
// configurations, and is safe for concurrent use. The key of its digests is kept beside
// them, so they hide names, addresses and hashes only as far as these cannot be guessed.
type Guard struct {
	now      func() time.Time
	key      digestKey
	memory   *memory
	throttle *throttle
	known    *known
	binds    *binds
	hashing  chan struct{} // one for each hash that may be computed at a time
	turns    turns
	flight   singleflight.Group
	outcomes *prometheus.CounterVec
	file     guardFile
}

// NewGuard returns a guard that ends with the process. now is the clock.
func NewGuard(now func() time.Time) *Guard {
	g := &Guard{
		now: now, key: digestKey(randomBytes(32)), memory: newMemory(now), throttle: newThrottle(now), known: newKnown(now), binds: newBinds(now),
		// Hashing never takes all of the processor from traffic.
		hashing: make(chan struct{}, min(maxHashes, max(1, runtime.GOMAXPROCS(0)/2))),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "espalier_auth_total",
			Help: "Sign-ins by source (proxy, console, token) and result: ok, wrong, throttled (not tried after too many failures), error (the directory or file is unavailable).",
		}, []string{"source", "result"}),
	}
	for _, s := range []Source{Proxy, Console, Token} {
		for _, r := range []string{"ok", "wrong", "throttled", "error"} {
			g.outcomes.WithLabelValues(string(s), r)
		}
	}
	return g
}

// OpenGuard returns a guard that keeps what must survive a restart in a file of the directory
// data: which users are known at which addresses, failures that throttle, and failed binds.
// If the file is unreadable the guard begins without it, and the log says so. Close it.
func OpenGuard(data string, log *zap.Logger) *Guard {
	g := NewGuard(time.Now)
	g.file.open(g, data, log)
	return g
}

// Close writes what is not written yet.
func (g *Guard) Close() error { return g.file.close() }

// Collector counts sign-ins.
func (g *Guard) Collector() prometheus.Collector { return g.outcomes }

// Check throttles guesses at a secret that is its own name. compare reports whether the secret
// is right; it is not called for a guess that is throttled. The error is ErrWrong, a
// *ThrottledError, or an *UnavailableError with that of compare.
func (g *Guard) Check(source Source, from netip.Addr, secret string, compare func() (bool, error)) error {
	err := g.check(source, from, secret, compare)
	g.count(source, err)
	return err
}

func (g *Guard) check(source Source, from netip.Addr, secret string, compare func() (bool, error)) error {
	a := attempt{pair: g.key.digest(string(source), foldAddress(from))}
	defer g.turns.take(a.pair)()
	if err := g.throttle.allow(a, func() bool { return true }); err != nil {
		return err
	}
	ok, err := compare()
	switch {
	case err != nil:
		return &UnavailableError{err}
	case ok:
		return nil
	}
	d := g.memory.digest(string(source), secret)
	if again, _ := g.memory.refused(d); !again {
		g.throttle.failed(a)
		g.file.changed(laterSave)
	}
	g.memory.refuse(d)
	return ErrWrong
}

// count counts a sign-in by what came of it; one that its client gave up does not count.
func (g *Guard) count(source Source, err error) {
	result := "ok"
	switch {
	case err == nil:
	case errors.Is(err, ErrWrong):
		result = "wrong"
	case isA[*ThrottledError](err):
		result = "throttled"
	case isA[*UnavailableError](err):
		result = "error"
	default:
		return
	}
	g.outcomes.WithLabelValues(string(source), result).Inc()
}

// attempt is who tries to sign in as name, and from where.
func (g *Guard) attempt(source Source, from netip.Addr, name string) attempt {
	address, name := foldAddress(from), foldName(name)
	return attempt{
		pair:    g.key.digest(string(source), "pair", name, address),
		address: g.key.digest(string(source), "address", address),
		name:    g.key.digest(string(source), "name", name),
	}
}

// turns let one go on at a time of those with the same key. The zero value is ready.
type turns struct {
	mu   sync.Mutex
	keys map[digest]*turn
}

type turn struct {
	sync.Mutex
	waiting int
}

// take waits for the turn of key, and returns what ends it. Whatever is done meanwhile must
// end soon.
func (t *turns) take(key digest) (done func()) {
	t.mu.Lock()
	own := t.keys[key]
	if own == nil {
		own = &turn{}
		if t.keys == nil {
			t.keys = map[digest]*turn{}
		}
		t.keys[key] = own
	}
	own.waiting++
	t.mu.Unlock()
	own.Lock()
	return func() {
		own.Unlock()
		t.mu.Lock()
		defer t.mu.Unlock()
		if own.waiting--; own.waiting == 0 {
			delete(t.keys, key)
		}
	}
}
