package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"espalier/policy"
)

// DialPlain connects for a plain request to t. With egress.parent the connection
// is to a parent proxy, which is returned beside it: the request goes there in
// absolute form with its ProxyAuthorization, since proxies commonly refuse
// CONNECT to port 80, and may answer plain requests from a cache. Without a
// parent in the result the request is for t itself, in origin form, as after
// Dial; so it is for names in egress.hosts, whose addresses an absolute URL
// cannot carry. Errors and time are those of Dial.
//
// A parent that takes the connection and does not answer looks like one whose
// destination takes its time, so it is for the caller how long to wait, and to
// Doubt; and to tell Unanswered of one that ends the connection without an answer.
func (d *Dialer) DialPlain(ctx context.Context, t policy.Target) (net.Conn, *Parent, error) {
	return d.DialOther(ctx, t, nil)
}

// DialOther is DialPlain for a request that the parents in not left unanswered. It
// returns ErrNoOtherParent where there is none beside them.
func (d *Dialer) DialOther(ctx context.Context, t policy.Target, not []*Parent) (net.Conn, *Parent, error) {
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
	conn, p, err := d.openThrough(ctx, "", not)
	if err != nil {
		return nil, nil, err
	}
	return conn, p, nil
}

// ErrNoOtherParent says that a request has been to every parent.
var ErrNoOtherParent = errors.New("egress.parent names no other proxy")

// Doubt is for while an answer to a plain request is awaited of the parent at
// hostport, another address is none. Where it takes longer than Config.ConnectTimeout
// the parent is asked for itself, and if it says nothing then either, further
// requests leave it alone until it does. What is awaited goes on. stop must be
// called at the end.
func (d *Dialer) Doubt(hostport string) (stop func()) {
	p := d.parentAt(hostport)
	if p == nil {
		return func() {}
	}
	t := time.AfterFunc(d.timeout, func() { d.ask(p) })
	return func() { t.Stop() }
}

// Unanswered is for a plain request of which the parent at hostport has ended a new
// connection with err, and sent no byte. It returns a *ParentError, or err where
// that is none of a parent. The parent is asked for itself, since the
// destination may be the cause, and other parents come first meanwhile. Unanswered
// does not block.
func (d *Dialer) Unanswered(hostport string, err error) error {
	p := d.parentAt(hostport)
	if p == nil {
		return err
	}
	if p.loops() {
		return &ParentError{Parent: hostport, Err: ErrLoop}
	}
	d.ask(p)
	return &ParentError{Parent: hostport, Err: fmt.Errorf("it closed the connection without an answer: %w", err)}
}

// parentAt returns the parent at hostport, nil where there is none.
func (d *Dialer) parentAt(hostport string) *Parent {
	if i := slices.IndexFunc(d.parents, func(p *Parent) bool { return p.String() == hostport }); i >= 0 {
		return d.parents[i]
	}
	return nil
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

// HasParent reports whether egress.parent is set. An answer of 407 then is a
// parent's, and no business of the client.
func (d *Dialer) HasParent() bool { return len(d.parents) > 0 }

// Proxy is for http.Transport: the parent, with its credentials, for plain
// requests that DialPlain would send to one; the first that is not known to
// fail. The error is a *ForbiddenError or a *ParentError.
func (d *Dialer) Proxy(r *http.Request) (*url.URL, error) {
	t, err := policy.ParseTarget(r.URL.Host, 80)
	if err != nil {
		return nil, err
	}
	if absolute, err := d.absolute(t); !absolute {
		return nil, err
	}
	now := time.Now()
	for _, p := range d.parents {
		if !p.loops() && d.admit(p, now, true) {
			return p.url, nil
		}
	}
	for _, p := range d.parents {
		if !p.loops() {
			return p.url, nil
		}
	}
	return nil, &ParentError{Parent: d.parents[0].String(), Err: ErrLoop}
}

// DialContext is for http.Transport, beside Proxy: it connects to a parent, and
// remembers where it could not, if addr is what Proxy returned. Otherwise it is
// Dial.
func (d *Dialer) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	t, err := policy.ParseTarget(addr, 0)
	if err != nil {
		return nil, err
	}
	// A client's own request for a parent's address does not come here: it goes
	// to a parent by Proxy, or the guard has let it pass.
	i := slices.IndexFunc(d.parents, func(p *Parent) bool { return p.target == t })
	if i < 0 {
		return d.Dial(ctx, t)
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	conn, perr := d.reach(ctx, d.parents[i])
	if perr != nil {
		return nil, perr
	}
	return conn, nil
}
