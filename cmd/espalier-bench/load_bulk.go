//go:build linux

package main

import (
	"context"
	"sync/atomic"
)

func runBulkDown(ctx context.Context, b *bed) (values, error) {
	g := newGroup(ctx)
	var got atomic.Int64
	for i := range b.load.streams {
		g.goDo(func(ctx context.Context) error { return b.download(ctx, i, 0, &got) })
	}
	c, err := b.measure(g, got.Load)
	if err = finish(g, err); err != nil {
		return nil, err
	}
	return bulkValues("bulk-down", c), nil
}

// runBulkUp counts what arrives at the origin.
func runBulkUp(ctx context.Context, b *bed) (values, error) {
	g := newGroup(ctx)
	for i := range b.load.streams {
		g.goDo(func(ctx context.Context) error { return b.upload(ctx, i) })
	}
	c, err := b.measure(g, b.origin.sunk.Load)
	if err = finish(g, err); err != nil {
		return nil, err
	}
	return bulkValues("bulk-up", c), nil
}

func bulkValues(key string, c cost) values {
	gb := float64(c.count) / 1e9
	return values{key: c.cpu.Seconds() / gb, key + "-rate": gb / c.wall.Seconds()}
}

// download receives through a tunnel until ctx ends, adding to got; at a rate
// in bytes a second, or as fast as it goes where that is 0.
func (b *bed) download(ctx context.Context, i, rate int, got *atomic.Int64) error {
	c, err := b.tunnel(ctx, i)
	if err != nil {
		return err
	}
	defer c.Close()
	seed := uint32(i)
	var head [headerSize]byte
	putHeader(head[:], opSource, seed, rate)
	if _, err := c.Write(head[:]); err != nil {
		return err
	}
	buf := make([]byte, chunk)
	for pos := int64(0); ; {
		n, err := c.Read(buf)
		if err := checkPattern(seed, pos, buf[:n]); err != nil {
			return err
		}
		pos += int64(n)
		got.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

// upload sends through a tunnel until ctx ends.
func (b *bed) upload(ctx context.Context, i int) error {
	c, err := b.tunnel(ctx, i)
	if err != nil {
		return err
	}
	defer c.Close()
	seed := uint32(i)
	var head [headerSize]byte
	putHeader(head[:], opSink, seed, 0)
	if _, err := c.Write(head[:]); err != nil {
		return err
	}
	for pos := int64(0); ; pos += chunk {
		if _, err := c.Write(pattern(seed, pos, chunk)); err != nil {
			return err
		}
	}
}
