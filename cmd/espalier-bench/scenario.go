//go:build linux

package main

import (
	"context"
	"fmt"
	"time"
)

// load says how much of everything the scenarios do.
type load struct {
	window      time.Duration // of the scenarios that run for a time
	opens       int           // tunnels of open
	inspected   int           // connections of inspect to names that are known
	concurrency int           // clients of open and http
	streams     int           // tunnels or downloads of the bulk scenarios
	idle        int           // tunnels of idle
	quiet       time.Duration // how long idle watches the silence
	beside      int           // idle tunnels held beside every other scenario
}

// values are the figures of one sample by key.
type values map[string]float64

// A scenario is one kind of load.
type scenario struct {
	name string
	run  func(context.Context, *bed) (values, error)
	// intercepts is set where the proxy is to intercept TLS; peers that cannot are
	// left out.
	intercepts bool
}

var scenarios = []scenario{
	{name: "open", run: runOpen},
	{name: "bulk-down", run: runBulkDown},
	{name: "bulk-up", run: runBulkUp},
	{name: "rtt", run: runRTT},
	{name: "rtt-sparse", run: runRTTSparse},
	{name: "rtt-bulk", run: runRTTBulk},
	{name: "idle", run: runIdle},
	{name: "http", run: runHTTP},
	{name: "post", run: runPost},
	{name: "websocket", run: runWebSocket},
	{name: "http-bulk", run: runHTTPBulk},
	{name: "inspect", run: runInspect, intercepts: true},
}

// A figure is one number that a scenario yields.
type figure struct {
	key    string
	label  string
	digits int // behind the point
}

var figures = []figure{
	{"open-us", "open, use, close a tunnel: CPU µs", 1},
	{"open-rate", "open: tunnels/s (with the load on the same cores)", 0},
	{"bulk-down", "bulk down: CPU s/GB", 3},
	{"bulk-down-rate", "bulk down: GB/s", 2},
	{"bulk-up", "bulk up: CPU s/GB", 3},
	{"bulk-up-rate", "bulk up: GB/s", 2},
	{"rtt-p50", "round trip, one after the other: p50 µs", 0},
	{"rtt-p90", "round trip, one after the other: p90 µs", 0},
	{"rtt-p99", "round trip, one after the other: p99 µs", 0},
	{"rtt-cpu", "round trip, one after the other: CPU µs", 1},
	{"rtt-sparse-p50", "round trip, one each ms: p50 µs", 0},
	{"rtt-sparse-p90", "round trip, one each ms: p90 µs", 0},
	{"rtt-sparse-p99", "round trip, one each ms: p99 µs", 0},
	{"rtt-sparse-cpu", "round trip, one each ms: CPU µs", 1},
	{"rtt-bulk-p50", "round trip beside 200 MB/s: p50 µs", 0},
	{"rtt-bulk-p90", "round trip beside 200 MB/s: p90 µs", 0},
	{"rtt-bulk-p99", "round trip beside 200 MB/s: p99 µs", 0},
	{"idle-kb", "idle tunnel: user memory KB", 2},
	{"idle-fds", "idle tunnel: descriptors", 2},
	{"idle-slab", "idle tunnel: kernel slab KB", 1},
	{"idle-cpu", "idle tunnels: CPU ms/s, all together", 2},
	{"idle-tunnels", "idle tunnels held", 0},
	{"http-us", "plain HTTP, 1 KB, kept alive: CPU µs/request", 1},
	{"http-rate", "plain HTTP, 1 KB: requests/s (with the load on the same cores)", 0},
	{"post-us", "plain HTTP, POST of 1 KB, kept alive: CPU µs/request", 1},
	{"post-rate", "plain HTTP, POST of 1 KB: requests/s (with the load on the same cores)", 0},
	{"websocket-us", "WebSocket, opened, used, closed: CPU µs", 1},
	{"websocket-rate", "WebSockets/s (with the load on the same cores)", 0},
	{"http-bulk", "plain HTTP, large bodies: CPU s/GB", 3},
	{"http-bulk-rate", "plain HTTP, large bodies: GB/s", 2},
	{"inspect-us", "intercepted connection, 4 requests: CPU µs", 0},
	{"inspect-new-us", "the same, the first to a name: CPU µs", 0},
	{"inspect-rate", "intercepted connections/s (with the load on the same cores)", 0},
}

// warmUp is how long a windowed load runs before it counts.
const warmUp = 300 * time.Millisecond

// cost is what passed between two moments.
type cost struct {
	cpu, wall time.Duration
	count     int64
}

// measure lets the group's load run, warms up, and takes what count and the
// proxy's CPU grew by within the window.
func (b *bed) measure(g *group, count func() int64) (cost, error) {
	if err := sleep(g.ctx, min(warmUp, b.load.window)); err != nil {
		return cost{}, err
	}
	cpu0, err := b.proc.cpu(b.pid)
	if err != nil {
		return cost{}, err
	}
	n0, t0 := count(), time.Now()
	if err := sleep(g.ctx, b.load.window); err != nil {
		return cost{}, err
	}
	cpu1, err := b.proc.cpu(b.pid)
	if err != nil {
		return cost{}, err
	}
	n1, t1 := count(), time.Now()
	if n1 == n0 {
		return cost{}, fmt.Errorf("nothing moved within %s", b.load.window)
	}
	return cost{cpu: cpu1 - cpu0, wall: t1.Sub(t0), count: n1 - n0}, nil
}

// finish stops the load; the load's own error says more than the measurement's.
func finish(g *group, err error) error {
	if loadErr := g.stop(); loadErr != nil {
		return loadErr
	}
	return err
}

// settle waits until the proxy is done with what was closed: until it holds no
// more descriptors than before, or their number rests.
func (b *bed) settle(ctx context.Context, before int) error {
	last := -1
	for range 40 {
		n, err := b.proc.fds(b.pid)
		if err != nil {
			return err
		}
		if n <= before || n == last {
			return nil
		}
		last = n
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
