package proxy

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
)

// watchedListener accepts connections that tell apart what a handler answers and
// what net/http answers by itself where it cannot parse a request: most often
// 400, after which iOS would try without the proxy. A CONNECT gets the proxy's
// own refusal instead, with a record.
type watchedListener struct {
	net.Listener
	s *Server
}

func (l watchedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: c, s: l.s}, nil
}

// Phases of a watchedConn.
const (
	expecting  = iota // a request
	connecting        // a CONNECT has begun to arrive
	handling          // a handler has the request, or it is no CONNECT
)

type watchedConn struct {
	net.Conn
	s     *Server
	phase atomic.Int32
}

type watchedKey struct{}

// keepConn is http.Server.ConnContext.
func keepConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, watchedKey{}, c)
}

// handled notes that r has reached a handler.
func handled(r *http.Request) {
	if c, ok := r.Context().Value(watchedKey{}).(*watchedConn); ok {
		c.phase.Store(handling)
	}
}

// nextRequest is http.Server.ConnState.
func nextRequest(c net.Conn, state http.ConnState) {
	if c, ok := c.(*watchedConn); ok && state == http.StateIdle {
		c.phase.Store(expecting)
	}
}

// NetConn returns the wrapped connection, for the tunnel engine.
func (c *watchedConn) NetConn() net.Conn { return c.Conn }

// CloseWrite ends the sending direction.
func (c *watchedConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return net.ErrClosed
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	for c.phase.Load() == expecting && n > 0 {
		// Empty lines before a request are no part of it (RFC 9112, 2.2); net/http
		// would take one for a malformed request.
		first := bytes.TrimLeft(p[:n], "\r\n")
		if len(first) == 0 && err == nil {
			n, err = c.Conn.Read(p)
			continue
		}
		n = copy(p, first)
		phase := int32(handling)
		if begins(p[:n], "CONNECT ") {
			phase = connecting
		}
		c.phase.CompareAndSwap(expecting, phase)
	}
	return n, err
}

// begins reports whether b, of which there may be more to come, begins with s.
func begins(b []byte, s string) bool {
	n := min(len(b), len(s))
	return string(b[:n]) == s[:n]
}

func (c *watchedConn) Write(p []byte) (int, error) {
	if c.phase.Load() != connecting {
		return c.Conn.Write(p)
	}
	c.phase.Store(handling)
	var addr netip.Addr
	if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		addr = a.Addr().Unmap()
	}
	status, _, _ := strings.Cut(string(p), "\r\n")
	x := c.s.begin(addr, http.MethodConnect, "")
	x.refuse(ruleTarget, "malformed CONNECT: "+strings.TrimPrefix(status, "HTTP/1.1 "))
	resp := http.Response{StatusCode: refuseName.status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Close: true}
	body := x.tell(refuseName, resp.Header)
	resp.ContentLength, resp.Body = int64(len(body)), io.NopCloser(strings.NewReader(body))
	var b bytes.Buffer
	_ = resp.Write(&b) // into memory
	_, err := c.Conn.Write(b.Bytes())
	x.finish(refuseName.status)
	return len(p), err
}

// ruleTarget is the rule that stands in records of requests whose destination is
// none.
const ruleTarget = "invalid-target"
