package tunnel

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// turnBudget is how many chunks a direction may move before others have their
// turn. Without it, round trips wait behind bulk.
const turnBudget = 16

// minChunk is what a direction splices at once when it turns to splicing.
const minChunk = 64 << 10

// pump moves bytes in direction d until the source is drained, the destination
// is full, the direction ends or its budget is spent. It may end the tunnel.
//
// Messages go through the worker's buffer: one receive, one send. A read that
// fills the buffer turns the direction to splicing, which takes a pipe from the
// pool for as long as bytes move. An idle direction holds neither.
func (w *worker) pump(i uint32, d int) {
	s, m := w.slots.at(i)
	x := &s.dir[d]
	for budget := turnBudget; budget > 0; budget-- {
		if x.blocked || x.done {
			return
		}
		if x.held > 0 || len(m.left[d]) > 0 {
			if !w.flush(i, s, m, d) {
				return
			}
			continue
		}
		if x.eof {
			w.pass(i, s, d)
			return
		}
		if !x.readable {
			w.pipes.put(x)
			return
		}
		more := false
		if x.chunk > 0 && w.pipes.take(x) {
			more = w.fill(i, s, d)
		} else {
			more = w.message(i, s, m, d)
		}
		if !more {
			return
		}
	}
	if x.held == 0 {
		w.pipes.put(x) // others may take it meanwhile
	}
	if !x.muted && x.chunk > 0 {
		// Sustained bulk: every packet that arrives would wake Go's poller in vain.
		x.muted = true
		if err := w.watch(i, d, unix.EPOLL_CTL_MOD); err != nil {
			w.end(i, fmt.Errorf("epoll: %w", err))
			return
		}
	}
	if !x.queued {
		x.queued = true
		w.ready = append(w.ready, turn{i, s.gen, d})
	}
}

// message relays one read through the worker's buffer. It reports whether the
// direction can go on.
func (w *worker) message(i uint32, s *slot, m *meta, d int) bool {
	x := &s.dir[d]
	n, err := read(s.fd[d], w.buf[:])
	switch {
	case err == unix.EAGAIN:
		w.drained(i, s, d)
		return false
	case err != nil:
		w.fail(i, d, readFrom, err)
		return false
	case n == 0:
		x.eof = true
		return true
	}
	sent, err := write(s.fd[1-d], w.buf[:n])
	if err != nil && err != unix.EAGAIN {
		w.deaf(i, 1-d, err)
		return false
	}
	w.moved(s, m, d, sent)
	if sent < n {
		m.left[d] = append([]byte(nil), w.buf[sent:n]...)
		w.block(i, s, d)
		return false
	}
	if n == len(w.buf) {
		if !x.noSplice {
			x.chunk = minChunk
		}
		return true
	}
	if !x.hup {
		w.drained(i, s, d) // a short read was all; more raises an event
	}
	return x.hup
}

// drained notes that the source of d has nothing more, and waits for its events
// again.
func (w *worker) drained(i uint32, s *slot, d int) {
	if s.errno[d] != 0 {
		w.fail(i, d, writeTo, syscall.Errno(s.errno[d]))
		return
	}
	x := &s.dir[d]
	x.readable = false
	if x.muted {
		x.muted = false
		if err := w.watch(i, d, unix.EPOLL_CTL_MOD); err != nil {
			w.end(i, fmt.Errorf("epoll: %w", err))
		}
	}
}

// fill splices from the source into the direction's pipe. It reports whether the
// direction can go on.
func (w *worker) fill(i uint32, s *slot, d int) bool {
	x := &s.dir[d]
	p := w.pipes.of(x)
	n, err := splice(s.fd[d], p.w, min(int(x.chunk), int(p.size)))
	switch {
	case err == unix.EAGAIN:
		if x.run < minChunk {
			x.chunk = 0 // a message was all
		}
		x.run = 0
		w.pipes.put(x)
		w.drained(i, s, d)
		return false
	case err == unix.EINVAL:
		x.chunk, x.noSplice = 0, true
		w.pipes.put(x)
		return true
	case err != nil:
		w.fail(i, d, readFrom, err)
		return false
	case n == 0:
		x.eof = true
		w.pipes.put(x)
		return true
	}
	x.held = int32(n)
	x.run = min(x.run+x.held, minChunk)
	if x.held >= x.chunk && x.chunk < p.size {
		x.chunk = min(2*x.chunk, p.size) // the source has more than is asked for
	}
	return true
}

// flush moves what the direction holds on to the destination. It reports whether
// the direction can go on.
func (w *worker) flush(i uint32, s *slot, m *meta, d int) bool {
	x := &s.dir[d]
	var n int
	var err error
	if x.held > 0 {
		n, err = splice(w.pipes.of(x).r, s.fd[1-d], int(x.held))
	} else {
		n, err = write(s.fd[1-d], m.left[d])
	}
	switch {
	case err == unix.EAGAIN:
		if x.held > x.chunk/2 {
			x.chunk = max(x.chunk/2, minChunk) // a slow receiver gets no large pipe-fuls
		}
		w.block(i, s, d)
		return false
	case err != nil:
		w.deaf(i, 1-d, err)
		return false
	}
	w.moved(s, m, d, n)
	if x.held > 0 {
		x.held -= int32(n)
	} else if m.left[d] = m.left[d][n:]; len(m.left[d]) == 0 {
		m.left[d] = nil
	}
	return true
}

// moved counts n bytes that the destination took.
func (w *worker) moved(s *slot, m *meta, d, n int) {
	if n == 0 {
		return
	}
	s.last = w.now
	s.bytes[d] += int64(n)
	if d == up {
		m.service.AddUp(int64(n))
	} else {
		m.service.AddDown(int64(n))
	}
}

// block notes that the destination of d has no room and watches for it.
func (w *worker) block(i uint32, s *slot, d int) {
	s.dir[d].blocked = true
	if dst := 1 - d; !s.out[dst] {
		s.out[dst] = true
		if err := w.watch(i, dst, unix.EPOLL_CTL_MOD); err != nil {
			w.end(i, fmt.Errorf("epoll: %w", err))
		}
	}
}

// pass tells the destination that the source has ended, once all that it sent is
// passed on. The tunnel ends when both directions have.
func (w *worker) pass(i uint32, s *slot, d int) {
	if s.errno[d] != 0 {
		w.fail(i, d, writeTo, syscall.Errno(s.errno[d]))
		return
	}
	w.pipes.put(&s.dir[d])
	s.dir[d].done = true
	s.last = w.now
	if s.dir[1-d].done {
		w.end(i, nil)
		return
	}
	if err := shutdownWrite(s.fd[1-d]); err != nil {
		w.deaf(i, 1-d, err)
	}
}

// deaf acts on a side that nothing can be sent to any more, most often because it
// has reset the connection. What it sent before still goes to the other side, as
// it would without a proxy; then the tunnel fails.
func (w *worker) deaf(i uint32, side int, err error) {
	s, m := w.slots.at(i)
	w.pipes.put(&s.dir[1-side])
	m.left[1-side] = nil
	s.dir[1-side].done = true
	x := &s.dir[side]
	errno, ok := err.(syscall.Errno)
	switch {
	case x.eof && isGone(err): // it closed in order, and wants no more
		w.end(i, nil)
		return
	case !ok || x.done:
		w.fail(i, side, writeTo, err)
		return
	}
	s.errno[side] = int32(errno)
	if !x.blocked && !x.queued {
		x.readable, x.hup = true, true
		w.pump(i, side)
	}
}

// fail ends a tunnel whose side has failed. A reset is passed on as one, unless
// that would drop bytes on their way to the other side.
func (w *worker) fail(i uint32, side int, what string, err error) {
	s, m := w.slots.at(i)
	other := int(s.fd[1-side])
	if isGone(err) && s.dir[side].held == 0 && len(m.left[side]) == 0 {
		if queued, qerr := unix.IoctlGetInt(other, unix.SIOCOUTQ); qerr == nil && queued == 0 {
			_ = unix.SetsockoptLinger(other, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
	}
	w.end(i, &Error{Client: side == client, Op: what, Err: err})
}
