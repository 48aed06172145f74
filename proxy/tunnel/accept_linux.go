package tunnel

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"espalier/proxy/head"
	"espalier/proxy/tunnel/kernel"
)

// listener is a listening socket that every worker accepts from.
type listener struct {
	fd   int32
	gate Gate
}

// event is the EpollEvent.Fd of its events.
func (ln *listener) event() int32 { return firstListener - ln.fd }

// acceptBatch bounds how many clients a worker takes before it looks after its
// tunnels again, and before the other workers had their share.
const acceptBatch = 16

// Accept implements Acceptor. Accepted sockets inherit the options of l.
func (e *loop) Accept(l *net.TCPListener, g Gate) (pause, stop func(), err error) {
	fd, err := kernel.Duplicate(l)
	if err != nil {
		return nil, nil, err
	}
	if err := cmp.Or(kernel.SetNoDelay(fd), kernel.SetKeepAlive(fd, keepAlive)); err != nil {
		kernel.Close(fd)
		return nil, nil, err
	}
	ln := &listener{fd: fd, gate: g}
	e.postAll(func(w *worker) { w.listen(ln) })
	pause = func() { e.postAll(func(w *worker) { w.pause(ln) }) }
	return pause, sync.OnceFunc(func() {
		var has sync.WaitGroup // workers that still have it
		for _, w := range e.workers {
			has.Add(1)
			if !w.post(func(w *worker) { w.unlisten(ln); has.Done() }) {
				has.Done()
			}
		}
		has.Wait()
		kernel.Close(fd)
	}), nil
}

// keepAlive is set on both legs of a tunnel. Probes come minutes apart, for
// tablets sleep.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: time.Minute, Count: 4}

// listen takes clients from ln. Adding it again, after it rested, does no harm.
func (w *worker) listen(ln *listener) {
	w.listeners[ln.event()] = ln
	// A client wakes every worker that is idle, and one of them gets it.
	// EPOLLEXCLUSIVE would not help: it has no effect in an epoll set that is
	// itself watched, as this is by Go's poller.
	_ = w.poller.Add(ln.fd, unix.EpollEvent{Events: unix.EPOLLIN, Fd: ln.event()})
}

// pause takes no more clients from ln.
func (w *worker) pause(ln *listener) {
	w.poller.Remove(ln.fd)
	delete(w.listeners, ln.event())
}

func (w *worker) unlisten(ln *listener) {
	w.pause(ln)
	// Clients that have not asked for anything are turned away, so that they try
	// the next proxy.
	w.each(func(i uint32, s *slot) {
		if _, m := w.slots.at(i); s.phase == reading && m.pending.gate == ln.gate {
			w.drop(i)
		}
	})
}

func (w *worker) accept(ln *listener) {
	for range acceptBatch {
		fd, from, err := kernel.Accept(ln.fd)
		switch err {
		case nil:
			w.greet(fd, from, ln.gate)
		case unix.EINTR, unix.ECONNABORTED:
		case unix.EAGAIN:
			return
		default:
			// Descriptors or memory have run out: a level-triggered listener would
			// spin. It rests until the next hurry.
			w.poller.Remove(ln.fd)
			w.engine.hurrying.set()
			if w.engine.cfg.Short != nil {
				w.engine.cfg.Short()
			}
			return
		}
	}
	w.again = true // a listener is told of once, however many clients wait
}

// greet takes a new client. Its head is usually there already.
func (w *worker) greet(fd int32, from netip.AddrPort, g Gate) {
	n, err := kernel.Read(fd, w.buf[:])
	switch {
	case err == unix.EAGAIN:
		i := w.slots.take()
		s, m := w.slots.at(i)
		s.fd = [2]int32{fd, -1}
		s.phase, s.since = reading, w.now
		m.pending = w.takePending()
		m.pending.gate, m.pending.from = g, from
		w.reading++
		w.engine.pending.Add(1)
		if w.register(i, client, incoming) != nil {
			w.drop(i)
			return
		}
		w.waiting = append(w.waiting, turn{slot: i, gen: s.gen})
		w.engine.hurrying.set()
		w.turnAway(fd)
	case err != nil || n == 0:
		kernel.Close(fd)
	default:
		w.ask(fd, from, g, w.buf[:n])
	}
}

// readHead reads what a client has sent at last.
func (w *worker) readHead(i uint32) {
	s, m := w.slots.at(i)
	n, err := kernel.Read(s.fd[client], w.buf[:])
	if err == unix.EAGAIN {
		return
	}
	if err != nil || n == 0 {
		w.drop(i)
		return
	}
	fd, from, g := s.fd[client], m.pending.from, m.pending.gate
	w.poller.Remove(fd)
	w.release(i)
	w.ask(fd, from, g, w.buf[:n])
}

// turnAway closes the clients that have waited longest for their own head, while
// there are too many of them. fd is the descriptor of the newest.
func (w *worker) turnAway(fd int32) {
	cfg := &w.engine.cfg
	limit := cfg.MaxWaiting
	if w.scarce(fd) {
		limit = min(limit, cfg.MaxScarce)
	}
	if limit == 0 {
		return
	}
	for limit = max(limit/len(w.engine.workers), 1); w.reading > limit; {
		first := w.waiting[0]
		w.waiting = w.waiting[1:]
		if s, _ := w.slots.at(first.slot); s.gen == first.gen {
			w.drop(first.slot)
			if cfg.Turned != nil {
				cfg.Turned()
			}
		}
	}
}

// forget removes from waiting the clients that have asked or are gone.
func (w *worker) forget() {
	w.waiting = slices.DeleteFunc(w.waiting, func(t turn) bool {
		s, _ := w.slots.at(t.slot)
		return s.gen != t.gen
	})
}

// scarce reports whether fd is beyond Config.Descriptors.
func (w *worker) scarce(fd int32) bool {
	limit := w.engine.cfg.Descriptors
	return limit > 0 && int(fd) >= limit
}

// ask asks the gate about a client's first bytes b, and connects. fd is in no
// epoll set.
func (w *worker) ask(fd int32, from netip.AddrPort, g Gate, b []byte) {
	h, ok := w.parse(b)
	if !ok || string(h.Method) != "CONNECT" || w.scarce(fd) {
		w.handOver(fd, g, b, HandedOn{})
		return
	}
	p := w.takePending()
	r, ok := g.Route(from, h, p.route.Addrs)
	if !ok || !w.engine.census.enter() {
		w.putPending(p)
		w.handOver(fd, g, b, HandedOn{Owner: r.Owner})
		return
	}
	p.route = r
	p.gate, p.from, p.head = g, from, h.Len
	p.sent = append(p.sent, b...)
	i := w.slots.take()
	s, m := w.slots.at(i)
	s.fd = [2]int32{fd, -1}
	s.phase, s.since = connecting, w.engine.cfg.clock()
	m.service, m.owner, m.pending = r.Service, r.Owner, p
	gen := s.gen
	w.guarded(i, w.attempt)
	if s.gen == gen && s.phase == connecting {
		w.engine.hurrying.set()
		_ = w.register(i, client, incoming) // else begin tries again
	}
}

// parse is head.ParseRequest, of which a panic makes what the general way has to
// read.
func (w *worker) parse(b []byte) (r head.Request, ok bool) {
	defer func() {
		if w.engine.cfg.caught(recover()) {
			ok = false
		}
	}()
	r, err := head.ParseRequest(b)
	return r, err == nil
}

// drop ends a slot that is no tunnel yet.
func (w *worker) drop(i uint32) {
	s, _ := w.slots.at(i)
	if s.phase == connecting {
		w.abandon(i, ErrShutdown)
		return
	}
	kernel.Close(s.fd[client])
	w.release(i)
}

// abandon ends a slot that is connecting, whose client gets no answer because of err.
func (w *worker) abandon(i uint32, err error) {
	s, m := w.slots.at(i)
	owner, stats := m.owner, Stats{Connect: time.Duration(w.engine.cfg.clock() - s.since), Unopened: true, Err: err}
	kernel.Close(s.fd[client])
	w.release(i)
	w.engine.cfg.tell(owner, stats)
}

// release frees a slot that is reading or connecting; the client is closed, or is to be
// handed over.
func (w *worker) release(i uint32) {
	s, m := w.slots.at(i)
	was := s.phase
	w.giveUp(m.pending, 0)
	w.putPending(m.pending)
	w.slots.put(i)
	if was == connecting {
		w.engine.census.leave()
	} else {
		w.reading--
		w.engine.pending.Add(-1)
	}
}

// handOver gives a client to the gate, with the bytes b that it has sent, and h. fd
// is in no epoll set: the registration would outlive it in the duplicate. If
// descriptors have run out, the client finds its connection closed, and the Owner is
// told.
func (w *worker) handOver(fd int32, g Gate, b []byte, h HandedOn) {
	c, err := kernel.TCPConn(fd, keepAlive)
	if err != nil {
		if h.Owner != nil {
			w.engine.cfg.tell(h.Owner, Stats{Connect: h.Connect, Unopened: true, Err: fmt.Errorf("hand over the client: %w", err)})
		}
		return
	}
	g.Serve(c, slices.Clone(b), h)
}
