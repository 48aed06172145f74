// Package cache bounds what is remembered of things that clients may name in any
// number: hosts, addresses, credentials.
package cache

import (
	"hash/maphash"
	"iter"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxShards is how many parts a cache has, each with its own lock, so that writers
	// hold up few readers; readers do not hold up each other.
	maxShards = 16
	// minShard is the smallest part.
	minShard = 64
)

// A Cache holds at most so many values. When it is full it drops what has expired, and
// then what was not used since it was full before. It is safe for concurrent use, has
// no goroutine, and takes memory only for what it holds.
type Cache[K comparable, V any] struct {
	life   func(*V) time.Duration
	now    func() time.Time
	start  time.Time
	most   int // values in a shard
	count  atomic.Int64
	seed   maphash.Seed
	shards []shard[K, V]
}

type shard[K comparable, V any] struct {
	mu     sync.RWMutex
	values map[K]*value[V]
	_      [32]byte // a cache line for each
}

// A value is not modified, but for used.
type value[V any] struct {
	of      *V
	expires time.Duration // since the cache's start
	used    atomic.Bool   // since the shard was full
}

// New returns an empty cache for at most size values. life is how long a value is kept
// after it was set; nil keeps it until there is no room. now is the clock, nil the
// monotonic one of the system.
func New[K comparable, V any](size int, life func(*V) time.Duration, now func() time.Time) *Cache[K, V] {
	n := min(max(1, size/minShard), maxShards)
	c := &Cache[K, V]{life: life, now: now, start: time.Now(), most: size / n, seed: maphash.MakeSeed(), shards: make([]shard[K, V], n)}
	if now != nil {
		c.start = now()
	}
	return c
}

// Get returns the value of a key, which must not be modified; nil if there is none. It
// does not allocate.
func (c *Cache[K, V]) Get(key K) *V {
	s := c.shard(key)
	s.mu.RLock()
	v := s.values[key]
	s.mu.RUnlock()
	if v == nil || c.expired(v) {
		return nil
	}
	if !v.used.Load() {
		v.used.Store(true)
	}
	return v.of
}

// Set sets the value of a key.
func (c *Cache[K, V]) Set(key K, v *V) { c.Update(key, func(*V) *V { return v }) }

// Delete drops the value of a key.
func (c *Cache[K, V]) Delete(key K) { c.Update(key, func(*V) *V { return nil }) }

// Update sets the value of a key to what f makes of it, with nil for none. f must not
// use the cache.
func (c *Cache[K, V]) Update(key K, f func(*V) *V) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.values)
	defer func() { c.count.Add(int64(len(s.values) - before)) }()
	var old *V
	if v := s.values[key]; v != nil && !c.expired(v) {
		old = v.of
	}
	v := f(old)
	if v == nil {
		delete(s.values, key)
		return
	}
	if s.values == nil {
		s.values = map[K]*value[V]{}
	}
	if s.values[key] == nil && len(s.values) >= c.most {
		c.makeRoom(s)
	}
	s.values[key] = &value[V]{of: v, expires: c.expiry(v)}
}

// makeRoom drops what has expired, and then other values until a tenth is free. Of
// those it spares, once, what was used.
func (c *Cache[K, V]) makeRoom(s *shard[K, V]) {
	maps.DeleteFunc(s.values, func(_ K, v *value[V]) bool { return c.expired(v) })
	for range 2 {
		for key, v := range s.values {
			if len(s.values) <= c.most*9/10 {
				return
			}
			if !v.used.Swap(false) {
				delete(s.values, key)
			}
		}
	}
}

// All iterates over the values that have not expired, in no order. The loop's body must not
// use the cache, nor modify values.
func (c *Cache[K, V]) All() iter.Seq2[K, *V] {
	return func(yield func(K, *V) bool) {
		for i := range c.shards {
			if !c.shards[i].each(func(key K, v *value[V]) bool { return c.expired(v) || yield(key, v.of) }) {
				return
			}
		}
	}
}

// each calls f for every value until f returns false, which it then returns too.
func (s *shard[K, V]) each(f func(K, *value[V]) bool) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for key, v := range s.values {
		if !f(key, v) {
			return false
		}
	}
	return true
}

// Len is the number of values, with those that have expired and were not dropped yet.
func (c *Cache[K, V]) Len() int { return int(c.count.Load()) }

func (c *Cache[K, V]) shard(key K) *shard[K, V] {
	if len(c.shards) == 1 {
		return &c.shards[0]
	}
	return &c.shards[maphash.Comparable(c.seed, key)%uint64(len(c.shards))]
}

func (c *Cache[K, V]) expiry(v *V) time.Duration {
	if c.life == nil {
		return math.MaxInt64
	}
	return c.elapsed() + c.life(v)
}

func (c *Cache[K, V]) expired(v *value[V]) bool { return c.life != nil && c.elapsed() >= v.expires }

// elapsed is the time since the cache was made, by the monotonic clock.
func (c *Cache[K, V]) elapsed() time.Duration {
	if c.now == nil {
		return time.Since(c.start)
	}
	return c.now().Sub(c.start)
}
