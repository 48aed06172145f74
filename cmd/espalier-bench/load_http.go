//go:build linux

package main

import (
	"context"
	"sync/atomic"
)

const (
	httpSmall = 1 << 10
	httpLarge = 256 << 20
)

// runHTTP yields the proxy's CPU for a request over kept-alive connections.
func runHTTP(ctx context.Context, b *bed) (values, error) {
	var requests atomic.Int64
	c, err := b.fetch(ctx, b.load.concurrency, httpSmall, requests.Load, func() { requests.Add(1) }, func(int64) {})
	if err != nil {
		return nil, err
	}
	n := float64(c.count)
	return values{
		"http-us":   float64(c.cpu.Nanoseconds()) / 1e3 / n,
		"http-rate": n / c.wall.Seconds(),
	}, nil
}

// runHTTPBulk yields the proxy's CPU for a GB of large bodies.
func runHTTPBulk(ctx context.Context, b *bed) (values, error) {
	var got atomic.Int64
	c, err := b.fetch(ctx, b.load.streams, httpLarge, got.Load, func() {}, func(n int64) { got.Add(n) })
	if err != nil {
		return nil, err
	}
	return bulkValues("http-bulk", c), nil
}

// fetch gets bodies of size over n connections and measures by count.
func (b *bed) fetch(ctx context.Context, n int, size int64, count func() int64, done func(), progress func(int64)) (cost, error) {
	g := newGroup(ctx)
	for i := range n {
		g.goDo(func(ctx context.Context) error {
			get := &getter{bed: b, i: i}
			defer get.Close()
			for seed := uint32(i); ; seed += uint32(n) {
				if err := get.get(ctx, size, seed, progress); err != nil {
					return err
				}
				done()
			}
		})
	}
	c, err := b.measure(g, count)
	return c, finish(g, err)
}
