//go:build linux

package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// smallMessage is what a tunnel of open and idle carries each way.
const smallMessage = 2048

// runOpen opens, uses and closes tunnels at a fixed concurrency and yields the
// proxy's CPU for one, closing included.
func runOpen(ctx context.Context, b *bed) (values, error) {
	before, err := b.proc.fds(b.pid)
	if err != nil {
		return nil, err
	}
	if _, err := b.openAll(ctx, min(b.load.opens, 200)); err != nil {
		return nil, err
	}
	if err := b.settle(ctx, before); err != nil {
		return nil, err
	}
	cpu0, err := b.proc.cpu(b.pid)
	if err != nil {
		return nil, err
	}
	wall, err := b.openAll(ctx, b.load.opens)
	if err != nil {
		return nil, err
	}
	if err := b.settle(ctx, before); err != nil {
		return nil, err
	}
	cpu1, err := b.proc.cpu(b.pid)
	if err != nil {
		return nil, err
	}
	n := float64(b.load.opens)
	return values{
		"open-us":   float64((cpu1 - cpu0).Microseconds()) / n,
		"open-rate": n / wall.Seconds(),
	}, nil
}

// openAll opens, uses and closes n tunnels and returns the time it took.
func (b *bed) openAll(ctx context.Context, n int) (time.Duration, error) {
	start := time.Now()
	g := newGroup(ctx)
	var next atomic.Int64
	for range b.load.concurrency {
		g.goDo(func(ctx context.Context) error {
			buf := make([]byte, smallMessage)
			for {
				i := int(next.Add(1))
				if i > n {
					return nil
				}
				if err := b.openOne(ctx, i, buf); err != nil {
					return fmt.Errorf("tunnel %d of %d: %w", i, n, err)
				}
			}
		})
	}
	err := g.wait()
	return time.Since(start), err
}

func (b *bed) openOne(ctx context.Context, i int, buf []byte) error {
	c, err := b.tunnel(ctx, i)
	if err != nil {
		return err
	}
	defer c.Close()
	return exchange(c, uint32(i), buf)
}
