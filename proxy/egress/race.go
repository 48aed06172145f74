package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"espalier/proxy/egress/reach"
	"espalier/proxy/panics"
)

// Reachability is what Dial and DialPlain remember of addresses, for attempts
// that are made elsewhere.
func (d *Dialer) Reachability() *reach.Memory { return d.answers }

// race connects to the first address that answers. A new attempt starts when
// one fails, or AttemptDelay after the last one began.
func (d *Dialer) race(ctx context.Context, addrs []netip.AddrPort) (net.Conn, error) {
	if len(addrs) == 1 {
		return d.attempt(ctx, addrs[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		index int
		conn  net.Conn
		err   error
	}
	results := make(chan result, len(addrs))
	var won atomic.Bool
	attempt := func(i int) {
		conn, err := d.attempt(ctx, addrs[i])
		if err == nil && won.Swap(true) {
			conn.Close()
			return
		}
		results <- result{i, conn, err}
	}
	delay := time.NewTimer(0)
	defer delay.Stop()
	var failed error
	for next, pending := 0, 0; ; {
		select {
		case <-delay.C:
			if next < len(addrs) {
				go attempt(next)
				next++
				pending++
				delay.Reset(AttemptDelay)
			}
		case r := <-results:
			if r.err == nil {
				for _, slower := range addrs[:r.index] { // they had a head start
					d.answers.Failed(slower, context.DeadlineExceeded)
				}
				return r.conn, nil
			}
			pending--
			if failed == nil || isUnroutable(failed) {
				failed = r.err
			}
			if next < len(addrs) && ctx.Err() == nil {
				delay.Reset(0)
			} else if pending == 0 {
				return nil, failed
			}
		}
	}
}

// attempt connects to an address. It remembers how that went, unless the client has
// left or another address was faster.
func (d *Dialer) attempt(ctx context.Context, to netip.AddrPort) (conn net.Conn, err error) {
	defer panics.Keep(&err)
	conn, err = d.dial.DialContext(ctx, "tcp", to.String())
	switch {
	case err == nil:
		d.answers.Reached(to)
	case !errors.Is(ctx.Err(), context.Canceled):
		d.answers.Failed(to, err)
	}
	return conn, err
}

// isUnroutable reports whether err says only that this machine has no way to
// the address, as with every IPv6 address where there is no IPv6. What another
// address said tells more.
func isUnroutable(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}
