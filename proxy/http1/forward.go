package http1

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/head"
	"espalier/proxy/tunnel"
	"espalier/proxy/upstream"
	"espalier/proxy/wire"
)

// forward passes a request on, and its answer back.
func (c *conn) forward(r *request) outcome {
	x := c.x
	to := egress.Endpoint{Target: x.Target, Dial: x.Decision.Dial, Secure: r.target.scheme == "https"}
	r.up = upstream.Request{Exchange: x, Head: &r.head, Authority: r.target.authority, Path: r.target.path, Inside: c.session != nil}
	for {
		o, err := c.connectOrigin(to, r)
		if err != nil {
			return c.fail(r, err)
		}
		again, end := c.ask(r, o)
		c.letGo()
		if !again {
			return end
		}
	}
}

// connectOrigin returns a connection for r: the one that the client has signed in to,
// or any.
func (c *conn) connectOrigin(to egress.Endpoint, r *request) (*egress.Origin, error) {
	o, route := c.own, c.x.State.Route()
	if c.own = nil; o != nil && (c.owner != c.x.Record.User || !o.Reuse(to, route)) {
		o.Close()
		o = nil
	}
	if o == nil {
		var err error
		if o, err = r.up.Connect(c.alive(), c.cfg.Origins, to); err != nil {
			return nil, err
		}
	}
	r.up.SetOrigin(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alive().Err() != nil {
		o.Interrupt()
		return nil, tunnel.ErrShutdown
	}
	c.origin = o
	return o, nil
}

func (c *conn) letGo() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.origin = nil
}

// ask sends the request on o and relays the answer. again is set if it may be sent
// once more, on another connection.
func (c *conn) ask(r *request, o *egress.Origin) (again bool, end outcome) {
	x, times := c.x, c.cfg.Times
	rest := c.writeRequest(r, o)
	if err := o.Send(c.out, times.Stall); err != nil && (r.head.Length == 0 || stalled(err)) { // else the answer may say why
		return c.unanswered(r, o, nil, err)
	}
	up := c.read(o, rest)
	answer, err := r.up.ReadAnswer(o, func() error { return c.more(o, up) }, func(a head.Response) error {
		defer up.movedNow()
		return c.passInterim(r, a)
	})
	if err != nil {
		return c.unanswered(r, o, up, err)
	}
	if answer.Status == http.StatusSwitchingProtocols {
		return false, c.switchTo(o, up, answer)
	}
	status, keepOrigin := answer.Status, r.up.Persists(answer)
	keep, err := c.relay(r, o, up, answer)
	up.stop()
	switch {
	case err != nil && c.alive().Err() != nil:
		x.Fail(tunnel.ErrShutdown)
	case err != nil && !up.left.Load() && isUpload(up.err):
		x.Fail(up.err)
	case err != nil && (up.left.Load() || !sentBy(err)):
		x.Fail(clientError(err))
	case err != nil:
		x.Fail(fmt.Errorf("read the answer's body: %w", err))
	}
	x.Finish(status)
	if err != nil {
		o.Interrupt()
		o.Close()
		return false, cutting
	}
	c.owner = x.Record.User
	c.own = r.up.Release(c.cfg.Pipeline, c.cfg.Origins, o, keepOrigin && up.sent.Load())
	switch {
	case keep && up.drained.Load():
		return false, staying
	case up.drained.Load():
		return false, closing
	}
	return false, lingering
}

// clientError is what a record says of an error on the client's side.
func clientError(err error) error {
	if stalled(err) {
		return fmt.Errorf("write to client: %w", err)
	}
	return exchange.ErrClientClosed
}

// stalled reports whether err says that a peer takes nothing.
func stalled(err error) bool { return isTimeout(err) || errors.Is(err, wire.ErrStalled) }

// unanswered is for a request to which there is no answer. up is nil if it was not
// sent.
func (c *conn) unanswered(r *request, o *egress.Origin, up *reader, err error) (again bool, end outcome) {
	x := c.x
	o.Interrupt()
	o.Close()
	if up != nil {
		up.stop()
		if r.broken = !up.drained.Load(); !r.broken {
			r.read = r.head.Length
		}
		if isUpload(up.err) || stalled(up.err) {
			err = up.err // whatever the origin made of it
		}
	}
	switch {
	case c.alive().Err() != nil: // that has ended everything
	case up != nil && up.left.Load():
		x.Fail(exchange.ErrClientClosed)
		x.Finish(0)
		return false, closing
	case isTimeout(err) && up != nil && up.halfClosed.Load():
		x.Fail(exchange.ErrClientClosed)
		x.Finish(0)
		return false, closing
	case isTimeout(err) && up != nil && up.err == nil:
		err = &upstream.SlowReply{Err: err}
	case isInterim(err):
		x.Fail(clientError(err))
		x.Finish(0)
		return false, cutting
	default:
		if again, err = r.up.Again(o, err); again {
			return true, staying
		}
	}
	return false, c.fail(r, err)
}

// An interimError is one of passing an interim answer on to the client.
type interimError struct{ error }

func (e *interimError) Unwrap() error { return e.error }

func isInterim(err error) bool {
	_, ok := errors.AsType[*interimError](err)
	return ok
}

// more reads more of an answer's head. The time for it begins anew while the request's body
// moves.
func (c *conn) more(o *egress.Origin, up *reader) error {
	for {
		limit := c.cfg.Times.Reply
		if up.halfClosed.Load() {
			limit = c.cfg.Times.HalfClosed
		}
		left := limit - time.Since(time.Unix(0, up.moved.Load()))
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		if err := o.More(left); !isTimeout(err) {
			return err
		}
	}
}

// passInterim passes an interim answer on, to a client that may expect one.
func (c *conn) passInterim(r *request, a head.Response) error {
	if r.head.Minor == 0 || a.Status == http.StatusContinue && !r.head.Expect {
		return nil
	}
	c.writeAnswer(a, "", false)
	if err := c.Send(c.out, c.cfg.Times.Stall); err != nil {
		return &interimError{err}
	}
	return nil
}

// relay passes the answer on. keep is set if the client's connection may stay.
func (c *conn) relay(r *request, o *egress.Origin, up *reader, a head.Response) (keep bool, err error) {
	b := &body{
		dst: c.Conn, src: o.Conn, length: a.Length, count: c.x.AddDown,
		take: c.cfg.Times.Stall, send: c.cfg.Times.Stall,
	}
	if !a.HasBody(r.head.Method) {
		b.length = 0
	}
	b.unchunk = b.length == head.Chunked && r.head.Minor == 0
	keep = !r.head.Close && b.length != head.UntilClose && !b.unchunk && up.drained.Load() && !c.cfg.Conns.Draining()
	connection := ""
	if !keep {
		connection = "close"
	} else if r.head.Minor == 0 {
		connection = "keep-alive"
	}
	c.writeAnswer(a, connection, b.unchunk)
	o.Use(a.Len)
	return keep, b.pass(c.out)
}

// switchTo relays a WebSocket, as a tunnel.
func (c *conn) switchTo(o *egress.Origin, up *reader, a head.Response) outcome {
	up.stop()
	c.writeAnswer(a, "", false)
	o.Use(a.Len)
	early := o.Unread()
	if err := c.Send(append(c.out, early...), c.cfg.Times.Stall); err != nil || up.left.Load() {
		o.Close()
		c.x.Fail(exchange.ErrClientClosed)
		c.x.Finish(http.StatusSwitchingProtocols)
		return closing
	}
	c.x.AddDown(int64(len(early)))
	c.handOn(o.Conn.Conn)
	return gone
}

// writeRequest makes, in c.out, the request for the origin: the lines as they were sent, but
// for those that concern this connection, and behind them what has come of the body. It
// returns the length of what is left of the body.
func (c *conn) writeRequest(r *request, o *egress.Origin) (rest int64) {
	b := r.up.AppendHead(c.out[:0], o)
	rest = r.head.Length
	if u := c.Unread(); rest > 0 && len(u) > 0 {
		u = u[:min(rest, int64(len(u)))]
		b = append(b, u...)
		rest -= int64(len(u))
		r.read += int64(len(u))
		c.x.AddUp(int64(len(u)))
		c.Use(len(u))
	}
	c.out = b
	return rest
}

// writeAnswer makes, in c.out, the head of an answer for the client. connection is the value of
// Connection; "" leaves the field out.
func (c *conn) writeAnswer(a head.Response, connection string, unchunk bool) {
	b := append(c.out[:0], "HTTP/1.1"...)
	b = append(b, a.Line[len("HTTP/1.1"):]...)
	for f, next, ok := a.Fields.Next(); ok; f, next, ok = next.Next() {
		switch {
		case !upstream.PassesOn(a, f):
		case unchunk && (f.Is("transfer-encoding") || f.Is("trailer")):
		case f.Is("transfer-encoding"):
			b = upstream.AppendFraming(b, f)
		default:
			b = append(b, f.Line...)
		}
	}
	if connection != "" {
		b = append(append(append(b, "Connection: "...), connection...), "\r\n"...)
	}
	c.out = append(b, "\r\n"...)
}
