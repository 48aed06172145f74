// Package doctor tries to reach every host of the catalogue, as devices do, and
// says what is in the way.
//
// A Doctor goes two ways: from this machine, as the proxy does, and through a
// proxy. It looks names up, connects, speaks TLS, HTTP or NTP as the port asks
// for, and looks whose certificate it is shown. What went wrong is a Problem,
// with what to do next.
package doctor

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/egress"
)

const (
	// DefaultTimeout bounds an examination where Doctor.Timeout is 0.
	DefaultTimeout = 30 * time.Second
	// parallel is how many hosts are tried at a time.
	parallel = 64
	// patience bounds one host, where there is time for that.
	patience = 5 * time.Second
)

// Egress is how destinations are reached from this machine; an *egress.Dialer.
type Egress interface {
	Lookup(ctx context.Context, t policy.Target) ([]netip.Addr, error)
	Dial(ctx context.Context, t policy.Target) (net.Conn, error)
	DialPlain(ctx context.Context, t policy.Target, not ...*egress.Parent) (net.Conn, *egress.Parent, error)
}

// A Doctor examines. It is safe for concurrent use while no field is changed.
type Doctor struct {
	// Rows are the catalogue's. Those without ports, which stand for whole
	// blocks, are left out.
	Rows []catalog.Row
	// Services are the ids of those to try; empty means all.
	Services []string
	Egress   Egress
	// Proxy is the host:port of the proxy to try beside the direct way; empty
	// means none.
	Proxy string
	// Roots are CAs to believe beside the public ones, in PEM.
	Roots []byte
	// Timeout bounds the whole; 0 means DefaultTimeout. Hosts share it: with
	// many that do not answer each has less time.
	Timeout time.Duration
	// Progress is told how many of the probes are done, one call at a time. It may be nil.
	Progress func(done, total int)

	ntpPort uint16 // to ask for the time at; 0: that of the row
}

// Run examines, until all is tried, Timeout is over or ctx ends. The report says what
// was not tried by then.
func (d *Doctor) Run(ctx context.Context) *Report {
	began := time.Now()
	timeout := d.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r := &Report{Time: began.UTC(), Proxy: d.Proxy, Services: []Service{}}
	probes := d.plan(r)
	d.try(ctx, probes, share(timeout, len(probes)))
	r.conclude()
	r.Milliseconds = time.Since(began).Milliseconds()
	return r
}

// share is the time that each of n probes may take, so that all fit into
// timeout with a reserve.
func share(timeout time.Duration, n int) time.Duration {
	rounds := max(1, (n+parallel-1)/parallel)
	return min(patience, timeout*9/10/time.Duration(rounds))
}

// try makes the probes, a number of them at a time, and leaves the checks without a
// finding of those that ctx does not let end.
func (d *Doctor) try(ctx context.Context, probes []*probe, each time.Duration) {
	var mu sync.Mutex
	done := 0
	progress := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		if done += n; d.Progress != nil {
			d.Progress(done, len(probes))
		}
	}
	progress(0)
	var group errgroup.Group
	group.SetLimit(parallel)
	for _, p := range probes {
		group.Go(func() error {
			p.run(ctx, each)
			progress(1)
			return nil
		})
	}
	_ = group.Wait() // which is nil
}
