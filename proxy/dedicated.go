package proxy

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"

	"espalier/proxy/head"
)

// dedicated are the connections to destinations that serve one client connection
// alone. NTLM and Negotiate sign in the connection and not the request (RFC 4559):
// what comes on it afterwards is that user's, so nobody else's may. The zero
// value has none; it is safe for concurrent use.
type dedicated struct {
	mu        sync.Mutex
	state     *State // whose rules transport dials by
	transport *http.Transport
}

// dedicatedOf is that of the client connection that a request came on.
func dedicatedOf(ctx context.Context) *dedicated {
	if ses, ok := ctx.Value(sessionKey{}).(*session); ok {
		return &ses.own
	}
	for c := ctx.Value(watchedKey{}); ; {
		switch conn := c.(type) {
		case *watchedConn:
			return &conn.own
		case interface{ NetConn() net.Conn }:
			c = conn.NetConn()
		default:
			return &dedicated{}
		}
	}
}

// transportFor is the transport that r goes by: its client connection's own one
// from the request on that signs in, else that of st.
func (d *dedicated) transportFor(r *http.Request, st *State, t Timeouts) *http.Transport {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.transport != nil && d.state == st {
		return d.transport
	}
	d.drop()
	if !slices.ContainsFunc(r.Header["Authorization"], head.SignsInConnection) {
		return st.transport
	}
	d.state, d.transport = st, newTransport(st, t)
	d.transport.ForceAttemptHTTP2 = false
	if r.ProtoMajor == 1 { // which asks for one thing after the other, on the one that is signed in
		d.transport.MaxConnsPerHost = 1
	}
	return d.transport
}

// close ends what no request is under way on.
func (d *dedicated) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop()
}

func (d *dedicated) drop() {
	if d.transport != nil {
		d.transport.CloseIdleConnections()
		d.state, d.transport = nil, nil
	}
}
