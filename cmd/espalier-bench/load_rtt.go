//go:build linux

package main

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	pingSize = 64
	rttTries = 20
	rttPause = 20 * time.Millisecond
	// sparseTunnels and sparsePause let each round trip meet a proxy at rest.
	sparseTunnels = 2
	sparsePause   = time.Millisecond
	// besideStreams and besideRate are the bulk beside the round trips of
	// rtt-bulk. The rate is fixed, or the fastest proxy would have the most to
	// do meanwhile.
	besideStreams = 2
	besideRate    = 100 << 20 // bytes a second, each
)

// runRTT sends small messages through one tunnel, each as soon as the last is
// answered. Whether bench and proxy share a core decides a round trip more than
// the proxy does, and the scheduler rarely changes its mind; so the time is cut
// into several tries with a pause before each, and their medians count.
func runRTT(ctx context.Context, b *bed) (values, error) {
	var of [4][]float64
	for i := range rttTries {
		if err := sleep(ctx, rttPause); err != nil {
			return nil, err
		}
		var trips tripLog
		cpu, err := b.pingFor(ctx, i, b.load.window/rttTries, &trips)
		if err != nil {
			return nil, err
		}
		v := trips.percentiles("rtt")
		v["rtt-cpu"] = float64(cpu.Nanoseconds()) / 1e3 / float64(trips.count())
		for j, key := range rttKeys {
			of[j] = append(of[j], v[key])
		}
	}
	v := values{}
	for j, key := range rttKeys {
		v[key] = spreadOf(of[j]).median
	}
	return v, nil
}

var rttKeys = [...]string{"rtt-p50", "rtt-p90", "rtt-p99", "rtt-cpu"}

// pingFor sends messages through one tunnel for a time and returns the proxy's
// CPU meanwhile.
func (b *bed) pingFor(ctx context.Context, i int, d time.Duration, trips *tripLog) (time.Duration, error) {
	c, err := b.tunnel(ctx, i)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	buf := make([]byte, pingSize)
	seed := uint32(i) << 24
	for range 50 { // the first are slower
		seed++
		if err := exchange(c, seed, buf); err != nil {
			return 0, err
		}
	}
	cpu0, err := b.proc.cpu(b.pid)
	if err != nil {
		return 0, err
	}
	for end := time.Now().Add(d); ; {
		start := time.Now()
		seed++
		if err := exchange(c, seed, buf); err != nil {
			return 0, err
		}
		now := time.Now()
		trips.add(now.Sub(start))
		if now.After(end) {
			break
		}
	}
	cpu1, err := b.proc.cpu(b.pid)
	return cpu1 - cpu0, err
}

func runRTTSparse(ctx context.Context, b *bed) (values, error) {
	return b.ping(newGroup(ctx), "rtt-sparse", sparseTunnels, sparsePause)
}

func runRTTBulk(ctx context.Context, b *bed) (values, error) {
	g := newGroup(ctx)
	var got atomic.Int64
	for i := range besideStreams {
		g.goDo(func(ctx context.Context) error { return b.download(ctx, sparseTunnels+i, besideRate, &got) })
	}
	v, err := b.ping(g, "rtt-bulk", sparseTunnels, sparsePause)
	delete(v, "rtt-bulk-cpu") // it would be the bulk's
	return v, err
}

// ping measures round trips through n tunnels, within g, which it stops.
func (b *bed) ping(g *group, key string, n int, pause time.Duration) (values, error) {
	var trips tripLog
	for i := range n {
		g.goDo(func(ctx context.Context) error {
			c, err := b.tunnel(ctx, i)
			if err != nil {
				return err
			}
			defer c.Close()
			buf := make([]byte, pingSize)
			for seed := uint32(i); ; seed += uint32(n) {
				start := time.Now()
				if err := exchange(c, seed, buf); err != nil {
					return err
				}
				trips.add(time.Since(start))
				if err := sleep(ctx, pause); err != nil {
					return err
				}
			}
		})
	}
	c, err := b.measure(g, trips.count)
	if err = finish(g, err); err != nil {
		return nil, err
	}
	v := trips.percentiles(key)
	v[key+"-cpu"] = float64(c.cpu.Nanoseconds()) / 1e3 / float64(c.count)
	return v, nil
}

// A tripLog collects round trips from several goroutines.
type tripLog struct {
	mu sync.Mutex
	d  []time.Duration
}

func (t *tripLog) add(d time.Duration) {
	t.mu.Lock()
	t.d = append(t.d, d)
	t.mu.Unlock()
}

func (t *tripLog) count() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int64(len(t.d))
}

// percentiles yields key-p50, key-p90 and key-p99 in µs.
func (t *tripLog) percentiles(key string) values {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.Sort(t.d)
	us := func(p float64) float64 { return float64(percentile(t.d, p).Nanoseconds()) / 1e3 }
	return values{key + "-p50": us(0.50), key + "-p90": us(0.90), key + "-p99": us(0.99)}
}
