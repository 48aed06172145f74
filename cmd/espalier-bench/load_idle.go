//go:build linux

package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// idleSettle is how long tunnels are silent before the silence is measured.
const idleSettle = 2 * time.Second

// runIdle opens tunnels, carries one small message each way through each, keeps
// silent, and yields what one of them holds. Then each must still carry data.
func runIdle(ctx context.Context, b *bed) (values, error) {
	before, err := b.proc.fds(b.pid)
	if err != nil {
		return nil, err
	}
	// What the proxy allocates once is not a tunnel's.
	if _, err := b.openAll(ctx, min(b.load.idle, 200)); err != nil {
		return nil, err
	}
	if err := b.settle(ctx, before); err != nil {
		return nil, err
	}
	if err := sleep(ctx, min(time.Second, b.load.quiet)); err != nil {
		return nil, err
	}
	u0, err := b.proc.usage(b.pid)
	if err != nil {
		return nil, err
	}
	slab0, err := b.proc.slab()
	if err != nil {
		return nil, err
	}

	held, err := b.openIdle(ctx, b.load.idle)
	defer closeAll(held)
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, min(idleSettle, b.load.quiet)); err != nil {
		return nil, err
	}
	cpu0, err := b.proc.cpu(b.pid)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	if err := sleep(ctx, b.load.quiet); err != nil {
		return nil, err
	}
	quiet := time.Since(start)
	u1, err := b.proc.usage(b.pid)
	if err != nil {
		return nil, err
	}
	slab1, err := b.proc.slab()
	if err != nil {
		return nil, err
	}

	if err := b.each(ctx, held); err != nil {
		return nil, fmt.Errorf("after the silence: %w", err)
	}
	n := float64(len(held))
	return values{
		"idle-kb":      float64(u1.pss-u0.pss) / 1024 / n,
		"idle-fds":     float64(u1.fds-u0.fds) / n,
		"idle-slab":    float64(slab1-slab0) / 1024 / n,
		"idle-cpu":     float64((u1.cpu - cpu0).Microseconds()) / 1e3 / quiet.Seconds(),
		"idle-tunnels": n,
	}, nil
}

// openIdle opens n tunnels and uses each once; the caller closes what it
// returns, with an error too.
func (b *bed) openIdle(ctx context.Context, n int) ([]*client, error) {
	held := make([]*client, n)
	g := newGroup(ctx)
	var next atomic.Int64
	for range b.load.concurrency {
		g.goDo(func(gctx context.Context) error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || gctx.Err() != nil {
					return nil
				}
				c, err := b.tunnel(ctx, i) // outlives the group
				if err != nil {
					return fmt.Errorf("tunnel %d of %d: %w", i+1, n, err)
				}
				held[i] = c
			}
		})
	}
	if err := g.wait(); err != nil {
		return held, err
	}
	return held, b.each(ctx, held)
}

// each exchanges one message through every tunnel.
func (b *bed) each(ctx context.Context, held []*client) error {
	g := newGroup(ctx)
	var next atomic.Int64
	for range b.load.concurrency {
		g.goDo(func(ctx context.Context) error {
			buf := make([]byte, smallMessage)
			for {
				i := int(next.Add(1)) - 1
				if i >= len(held) || ctx.Err() != nil {
					return nil
				}
				if err := exchange(held[i], uint32(i), buf); err != nil {
					return fmt.Errorf("tunnel %d of %d: %w", i+1, len(held), err)
				}
			}
		})
	}
	return g.wait()
}

func closeAll(held []*client) {
	for _, c := range held {
		if c != nil {
			c.Close()
		}
	}
}
