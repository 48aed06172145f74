package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"espalier/policy"
	"espalier/policy/hostclass"
)

// dialThrough opens a tunnel to t through a parent.
func (d *Dialer) dialThrough(ctx context.Context, t policy.Target) (net.Conn, error) {
	addrs, err := d.fixed(t)
	if err != nil {
		return nil, err
	}
	if addrs == nil {
		conn, _, err := d.openThrough(ctx, t.String(), nil)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	var last error
	for i, a := range addrs {
		part, cancel := share(ctx, len(addrs)-i)
		conn, _, err := d.openThrough(part, a.String(), nil)
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

// Forbidden returns the guard's error about t as far as it is known without a look-up:
// of an address, a name in egress.hosts, localhost and Espalier's own names.
func (d *Dialer) Forbidden(t policy.Target) error {
	_, err := d.fixed(t)
	return err
}

// fixed returns the checked addresses of t where no look-up tells them: those of
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

// openThrough opens a tunnel to hostport through the first parent that can; an
// empty hostport means a connection to the parent and no tunnel. Those in not are
// left out, and those that lead back here. Parents that rest after a failure are
// asked only where none of the others gave an answer. Each has its share of the
// time.
//
// That a parent cannot be connected to is its own fault. That it does not open a
// tunnel may be the destination's, and a client could choose one to have all
// parents sent to rest: it counts only where another parent opens it.
//
// That a parent takes a connection does not mean that it answers. One that rests is
// therefore not tried by a plain request, but asked beside it.
func (d *Dialer) openThrough(ctx context.Context, hostport string, not []*Parent) (*net.TCPConn, *Parent, error) {
	type suspect struct {
		*Parent
		began time.Time
	}
	var suspects []suspect
	var told *ParentError
	var queue []*Parent
	for _, p := range d.parents {
		switch {
		case slices.Contains(not, p):
		case p.loops():
			told = &ParentError{Parent: p.String(), Err: ErrLoop}
		default:
			queue = append(queue, p)
		}
	}
	first, left := len(queue), len(queue)
	for i := 0; i < len(queue); i++ {
		p, began := queue[i], time.Now()
		if i < first && !d.admit(p, began, hostport == "") {
			queue = append(queue, p)
			continue
		}
		if i >= first && told != nil && told.Status != 0 {
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
			if hostport != "" {
				p.worked()
			}
			for _, s := range suspects {
				s.failed(s.began, time.Now())
			}
			return conn, p, nil
		}
		if p.loops() { // the question has come back meanwhile
			err = &ParentError{Parent: p.String(), Err: ErrLoop}
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

// admit is Parent.admit. For a plain request a parent is not admitted while it rests
// or is asked, and where it would be tried then, it is asked whether it is well.
func (d *Dialer) admit(p *Parent, now time.Time, plain bool) bool {
	rests := plain && p.Rests()
	if !p.admit(now) {
		return false
	}
	if rests {
		d.ask(p)
	}
	return !rests
}

// ask asks p for itself in the background, unless it is being asked, and notes
// whether it says anything. That it takes a connection proves nothing: a load
// balancer does for proxies that it does not have.
func (d *Dialer) ask(p *Parent) {
	if !p.asking.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer p.asking.Store(false)
		began := time.Now()
		// RFC 9110, 9.3.7 and 7.6.2: about the parent, not for a proxy behind it.
		err := d.exchange(context.Background(), p, "OPTIONS * HTTP/1.1\r\nHost: "+p.String()+"\r\nMax-Forwards: 0\r\n")
		if err != nil {
			p.failed(began, time.Now())
		} else {
			p.worked()
		}
	}()
}

// exchange sends a request to p, and returns nil where it answers anything.
func (d *Dialer) exchange(ctx context.Context, p *Parent, request string) (err error) {
	defer kept(&err)
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn, perr := d.reach(ctx, p)
	if perr != nil {
		return perr
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if request += "Connection: close\r\n"; p.auth != "" {
		request += "Proxy-Authorization: " + p.auth + "\r\n"
	}
	_, err = conn.Write([]byte(request + "\r\n"))
	if n, rerr := conn.Read(make([]byte, 1)); n > 0 {
		return nil // it may refuse before it has read everything
	} else if err == nil {
		err = rerr
	}
	return err
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
		p.connected()
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
		if addrs, err = d.names.lookup(ctx, t.Host); err != nil {
			return nil, &LookupError{t.Host, err}
		}
	}
	check := func(netip.Addr) error { return nil }
	if d.self.ports[t.Port] {
		machine := d.self.addresses(true)
		check = func(a netip.Addr) error {
			if d.self.is(a, machine) {
				return fmt.Errorf("%s is this proxy's own address; let egress.parent name another proxy", a)
			}
			return nil
		}
	}
	to, err := d.arrange(nil, addrs, t.Port, check)
	if err != nil {
		return nil, err
	}
	conn, err := d.race(ctx, to)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// open asks p on conn for a tunnel to hostport. It leaves on conn what follows
// the answer's head.
func (p *Parent) open(ctx context.Context, conn *net.TCPConn, hostport string) *ParentError {
	request := "CONNECT " + hostport + " HTTP/1.1\r\nHost: " + hostport + "\r\n" + p.viaFields(ctx)
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
