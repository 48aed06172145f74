package egress

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"espalier/policy"
	"espalier/policy/cache"
	"espalier/proxy/trust"
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
	Trust  *trust.Verifier // of origins that are asked by TLS
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
	// CertificateAsked is told that the origin of a host asks for a client certificate, of
	// one of some authorities (their names in DER; none: of any). It must be set before use;
	// nil: nothing is told.
	CertificateAsked func(host string, authorities [][]byte)

	stall   time.Duration
	choices *cache.Cache[Endpoint, bool] // of those asked by HTTP/1 in TLS: HTTP/2 only

	mu       sync.Mutex
	idle     map[Endpoint][]*Origin // by HTTP/1, the longest idle first
	total    int                    // in idle
	shared   map[Endpoint]*shared   // that speak HTTP/2
	sweeping bool                   // sweep will run
	closed   bool
}

// NewOrigins returns an empty pool. stall is how long an origin may take nothing of what
// is sent inside TLS.
func NewOrigins(stall time.Duration) *Origins {
	return &Origins{
		stall: stall, idle: map[Endpoint][]*Origin{}, shared: map[Endpoint]*shared{},
		choices: cache.New[Endpoint](keepTotal, func(*bool) time.Duration { return choiceHolds }, nil),
	}
}

// Connect returns a connection to the origin, a kept one unless fresh is set, and by
// none of the parents in not. Errors are those of Dialer.Dial and DialPlain, and of the
// TLS handshake.
func (p *Origins) Connect(ctx context.Context, r Route, to Endpoint, fresh bool, not []*Parent) (*Origin, error) {
	for !fresh {
		o := p.take(to)
		if o == nil {
			break
		}
		if o.Reuse(to, r) && (o.Parent == nil || !o.Parent.InBackoff()) {
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
func (p *Origins) dial(ctx context.Context, r Route, to Endpoint, not []*Parent) (o *Origin, err error) {
	began := time.Now()
	o = &Origin{Endpoint: to, route: r}
	var conn net.Conn
	if to.Secure || to.Dial != to.Target { // parents are led there by CONNECT
		conn, err = r.Dialer.Dial(ctx, to.Dial)
	} else {
		conn, o.Parent, err = r.Dialer.DialPlain(ctx, to.Dial, not...)
	}
	if err != nil {
		return nil, err
	}
	if to.Secure {
		if conn, err = p.handshake(ctx, conn, r.Trust, to); err != nil {
			return nil, err
		}
	}
	o.Conn, o.Connect = wire.New(conn, nil), time.Since(began)
	if o.protocol() == "h2" {
		if c, ok := conn.(*certificateless); ok { // net/http knows no other type
			conn = c.Conn
		}
		if o.HTTP2, err = p.newClientConn(ctx, conn); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return o, nil
}

// protocol is what was negotiated inside TLS; "" if nothing was.
func (o *Origin) protocol() string {
	if secure, ok := o.Conn.Conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return secure.ConnectionState().NegotiatedProtocol
	}
	return ""
}

// handshake begins TLS with the origin to on c. It closes c if that fails.
func (p *Origins) handshake(ctx context.Context, c net.Conn, v *trust.Verifier, to Endpoint) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	cfg := v.Config(to.Target.Host)
	cfg.NextProtos = []string{"http/1.1"} // as the client speaks
	if to.HTTP2 {
		cfg.NextProtos = []string{"h2", "http/1.1"}
	}
	asked := false
	cfg.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		if p.CertificateAsked != nil {
			p.CertificateAsked(to.Target.Host, r.AcceptableCAs)
		}
		return &tls.Certificate{}, nil // none
	}
	conn := tls.Client(wire.NewSteady(c, p.stall), cfg)
	err := conn.HandshakeContext(ctx)
	switch {
	case err != nil:
		c.Close()
		if asked {
			err = wantsCertificate(err)
		}
		return nil, err
	case asked:
		return &certificateless{Conn: conn}, nil
	}
	return conn, nil
}

// take returns the connection that was kept last; nil if there is none.
func (p *Origins) take(to Endpoint) *Origin {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[to]
	last := len(list) - 1
	if last < 0 {
		return nil
	}
	o := list[last]
	list[last] = nil
	p.setIdle(to, list[:last])
	return o
}

// setIdle replaces the idle connections for an endpoint. p.mu is held.
func (p *Origins) setIdle(to Endpoint, list []*Origin) {
	p.total += len(list) - len(p.idle[to])
	if p.idle[to] = list; len(list) == 0 {
		delete(p.idle, to)
	}
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
	o.idle = time.Now()
	p.setIdle(o.Endpoint, append(list, o))
	p.sweepIn(keepIdle)
}

// Len is the number of idle connections.
func (p *Origins) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.total
	for _, m := range p.shared {
		if m.isReady() && m.conn != nil && m.conn.InFlight() == 0 {
			n++
		}
	}
	return n
}

// sweepIn has idle connections looked at after d, unless they will be anyway. p.mu is held.
func (p *Origins) sweepIn(d time.Duration) {
	if p.total > 0 && !p.sweeping {
		p.sweeping = true
		time.AfterFunc(d, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.drop(time.Now().Add(-keepIdle))
			p.sweeping = false
			p.sweepIn(keepIdle / 2)
		})
	}
}

// drop closes what has been idle since t at least. p.mu is held.
func (p *Origins) drop(t time.Time) {
	for to, list := range p.idle {
		n := 0
		for n < len(list) && !list[n].idle.After(t) {
			list[n].Close()
			n++
		}
		p.setIdle(to, list[n:])
	}
}

// CloseIdle closes what is idle now.
func (p *Origins) CloseIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(time.Now())
	for to, m := range p.shared {
		if m.isReady() {
			p.forget(to, m)
		} else { // it has a request
			delete(p.shared, to)
		}
	}
}

// Close closes what is idle, and what is kept from now on.
func (p *Origins) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.CloseIdle()
}
