package egress

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"time"
)

// Pings find out within minutes that an origin is gone, whose answers may pause for
// as long as their clients wait.
const (
	pingInterval = time.Minute
	pingTimeout  = 15 * time.Second
)

// maxHead bounds the head of an answer by HTTP/2.
const maxHead = 64 << 10

// A shared is the connection to an origin that speaks HTTP/2.
type shared struct {
	route Route
	ready chan struct{} // closed once it is known whether there is one
	// To be read after ready.
	conn   *http.ClientConn // nil: there is none
	origin Origin           // as it was connected
}

// isReady reports whether it is known whether there is a connection.
func (m *shared) isReady() bool {
	select {
	case <-m.ready:
		return true
	default:
		return false
	}
}

const (
	// choiceHolds is how long an origin is not asked again for what it speaks.
	choiceHolds = time.Hour
	// Bounds on how long an origin that has chosen nothing may take to begin HTTP/2, which
	// it does as soon as the handshake is over. It is as far away as connecting took.
	minPreface = 100 * time.Millisecond
	maxPreface = 500 * time.Millisecond
)

// ConnectAny is Connect for a request by HTTP/1 that HTTP/2 can carry too: it leads to
// origins that are asked by TLS and speak HTTP/2 only.
func (p *Origins) ConnectAny(ctx context.Context, r Route, to Endpoint, fresh bool, not []*Parent) (*Origin, error) {
	if !to.Secure || to.HTTP2 {
		return p.Connect(ctx, r, to, fresh, not)
	}
	known := p.choices.Get(to)
	http2 := known != nil && *known
	to.HTTP2 = http2
	o, err := p.Connect(ctx, r, to, fresh, not)
	switch {
	case http2:
		return o, err
	case err != nil:
		if http2 = refusesHTTP1(err); !http2 {
			return nil, err
		}
	case known != nil || o.Reused || o.protocol() != "":
		return o, nil
	default:
		http2 = o.beginsHTTP2()
	}
	p.choices.Set(to, &http2)
	if !http2 {
		return o, nil
	}
	if err == nil {
		o.Close()
	}
	to.HTTP2 = true
	return p.Connect(ctx, r, to, fresh, not)
}

// beginsHTTP2 reports whether the origin says SETTINGS before it is asked, or closes, as
// some do that miss the choice of HTTP/2.
func (o *Origin) beginsHTTP2() bool {
	err := o.More(min(max(o.Connect, minPreface), maxPreface))
	begin := o.Unread()
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded) ||
		len(begin) >= 9 && begin[3] == 4 && bytes.Equal(begin[4:9], make([]byte, 5)) // RFC 9113, 3.4 and 4.1
}

// refusesHTTP1 reports whether an origin has ended a TLS handshake since it does not speak
// HTTP/1.1 (RFC 7301, 3.2). crypto/tls does not export its alerts.
func refusesHTTP1(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" && op.Err.Error() == "tls: no application protocol"
}

// connectHTTP2 is Connect for an Endpoint with HTTP2. Of requests that come at once one
// connects, and the others wait for what protocol the origin speaks.
func (p *Origins) connectHTTP2(ctx context.Context, r Route, to Endpoint) (*Origin, error) {
	for waited := false; ; waited = true {
		p.mu.Lock()
		m := p.shared[to]
		if m == nil || m.route != r || m.isReady() && (m.conn == nil || m.conn.Err() != nil) {
			m = &shared{route: r, ready: make(chan struct{})}
			if !waited {
				p.shared[to] = m
			}
			p.mu.Unlock()
			return p.open(ctx, r, to, m)
		}
		p.mu.Unlock()
		select {
		case <-m.ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		switch {
		case m.conn == nil:
		case m.conn.Reserve() == nil:
			o := m.origin
			o.HTTP2, o.Reused, o.Connect = m.conn, true, 0
			return &o, nil
		default: // it is full, or has ended
			p.mu.Lock()
			p.forget(to, m)
			p.mu.Unlock()
		}
	}
}

// open connects, and tells those who wait for m, if any, what came of it.
func (p *Origins) open(ctx context.Context, r Route, to Endpoint, m *shared) (*Origin, error) {
	defer close(m.ready)
	o, err := p.dial(ctx, r, to, nil)
	if err == nil && o.HTTP2 != nil {
		if err = o.ended(o.HTTP2.Reserve()); err == nil {
			m.conn, m.origin = o.HTTP2, *o
			m.conn.SetStateHook(func(c *http.ClientConn) {
				if c.Err() != nil {
					p.mu.Lock()
					defer p.mu.Unlock()
					p.forget(to, m)
				}
			})
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.shared[to]; m.conn == nil || p.closed || other != nil && other != m {
		p.forget(to, m)
	} else {
		p.shared[to] = m
	}
	return o, err
}

// forget lets m end after its requests. p.mu is held.
func (p *Origins) forget(to Endpoint, m *shared) {
	if p.shared[to] == m {
		delete(p.shared, to)
	}
	if m.conn != nil {
		go closeIdle(m.conn) // the hook that it runs may be another's
	}
}

// closeIdle closes c when it has no request any more.
func closeIdle(c *http.ClientConn) {
	closeNow := func(c *http.ClientConn) {
		if c.InFlight() == 0 {
			c.Close()
		}
	}
	c.SetStateHook(closeNow)
	closeNow(c)
}

// newClientConn speaks HTTP/2 on c, a TLS connection that has negotiated it.
func (p *Origins) newClientConn(ctx context.Context, c net.Conn) (*http.ClientConn, error) {
	t := &http.Transport{
		DialTLSContext:         func(context.Context, string, string) (net.Conn, error) { return c, nil },
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // clients get the encoding that they asked for
		IdleConnTimeout:        keepIdle,
		MaxResponseHeaderBytes: maxHead,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingInterval, PingTimeout: pingTimeout, WriteByteTimeout: p.stall},
	}
	return t.NewClientConn(ctx, "https", "origin.invalid:443") // no resolver is asked for it
}
