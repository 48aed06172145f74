package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"espalier/proxy/head"
)

// maxInterim bounds the 1xx answers before a final one.
const maxInterim = 10

// badAnswer says that a destination's answer cannot be trusted to be what it
// seems to be, or to end where it seems to.
type badAnswer struct{ error }

func (e *badAnswer) Error() string {
	return "the destination's answer is malformed: " + e.error.Error()
}
func (e *badAnswer) Unwrap() error { return e.error }

var (
	errSurplus     = errors.New("more than was announced, or asked for")
	errLongAnswer  = fmt.Errorf("its head is longer than %d bytes", head.MaxBytes)
	errManyInterim = fmt.Errorf("it has more than %d interim answers", maxInterim)
	errNoHTTP      = errors.New("it is not HTTP/1")
)

// An answerConn is a connection of http.Transport to a destination. It lets only
// answers through whose head can be read in one way only, only where a request
// was sent, and not a byte behind their end: net/http is lenient, and takes what
// follows an answer for the next one's. It carries no TLS.
type answerConn struct {
	net.Conn
	peek  func() (n int, err error)
	stall time.Duration // for a portion of a body, either way

	mu       sync.Mutex
	expected bool // a request was sent, and its final answer has not begun
	isHead   bool // the request was HEAD
	interim  int  // interim answers so far
	buf      []byte
	scanned  int // bytes of buf that were looked at
	ready    int // bytes of buf that may be handed out
	body     head.Body
	switched bool // it is no HTTP any more
	bounded  bool // reading has a deadline; for whoever reads
	err      error
}

func newAnswerConn(c *net.TCPConn, stall time.Duration) *answerConn {
	return &answerConn{Conn: c, peek: newPeek(c), stall: stall}
}

// expect announces that a request of method is about to be sent. What has come
// before it is no answer.
func (c *answerConn) expect(method string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, _ := c.peek(); n > 0 || len(c.buf) > 0 {
		c.err = &badAnswer{errSurplus}
	}
	c.expected, c.interim, c.isHead = true, 0, method == http.MethodHead
}

// fault is the *badAnswer that was found, nil without one, or without c.
func (c *answerConn) fault() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *answerConn) Read(p []byte) (int, error) {
	for {
		n, err, more := c.next(p)
		if !more {
			return n, err
		}
		c.bound()
		n, err = c.Conn.Read(p)
		c.mu.Lock()
		if k := c.direct(p[:n]); k > 0 {
			c.mu.Unlock()
			return k, nil // an error comes again
		}
		if n == 0 && err == io.EOF && len(c.buf) > 0 {
			err = io.ErrUnexpectedEOF // in a head
		}
		c.mu.Unlock()
		if n == 0 && err != nil {
			return 0, err
		}
	}
}

// bound limits how long the next bytes of a body may take. http.Transport does
// that for a head.
func (c *answerConn) bound() {
	c.mu.Lock()
	inBody := !c.body.Done() && !c.switched
	c.mu.Unlock()
	if inBody {
		_ = c.SetReadDeadline(time.Now().Add(c.stall))
	} else if c.bounded {
		_ = c.SetReadDeadline(time.Time{})
	}
	c.bounded = inBody
}

func (c *answerConn) Write(p []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(c.stall))
	return c.Conn.Write(p)
}

// direct takes what was read, and returns how much of it goes on as it is.
func (c *answerConn) direct(b []byte) (n int) {
	switch {
	case len(c.buf) > 0:
	case c.switched:
		return len(b)
	case !c.body.Done():
		var err error
		if n, err = c.body.Scan(b); err != nil {
			c.err = &badAnswer{err}
		}
	}
	c.buf = append(c.buf, b[n:]...)
	return n
}

// next hands out what there is; more is set where more has to be read first.
func (c *answerConn) next(p []byte) (n int, err error, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.ready > 0:
			n := copy(p, c.buf[:c.ready])
			if c.buf, c.ready, c.scanned = c.buf[n:], c.ready-n, 0; len(c.buf) == 0 {
				c.buf = nil
			}
			return n, nil, false
		case c.err != nil:
			return 0, c.err, false
		case len(c.buf) == 0:
			return 0, nil, true
		case c.switched:
			c.ready = len(c.buf)
		case !c.body.Done():
			var err error
			if c.ready, err = c.body.Scan(c.buf); err != nil {
				c.err = &badAnswer{err}
			}
		case !c.expected:
			c.err = &badAnswer{errSurplus}
		default:
			if done, err := c.look(); err != nil {
				// A byte goes before the error: where nothing is read, the transport
				// takes a kept connection for one that was closed, and asks again.
				c.ready, c.err = 1, &badAnswer{err}
			} else if !done {
				return 0, nil, true
			}
		}
	}
}

// look checks the head at the start of buf; done is false where it has not come.
func (c *answerConn) look() (done bool, err error) {
	end := head.End(c.buf, c.scanned)
	c.scanned = len(c.buf)
	switch {
	case !head.Plausible(c.buf):
		return false, errNoHTTP
	case end > head.MaxBytes, end == 0 && len(c.buf) > head.MaxBytes:
		return false, errLongAnswer
	case end == 0:
		return false, nil
	}
	a, err := head.CheckResponse(c.buf[:end])
	switch {
	case err != nil:
		return false, err
	case a.Status == http.StatusSwitchingProtocols:
		c.switched = true
	case a.Status < 200:
		if c.interim++; c.interim > maxInterim {
			return false, errManyInterim
		}
		c.ready = end
		return true, nil
	case !c.isHead && bodyAllowed(a.Status):
		c.body = head.NewBody(a.Length)
	}
	c.ready, c.expected = end, false
	return true, nil
}

// bodyAllowed reports whether a final answer with status may have a body.
func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}
