package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/head"
	"espalier/proxy/refusal"
	"espalier/proxy/tunnel"
	"espalier/proxy/wire"
)

// maxInterim bounds the 1xx answers before a final one.
const maxInterim = 10

// A BadAnswer says that an origin's answer is not valid HTTP, or can be read in two
// ways.
type BadAnswer struct{ error }

func (e *BadAnswer) Error() string          { return "malformed answer: " + e.error.Error() }
func (e *BadAnswer) Unwrap() error          { return e.error }
func (*BadAnswer) Refusal() refusal.Refusal { return refusal.BadReply }

var (
	errLongAnswer  = fmt.Errorf("its head is longer than %d bytes", head.MaxBytes)
	errManyInterim = fmt.Errorf("it has more than %d interim answers", maxInterim)
	errNoHTTP      = errors.New("it is not HTTP/1")
	errSwitched    = errors.New("it switches to a protocol that was not asked for")
)

// A slowReply says that an origin did not begin to answer in time.
type slowReply struct{ error }

func (e *slowReply) Error() string          { return "no answer to the request in time" }
func (e *slowReply) Unwrap() error          { return e.error }
func (*slowReply) Refusal() refusal.Refusal { return refusal.SlowReply }

// forward passes a request on, and its answer back.
func (c *conn) forward(r *request) outcome {
	x := c.x
	to := egress.Endpoint{Target: x.Target, Dial: x.Decision.Dial, Secure: r.target.scheme == "https"}
	for {
		o, err := c.connectOrigin(to, r)
		if errors.Is(err, egress.ErrNoOtherParent) {
			err = r.unanswered
		}
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

// connectOrigin returns a connection for r. Only what can be sent again goes on a kept one,
// which the origin may be about to close.
func (c *conn) connectOrigin(to egress.Endpoint, r *request) (*egress.Origin, error) {
	o := c.own
	if c.own = nil; o != nil && (o.Endpoint != to || !o.Quiet()) {
		o.Close()
		o = nil
	}
	if o == nil {
		var err error
		if o, err = c.cfg.Origins.Connect(c.alive, c.x.State.Route(), to, !r.repeatable(), r.not); err != nil {
			return nil, err
		}
	}
	if o.Connect > 0 {
		c.x.Record.Connect = o.Connect
	}
	c.x.Record.Upstream = addrPort(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alive.Err() != nil {
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

// repeatable reports whether the request may be sent again if the origin closes a kept
// connection without a byte of an answer (RFC 9110, section 9.2.2).
func (r *request) repeatable() bool {
	if r.head.Length != 0 || r.head.WebSocket {
		return false
	}
	switch string(r.head.Method) {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodDelete, http.MethodPut:
		return true
	}
	return false
}

// ask sends the request on o and relays the answer. again is set if it may be sent
// once more, on another connection.
func (c *conn) ask(r *request, o *egress.Origin) (again bool, end outcome) {
	x, times := c.x, c.cfg.Times
	rest := c.writeRequest(r, o)
	if err := o.Send(c.out, times.Stall); err != nil && r.head.Length == 0 {
		return c.unanswered(r, o, nil, err)
	}
	up := c.read(o, rest)
	answer, err := c.await(r, o, up)
	if err == nil && answer.Status == http.StatusProxyAuthRequired && o.Parent != nil {
		err = &egress.ParentError{Parent: o.Parent.String(), Status: answer.Status} // the client does not know its password
	}
	if err == nil && answer.Status == http.StatusRequestTimeout && o.Reused && r.repeatable() {
		err = io.ErrUnexpectedEOF // it has waited for too long (RFC 9110, section 15.5.9)
		o.Use(len(o.Unread()))
	}
	if err != nil {
		return c.unanswered(r, o, up, err)
	}
	if answer.Status == http.StatusSwitchingProtocols {
		return false, c.switchTo(o, up, answer)
	}
	status, keepOrigin := answer.Status, !answer.Close
	keep, err := c.relay(r, o, up, answer, &keepOrigin)
	up.stop()
	switch {
	case err != nil && c.alive.Err() != nil:
		x.Fail(tunnel.ErrShutdown)
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
	c.keepOrigin(r, o, keepOrigin && up.sent.Load())
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

// keepOrigin keeps o for the next request, of this client alone if it has signed in
// on it.
func (c *conn) keepOrigin(r *request, o *egress.Origin, keep bool) {
	switch {
	case !keep || len(o.Unread()) > 0, c.x.State != c.cfg.Pipeline.State(): // bytes that answer no request; rules of before a reload
		o.Close()
	case r.head.SignsIn || c.own != nil || o.Private:
		o.Private = true
		_ = o.SetDeadline(time.Time{})
		c.own = o
	default:
		c.cfg.Origins.Keep(o)
	}
}

// unanswered is for a request to which there is no answer. up is nil if it was not
// sent.
func (c *conn) unanswered(r *request, o *egress.Origin, up *reader, err error) (again bool, end outcome) {
	x := c.x
	untouched := len(o.Unread()) == 0
	o.Interrupt()
	o.Close()
	if up != nil {
		up.stop()
		switch {
		case up.left.Load():
			x.Fail(exchange.ErrClientClosed)
			x.Finish(0)
			return false, closing
		case up.err != nil:
			if _, ok := up.err.(*uploadError); ok || stalled(up.err) {
				err = up.err // whatever the origin made of it
				r.broken = ok
			}
		}
	}
	switch {
	case c.alive.Err() != nil:
		err = tunnel.ErrShutdown
	case isTimeout(err) && up != nil && up.halfClosed.Load():
		x.Fail(exchange.ErrClientClosed)
		x.Finish(0)
		return false, closing
	case isTimeout(err) && up != nil && up.err == nil:
		err = &slowReply{err}
	case isInterim(err):
		x.Fail(clientError(err))
		x.Finish(0)
		return false, cutting
	case o.Reused && untouched && r.repeatable() && !r.sent && !isTimeout(err) && errAgain(err):
		return true, staying
	case o.Parent != nil && untouched && !r.sent && !isTimeout(err) && errAgain(err) && up != nil && !up.left.Load():
		// The parent may be a load balancer without a server.
		err = x.State.Dialer.Unanswered(o.Parent.String(), err)
		if r.repeatable() {
			r.not, r.unanswered = append(r.not, o.Parent), err
			return true, staying
		}
	}
	if up != nil {
		r.read += up.passed.Load()
	}
	return false, c.fail(r, err)
}

// errAgain reports whether err is that of a connection that was closed.
func errAgain(err error) bool {
	_, bad := errors.AsType[*BadAnswer](err)
	_, parent := errors.AsType[*egress.ParentError](err)
	return !bad && !parent
}

// An interimError is one of passing an interim answer on to the client.
type interimError struct{ error }

func (e *interimError) Unwrap() error { return e.error }

func isInterim(err error) bool {
	_, ok := errors.AsType[*interimError](err)
	return ok
}

// await reads the head of the final answer, and passes interim ones on. What the
// answer points into stays valid until o is read again.
func (c *conn) await(r *request, o *egress.Origin, up *reader) (a head.Response, err error) {
	if o.Parent != nil {
		defer c.x.State.Dialer.Doubt(o.Parent.String())()
	}
	interims := 0
	for scanned := 0; ; {
		b := o.Unread()
		if len(b) > 0 && !head.Plausible(b) {
			return a, &BadAnswer{errNoHTTP}
		}
		end := head.End(b, scanned)
		scanned = len(b)
		switch {
		case end > head.MaxBytes, end == 0 && len(b) > head.MaxBytes:
			return a, &BadAnswer{errLongAnswer}
		case end > 0:
			if a, err = head.ParseResponse(b[:end]); err != nil {
				return a, &BadAnswer{err}
			}
			if a.Status >= 200 {
				return a, nil
			}
			if a.Status == http.StatusSwitchingProtocols {
				if !r.head.WebSocket || !a.WebSocket {
					return a, &BadAnswer{errSwitched}
				}
				return a, nil
			}
			if interims++; interims > maxInterim {
				return a, &BadAnswer{errManyInterim}
			}
			if err := c.passInterim(r, a); err != nil {
				return a, err
			}
			up.moved.Store(time.Now().UnixNano())
			o.Use(end)
			scanned = 0
			continue
		}
		if err := c.more(o, up); err != nil {
			if err == io.EOF && len(b) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return a, err
		}
	}
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
	r.sent = true
	if err := c.Send(c.out, c.cfg.Times.Stall); err != nil {
		return &interimError{err}
	}
	return nil
}

// relay passes the answer on. keep is set if the client's connection may stay.
func (c *conn) relay(r *request, o *egress.Origin, up *reader, a head.Response, keepOrigin *bool) (keep bool, err error) {
	b := &body{
		dst: c.Conn, src: o.Conn, length: a.Length, count: c.x.AddDown,
		take: c.cfg.Times.Stall, send: c.cfg.Times.Stall,
	}
	if !a.HasBody(r.head.Method) {
		b.length = 0
	}
	if b.length == head.UntilClose {
		*keepOrigin = false
	}
	b.unchunk = b.length == head.Chunked && r.head.Minor == 0
	keep = !r.head.Close && b.length != head.UntilClose && !b.unchunk && up.drained.Load() && !c.isDraining()
	connection := ""
	if !keep {
		connection = "close"
	} else if r.head.Minor == 0 {
		connection = "keep-alive"
	}
	c.writeAnswer(a, connection, b.unchunk)
	o.Use(a.Len)
	r.sent = true
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
	b := append(c.out[:0], r.head.Method...)
	b = append(b, ' ')
	if o.Parent != nil { // a proxy wants the absolute form (RFC 9112, 3.2.2)
		b = append(append(b, "http://"...), r.target.authority...)
		if r.target.path != "*" {
			b = append(b, r.target.path...)
		}
	} else {
		b = append(b, r.target.path...)
	}
	b = append(b, " HTTP/1.1\r\n"...)
	if r.head.Hosts == 0 {
		b = append(append(append(b, "Host: "...), r.target.authority...), "\r\n"...)
	}
	for f, next, ok := r.head.Fields.Next(); ok; f, next, ok = next.Next() {
		switch {
		case r.head.WebSocket && f.Upgrades():
			b = append(b, f.Line...)
		case f.HopByHop(), r.head.Nominates && r.head.Fields.Nominates(f.Name), c.x.Decision.HasHeaders() && c.sets(f):
		case f.Is("host") && string(f.Value) != r.target.authority: // what the URL says (RFC 9112, 3.2.2)
			b = append(append(append(append(b, f.Name...), ": "...), r.target.authority...), "\r\n"...)
		case f.Is("transfer-encoding"), f.Is("content-length"):
			b = appendFraming(b, f)
		case f.Is("expect") && !r.head.Expect: // it means nothing there (RFC 9110, 10.1.1)
		case f.Is("max-forwards") && string(r.head.Method) == http.MethodOptions:
			b = append(b, lessForwards(f)...)
		default:
			b = append(b, f.Line...)
		}
	}
	for name, value := range c.x.Decision.Headers() {
		b = append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
	}
	if c.x.Decision.Match.Row == nil && c.session == nil { // Apple's are not changed (docs/security.md)
		b = append(append(append(b, "Via: "...), c.via(o)...), "\r\n"...)
	}
	if o.Parent != nil && o.Parent.ProxyAuthorization() != "" {
		b = append(append(append(b, "Proxy-Authorization: "...), o.Parent.ProxyAuthorization()...), "\r\n"...)
	}
	b = append(b, "\r\n"...)
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

// appendFraming appends a field that frames the body, so that every recipient reads the
// same: chunked in lower case, a length without zeros before it.
func appendFraming(b []byte, f head.Field) []byte {
	if digit := f.Value[0]; '1' <= digit && digit <= '9' {
		return append(b, f.Line...)
	}
	value := bytes.TrimLeft(bytes.ToLower(f.Value), "0")
	if len(value) == 0 {
		value = []byte("0")
	}
	return append(append(append(append(b, f.Name...), ": "...), value...), "\r\n"...)
}

// via is what Via says of this proxy (RFC 9110, section 7.6.3), so that loops are found.
func (c *conn) via(o *egress.Origin) string {
	if o.Parent != nil {
		return o.Parent.Via()
	}
	return c.x.State.Dialer.Via()
}

// sets reports whether a rule or preset sets the field f.
func (c *conn) sets(f head.Field) bool {
	for name := range c.x.Decision.Headers() {
		if bytes.EqualFold(f.Name, []byte(name)) {
			return true
		}
	}
	return false
}

// lessForwards is the line of a Max-Forwards field that is counted down (RFC 9110,
// section 7.6.2).
func lessForwards(f head.Field) []byte {
	n, err := strconv.ParseUint(string(f.Value), 10, 31)
	if err != nil {
		return f.Line
	}
	return append(append([]byte{}, f.Name...), ": "+strconv.FormatUint(n-1, 10)+"\r\n"...)
}

// writeAnswer makes, in c.out, the head of an answer for the client. connection is the value of
// Connection; "" leaves the field out.
func (c *conn) writeAnswer(a head.Response, connection string, unchunk bool) {
	bodiless := a.Status < 200 || a.Status == http.StatusNoContent
	b := append(c.out[:0], "HTTP/1.1"...)
	b = append(b, a.Line[len("HTTP/1.1"):]...)
	for f, next, ok := a.Fields.Next(); ok; f, next, ok = next.Next() {
		switch {
		case a.Status == http.StatusSwitchingProtocols && f.Upgrades():
			b = append(b, f.Line...)
		case f.HopByHop(), a.Nominates && a.Fields.Nominates(f.Name):
		case bodiless && (f.Is("content-length") || f.Is("transfer-encoding")): // against RFC 9110, 8.6
		case unchunk && (f.Is("transfer-encoding") || f.Is("trailer")):
		case f.Is("transfer-encoding"):
			b = appendFraming(b, f)
		default:
			b = append(b, f.Line...)
		}
	}
	if connection != "" {
		b = append(append(append(b, "Connection: "...), connection...), "\r\n"...)
	}
	c.out = append(b, "\r\n"...)
}
