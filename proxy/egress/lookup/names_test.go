package lookup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"espalier/proxy/panics"
)

// resolve makes a resolver of a function.
type resolve func(ctx context.Context, name string) ([]netip.Addr, time.Duration, error)

func (f resolve) lookup(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	return f(ctx, name)
}

var public = netip.MustParseAddr("198.51.100.1") // to a cache, one address is like another

// testCache is a cache whose clock stands still until it is set.
func testCache(r resolve) (*Names, *atomic.Int64) {
	clock := new(atomic.Int64)
	start := time.Now()
	return newNames(r, time.Minute, func() time.Time { return start.Add(time.Duration(clock.Load())) }), clock
}

func TestCacheTTL(t *testing.T) {
	failure := errors.New("name server on fire")
	tests := []struct {
		name  string
		addrs []netip.Addr
		ttl   time.Duration
		err   error
		after time.Duration
		asked int // for two look-ups, the second of them after
	}{
		{"fresh", []netip.Addr{public}, 60 * time.Second, nil, 59 * time.Second, 1},
		{"expired", []netip.Addr{public}, 60 * time.Second, nil, 60 * time.Second, 2},
		{"no such name, fresh", nil, 10 * time.Second, errNotFound, 9 * time.Second, 1},
		{"no such name, expired", nil, 10 * time.Second, errNotFound, 10 * time.Second, 2},
		{"failure", nil, 0, failure, 0, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var asked atomic.Int64
			c, clock := testCache(func(context.Context, string) ([]netip.Addr, time.Duration, error) {
				asked.Add(1)
				return tt.addrs, tt.ttl, tt.err
			})
			for range 2 {
				addrs, err := c.Lookup(t.Context(), "x")
				if fmt.Sprint(addrs) != fmt.Sprint(tt.addrs) || !errors.Is(err, tt.err) {
					t.Errorf("%v, %v", addrs, err)
				}
				clock.Store(int64(tt.after))
			}
			if int(asked.Load()) != tt.asked {
				t.Errorf("asked %d times, want %d", asked.Load(), tt.asked)
			}
		})
	}
}

// Those who ask at the same time share one look-up.
func TestCacheOneLookup(t *testing.T) {
	var asked atomic.Int64
	release := make(chan struct{})
	c, _ := testCache(func(context.Context, string) ([]netip.Addr, time.Duration, error) {
		asked.Add(1)
		<-release
		return []netip.Addr{public}, time.Minute, nil
	})
	var ready, done sync.WaitGroup
	for range 200 {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			if addrs, err := c.Lookup(t.Context(), "x"); len(addrs) != 1 || err != nil {
				t.Errorf("%v, %v", addrs, err)
			}
		})
	}
	ready.Wait()
	close(release)
	done.Wait()
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
}

// Who gives up does not take the answer from the others.
func TestCacheGiveUp(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	c, _ := testCache(func(ctx context.Context, _ string) ([]netip.Addr, time.Duration, error) {
		close(started)
		<-release
		return []netip.Addr{public}, time.Minute, ctx.Err()
	})
	impatient, giveUp := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { _, err := c.Lookup(impatient, "x"); first <- err }()
	<-started
	giveUp()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up: %v", err)
	}
	close(release)
	if addrs, err := c.Lookup(t.Context(), "x"); len(addrs) != 1 || err != nil {
		t.Errorf("who waited: %v, %v", addrs, err)
	}
}

func TestCacheTimeout(t *testing.T) {
	c := newNames(resolve(func(ctx context.Context, _ string) ([]netip.Addr, time.Duration, error) {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}), time.Millisecond, nil)
	if _, err := c.Lookup(t.Context(), "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

// However many names clients think of, memory and look-ups under way are
// bounded.
func TestCacheIsBounded(t *testing.T) {
	c, clock := testCache(func(_ context.Context, name string) ([]netip.Addr, time.Duration, error) {
		if name[0] == 's' {
			return []netip.Addr{public}, time.Second, nil
		}
		return []netip.Addr{public}, time.Hour, nil
	})
	fill := func(prefix string, n int) {
		for i := range n {
			if _, err := c.Lookup(t.Context(), fmt.Sprint(prefix, i)); err != nil {
				t.Fatal(err)
			}
			if c.known.Len() > maxNames {
				t.Fatalf("%d names", c.known.Len())
			}
		}
	}
	fill("long", maxNames/4)
	fill("short", maxNames)
	clock.Store(int64(time.Minute))
	fill("more", maxNames/4) // there is room by what has expired
	for i := range maxNames / 4 {
		if c.Peek(fmt.Sprint("more", i)) == nil {
			t.Fatalf("more%d was dropped", i)
		}
	}
	fill("even more", 2*maxNames)
}

func TestCacheLookupsAreBounded(t *testing.T) {
	var now, most atomic.Int64
	release := make(chan struct{})
	full := make(chan struct{})
	c, _ := testCache(func(context.Context, string) ([]netip.Addr, time.Duration, error) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
			if n == maxLookups {
				close(full)
			}
		}
		<-release
		now.Add(-1)
		return []netip.Addr{public}, time.Minute, nil
	})
	var wg sync.WaitGroup
	for i := range maxLookups + 100 {
		wg.Go(func() {
			if _, err := c.Lookup(t.Context(), fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	<-full
	close(release)
	wg.Wait()
	if most.Load() > maxLookups {
		t.Errorf("%d look-ups at a time", most.Load())
	}
}

func TestCachePeek(t *testing.T) {
	release := make(chan struct{})
	c, clock := testCache(func(_ context.Context, name string) ([]netip.Addr, time.Duration, error) {
		if name == "none" {
			return nil, time.Minute, errNotFound
		}
		<-release
		return []netip.Addr{public}, time.Minute, nil
	})
	if got := c.Peek("x"); got != nil {
		t.Errorf("before any look-up: %v", got)
	}
	done := make(chan struct{})
	go func() { defer close(done); _, _ = c.Lookup(t.Context(), "x") }()
	if got := c.Peek("x"); got != nil {
		t.Errorf("before the answer: %v", got)
	}
	close(release)
	<-done
	if got := c.Peek("x"); len(got) != 1 {
		t.Errorf("fresh: %v", got)
	}
	clock.Store(int64(time.Minute))
	if got := c.Peek("x"); got != nil {
		t.Errorf("expired: %v", got)
	}
	if _, err := c.Lookup(t.Context(), "none"); !errors.Is(err, errNotFound) {
		t.Fatal(err)
	}
	if got := c.Peek("none"); got != nil {
		t.Errorf("no such name: %v", got)
	}
}

// A resolver's panic is the error of who waits for it, and of nobody else.
func TestLookupPanics(t *testing.T) {
	c := newNames(resolve(func(context.Context, string) ([]netip.Addr, time.Duration, error) { panic("of a test") }), time.Minute, nil)
	for range 2 {
		_, err := c.Lookup(t.Context(), "host.example")
		if p, ok := errors.AsType[*panics.Error](err); !ok || p.Fault != "of a test" || !bytes.Contains(p.Stack, []byte("TestLookupPanics")) {
			t.Errorf("error %v", err)
		}
	}
}
