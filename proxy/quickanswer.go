package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"espalier/proxy/egress"
	"espalier/proxy/head"
	"espalier/proxy/traffic"
	"espalier/proxy/tunnel"
)

// An outcome says what becomes of the client's connection.
type outcome int

const (
	stayOpen    outcome = iota // the next request may come
	closeClient                // it has to be closed
	handOver                   // nothing was answered; let the general way try
)

// quickExchange is one request on the short way.
type quickExchange struct {
	*quickClient
	x               *exchange
	service         *traffic.Service
	isHead          bool
	request         head.Request
	authority, path []byte
	close           bool // the client's connection ends with this answer
	interims        int  // answers before the final one
}

// errGeneral says that the short way cannot get an answer, or read it, and the
// general way may.
var errGeneral = errors.New("not for the short way")

// run sends the request in out and relays the answer. The request is safe, so it
// is sent again where a kept connection turns out to be gone (RFC 9110, 9.2.2),
// or says that it had waited for too long (15.5.9).
func (e *quickExchange) run(st *State, to endpoint) outcome {
	defer e.release()
	var silent []*egress.Parent // that left the request unanswered
	var unanswered error
	for {
		o, err := e.connect(st, e.x, to, silent)
		if err == nil {
			err = e.hold(o)
		}
		switch {
		case errors.Is(err, errGeneral):
			return handOver
		case errors.Is(err, egress.ErrNoOtherParent):
			return e.refuse(unanswered)
		case err != nil:
			return e.refuse(err)
		}
		_ = o.SetDeadline(time.Now().Add(e.s.times.Reply))
		var r head.Response
		e.writeRequest(o)
		if _, err = o.Write(e.out); err == nil {
			stop := func() {}
			if o.parent != nil {
				stop = st.Dialer.Doubt(o.parent.String())
			}
			r, err = e.await(o)
			stop()
		}
		if err == nil && r.Status == http.StatusProxyAuthRequired && o.parent != nil {
			o.Close() // the client does not know the parent's password
			return e.refuse(&egress.ParentError{Parent: o.parent.String(), Status: r.Status})
		}
		if err == nil && !(o.reused && r.Status == http.StatusRequestTimeout) {
			return e.answer(o, r)
		}
		o.Close()
		switch {
		case e.dialing.Err() != nil:
			err = tunnel.ErrShutdown
		case errors.Is(err, errGeneral):
			return handOver
		case isClientError(err), errors.Is(err, errLeft):
			e.x.rec.Error = err.Error()
			e.x.finish(0)
			return closeClient
		case isTimeout(err):
			err = fmt.Errorf("%w: %w", errReplyTimeout, err)
		case o.reused && (err == nil || o.n == 0) && e.interims == 0:
			continue
		case o.parent != nil && err != nil && o.n == 0 && e.interims == 0:
			silent, unanswered = append(silent, o.parent), st.Dialer.Unanswered(o.parent.String(), err)
			continue
		}
		return e.refuse(err)
	}
}

// errLeft says that nobody waits for the answer any more.
var errLeft = errors.New("the client left before it was answered")

// await is readHead. A client within TLS that leaves meanwhile ends it with
// errLeft; one that asks in plain may have closed its direction only.
func (e *quickExchange) await(o *originConn) (r head.Response, err error) {
	if e.ses == nil || e.n == len(e.buf) {
		return o.readHead(e.interim)
	}
	left, done := false, make(chan struct{})
	timer := time.AfterFunc(e.s.times.Watch, func() {
		defer close(done)
		// To read from TLS may be to write, too.
		_ = e.SetWriteDeadline(time.Now().Add(e.s.times.Stall))
		n, err := e.Read(e.buf[e.n:]) // the next request may come
		e.n += n
		if left = n == 0 && !isTimeout(err); left {
			o.cut()
		}
	})
	defer func() {
		if timer.Stop() {
			return
		}
		_ = e.SetReadDeadline(time.Unix(1, 0))
		<-done
		_ = e.SetReadDeadline(time.Time{})
		if left {
			err = errLeft
		}
	}()
	return o.readHead(e.interim)
}

// readHead reads the head of a final answer; interim is called for those before
// it. What r points into stays valid until the next read. The error is
// errGeneral, a *badAnswer, a clientError of interim, or that of the connection.
func (o *originConn) readHead(interim func(head.Response) error) (head.Response, error) {
	if o.buf == nil {
		o.buf = make([]byte, originBuffer)
	}
	for scanned := 0; ; {
		if o.n > 0 && !head.Plausible(o.buf[:o.n]) {
			return head.Response{}, &badAnswer{errNoHTTP}
		}
		end := head.End(o.buf[:o.n], scanned)
		scanned = o.n
		switch {
		case end > head.MaxBytes, end == 0 && o.n > head.MaxBytes:
			return head.Response{}, &badAnswer{errLongAnswer}
		case end > 0:
			r, ok := head.ParseResponse(o.buf[:end])
			if !ok {
				// What can be read in one way only is for the general way.
				if a, err := head.CheckResponse(o.buf[:end]); err != nil {
					return r, &badAnswer{err}
				} else if a.Status == http.StatusSwitchingProtocols {
					return r, &badAnswer{errSwitched}
				}
				return r, errGeneral
			}
			if r.Status >= 200 {
				return r, nil
			}
			if err := interim(r); err != nil {
				return r, err
			}
			o.n, scanned = copy(o.buf, o.buf[end:o.n]), 0
			continue
		}
		if o.n == len(o.buf) {
			o.buf = append(o.buf, make([]byte, len(o.buf))...)
		}
		n, err := o.Read(o.buf[o.n:])
		o.n += n
		if n == 0 && err != nil {
			if o.n > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return head.Response{}, err
		}
	}
}

// errSwitched says that a destination changed the protocol, and nobody had asked
// for it.
var errSwitched = errors.New("it switches to a protocol that was not asked for")

// interim passes an interim answer on.
func (e *quickExchange) interim(r head.Response) error {
	if e.interims++; e.interims > maxInterim {
		return &badAnswer{errManyInterim}
	}
	if r.Status == http.StatusContinue {
		return nil // to a request without a body
	}
	e.writeHead(r, false)
	return e.pass(e.out, 0)
}

// answer relays an answer whose head has come.
func (e *quickExchange) answer(o *originConn, r head.Response) outcome {
	length := r.Length
	if e.isHead || !bodyAllowed(r.Status) {
		length = 0
	}
	status := r.Status
	e.close = e.close || length == head.UntilClose || e.s.Draining()
	e.writeHead(r, e.close)
	body := o.buf[r.Len:o.n]
	if length >= 0 && int64(len(body)) > length {
		body = body[:length]
		r.Close = true // more than was announced: the connection is out of step
	}
	used := r.Len + len(body)
	var err error
	switch length {
	case head.Chunked:
		used, err = e.chunked(o, r.Len)
	default:
		e.out = append(e.out, body...)
		if err = e.pass(e.out, int64(len(body))); err == nil {
			err = e.rest(o, length-int64(len(body)), length == head.UntilClose)
		}
	}
	if err != nil {
		if isClientError(err) {
			e.x.rec.Error = err.Error()
		} else {
			e.x.failed(fmt.Errorf("read the answer's body: %w", err))
		}
		e.abort()
	}
	e.x.finish(status)
	if err != nil || r.Close || length == head.UntilClose || used < o.n {
		o.Close()
	} else {
		e.pool.put(o)
	}
	if err != nil || e.close {
		return closeClient
	}
	return stayOpen
}

// abort closes the client's connection so that a cut answer does not look whole.
func (c *quickClient) abort() {
	conn := c.beneath() // and so TLS says no goodbye
	if tcp := tcpOf(conn); tcp != nil {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

// beneath is the client's connection, or what is beneath TLS.
func (c *quickClient) beneath() net.Conn {
	if c.ses != nil {
		return c.ses.Conn
	}
	return c.Conn
}

// tcpOf is what c wraps, nil where that is not TCP.
func tcpOf(c net.Conn) *net.TCPConn {
	for {
		switch x := c.(type) {
		case *net.TCPConn:
			return x
		case interface{ NetConn() net.Conn }:
			c = x.NetConn()
		default:
			return nil
		}
	}
}

func isClientError(err error) bool {
	_, ok := errors.AsType[clientError](err)
	return ok
}

// clientError is an error of the client's connection.
type clientError struct{ error }

func (e clientError) Error() string { return "write to client: " + e.error.Error() }
func (e clientError) Unwrap() error { return e.error }

// writeHead makes the head of an answer for the client.
func (e *quickExchange) writeHead(r head.Response, closes bool) {
	bodiless := r.Status < 200 || r.Status == http.StatusNoContent
	b := append(e.out[:0], "HTTP/1.1"...)
	b = append(b, r.Line[len("HTTP/1.1"):]...)
	for f, rest, ok := r.Fields.Next(); ok; f, rest, ok = rest.Next() {
		// The latter stand there against RFC 9110, 8.6.
		if !ofConnection(f) && !(bodiless && (f.Is("content-length") || f.Is("transfer-encoding"))) {
			b = append(b, f.Line...)
		}
	}
	if closes {
		b = append(b, "Connection: close\r\n"...)
	}
	e.out = append(b, "\r\n"...)
}

// Portions in which a body is spliced. Each has times.Stall, so a portion grows
// only while it takes no time to speak of.
const (
	firstPortion = 256 << 10
	largePortion = 1 << 20
)

// rest relays n bytes of a body, or all until the destination closes.
func (e *quickExchange) rest(o *originConn, n int64, untilClose bool) error {
	switch {
	case n <= 0 && !untilClose:
		return nil
	case o.secure:
		return e.copyRest(o, n, untilClose)
	}
	part := int64(firstPortion)
	for untilClose || n > 0 {
		began := time.Now()
		_ = o.SetReadDeadline(began.Add(e.s.times.Stall))
		_ = e.SetWriteDeadline(began.Add(e.s.times.Stall))
		want := part
		if !untilClose {
			want = min(part, n)
		}
		m, err := io.CopyN(e.Conn, o.Conn, want) // both are TCP
		e.down(m)
		n -= m
		switch {
		case err == io.EOF && untilClose:
			return nil
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil && o.healthy(err):
			return clientError{err} // a splice does not say which side failed
		case err != nil:
			return err
		}
		switch took := time.Since(began); {
		case took < 100*time.Millisecond:
			part = min(2*part, largePortion)
		case took > time.Second:
			part = firstPortion
		}
	}
	return nil
}

// copyRest is rest where TLS takes the bytes through memory.
func (e *quickExchange) copyRest(o *originConn, n int64, untilClose bool) error {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	for untilClose || n > 0 {
		part := buf[:]
		if !untilClose {
			part = buf[:min(n, int64(len(buf)))]
		}
		_ = o.SetReadDeadline(time.Now().Add(e.s.times.Stall))
		m, err := o.Read(part)
		switch {
		case m > 0: // an error comes again
			n -= int64(m)
			if err := e.pass(part[:m], int64(m)); err != nil {
				return err
			}
		case err == io.EOF && untilClose:
			return nil
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
	return nil
}

// chunked relays a chunked body as it is framed; it begins at o.buf[from]. It
// returns how much of o.buf the answer took.
func (e *quickExchange) chunked(o *originConn, from int) (used int, err error) {
	var c head.Chunks
	n, payload, err := c.Scan(o.buf[from:o.n])
	used = from + n
	if err != nil {
		return used, err
	}
	e.out = append(e.out, o.buf[from:used]...)
	if err := e.pass(e.out, payload); err != nil {
		return used, err
	}
	if c.Done {
		return used, nil
	}
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	for !c.Done {
		_ = o.SetReadDeadline(time.Now().Add(e.s.times.Stall))
		n, err := o.Read(buf[:])
		if n == 0 && err == io.EOF {
			return used, io.ErrUnexpectedEOF
		}
		if n == 0 && err != nil {
			return used, err
		}
		k, payload, err := c.Scan(buf[:n])
		if err != nil {
			return used, err
		}
		if err := e.pass(buf[:k], payload); err != nil {
			return used, err
		}
		if k < n {
			o.n = used + 1 // something follows that nobody asked for
		}
	}
	return used, nil
}

// pass writes to the client and counts what of it is payload.
func (e *quickExchange) pass(b []byte, payload int64) error {
	_ = e.SetWriteDeadline(time.Now().Add(e.s.times.Stall))
	if _, err := e.Write(b); err != nil {
		return clientError{err}
	}
	e.down(payload)
	return nil
}

func (e *quickExchange) down(n int64) {
	e.x.rec.Down += n
	e.service.AddDown(n)
}
