package egress

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"espalier/policy"
	"espalier/proxy/wire"
)

// Bounds on the connections to origins that are kept for the next request.
const (
	keepTotal     = 1000
	keepForOrigin = 64
	keepIdle      = time.Minute
)

// handshakeTimeout bounds the TLS handshake with an origin.
const handshakeTimeout = 10 * time.Second

// An Endpoint is what the requests on a connection are for.
type Endpoint struct {
	Target policy.Target // in Host, and in the certificate of TLS
	Dial   policy.Target // connected to; usually Target
	Secure bool          // by TLS
	// HTTP2 is set if the client speaks HTTP/2, so that an origin that is asked by TLS
	// may choose it.
	HTTP2 bool
}

// A Route says how origins are reached: the rules of one configuration.
type Route struct {
	Dialer *Dialer
	TLS    *tls.Config // for origins that are asked by TLS; not modified
}

// An Origin is a connection to an origin, or to a parent in its place, for one
// request at a time.
type Origin struct {
	*wire.Conn
	// HTTP2 is set if the origin speaks HTTP/2, and the place of one request is reserved
	// on it. Others use the connection at the same time: Conn is not to be read, written
	// or closed, nor the Origin to be kept.
	HTTP2 *http.ClientConn
	Endpoint
	Parent *Parent // that the connection leads to; nil: the origin itself
	Reused bool    // it has answered before
	// Private is set if a client has signed in on it, whose requests alone it is for.
	Private bool
	// Connect is how long it took to connect, look-up included; 0 for a kept one.
	Connect time.Duration

	route Route
	idle  time.Time // since when
}

// Origins are the connections to origins that wait for a request. It is safe for concurrent use.
type Origins struct {
	// Stall is how long an origin may take nothing of what is sent inside TLS. It must
	// be set before use.
	Stall time.Duration

	mu      sync.Mutex
	idle    map[Endpoint][]*Origin
	total   int
	shared  map[Endpoint]*shared // that speak HTTP/2
	choices map[Endpoint]choice  // of those asked by HTTP/1 in TLS
	sweeps  *time.Timer          // nil: none are kept
	closed  bool
}

// Connect returns a connection to the origin, a kept one unless fresh is set, and by
// none of the parents in not. Errors are those of Dialer.Dial and DialPlain, and of the
// TLS handshake.
func (p *Origins) Connect(ctx context.Context, r Route, to Endpoint, fresh bool, not []*Parent) (*Origin, error) {
	for o := p.take(to, r, fresh); o != nil; o = p.take(to, r, fresh) {
		if o.Parent == nil || !o.Parent.InBackoff() {
			return o, nil
		}
		o.Close()
	}
	if to.HTTP2 && to.Secure { // by HTTP/2 origins say what they have not seen of requests
		return p.connectHTTP2(ctx, r, to)
	}
	return p.dial(ctx, r, to, not)
}

// dial makes a connection.
func (p *Origins) dial(ctx context.Context, r Route, to Endpoint, not []*Parent) (*Origin, error) {
	began := time.Now()
	o := &Origin{Endpoint: to, route: r}
	var conn net.Conn
	var err error
	switch {
	case to.Secure || to.Dial != to.Target: // parents are led there by CONNECT
		conn, err = r.Dialer.Dial(ctx, to.Dial)
	default:
		conn, o.Parent, err = r.Dialer.DialPlain(ctx, to.Dial, not...)
	}
	if err != nil {
		return nil, err
	}
	if !to.Secure {
		o.Conn = wire.New(conn, nil)
		o.Connect = time.Since(began)
		return o, nil
	}
	secure, err := p.handshake(ctx, conn, r.TLS, to)
	if err != nil {
		return nil, err
	}
	o.Conn, o.Connect = wire.New(secure, nil), time.Since(began)
	if secure.ConnectionState().NegotiatedProtocol != "h2" {
		return o, nil
	}
	if o.HTTP2, err = p.newClientConn(ctx, secure); err != nil {
		secure.Close()
		return nil, err
	}
	return o, nil
}

// handshake begins TLS with the origin to on c. It closes c if that fails.
func (p *Origins) handshake(ctx context.Context, c net.Conn, config *tls.Config, to Endpoint) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	cfg := config.Clone()
	cfg.ServerName = to.Target.Host
	cfg.NextProtos = []string{"http/1.1"} // as the client speaks
	if to.HTTP2 {
		cfg.NextProtos = []string{"h2", "http/1.1"}
	}
	conn := tls.Client(wire.NewSteady(c, p.Stall), cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return conn, nil
}

// take returns a kept connection that is open; nil if there is none.
func (p *Origins) take(to Endpoint, r Route, fresh bool) *Origin {
	for !fresh {
		p.mu.Lock()
		list := p.idle[to]
		if len(list) == 0 {
			p.mu.Unlock()
			return nil
		}
		o := list[len(list)-1]
		list[len(list)-1] = nil
		p.keep(to, list[:len(list)-1])
		p.total--
		p.mu.Unlock()
		if o.Reuse(to, r) {
			return o
		}
		o.Close()
	}
	return nil
}

// Reuse reports whether o, which has answered, can take a request for to by r: it is open,
// and nothing has come on it.
func (o *Origin) Reuse(to Endpoint, r Route) bool {
	o.Reused, o.Connect = true, 0
	to.HTTP2 = o.Endpoint.HTTP2 // HTTP/1 is spoken on o
	return o.Endpoint == to && o.route == r && o.Quiet()
}

// Keep takes a connection back whose last answer has been read to its end, or closes
// it if there is no room.
func (p *Origins) Keep(o *Origin) {
	_ = o.SetDeadline(time.Time{})
	o.Free()
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[o.Endpoint]
	if p.closed || p.total >= keepTotal || len(list) >= keepForOrigin {
		o.Close()
		return
	}
	if p.idle == nil {
		p.idle = map[Endpoint][]*Origin{}
	}
	o.idle = time.Now()
	p.idle[o.Endpoint] = append(list, o)
	p.total++
	if p.sweeps == nil {
		p.sweeps = time.AfterFunc(keepIdle, p.sweep)
	}
}

// Len is the number of idle connections.
func (p *Origins) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total + p.idleShared()
}

func (p *Origins) keep(to Endpoint, list []*Origin) {
	if len(list) == 0 {
		delete(p.idle, to)
	} else {
		p.idle[to] = list
	}
}

// sweep closes what has been idle for long.
func (p *Origins) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := time.Now().Add(-keepIdle)
	for to, list := range p.idle {
		n := 0
		for n < len(list) && list[n].idle.Before(old) {
			list[n].Close()
			n++
		}
		p.total -= n
		p.keep(to, list[n:])
	}
	if p.sweeps = nil; p.total > 0 {
		p.sweeps = time.AfterFunc(keepIdle/2, p.sweep)
	}
}

// CloseIdle closes what is idle now.
func (p *Origins) CloseIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, list := range p.idle {
		for _, o := range list {
			o.Close()
		}
	}
	p.idle, p.total = nil, 0
	for to, m := range p.shared {
		select {
		case <-m.ready:
			p.forget(to, m)
		default: // it has a request
			delete(p.shared, to)
		}
	}
	if p.sweeps != nil {
		p.sweeps.Stop()
		p.sweeps = nil
	}
}

// Close closes what is idle, and what is kept from now on.
func (p *Origins) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.CloseIdle()
}
