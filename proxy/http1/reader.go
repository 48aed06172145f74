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
// the next request. It runs from the beginning if there is a body, else only once the
// origin keeps the client waiting.
type reader struct {
	c *conn
	o *egress.Origin

	body    body
	running bool // it was started
	done    sync.WaitGroup

	moved   atomic.Int64 // when the client last sent something or ended; Unix time, ns
	upload  atomic.Int32 // the state of the body
	client  atomic.Int32 // the state of the client
	stopped atomic.Bool

	err error // of the body; to be read after stop
}

// The states of a request's body. It goes through them in turn, unless it fails.
const (
	unsent  int32 = iota // what has not come with the head is still to be read
	sending              // the reader reads it
	drained              // it was read
	sent                 // and sent
)

// The states of a client: present becomes one of the others at most.
const (
	present    int32 = iota
	halfClosed       // it has ended its direction
	left             // it has gone
)

func (r *reader) hasLeft() bool    { return r.client.Load() == left }
func (r *reader) hasDrained() bool { return r.upload.Load() >= drained }

func (r *reader) movedNow() { r.moved.Store(time.Now().UnixNano()) }

// begin is called when the request was sent to o, but for the last rest bytes of its body.
func (r *reader) begin(c *conn, o *egress.Origin, rest int64) {
	r.c, r.o = c, o
	r.movedNow()
	if rest == 0 {
		r.upload.Store(sent)
		return
	}
	r.upload.Store(sending)
	r.body = body{reader: r, up: true, dst: o.Conn, src: c.Conn, length: rest}
	r.start()
}

// start has the client read, unless it is.
func (r *reader) start() {
	if !r.running {
		r.running = true
		r.done.Go(r.run)
	}
}

func (r *reader) run() {
	defer func() {
		if fault := recover(); fault != nil {
			r.c.cfg.Pipeline.Panicked(nil, fault)
			r.err = fmt.Errorf("panic: %v", fault)
			r.o.Interrupt()
		}
	}()
	if r.upload.Load() != sent {
		if err := r.body.pass(nil); err != nil {
			r.failed(err)
			return
		}
		r.upload.Store(sent)
	}
	r.c.WaitLong()
	if len(r.c.Unread()) > 0 {
		return // the next request
	}
	switch err := r.c.More(0); {
	case err == nil, isTimeout(err): // the next request, or stop
	case err == io.EOF:
		r.movedNow()
		r.client.Store(halfClosed)
		_ = r.o.SetReadDeadline(time.Now().Add(r.c.cfg.Times.HalfClosed))
	default:
		r.client.Store(left)
		r.o.Interrupt()
	}
}

// failed notes that the body did not pass.
func (r *reader) failed(err error) {
	if r.stopped.Load() && !errors.Is(err, head.ErrChunks) {
		return // which made it fail
	}
	if !fromSource(err) {
		r.err = fmt.Errorf("send the request body: %w", err)
		if isTimeout(err) { // else its answer may say why
			r.o.Interrupt()
		}
		return
	}
	r.err = &upstream.UploadError{Err: err}
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ETIMEDOUT) {
		r.client.Store(left)
	}
	r.o.Interrupt()
}

func isUpload(err error) bool {
	_, ok := err.(*upstream.UploadError)
	return ok
}

// stop ends the reader. Nothing reads the client then. If the body has not passed, the
// connection to the origin is of no more use.
func (r *reader) stop() {
	if !r.running {
		return
	}
	r.stopped.Store(true)
	r.c.Halt()
	switch r.upload.Load() {
	case sending:
		r.o.Interrupt()
	case drained: // its last bytes are being sent
		interrupt := time.AfterFunc(upstream.LastBytes, r.o.Interrupt)
		defer interrupt.Stop()
	}
	r.done.Wait()
	r.c.Resume()
}
