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
func runHTTP(ctx context.Context, b *bed) (values, error) { return b.small(ctx, "http", 0) }

// runPost is runHTTP for a POST, whose body is as large as the answer's.
func runPost(ctx context.Context, b *bed) (values, error) { return b.small(ctx, "post", httpSmall) }

func (b *bed) small(ctx context.Context, key string, upload int) (values, error) {
	var requests atomic.Int64
	c, err := b.fetch(ctx, b.load.concurrency, httpSmall, upload, requests.Load, func() { requests.Add(1) }, func(int64) {})
	if err != nil {
		return nil, err
	}
	return c.each(key), nil
}

// each are the figures of something counted.
func (c cost) each(key string) values {
	n := float64(c.count)
	return values{key + "-us": float64(c.cpu.Nanoseconds()) / 1e3 / n, key + "-rate": n / c.wall.Seconds()}
}

// runWebSocket opens WebSockets, sends a message through each and back, and yields the
// proxy's CPU for one.
func runWebSocket(ctx context.Context, b *bed) (values, error) {
	var sockets atomic.Int64
	g := newGroup(ctx)
	for i := range b.load.concurrency {
		g.goDo(func(ctx context.Context) error {
			for {
				if err := b.webSocket(ctx, i); err != nil {
					return err
				}
				sockets.Add(1)
			}
		})
	}
	c, err := b.measure(g, sockets.Load)
	if err := finish(g, err); err != nil {
		return nil, err
	}
	return c.each("websocket"), nil
}

// runHTTPBulk yields the proxy's CPU for a GB of large bodies.
func runHTTPBulk(ctx context.Context, b *bed) (values, error) {
	var got atomic.Int64
	c, err := b.fetch(ctx, b.load.streams, httpLarge, 0, got.Load, func() {}, func(n int64) { got.Add(n) })
	if err != nil {
		return nil, err
	}
	return bulkValues("http-bulk", c), nil
}

// fetch gets bodies of size over n connections, by POST if upload is not 0, and measures
// by count.
func (b *bed) fetch(ctx context.Context, n int, size int64, upload int, count func() int64, done func(), progress func(int64)) (cost, error) {
	g := newGroup(ctx)
	for i := range n {
		g.goDo(func(ctx context.Context) error {
			get := &getter{bed: b, i: i, upload: upload}
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
