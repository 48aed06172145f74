package http2

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// ErrStalled is the error of a stream whose client moved nothing for Config.Stall.
var ErrStalled = fmt.Errorf("client moved nothing for too long: %w", os.ErrDeadlineExceeded)

// side says which sides of a stream are open (RFC 9113, 5.1):
//
//	open → remoteClosed    the client sent END_STREAM
//	open → localClosed     the proxy sent END_STREAM
//	remoteClosed → closed  the proxy sent END_STREAM
//	localClosed → closed   the client sent END_STREAM
//	any → closed           RST_STREAM by either, or the connection's end
type side uint8

const (
	open side = iota
	remoteClosed
	localClosed
	closed
)

// answer is how far a stream's answer is.
type answer uint8

const (
	unanswered answer = iota
	answering         // the final header list has gone
	tunneling         // it has, and the stream outlives its handler
)

// A Stream is one request and its answer. For CONNECT it is a net.Conn whose two
// sides end one by one. Its methods may be called concurrently. Deadlines apply to
// this stream alone.
type Stream struct {
	c       *Conn
	id      uint32
	connect bool

	// Under c.mu.
	side     side
	answer   answer
	handling bool  // the handler runs
	eof      bool  // the client's side ended in order; what it sent may be read still
	err      error // why it was closed otherwise
	ctx      context.Context
	cancel   context.CancelCauseFunc

	received queue
	recv     inflow
	want     int64 // of the body, by content-length; -1 without
	trailers []hpack.HeaderField
	reading  waiter

	out     []byte // of the Write under way
	outEnd  bool   // END_STREAM follows it
	outAt   int64  // behind its last frame in all that the connection writes
	queued  bool   // in c.ready
	busy    bool   // a Write is under way
	send    outflow
	writing waiter
}

var _ net.Conn = (*Stream)(nil)

func (c *Conn) newStream(id uint32, r *Request) *Stream {
	s := &Stream{
		c: c, id: id, connect: r.Method == http.MethodConnect, want: r.Length,
		recv: inflow{size: c.cfg.StreamWindow, left: c.cfg.StreamWindow}, send: c.peerWindow,
	}
	s.reading.L, s.writing.L = &c.mu, &c.mu
	c.streams[id] = s
	if c.active++; c.active == 1 {
		c.cfg.Idle(false)
	}
	return s
}

// start runs the handler.
func (s *Stream) start(r *Request, h Handler) {
	s.handling = true
	s.c.handlers.Add(1)
	go func() {
		defer s.c.handlers.Done()
		returned := false
		defer func() {
			fault := recover()
			s.handled(returned)
			if fault != nil && fault != http.ErrAbortHandler && s.c.cfg.Panicked != nil {
				s.c.cfg.Panicked(r, fault)
			}
		}()
		h(s, r)
		returned = true
	}()
}

// handled ends the stream after its handler, unless a tunnel goes on.
func (s *Stream) handled(returned bool) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	s.handling = false
	switch {
	case s.side == closed:
		c.credit(s.received.clear())
		s.leave()
	case returned && s.answer == tunneling:
	case returned && s.side == localClosed:
		s.reset(wire.ErrCodeNo, net.ErrClosed) // the rest of the body is not wanted (RFC 9113, 8.1)
	default:
		s.reset(wire.ErrCodeInternal, errors.New("handler did not finish"))
	}
}

// Context is cancelled when the stream ends, its cause the reason.
func (s *Stream) Context() context.Context {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.ctx == nil {
		s.ctx, s.cancel = context.WithCancelCause(s.c.cfg.Context)
		if s.side == closed {
			s.cancel(s.err)
		}
	}
	return s.ctx
}

// LocalAddr and RemoteAddr are the connection's.
func (s *Stream) LocalAddr() net.Addr  { return s.c.conn.LocalAddr() }
func (s *Stream) RemoteAddr() net.Addr { return s.c.conn.RemoteAddr() }

// Read reads what the client sends: the body of a request, or its side of a
// tunnel. It returns io.EOF at the end, and ErrStalled if the client sends nothing of a
// body for Config.Stall; it can be answered then.
func (s *Stream) Read(p []byte) (int, error) {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	begun := time.Now()
	for {
		var stalls time.Time
		switch {
		case s.reading.expired():
			return 0, os.ErrDeadlineExceeded
		case s.received.len > 0 || len(p) == 0:
			n := s.received.take(p)
			s.credit(n)
			return n, nil
		case s.eof:
			return 0, io.EOF
		case s.side == closed:
			return 0, s.err
		case !s.connect && s.answer == unanswered:
			if stalls = begun.Add(c.cfg.Stall); !time.Now().Before(stalls) {
				return 0, ErrStalled
			}
		}
		s.reading.wait(stalls)
	}
}

// Trailers returns the fields behind the body, in order, once Read has returned
// io.EOF.
func (s *Stream) Trailers() []hpack.HeaderField {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.trailers
}

// credit gives back n bytes that were read.
func (s *Stream) credit(n int) {
	s.c.credit(n)
	if told := s.recv.credit(n); told > 0 && !s.eof && s.side != closed {
		_ = s.c.framer.WriteWindowUpdate(s.id, told)
	}
}

// WriteHeaders sends a header list: interim ones with a status from 100, 101
// excepted, then the final one. end says that neither body nor trailers follow.
// Names may be in any case. It fails, and sends nothing, if a field is not
// allowed in HTTP/2.
func (s *Stream) WriteHeaders(status int, fields []hpack.HeaderField, end bool) error {
	return s.Answer(status, fields, nil, end)
}

// Answer is WriteHeaders with the first bytes of the body, or all of it.
func (s *Stream) Answer(status int, fields []hpack.HeaderField, p []byte, end bool) error {
	if status < 100 || status > 999 || status == http.StatusSwitchingProtocols || end && status < 200 {
		return fmt.Errorf("invalid status %d in HTTP/2", status)
	}
	return s.writeHead(status, fields, p, end)
}

// WriteTrailers sends the fields behind the body, and ends the proxy's side.
func (s *Stream) WriteTrailers(fields []hpack.HeaderField) error {
	return s.writeHead(0, fields, nil, true)
}

// writeHead sends a header list, trailers if the status is 0, and data behind it.
func (s *Stream) writeHead(status int, fields []hpack.HeaderField, data []byte, end bool) error {
	if err := checkAnswer(fields); err != nil {
		return err
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for s.side != closed && len(c.out) > writeSize {
		c.room.Wait() // the connection's own bound wakes it
	}
	switch {
	case s.side == closed:
		return cmp.Or(s.err, net.ErrClosed)
	case s.side == localClosed || s.busy || (status == 0) != (s.answer != unanswered):
		return errors.New("header list out of its turn")
	}
	text := ""
	if status > 0 {
		text = strconv.Itoa(status)
	}
	c.appendHead(s.id, text, fields, end && len(data) == 0)
	if status >= 200 {
		s.answer = answering
		s.reading.Broadcast() // its time is not bounded any more
	}
	if len(data) > 0 {
		_, err := s.writeData(data, end)
		return err
	}
	if end {
		s.endLocal()
	}
	return nil
}

// checkAnswer checks fields that are to be sent, and brings names to lower case.
func checkAnswer(fields []hpack.HeaderField) error {
	for i := range fields {
		fields[i].Name = strings.ToLower(fields[i].Name)
		if err := checkField(fields[i]); err != nil {
			return err
		}
	}
	return nil
}

// Tunnel answers a CONNECT with 200 and lets the stream outlive the handler, until
// Close.
func (s *Stream) Tunnel(fields ...hpack.HeaderField) error {
	if !s.connect {
		return errors.New("tunnel in a stream whose method is not CONNECT")
	}
	if err := s.WriteHeaders(http.StatusOK, fields, false); err != nil {
		return err
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.answer = tunneling
	return nil
}

// Write sends p as DATA. It blocks until the client's windows and the connection's
// queue have room for all of p.
func (s *Stream) Write(p []byte) (int, error) { return s.Send(p, false) }

// CloseWrite ends the proxy's side with END_STREAM. The client's may go on.
func (s *Stream) CloseWrite() error {
	_, err := s.Send(nil, true)
	return err
}

// Send is Write, and ends the proxy's side with p if end is set.
func (s *Stream) Send(p []byte, end bool) (n int, err error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for s.busy && s.side != closed { // as net.Conn has it, one after the other
		s.writing.Wait()
	}
	switch {
	case s.side == closed:
		return 0, cmp.Or(s.err, net.ErrClosed)
	case s.answer == unanswered || s.side == localClosed:
		return 0, errors.New("write before or behind the answer")
	case s.writing.expired():
		return 0, os.ErrDeadlineExceeded
	case len(p) > 0:
		return s.writeData(p, end)
	case end:
		s.c.appendData(s.id, nil, true)
		s.endLocal()
	}
	return 0, nil
}

// writeData is Send for a stream that may be written, with c.mu held.
func (s *Stream) writeData(p []byte, end bool) (n int, err error) {
	s.busy, s.out, s.outEnd = true, p, end
	defer func() {
		s.busy, s.out = false, nil
		s.writing.Broadcast()
	}()
	s.enqueue()
	s.c.moveData() // goes out without waiting for the writer, if it is this stream's turn
	left, moved := len(s.out), time.Now()
	for len(s.out) > 0 {
		var stalls time.Time
		switch {
		case s.side == closed:
			return len(p) - len(s.out), cmp.Or(s.err, net.ErrClosed)
		case s.writing.expired():
			return len(p) - len(s.out), os.ErrDeadlineExceeded
		case s.answer != tunneling:
			if len(s.out) < left || s.waitsForConn() {
				left, moved = len(s.out), time.Now()
			}
			if stalls = moved.Add(s.c.cfg.Stall); !time.Now().Before(stalls) {
				s.reset(wire.ErrCodeCancel, ErrStalled)
				return len(p) - left, ErrStalled
			}
		}
		s.writing.wait(stalls)
	}
	return len(p), nil
}

// Reset ends both sides with RST_STREAM. It does nothing to a stream that has
// ended.
func (s *Stream) Reset(code wire.ErrCode) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.reset(code, net.ErrClosed)
}

// accuse resets the stream of a malformed request, also behind an answer that has ended
// it in order: RFC 9113, section 8.1.1 allows the answer and requires the reset. One that
// is tooLarge is not malformed.
func (s *Stream) accuse(tooLarge bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.side == closed && s.err == nil && !tooLarge {
		_ = s.c.framer.WriteRSTStream(s.id, wire.ErrCodeProtocol)
	}
	s.reset(wire.ErrCodeProtocol, net.ErrClosed)
}

// Close ends both sides. A tunnel whose proxy's side was not ended in order before
// is reset with CONNECT_ERROR, so that the client knows that bytes are missing.
func (s *Stream) Close() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	switch {
	case s.side == closed:
		s.c.credit(s.received.clear())
	case s.side == localClosed:
		s.reset(wire.ErrCodeNo, net.ErrClosed)
	case s.connect:
		s.reset(wire.ErrCodeConnect, net.ErrClosed)
	default:
		s.reset(wire.ErrCodeCancel, net.ErrClosed)
	}
	return nil
}

// SetDeadline implements net.Conn, as do the others.
func (s *Stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline sets when Read fails with os.ErrDeadlineExceeded. The stream
// can be used after it.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.setDeadline(&s.reading, t) }

// SetWriteDeadline is SetReadDeadline for Write.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.setDeadline(&s.writing, t) }

func (s *Stream) setDeadline(w *waiter, t time.Time) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	w.deadline = t
	w.Broadcast()
	return nil
}

// What follows is called with c.mu held.

// enqueue has the writer look at s, if it may send.
func (s *Stream) enqueue() {
	if !s.queued && len(s.out) > 0 && s.send > 0 && s.side != closed {
		s.queued = true
		s.c.ready = append(s.c.ready, s)
		s.c.wake.Signal()
	}
}

// waitsForConn reports whether s could go on if the connection did, which has a
// bound of its own: it waits for its turn, or the client has not yet got what
// it would give window for.
func (s *Stream) waitsForConn() bool {
	return s.queued && s.c.send > 0 || s.outAt > s.c.gone
}

func (s *Stream) endRemote() {
	s.eof = true
	if s.side == localClosed {
		s.finish(ended, nil)
	} else {
		s.side = remoteClosed
	}
}

func (s *Stream) endLocal() {
	if s.side == remoteClosed {
		s.finish(ended, nil)
	} else {
		s.side = localClosed
	}
}

// reset tells the client that the stream ends.
func (s *Stream) reset(code wire.ErrCode, cause error) {
	if s.side != closed {
		_ = s.c.framer.WriteRSTStream(s.id, code)
		s.finish(resetByProxy, fmt.Errorf("stream reset: %s: %w", code, cause))
	}
}

// fail ends the stream without telling the client.
func (s *Stream) fail(err error) {
	if s.side != closed {
		s.finish(resetByClient, err)
	}
}

// finish closes the stream.
func (s *Stream) finish(h how, err error) {
	c := s.c
	s.side, s.err = closed, err
	if !s.eof {
		c.credit(s.received.clear())
	}
	delete(c.streams, s.id)
	c.recent.add(s.id, h)
	if err == nil {
		c.budget.fill(budgetPerStream)
		err = context.Canceled
	}
	if s.cancel != nil {
		s.cancel(err)
	}
	s.reading.Broadcast()
	s.writing.Broadcast()
	c.room.Broadcast()
	if !s.handling {
		s.leave()
	}
}

// leave gives the stream's place to another.
func (s *Stream) leave() {
	if s.c.active--; s.c.active == 0 {
		s.c.quiet()
	}
}

// A waiter is for the goroutine that waits for one side of a stream.
type waiter struct {
	sync.Cond
	deadline time.Time // zero without
	timer    *time.Timer
}

func (w *waiter) expired() bool {
	return !w.deadline.IsZero() && !time.Now().Before(w.deadline)
}

// wait returns after a Broadcast, at the deadline, and at until unless that is
// zero. It may return early.
func (w *waiter) wait(until time.Time) {
	if until.IsZero() || !w.deadline.IsZero() && w.deadline.Before(until) {
		until = w.deadline
	}
	if !until.IsZero() {
		d := time.Until(until)
		if w.timer == nil {
			w.timer = time.AfterFunc(d, func() {
				w.L.Lock()
				defer w.L.Unlock()
				w.Broadcast()
			})
		} else {
			w.timer.Reset(d)
		}
		defer w.timer.Stop()
	}
	w.Wait()
}
