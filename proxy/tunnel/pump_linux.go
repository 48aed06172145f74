package tunnel

import (
	"espalier/proxy/tunnel/kernel"
	"espalier/proxy/tunnel/pipes"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// turnBudget is how many chunks a direction may move before others have their
// turn. Without it, round trips wait behind bulk.
const turnBudget = 16

// minChunk is what a direction splices at once when it turns to splicing.
const minChunk = 64 << 10

// pump moves bytes in direction d, which is flowing or draining, until it is in another
// state. It may end the tunnel.
//
// Messages go through the worker's buffer: one receive, one send. A read that
// fills the buffer turns the direction to splicing, which takes a pipe from the
// pool for as long as bytes move. An idle direction holds neither.
func (w *worker) pump(i uint32, d int) {
	s, m := w.slots.at(i)
	x := &s.dir[d]
	for range turnBudget {
		more := false
		switch {
		case x.held > 0 || len(m.left[d]) > 0:
			more = w.flush(i, d)
		case x.chunk > 0 && w.takePipe(x):
			more = w.fill(i, d)
		default:
			more = w.message(i, d)
		}
		if !more {
			return
		}
	}
	if x.held == 0 {
		w.putPipe(x) // others may take it meanwhile
	}
	x.state = queued
	w.ready = append(w.ready, turn{i, s.gen, d})
	if x.chunk > 0 {
		// Sustained bulk: every packet that arrives would wake Go's poller in vain.
		w.watch(i, d, s.watched[d]&^incoming|edges)
	}
}

// message relays one read through the worker's buffer. It reports whether the
// direction can go on, as flush and fill do.
func (w *worker) message(i uint32, d int) bool {
	s, _ := w.slots.at(i)
	x := &s.dir[d]
	n, err := kernel.Read(s.fd[d], w.buf[:])
	if n == 0 {
		w.dry(i, d, err)
		return false
	}
	if !w.carry(i, d, w.buf[:n]) {
		return false
	}
	switch {
	case n < len(w.buf) && x.state == flowing:
		w.dry(i, d, unix.EAGAIN) // more raises an event
		return false
	case n == len(w.buf) && x.chunk == 0:
		x.chunk = minChunk
	}
	return true
}

// carry writes b, which it does not keep, to the destination. It reports whether the
// direction can go on.
func (w *worker) carry(i uint32, d int, b []byte) bool {
	s, m := w.slots.at(i)
	sent, err := kernel.Write(s.fd[1-d], b)
	if err != nil && err != unix.EAGAIN {
		w.deaf(i, 1-d, err)
		return false
	}
	w.moved(i, d, sent)
	if sent < len(b) {
		m.left[d] = append([]byte(nil), b[sent:]...)
		w.block(i, d)
		return false
	}
	return true
}

// fill splices from the source into the direction's pipe.
func (w *worker) fill(i uint32, d int) bool {
	s, _ := w.slots.at(i)
	x := &s.dir[d]
	n, err := kernel.Splice(s.fd[d], x.pipe.W, int(min(x.chunk, x.pipe.Size)))
	if n == 0 {
		w.putPipe(x)
		if err == unix.EINVAL {
			x.chunk = unspliced
			return true
		}
		if err == unix.EAGAIN && x.run < minChunk {
			x.chunk = 0 // a message was all
		}
		x.run = 0
		w.dry(i, d, err)
		return false
	}
	x.held = int32(n)
	x.run = min(x.run+x.held, minChunk)
	if x.held >= x.chunk && x.chunk < x.pipe.Size {
		x.chunk = min(2*x.chunk, x.pipe.Size) // the source has more than is asked for
	}
	return true
}

// takePipe sees to it that a direction has a pipe. It reports false where the budget is
// spent; the direction then turns back to small messages.
func (w *worker) takePipe(x *direction) bool {
	if x.pipe.Size == 0 {
		if x.pipe = w.pipes.Take(); x.pipe.Size == 0 {
			x.chunk = 0
		}
	}
	return x.pipe.Size > 0
}

// putPipe takes back the pipe of a direction, where it has one. One that still holds bytes
// is of a tunnel that has failed.
func (w *worker) putPipe(x *direction) {
	if x.pipe.Size > 0 {
		w.pipes.Put(x.pipe, x.held == 0)
		x.pipe, x.held = pipes.Pipe{}, 0
	}
}

// flush moves what the direction holds on to the destination.
func (w *worker) flush(i uint32, d int) bool {
	s, m := w.slots.at(i)
	x := &s.dir[d]
	var n int
	var err error
	if x.held > 0 {
		n, err = kernel.Splice(x.pipe.R, s.fd[1-d], int(x.held))
	} else {
		n, err = kernel.Write(s.fd[1-d], m.left[d])
	}
	switch {
	case err == unix.EAGAIN:
		if x.held > x.chunk/2 {
			x.chunk = max(x.chunk/2, minChunk) // a slow receiver gets no large pipe-fuls
		}
		w.block(i, d)
		return false
	case err != nil:
		w.deaf(i, 1-d, err)
		return false
	}
	w.moved(i, d, n)
	if x.held > 0 {
		x.held -= int32(n)
	} else if m.left[d] = m.left[d][n:]; len(m.left[d]) == 0 {
		m.left[d] = nil
	}
	return true
}

// dry acts on a source that has nothing more, most often for now: err is EAGAIN then,
// and nil at its end.
func (w *worker) dry(i uint32, d int, err error) {
	s, _ := w.slots.at(i)
	fault := s.dir[1-d].fault
	switch {
	case err != nil && err != unix.EAGAIN:
		w.fail(i, d, readFrom, err)
	case fault != 0: // these were its last words
		w.fail(i, d, writeTo, syscall.Errno(fault))
	case err == nil:
		w.pass(i, d)
	default:
		s.dir[d].state = waiting
		w.watch(i, d, s.watched[d]|incoming)
	}
}

// pass tells the destination that the source has ended. The tunnel ends when both
// directions have.
func (w *worker) pass(i uint32, d int) {
	s, _ := w.slots.at(i)
	s.dir[d].state = ended
	s.since = w.now
	if s.dir[1-d].over() {
		w.end(i, nil)
	} else if err := kernel.ShutdownWrite(s.fd[1-d]); err != nil {
		w.deaf(i, 1-d, err)
	}
}

// moved counts n bytes that the destination took.
func (w *worker) moved(i uint32, d, n int) {
	if n == 0 {
		return
	}
	s, m := w.slots.at(i)
	s.since = w.now
	s.bytes[d] += int64(n)
	count(m.service, d, n)
	if !s.stirred {
		s.stirred = true
		if len(w.stirred) == 0 {
			w.engine.stirred.Store(true)
			w.engine.cfg.stir()
		}
		w.stirred = append(w.stirred, i)
	}
}

// block notes that the destination of d has no room and watches for it.
func (w *worker) block(i uint32, d int) {
	s, _ := w.slots.at(i)
	s.dir[d].state = full
	w.watch(i, 1-d, s.watched[1-d]|unix.EPOLLOUT)
}

// deaf acts on a side that nothing can be sent to any more, most often because it
// has reset the connection. What it sent before still goes to the other side, as
// it would without a proxy; then the tunnel fails.
func (w *worker) deaf(i uint32, side int, err error) {
	s, m := w.slots.at(i)
	from, to := &s.dir[side], &s.dir[1-side]
	w.putPipe(to)
	m.left[1-side] = nil
	errno, ok := err.(syscall.Errno)
	switch {
	case tookAll(from.state == ended, err):
		w.end(i, nil)
		return
	case !ok || from.over():
		w.fail(i, side, writeTo, err)
		return
	}
	to.fault = int32(errno)
	if to.state != ended {
		to.state = refused
	}
	switch from.state {
	case waiting:
		from.state = draining
		w.pump(i, side)
	case opening:
		w.hear(i, true)
	}
}

// fail ends a tunnel whose side has failed. A reset is passed on as one, unless
// that would drop bytes on their way to the other side.
func (w *worker) fail(i uint32, side int, what string, err error) {
	s, m := w.slots.at(i)
	if isGone(err) && s.dir[side].held == 0 && len(m.left[side]) == 0 {
		kernel.ResetIfSent(s.fd[1-side])
	}
	w.end(i, &Error{Client: side == client, Op: what, Err: err})
}

// What a side may be watched for; edges alone: for nothing but its failure.
const (
	edges    = uint32(unix.EPOLLET & 0xffffffff)
	incoming = edges | unix.EPOLLIN | unix.EPOLLRDHUP
	outgoing = edges | unix.EPOLLOUT
)

// watch changes what a side of a tunnel is watched for. It ends a tunnel that cannot be.
func (w *worker) watch(i uint32, side int, events uint32) bool {
	err := w.register(i, side, events)
	if err != nil {
		w.end(i, fmt.Errorf("epoll: %w", err))
	}
	return err == nil
}

// register is watch for a slot in any phase. Sides that are not in the epoll set are added.
func (w *worker) register(i uint32, side int, events uint32) error {
	s, _ := w.slots.at(i)
	if s.watched[side] == events {
		return nil
	}
	event := unix.EpollEvent{Events: events, Fd: int32(i<<1 | uint32(side)), Pad: s.gen}
	var err error
	if s.watched[side] == 0 {
		err = w.poller.Add(s.fd[side], event)
	} else {
		err = w.poller.Modify(s.fd[side], event)
	}
	if err == nil {
		s.watched[side] = events
	}
	return err
}
