package http1

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/head"
	"espalier/proxy/tunnel"
	"espalier/proxy/upstream"
)

// forward passes a request on, and its answer back.
func (c *conn) forward(r *request) outcome {
	to := egress.Endpoint{Target: c.x.Target, Dial: c.x.Decision.Dial, Secure: r.ask.Scheme == "https"}
	r.up = upstream.Request{Exchange: c.x, Head: &r.head, Authority: r.ask.Authority, Path: r.ask.Path, Inside: c.session != nil}
	for {
		o, err := c.connectOrigin(to, r)
		if err != nil {
			return c.fail(r, err)
		}
		again, end := c.exchange(r, o)
		c.mu.Lock()
		c.origin = nil
		c.mu.Unlock()
		if !again {
			return end
		}
	}
}

// connectOrigin returns a connection for r: the one that the client has signed in to,
// or any.
func (c *conn) connectOrigin(to egress.Endpoint, r *request) (*egress.Origin, error) {
	o := c.own
	if c.own = nil; o != nil && (c.owner != c.x.Record.User || !o.Reuse(to, c.x.State.Route())) {
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
	if o.HTTP2 != nil {
		c.cfg.Translate(o)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alive().Err() != nil {
		o.Interrupt()
		return nil, tunnel.ErrShutdown
	}
	c.origin = o
	return o, nil
}

// exchange sends the request on o and relays the answer. again is set if it may be sent
// once more, on another connection.
func (c *conn) exchange(r *request, o *egress.Origin) (again bool, end outcome) {
	up := &c.reader
	*up = reader{}
	rest := c.writeRequest(r, o)
	if err := o.Send(c.out, c.cfg.Times.Stall); err != nil && (r.head.Length == 0 || isTimeout(err)) { // else the answer may say why
		return c.unanswered(r, o, err)
	}
	up.begin(c, o, rest)
	answer, err := r.up.ReadAnswer(o, func() error { return c.more(o) }, func(a head.Response) error {
		defer up.movedNow()
		return c.passInterim(r, a)
	})
	switch {
	case err != nil:
		return c.unanswered(r, o, err)
	case answer.Status == http.StatusSwitchingProtocols:
		return false, c.switchTo(o, answer)
	}
	return false, c.relay(r, o, answer)
}

// relay passes the answer on, and finishes the request.
func (c *conn) relay(r *request, o *egress.Origin, a head.Response) outcome {
	x, up := c.x, &c.reader
	status, keepOrigin := a.Status, r.up.Persists(a)
	keep, err := c.passAnswer(r, o, a)
	up.stop()
	if err != nil {
		switch {
		case c.alive().Err() != nil:
			x.Fail(tunnel.ErrShutdown)
		case !up.hasLeft() && isUpload(up.err):
			x.Fail(up.err)
		case up.hasLeft() || !fromSource(err):
			x.Fail(clientError(err))
		default:
			x.Fail(fmt.Errorf("read the answer's body: %w", err))
		}
		x.Finish(status)
		o.Interrupt()
		o.Close()
		return cutting
	}
	x.Finish(status)
	c.owner = x.Record.User
	c.own = r.up.Release(c.cfg.Pipeline, c.cfg.Origins, o, keepOrigin && up.upload.Load() == sent)
	switch {
	case !up.hasDrained():
		return lingering
	case keep:
		return staying
	}
	return closing
}

var errWrite = errors.New("write to client")

// clientError is what a record says of an error of writing to the client.
func clientError(err error) error {
	if isTimeout(err) {
		return fmt.Errorf("%w: %w", errWrite, err)
	}
	return exchange.ErrClientClosed
}

// unanswered is for a request to which o gave no answer, but err.
func (c *conn) unanswered(r *request, o *egress.Origin, err error) (again bool, end outcome) {
	o.Interrupt()
	o.Close()
	up := &c.reader
	up.stop()
	switch up.upload.Load() {
	case sending:
		r.broken = true
	case drained, sent:
		r.read = r.head.Length
	}
	if isUpload(up.err) || isTimeout(up.err) {
		err = up.err // whatever the origin made of it
	}
	switch {
	case c.alive().Err() != nil: // that has ended everything
	case up.hasLeft(), errors.Is(err, exchange.ErrClientClosed):
		return false, c.abandon(exchange.ErrClientClosed, closing)
	case errors.Is(err, errWrite):
		return false, c.abandon(err, cutting)
	default:
		if again, err = r.up.Again(o, err); again {
			return true, staying
		}
	}
	return false, c.fail(r, err)
}

// more reads more of an answer's head. The time for it begins anew while the request's body
// moves.
func (c *conn) more(o *egress.Origin) error {
	up, times := &c.reader, &c.cfg.Times
	if !up.running {
		if err := o.More(min(times.Watch, times.Reply)); !isTimeout(err) {
			return err
		}
		up.start()
	}
	for {
		limit, late := times.Reply, error(&upstream.SlowReply{Err: os.ErrDeadlineExceeded})
		if up.client.Load() == halfClosed {
			limit, late = times.HalfClosed, exchange.ErrClientClosed
		}
		rest := limit - time.Since(time.Unix(0, up.moved.Load()))
		if rest <= 0 {
			return late
		}
		if err := o.More(rest); !isTimeout(err) {
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
		return clientError(err)
	}
	return nil
}

// passAnswer passes the answer on. keep is set if the client's connection may stay.
func (c *conn) passAnswer(r *request, o *egress.Origin, a head.Response) (keep bool, err error) {
	b := &c.body
	*b = body{reader: &c.reader, dst: c.Conn, src: o.Conn, length: a.Length}
	if !a.HasBody(r.head.Method) {
		b.length = 0
	}
	b.unchunk = b.length == head.Chunked && r.head.Minor == 0
	keep = !r.head.Close && b.length != head.UntilClose && !b.unchunk && c.reader.hasDrained() && !c.cfg.Conns.Draining()
	c.writeAnswer(a, r.connectionOption(keep), b.unchunk)
	o.Use(a.Len)
	c.out = slices.Grow(c.out, len(o.Unread())) // which goes out with it
	return keep, b.pass(c.out)
}

// switchTo relays a WebSocket, as a tunnel.
func (c *conn) switchTo(o *egress.Origin, a head.Response) outcome {
	c.reader.stop()
	c.writeAnswer(a, "", false)
	o.Use(a.Len)
	early := o.Unread()
	if err := c.Send(append(c.out, early...), c.cfg.Times.Stall); err != nil || c.reader.hasLeft() {
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
// returns the length of the rest of the body.
func (c *conn) writeRequest(r *request, o *egress.Origin) (rest int64) {
	c.out = r.up.AppendHead(c.out[:0], o)
	rest = r.head.Length
	if u := c.Unread(); rest > 0 && len(u) > 0 {
		u = u[:min(rest, int64(len(u)))]
		c.out = append(c.out, u...)
		rest -= int64(len(u))
		r.read += int64(len(u))
		c.x.AddUp(int64(len(u)))
		c.Use(len(u))
	}
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
