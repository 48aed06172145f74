package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"espalier/proxy/head"
	"espalier/proxy/tunnel"
)

// watchedListener accepts connections on which net/http finds nothing but heads
// that can be read in one way only, and each request where the one before it
// ends. Whatever else comes, the proxy's own refusal answers it, with a record,
// and the connection ends: net/http would take some of it, and answer the rest
// with 400, after which iOS would try without the proxy.
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
	expecting = iota // a request
	complete         // a head was handed out, and is not yet with the handler
	handling         // the handler has the request
)

// earlyBytes of a head go to net/http before the rest has come: they tell it
// that a request has begun, which starts the time for its head, and nothing
// else.
const earlyBytes = 4

type watchedConn struct {
	net.Conn
	s     *Server
	ses   *session // that Conn is the inside of; nil: a proxy's client
	phase atomic.Int32
	own   dedicated
	gone  atomic.Bool // the client has left, or took too long, before its head was there

	// What follows is for whoever reads. net/http lets one at a time.
	buf     []byte // read and not handed out, but for the first early bytes
	early   int    // bytes at the start of buf that were handed out
	scanned int    // bytes of buf that were looked at
	ready   int    // bytes of buf that may be handed out
	body    head.Body
	line    bool  // the request line at the start of buf was checked
	taken   bool  // hijacked: nothing is looked at any more
	err     error // ends reading

	// Guarded by phase: written before it becomes complete.
	method  string
	refused *head.Error
}

type watchedKey struct{}

// keepConn is http.Server.ConnContext.
func keepConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, watchedKey{}, c)
}

// handled notes that r has reached the handler.
func handled(r *http.Request) {
	if c, ok := r.Context().Value(watchedKey{}).(*watchedConn); ok {
		c.phase.Store(handling)
	}
}

// nextRequest is http.Server.ConnState.
func nextRequest(c net.Conn, state http.ConnState) {
	if c, ok := c.(*watchedConn); ok {
		switch state {
		case http.StateIdle:
			c.phase.Store(expecting)
		case http.StateHijacked:
			c.taken = true // what comes is no HTTP any more
		case http.StateClosed:
			c.own.close()
		}
	}
}

// NetConn returns the wrapped connection, for the tunnel engine. It loses nothing
// that was read and not handed out.
func (c *watchedConn) NetConn() net.Conn {
	unread := c.buf[c.early:]
	if len(unread) == 0 {
		return c.Conn
	}
	return tunnel.Replay(c.Conn, unread)
}

// CloseWrite ends the sending direction.
func (c *watchedConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return net.ErrClosed
}

func (c *watchedConn) Read(p []byte) (int, error) {
	for {
		switch {
		case c.ready > 0 || c.taken && len(c.buf) > c.early:
			from, to := c.early, c.ready
			if c.taken {
				to = len(c.buf)
			}
			n := copy(p, c.buf[from:to])
			c.drop(from + n)
			return n, nil
		case c.err != nil:
			return 0, c.err
		case c.taken:
			return c.Conn.Read(p)
		case !c.body.Done():
			if n, err := c.readBody(p); n > 0 || err != nil {
				return n, err
			}
		case c.early == 0 && len(c.buf) > 0 && (c.buf[0] == '\r' || c.buf[0] == '\n') && c.phase.Load() == expecting:
			c.buf = bytes.TrimLeft(c.buf, "\r\n") // came before the answer to the request before
		case c.early == 0 && len(c.buf) > 0 || c.early < min(earlyBytes, len(c.buf)):
			n := copy(p, c.buf[c.early:min(earlyBytes, len(c.buf))])
			c.early += n
			return n, nil
		case c.phase.Load() != expecting && len(c.buf) > 0:
			return 0, errAhead
		case len(c.buf) > 0 && c.look():
		default:
			if err := c.fill(p); err != nil {
				return 0, err
			}
		}
	}
}

// drop forgets the first n bytes of buf, which were handed out.
func (c *watchedConn) drop(n int) {
	c.buf = c.buf[n:]
	c.ready, c.early, c.scanned, c.line = max(c.ready-n, 0), 0, 0, false
	if len(c.buf) == 0 {
		c.buf = nil
	}
}

// fill reads more, by way of p.
func (c *watchedConn) fill(p []byte) error {
	n, err := c.Conn.Read(p)
	b := p[:n]
	if len(c.buf) == 0 && c.body.Done() && (c.phase.Load() == expecting || c.method == http.MethodPost) {
		// Empty lines before a request are no part of it (RFC 9112, 2.2). What
		// follows a CONNECT or an upgrade may begin with them.
		b = bytes.TrimLeft(b, "\r\n")
	}
	c.buf = append(c.buf, b...)
	if n > 0 {
		return nil // an error comes again
	}
	if c.phase.Load() == expecting {
		c.gone.Store(true)
	}
	return err
}

// readBody reads more of a request's body where buf is empty, and otherwise marks
// what of buf belongs to it.
func (c *watchedConn) readBody(p []byte) (n int, err error) {
	if len(c.buf) > 0 {
		if c.ready, err = c.body.Scan(c.buf); err != nil {
			c.err = err
		}
		return 0, nil
	}
	// Only here, where net/http waits for nothing else on the connection.
	_ = c.SetReadDeadline(time.Now().Add(c.s.times.Stall))
	m, err := c.Conn.Read(p)
	_ = c.SetReadDeadline(time.Time{})
	if m == 0 && err != nil {
		return 0, err
	}
	if n, err = c.body.Scan(p[:m]); err != nil {
		c.err = err
	}
	c.buf = append(c.buf, p[n:m]...)
	return n, nil
}

// errAhead says that a request is asked for before the one before it is answered,
// which net/http does not do.
var errAhead = errors.New("read ahead of the answer")

// look checks the head at the start of buf once it has come. It reports whether
// there is something to hand out.
func (c *watchedConn) look() bool {
	end := head.End(c.buf, c.scanned)
	if !c.line {
		// What begins with no request line is not waited for.
		if i := bytes.IndexByte(c.buf[c.scanned:], '\n'); i >= 0 {
			c.line = true
			if method, err := head.CheckRequestLine(bytes.TrimSuffix(c.buf[:c.scanned+i], []byte("\r"))); err != nil {
				c.refuse(method, err)
				if c.refused.Status == http.StatusBadRequest && c.method != http.MethodConnect {
					c.method = "" // no request, but a scanner's noise
				}
				return true
			}
		}
	}
	c.scanned = len(c.buf)
	if end > head.MaxBytes || end == 0 && len(c.buf) > head.MaxBytes {
		method, _, _ := bytes.Cut(c.buf[:earlyBytes*4], []byte(" "))
		c.refuse(method, &head.Error{Status: http.StatusRequestHeaderFieldsTooLarge, Why: fmt.Sprintf("it is longer than %d bytes", head.MaxBytes)})
		return true
	}
	if end == 0 {
		return false
	}
	check, err := head.CheckRequest(c.buf[:end])
	if err != nil {
		c.refuse(check.Method, err)
		return true
	}
	c.method = string(check.Method)
	c.body = head.NewBody(check.Length)
	c.ready = end
	c.phase.Store(complete)
	return true
}

// refuse makes net/http fail to read the request, and Write answer it.
func (c *watchedConn) refuse(method []byte, err error) {
	c.method = string(method)
	c.refused, _ = errors.AsType[*head.Error](err)
	c.buf = append(c.buf[:c.early:c.early], "\x00\r\n\r\n"...)
	c.ready, c.body, c.err = len(c.buf), head.Body{}, io.EOF
	c.phase.Store(complete)
}

// Write takes what net/http says to a request that did not reach the handler for
// the sign to refuse it. There is a record where it has a method.
func (c *watchedConn) Write(p []byte) (int, error) {
	if c.taken {
		return c.Conn.Write(p)
	}
	_ = c.SetWriteDeadline(time.Now().Add(c.s.times.Stall))
	switch phase := c.phase.Swap(handling); {
	case phase == expecting && c.gone.Load():
		return 0, net.ErrClosed // half a head is worth no answer
	case phase != complete || c.method == "":
		return c.Conn.Write(p)
	}
	var addr netip.Addr
	if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		addr = a.Addr().Unmap()
	}
	why, r := c.refused, refuseMalformed
	if why == nil {
		status, _, _ := strings.Cut(string(p), "\r\n")
		why = &head.Error{Status: http.StatusBadRequest, Why: strings.TrimPrefix(status, "HTTP/1.1 ")}
	}
	r.status = why.Status
	x, rule := c.s.begin(addr, c.method, ""), ruleMalformed
	if c.ses != nil {
		c.ses.accepted()
		x.to(c.ses.x.target)
		x.rec.User = c.ses.x.rec.User
	}
	if c.method == http.MethodConnect {
		r, rule = refuseName, ruleTarget
	}
	x.refuse(rule, "malformed request: "+why.Why)
	resp := http.Response{StatusCode: r.status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Close: true}
	body := x.tell(r, resp.Header)
	resp.ContentLength, resp.Body = int64(len(body)), io.NopCloser(strings.NewReader(body))
	var b bytes.Buffer
	_ = resp.Write(&b) // into memory
	_, err := c.Conn.Write(b.Bytes())
	x.finish(r.status)
	return len(p), err
}

// Rules that stand in records of requests whose destination is none, of those that
// are no valid requests, and of those with a method that is not carried.
const (
	ruleTarget    = "invalid-target"
	ruleMalformed = "malformed-request"
	ruleMethod    = "method"
)
