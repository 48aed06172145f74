package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"espalier/policy"
)

// dialThrough opens a tunnel to t through a parent.
func (d *Dialer) dialThrough(ctx context.Context, t policy.Target) (net.Conn, error) {
	addrs, err := d.fixed(t)
	if err != nil {
		return nil, err
	}
	if addrs == nil {
		conn, _, err := d.openThrough(ctx, t.String())
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	var last error
	for i, a := range addrs {
		part, cancel := share(ctx, len(addrs)-i)
		conn, _, err := d.openThrough(part, netip.AddrPortFrom(a, t.Port).String())
		cancel()
		if err == nil {
			return conn, nil
		}
		last = err
		if parent := (*ParentError)(nil); ctx.Err() != nil || errors.As(err, &parent) && !parent.elsewhere() {
			break
		}
	}
	return nil, last
}

// fixed returns the checked addresses of t where no look-up tells them: those of
// a literal and of egress.hosts. With neither an address nor an error the parent
// looks the name up.
func (d *Dialer) fixed(t policy.Target) ([]netip.Addr, error) {
	if addrs := d.known(t); addrs != nil {
		return d.permitted(addrs, t.Port)
	}
	if t.Host == "localhost" || strings.HasSuffix(t.Host, ".localhost") {
		// RFC 6761, 6.3: loopback, whoever looks it up.
		_, err := d.permitted([]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, t.Port)
		return nil, err
	}
	return nil, nil
}

// DialPlain connects for a plain request to t. With egress.parent the connection
// is to a parent proxy, which is returned beside it: the request goes there in
// absolute form with its ProxyAuthorization, since proxies commonly refuse
// CONNECT to port 80, and may answer plain requests from a cache. Without a
// parent in the result the request is for t itself, in origin form, as after
// Dial; so it is for names in egress.hosts, whose addresses an absolute URL
// cannot carry. Errors and time are those of Dial; a parent counts as working
// once it takes the connection.
func (d *Dialer) DialPlain(ctx context.Context, t policy.Target) (net.Conn, *Parent, error) {
	absolute, err := d.absolute(t)
	if err != nil {
		return nil, nil, err
	}
	if !absolute {
		conn, err := d.Dial(ctx, t)
		return conn, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn, p, err := d.openThrough(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	return conn, p, nil
}

// absolute reports whether a plain request to t goes to a parent in absolute
// form, or that the guard refuses t.
func (d *Dialer) absolute(t policy.Target) (bool, error) {
	if len(d.parents) == 0 {
		return false, nil
	}
	addrs, err := d.fixed(t)
	return err == nil && (addrs == nil || t.Addr.IsValid()), err
}

// PlainParent returns the parent to ask for a plain request to t, in absolute
// form: the first that is not known to fail, for those who connect by
// DialParent. It is nil where DialPlain would return none. The error is a
// *ForbiddenError.
func (d *Dialer) PlainParent(t policy.Target) (*Parent, error) {
	if absolute, err := d.absolute(t); !absolute {
		return nil, err
	}
	now := time.Now()
	for _, p := range d.parents {
		if p.admit(now) {
			return p, nil
		}
	}
	return d.parents[0], nil
}

// DialParent connects to p, of the same Dialer, and remembers whether it could.
func (d *Dialer) DialParent(ctx context.Context, p *Parent) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn, err := d.reach(ctx, p)
	if err != nil {
		return nil, err
	}
	p.worked()
	return conn, nil
}

// openThrough opens a tunnel to hostport through the first parent that can; an
// empty hostport means a connection to the parent and no tunnel. Parents that
// rest after a failure are asked only where none of the others gave an answer.
// Each has its share of the time.
//
// That a parent cannot be connected to is its own fault. That it does not open a
// tunnel may be the destination's, and a client could choose one to have all
// parents sent to rest: it counts only where another parent opens it.
func (d *Dialer) openThrough(ctx context.Context, hostport string) (*net.TCPConn, *Parent, error) {
	type suspect struct {
		*Parent
		began time.Time
	}
	var suspects []suspect
	var told *ParentError
	queue, left := d.parents[:len(d.parents):len(d.parents)], len(d.parents)
	for i := 0; i < len(queue); i++ {
		p, began := queue[i], time.Now()
		if i < len(d.parents) && !p.admit(began) {
			queue = append(queue, p)
			continue
		}
		if i >= len(d.parents) && told != nil && told.Status != 0 {
			break
		}
		part, cancel := share(ctx, left)
		left--
		conn, err := d.reach(part, p)
		if err == nil && hostport != "" {
			err = p.open(part, conn, hostport)
			if err != nil {
				conn.Close()
				suspects = append(suspects, suspect{p, began})
			}
		}
		cancel()
		if err == nil {
			p.worked()
			for _, s := range suspects {
				s.failed(s.began, time.Now())
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

// reach connects to p, and notes where it cannot.
func (d *Dialer) reach(ctx context.Context, p *Parent) (*net.TCPConn, *ParentError) {
	began := time.Now()
	conn, err := d.connectTo(ctx, p.target)
	if err == nil {
		return conn, nil
	}
	if !errors.Is(ctx.Err(), context.Canceled) { // else nobody waited for it
		p.failed(began, time.Now())
	}
	return nil, &ParentError{Parent: p.String(), Err: err}
}

// connectTo connects to a parent. Its address is the administrator's choice, so
// the guard has no say; but the proxy is not its own parent.
func (d *Dialer) connectTo(ctx context.Context, t policy.Target) (*net.TCPConn, error) {
	addrs := d.known(t)
	if addrs == nil {
		var err error
		if addrs, err = d.cache.lookup(ctx, t.Host); err != nil {
			return nil, &LookupError{t.Host, err}
		}
	}
	check := func(netip.Addr) error { return nil }
	if d.self[t.Port] {
		own := d.own()
		check = func(a netip.Addr) error {
			if own(a) {
				return fmt.Errorf("%s is this proxy's own address; let egress.parent name another proxy", a)
			}
			return nil
		}
	}
	addrs, err := d.arrange(addrs, check)
	if err != nil {
		return nil, err
	}
	conn, err := d.race(ctx, addrs, t.Port)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// open asks p on conn for a tunnel to hostport. It leaves on conn what follows
// the answer's head.
func (p *Parent) open(ctx context.Context, conn *net.TCPConn, hostport string) *ParentError {
	request := "CONNECT " + hostport + " HTTP/1.1\r\nHost: " + hostport + "\r\n"
	if p.auth != "" {
		request += "Proxy-Authorization: " + p.auth + "\r\n"
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	_, err := conn.Write([]byte(request + "\r\n"))
	status := 0
	// A parent may refuse and close before it has read everything.
	if s, rerr := readAnswer(conn); rerr == nil {
		status, err = s, nil
	} else if err == nil {
		err = rerr
	}
	if !stop() { // the deadline is set, or is about to be
		status, err = 0, fmt.Errorf("no answer to CONNECT: %w", ctx.Err())
	}
	switch {
	case err == nil && status/100 == 2:
		return nil
	case status == http.StatusGatewayTimeout:
		err = context.DeadlineExceeded
	}
	return &ParentError{Parent: p.String(), Status: status, Err: err}
}
