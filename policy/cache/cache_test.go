package cache

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// No cache leaves a goroutine behind, though none is closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func itself(v *time.Duration) time.Duration { return *v }

func TestLife(t *testing.T) {
	now := time.Now()
	c := New[string](10, itself, func() time.Time { return now })
	check := func(when string, want bool) {
		t.Helper()
		if got := c.Get("x") != nil; got != want {
			t.Errorf("%s: kept %v, want %v", when, got, want)
		}
	}
	check("before it is set", false)
	c.Set("x", new(time.Minute))
	now = now.Add(time.Minute - 1)
	check("within its life", true)
	c.Set("x", new(time.Hour))
	now = now.Add(time.Hour - 1)
	check("set again with a longer life", true)
	c.Update("x", func(v *time.Duration) *time.Duration { return new(2 * *v) })
	now = now.Add(2*time.Hour - 1)
	check("updated with a longer life", true)
	now = now.Add(1)
	check("at the end of its life", false)
	c.Update("x", func(v *time.Duration) *time.Duration {
		if v != nil {
			t.Errorf("the expired value %s is updated", *v)
		}
		return new(time.Minute)
	})
	check("set by an update", true)
	c.Delete("x")
	check("dropped", false)
}

// Whatever is set, the bound holds at every moment, what is used stays, and what has
// expired makes room first.
func TestBound(t *testing.T) {
	for _, size := range []int{minShard, 2 * minShard, 100 * minShard} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			now := time.Now()
			c := New[int](size, itself, func() time.Time { return now })
			set := func(from, n int, life time.Duration) {
				t.Helper()
				for i := range n {
					c.Set(from+i, &life)
					if got := c.Len(); got > size {
						t.Fatalf("%d values", got)
					}
				}
				if c.Get(from+n-1) == nil {
					t.Error("the last value is not there")
				}
			}
			const used, long = -1, -2
			set(long, 1, time.Hour)
			set(used, 1, time.Hour)
			set(0, 10*size, time.Second)
			now = now.Add(time.Minute)
			set(long, 1, time.Hour)
			set(used, 1, time.Hour)
			set(10*size, size/2, time.Hour) // there is room by what has expired
			if c.Get(long) == nil {
				t.Error("a value was dropped before others that had expired")
			}
			for i := range 10 {
				if c.Get(used) == nil {
					t.Fatal("a value that is used was dropped")
				}
				set((20+i)*size, size/20, time.Hour)
			}
			if got := c.Len(); got < size/2 {
				t.Errorf("only %d values", got)
			}
			for i := range 50 * size {
				c.Delete(i)
			}
			c.Delete(used)
			c.Delete(long)
			if got := c.Len(); got != 0 {
				t.Errorf("%d values are left of none", got)
			}
		})
	}
}

// What is kept expires by the monotonic clock, whatever the other is set to.
func TestMonotonicClock(t *testing.T) {
	for _, now := range []func() time.Time{nil, time.Now} {
		if c := New[int](1, itself, now); !strings.Contains(c.start.String(), "m=") {
			t.Errorf("it starts at %s", c.start)
		}
	}
}

// Without a life, values stay until the bound is reached.
func TestNoLife(t *testing.T) {
	c := New[int, string](2, nil, nil)
	c.Set(0, new("x"))
	if c.Get(0) == nil {
		t.Error("not kept")
	}
	for i := range 100 {
		c.Set(i, new("x"))
		if n := c.Len(); n > 2 {
			t.Fatalf("%d values", n)
		}
	}
}

// Neither a hit nor a miss allocates.
func TestReadsDoNotAllocate(t *testing.T) {
	c := New[string](10, itself, nil)
	c.Set("x", new(time.Hour))
	if n := testing.AllocsPerRun(1000, func() { c.Get("x"); c.Get("y") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	c := New[int, int](100, func(*int) time.Duration { return time.Hour }, nil)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 5000 {
				key := (i*7 + g) % 300
				c.Set(key, new(key))
				if v := c.Get(key); v != nil && *v != key {
					t.Errorf("%d is kept as %d", key, *v)
				}
				if i%5 == 0 {
					c.Delete(key)
				}
			}
		})
	}
	wg.Wait()
	for i := range 300 {
		c.Set(i, new(i))
	}
	if n := c.Len(); n > 100 {
		t.Errorf("%d values", n)
	}
}

func BenchmarkHit(b *testing.B) {
	c := New[int, int](10_000, func(*int) time.Duration { return time.Hour }, nil)
	for i := range 100 {
		c.Set(i, new(i))
	}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			c.Get(i % 100)
		}
	})
}

func TestAll(t *testing.T) {
	now := time.Now()
	c := New[int](1000, func(v *int) time.Duration { return time.Duration(*v) * time.Second }, func() time.Time { return now })
	for i := 1; i <= 100; i++ {
		c.Set(i, &i)
	}
	now = now.Add(50 * time.Second)
	seen := map[int]bool{}
	for key, v := range c.All() {
		seen[key] = *v == key
	}
	if len(seen) != 50 || !seen[51] || seen[50] {
		t.Errorf("%d of 50 values: %v", len(seen), seen)
	}
	for range c.All() {
		break // leaves no lock behind
	}
	c.Set(1000, &[]int{7}[0])
}
