package http1

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"espalier/proxy/egress"
	"espalier/proxy/head"
	"espalier/proxy/upstream"
)

// A reader reads the client while its request is answered: the rest of the body,
// which goes to the origin, and after that what shows that the client has left, or
// the next request. It begins at once if there is a body, else only where an answer
// takes its time.
type reader struct {
	c *conn
	o *egress.Origin

	body    *body       // nil: the request has none left
	timer   *time.Timer // that begins it, made by the first request of a connection that needs it
	waiting bool        // for timer
	done    sync.WaitGroup

	moved      atomic.Int64 // when the client last sent something or ended; Unix time, ns
	halfClosed atomic.Bool  // the client has ended its direction
	left       atomic.Bool  // the client has gone

	drained atomic.Bool // all of the body was read
	sent    atomic.Bool // and sent
	stopped atomic.Bool

	err error // of the body; to be read after stop
}

func (r *reader) movedNow() { r.moved.Store(time.Now().UnixNano()) }

// read starts the connection's reader. rest is the length of what is left of the body.
func (c *conn) read(o *egress.Origin, rest int64) *reader {
	r := &c.reader
	*r = reader{c: c, o: o, timer: r.timer}
	r.movedNow()
	r.done.Add(1)
	if rest == 0 {
		r.drained.Store(true)
		r.sent.Store(true)
		r.waiting = true
		if r.timer == nil {
			r.timer = time.AfterFunc(c.cfg.Times.Watch, r.run)
		} else {
			r.timer.Reset(c.cfg.Times.Watch)
		}
		return r
	}
	r.body = &body{dst: o.Conn, src: c.Conn, length: rest, take: c.cfg.Times.Stall, send: c.cfg.Times.Stall, count: func(n int64) {
		c.x.AddUp(n)
		r.movedNow()
	}, drained: func() { r.drained.Store(true) }}
	go r.run()
	return r
}

func (r *reader) run() {
	defer r.done.Done()
	defer func() {
		if fault := recover(); fault != nil {
			r.c.cfg.Pipeline.Panicked(nil, fault)
			r.err = fmt.Errorf("panic: %v", fault)
			r.o.Interrupt()
		}
	}()
	if r.body != nil {
		if err := r.body.pass(nil); err != nil {
			r.failed(err)
			return
		}
		r.sent.Store(true)
	}
	r.c.WaitLong()
	if len(r.c.Unread()) > 0 {
		return // the next request
	}
	switch err := r.c.More(0); {
	case err == nil, isTimeout(err): // the next request, or stop
	case err == io.EOF:
		r.movedNow()
		r.halfClosed.Store(true)
		_ = r.o.SetReadDeadline(time.Now().Add(r.c.cfg.Times.HalfClosed))
	default:
		r.left.Store(true)
		r.o.Interrupt()
	}
}

// failed notes that the body did not pass.
func (r *reader) failed(err error) {
	if r.stopped.Load() && !errors.Is(err, head.ErrChunks) {
		return // which made it fail
	}
	if !sentBy(err) {
		r.err = fmt.Errorf("send the request body: %w", err)
		if stalled(err) { // else its answer may say why
			r.o.Interrupt()
		}
		return
	}
	r.err = &upstream.UploadError{Err: err}
	r.left.Store(errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ETIMEDOUT))
	r.o.Interrupt()
}

func isUpload(err error) bool {
	_, ok := err.(*upstream.UploadError)
	return ok
}

// stop ends the reader. Nothing reads the client then. If the body has not passed, the
// connection to the origin is of no more use.
func (r *reader) stop() {
	if r.waiting && r.timer.Stop() {
		r.done.Done()
		return
	}
	r.stopped.Store(true)
	r.c.Halt()
	if r.body != nil && !r.sent.Load() {
		if r.drained.Load() { // and its last bytes are being sent
			interrupt := time.AfterFunc(upstream.LastBytes, r.o.Interrupt)
			defer interrupt.Stop()
		} else {
			r.o.Interrupt()
		}
	}
	r.done.Wait()
	r.c.Resume()
}
