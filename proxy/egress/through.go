package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"espalier/policy"
	"espalier/policy/hostclass"
)

// ErrNoOtherParent says that a request has been to every parent.
var ErrNoOtherParent = errors.New("egress.parent names no other proxy")

// HasParent reports whether egress.parent is set. An answer of 407 then is a
// parent's, and no business of the client.
func (d *Dialer) HasParent() bool { return len(d.parents) > 0 }

// DialPlain connects for a plain request to t. With egress.parent the connection
// is to a parent proxy, which is returned beside it: the request goes there in
// absolute form with its ProxyAuthorization, since proxies commonly refuse
// CONNECT to port 80, and may answer plain requests from a cache. Without a
// parent in the result the request is for t itself, in origin form, as after
// Dial; so it is for names in egress.hosts, whose addresses an absolute URL
// cannot carry. Errors and time are those of Dial.
//
// not are the parents that left the request unanswered before; the error is
// ErrNoOtherParent if there is none beside them. A parent that takes the connection
// and does not answer looks like one whose destination takes its time: callers wait
// with Parent.Await, and tell Parent.Unanswered of a connection that ends.
func (d *Dialer) DialPlain(ctx context.Context, t policy.Target, not ...*Parent) (net.Conn, *Parent, error) {
	if len(d.parents) > 0 {
		addrs, err := d.fixed(t)
		if err != nil {
			return nil, nil, err
		}
		if addrs == nil || t.Addr.IsValid() {
			ctx, cancel := context.WithTimeout(ctx, d.timeout)
			defer cancel()
			return d.openThrough(ctx, "", not)
		}
	}
	conn, err := d.Dial(ctx, t)
	return conn, nil, err
}

// dialThrough opens a tunnel to t through a parent.
func (d *Dialer) dialThrough(ctx context.Context, t policy.Target) (net.Conn, error) {
	addrs, err := d.fixed(t)
	if err != nil {
		return nil, err
	}
	to := []string{t.String()}
	if addrs != nil {
		to = to[:0]
		for _, a := range addrs {
			to = append(to, a.String())
		}
	}
	for i, hostport := range to {
		part, cancel := share(ctx, len(to)-i)
		var conn net.Conn
		conn, _, err = d.openThrough(part, hostport, nil)
		cancel()
		if err == nil {
			return conn, nil
		}
		if e, ok := errors.AsType[*ParentError](err); ctx.Err() != nil || ok && !e.elsewhere() {
			break
		}
	}
	return nil, err
}

// Forbidden returns the guard's error about t as far as it is known without a look-up:
// of an address, a name in egress.hosts, localhost and Espalier's own names.
func (d *Dialer) Forbidden(t policy.Target) error {
	_, err := d.fixed(t)
	return err
}

// fixed returns the checked addresses of t that are known without a look-up: those of
// a literal and of egress.hosts. With neither an address nor an error the parent
// looks the name up.
func (d *Dialer) fixed(t policy.Target) ([]netip.AddrPort, error) {
	if addrs := d.known(t); addrs != nil {
		return d.permitted(nil, addrs, t, true)
	}
	if d.self.names[t] {
		return nil, &ForbiddenError{Class: classSelf}
	}
	if hostclass.IsLocalhost(t.Host) {
		// A parent that looks it up reaches itself.
		_, err := d.permitted(nil, []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, t, true)
		return nil, err
	}
	return nil, nil
}

// openThrough opens a tunnel to hostport through the first parent that can; with an
// empty hostport it connects to the parent for a plain request. Parents in not, and
// those that lead back here, are left out; those in backoff are asked only if none of
// the others gave an answer. Each has its share of the time.
//
// That a parent cannot be connected to is its own fault. That it does not open a
// tunnel may be the destination's, and a client could choose one to send all parents
// into backoff: it counts only if another parent opens it.
func (d *Dialer) openThrough(ctx context.Context, hostport string, not []*Parent) (net.Conn, *Parent, error) {
	var queue []*Parent
	var told *ParentError
	for _, p := range d.parents {
		switch {
		case slices.Contains(not, p):
		case p.loops():
			told = p.fault(0, ErrLoop)
		default:
			queue = append(queue, p)
		}
	}
	var suspects []func(now time.Time)
	first, left := len(queue), len(queue)
	for i := 0; i < len(queue); i++ {
		p, began := queue[i], time.Now()
		if i < first && !p.admit(began, hostport == "") {
			queue = append(queue, p)
			continue
		}
		if i >= first && told != nil && told.Status != 0 {
			break
		}
		part, cancel := share(ctx, left)
		left--
		conn, err := p.connect(part)
		if err == nil && hostport != "" {
			if err = p.open(part, conn, hostport); err != nil {
				conn.Close()
				suspects = append(suspects, func(now time.Time) { p.failed(began, now) })
			}
		}
		cancel()
		if err == nil {
			if hostport != "" {
				p.worked()
			}
			for _, failed := range suspects {
				failed(time.Now())
			}
			return conn, p, nil
		}
		if told == nil || err.Status != 0 {
			told = err
		}
		if ctx.Err() != nil || !err.elsewhere() {
			break
		}
	}
	if told == nil {
		return nil, nil, ErrNoOtherParent
	}
	return nil, nil, told
}

// share returns a context with a part of the time that ctx has: one of n.
func share(ctx context.Context, n int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || n <= 1 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(n))
}
