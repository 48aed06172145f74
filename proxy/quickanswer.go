package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"espalier/policy"
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
}

// errOddAnswer says that the short way cannot read an answer.
var errOddAnswer = errors.New("an answer that is not for the short way")

// run sends the request in out and relays the answer. The request is safe, so it
// is sent again where a kept connection turns out to be gone (RFC 9110, 9.2.2),
// or says that it had waited for too long (15.5.9).
func (e *quickExchange) run(st *State, t policy.Target) outcome {
	defer e.release()
	for {
		o, err := e.connect(st, e.x, t)
		if err == nil {
			err = e.hold(o)
		}
		if err != nil {
			return e.refuse(err)
		}
		_ = o.SetDeadline(time.Now().Add(replyTimeout))
		var r head.Response
		e.writeRequest(o)
		if _, err = o.Write(e.out); err == nil {
			r, err = o.readHead()
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
		case errors.Is(err, errOddAnswer):
			return handOver
		case isTimeout(err):
			err = fmt.Errorf("%w: %w", errReplyTimeout, err)
		case o.reused && (err == nil || o.n == 0):
			continue
		}
		return e.refuse(err)
	}
}

// readHead reads the head of an answer. What r points into stays valid until the
// next read.
func (o *originConn) readHead() (head.Response, error) {
	if o.buf == nil {
		o.buf = make([]byte, originBuffer)
	}
	for {
		if n := head.Complete(o.buf[:o.n]); n > 0 {
			r, ok := head.ParseResponse(o.buf[:n])
			// 1xx answers are rare enough to be left to the general way.
			if !ok || r.Status < 200 {
				return r, errOddAnswer
			}
			return r, nil
		}
		if bareLF(o.buf[:o.n]) {
			return head.Response{}, errOddAnswer // its end would be waited for in vain
		}
		if o.n == len(o.buf) {
			if o.n >= answerHead {
				return head.Response{}, errOddAnswer
			}
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

// bareLF reports whether an empty line ends b's head for those who are lenient
// about line ends.
func bareLF(b []byte) bool {
	return bytes.Contains(b, []byte("\n\n")) || bytes.Contains(b, []byte("\n\r\n"))
}

// answer relays an answer whose head has come.
func (e *quickExchange) answer(o *originConn, r head.Response) outcome {
	length := r.Length
	if e.isHead || r.Status == http.StatusNoContent || r.Status == http.StatusNotModified {
		length = 0
	}
	status := r.Status
	e.close = e.close || length == head.UntilClose || e.s.Draining()
	e.writeHead(r)
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
		if c, ok := errors.AsType[clientError](err); ok {
			e.x.rec.Error = c.Error()
		} else {
			e.x.failed(fmt.Errorf("read the answer's body: %w", err))
		}
		_ = e.SetLinger(0) // a cut answer must not look whole
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

// clientError is an error of the client's connection.
type clientError struct{ error }

func (e clientError) Error() string { return "write to client: " + e.error.Error() }
func (e clientError) Unwrap() error { return e.error }

// writeHead makes the head of the answer for the client.
func (e *quickExchange) writeHead(r head.Response) {
	b := append(e.out[:0], "HTTP/1.1"...)
	b = append(b, r.Line[len("HTTP/1.1"):]...)
	for f, rest, ok := r.Fields.Next(); ok; f, rest, ok = rest.Next() {
		if !ofConnection(f) {
			b = append(b, f.Line...)
		}
	}
	if e.close {
		b = append(b, "Connection: close\r\n"...)
	}
	e.out = append(b, "\r\n"...)
}

// Portions in which a body is spliced. Each has bodyTimeout, so a portion grows
// only while it takes no time to speak of.
const (
	firstPortion = 256 << 10
	largePortion = 4 << 20
	bodyTimeout  = 10 * time.Minute
)

// rest relays n bytes of a body, or all until the destination closes.
func (e *quickExchange) rest(o *originConn, n int64, untilClose bool) error {
	if n <= 0 && !untilClose {
		return nil
	}
	part := int64(firstPortion)
	for untilClose || n > 0 {
		began := time.Now()
		_ = o.SetReadDeadline(began.Add(bodyTimeout))
		_ = e.SetWriteDeadline(began.Add(bodyTimeout))
		want := part
		if !untilClose {
			want = min(part, n)
		}
		m, err := io.CopyN(e.TCPConn, o.TCPConn, want)
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
		if time.Since(began) < 100*time.Millisecond {
			part = min(2*part, largePortion)
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
		_ = o.SetReadDeadline(time.Now().Add(bodyTimeout))
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
	_ = e.SetWriteDeadline(time.Now().Add(bodyTimeout))
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
