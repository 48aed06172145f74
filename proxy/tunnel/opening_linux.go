package tunnel

import (
	"bytes"
	"espalier/proxy/tunnel/kernel"

	"golang.org/x/sys/unix"
)

// A hold is an opening that is not complete.
type hold struct {
	slot  uint32
	gen   int32
	since int64 // ns
}

// hear reads what the client of a tunnel says first, until the Owner has judged it. ending
// says that the client's end, or failure, is to be read.
func (w *worker) hear(i uint32, ending bool) {
	s, m := w.slots.at(i)
	for gen := s.gen; s.gen == gen && s.dir[up].state == opening; {
		n, err := kernel.Read(s.fd[client], w.buf[:])
		switch {
		case n == 0 && err == unix.EAGAIN:
			return
		case n == 0 && err == nil && len(m.left[up]) > 0:
			w.end(i, errHeldEnded)
			return
		case n == 0:
			m.left[up] = nil
			s.dir[up].state = draining
			w.dry(i, up, err)
			return
		}
		b := w.buf[:n]
		if held := m.left[up]; len(held) > 0 {
			b = append(held, b...)
			m.left[up] = b
		}
		drained := n < len(w.buf) && !ending // more raises an event
		if w.judge(i, b, drained); drained {
			return
		}
	}
}

// judge asks the Owner about all that the client has sent, b, which is in the worker's buffer
// or what is left of up. drained says that the client has nothing more for now.
func (w *worker) judge(i uint32, b []byte, drained bool) {
	s, m := w.slots.at(i)
	v := ask(m.owner, b, s.bytes[down])
	switch v.Step {
	case Hold:
		if len(m.left[up]) == 0 {
			m.left[up] = bytes.Clone(b)
			w.holds = append(w.holds, hold{i, s.gen, w.now})
			w.engine.holding.set()
		}
	case Refuse:
		_, _ = kernel.Write(s.fd[client], v.Say)
		w.end(i, v.Err)
	case Take:
		w.giveAway(i, b)
	case Relay:
		if v.Service != nil {
			m.service.TunnelClosed()
			m.service = v.Service
			m.service.TunnelOpened()
		}
		m.left[up] = nil
		s.dir[up].state = draining
		switch {
		case !w.carry(i, up, b):
		case drained:
			w.dry(i, up, unix.EAGAIN)
		default:
			w.pump(i, up)
		}
	}
}

// expireHolds refuses openings that have been incomplete for too long.
func (w *worker) expireHolds() {
	now := w.engine.cfg.clock()
	due := 0
	for ; due < len(w.holds) && now-w.holds[due].since >= int64(holdTime); due++ {
		h := w.holds[due]
		if s, _ := w.slots.at(h.slot); s.gen == h.gen && s.dir[up].state == opening {
			w.guarded(h.slot, func(i uint32) { w.end(i, errHeldLong) })
		}
	}
	w.holds = append(w.holds[:0], w.holds[due:]...)
	if len(w.holds) > 0 {
		w.engine.holding.set()
	}
}

// giveAway leaves the client of a tunnel, which has sent b, to the Owner.
func (w *worker) giveAway(i uint32, b []byte) {
	s, m := w.slots.at(i)
	w.poller.Remove(s.fd[client])
	c, err := kernel.TCPConn(s.fd[client], keepAlive)
	s.fd[client] = -1 // closed, or the Owner's
	if err != nil {
		w.end(i, &Error{Client: true, Op: readFrom, Err: err})
		return
	}
	w.putPipe(&s.dir[down])
	kernel.Close(s.fd[upstream])
	service, owner, head := m.service, m.owner, bytes.Clone(b)
	w.slots.put(i)
	owner.TunnelTaken(Replay(c, head))
	w.engine.ended(service)
}
