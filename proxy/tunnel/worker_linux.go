package tunnel

import (
	"cmp"
	"espalier/proxy/tunnel/kernel"
	"espalier/proxy/tunnel/pipes"
	"fmt"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// worker is a goroutine that relays the tunnels it owns.
type worker struct {
	engine *loop
	poller *kernel.Poller // woken when the inbox gets its first entry

	mu    sync.Mutex
	inbox []func(*worker) // what others ask of the worker
	spare []func(*worker) // empty, for the next inbox
	dead  bool            // the inbox is not read any more

	slots     slots
	pipes     pipes.Pool
	listeners map[int32]*listener // by event
	ready     []turn              // directions that had more to do than their budget
	stirred   []uint32            // slots that have relayed since report, maybe for a former tenant
	waiting   []turn              // clients whose head has not come, the first first; some are gone
	reading   int                 // of them that are there
	unused    []*pending
	delays    []delayed   // attempts to come, the first first
	holds     []hold      // openings that are not complete, the first first; some are judged
	timer     *time.Timer // for the first of them; nil: none yet
	now       int64
	again     bool // there may be events that raise no further news
	stopped   bool
	events    [128]unix.EpollEvent
	buf       [16 << 10]byte
}

// turn is a direction of a slot that waits for its next turn.
type turn struct {
	slot uint32
	gen  int32
	dir  int
}

// Values of EpollEvent.Fd that are not of a slot: of Poller.Wake, and of listeners from
// firstListener downwards.
const (
	wakeEvent     = -1
	firstListener = -2
)

func newWorker(e *loop) (*worker, error) {
	poller, err := kernel.NewPoller(wakeEvent)
	if err != nil {
		return nil, err
	}
	return &worker{engine: e, poller: poller, listeners: map[int32]*listener{}, pipes: pipes.NewPool(&e.pipes)}, nil
}

// destroy closes the worker's own descriptors.
func (w *worker) destroy() {
	w.poller.Close()
	w.pipes.Close()
}

// post has the worker call f. It may be called from any goroutine. It reports false,
// and f is not called, after the worker's end.
func (w *worker) post(f func(*worker)) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return false
	}
	w.inbox = append(w.inbox, f)
	if len(w.inbox) == 1 {
		w.poller.Wake()
	}
	return true
}

// readInbox does what was posted. The last one is the last at all.
func (w *worker) readInbox(last bool) {
	w.mu.Lock()
	inbox := w.inbox
	w.inbox, w.spare, w.dead = w.spare, nil, last
	w.mu.Unlock()
	for _, f := range inbox {
		f(w)
	}
	clear(inbox)
	w.mu.Lock()
	w.spare = inbox[:0]
	w.mu.Unlock()
}

func (w *worker) run() {
	defer w.engine.running.Done()
	defer w.retire()
	if err := w.poller.Run(w.turn); err != nil {
		panic(fmt.Sprintf("epoll descriptor out of Go's poller: %v", err))
	}
}

// turn acts on all that there is to do. It reports whether the worker is done
// for good; otherwise it is called again at the next event.
func (w *worker) turn(epoll uintptr) (done bool) {
	for {
		n, err := kernel.Wait(epoll, w.events[:])
		if err != nil {
			panic(fmt.Sprintf("epoll_wait: %v", err))
		}
		w.now = w.engine.cfg.clock()
		w.again = n == len(w.events)
		for i := range n {
			w.event(&w.events[i])
		}
		w.takeTurns()
		if w.stopped || !w.again && len(w.ready) == 0 {
			return w.stopped
		}
	}
}

// retire ends the worker and every tunnel that it has.
func (w *worker) retire() {
	w.readInbox(true)
	w.each(func(i uint32, s *slot) {
		if s.phase == relaying {
			w.engine.left.Add(1)
			w.end(i, ErrShutdown)
		} else {
			w.drop(i)
		}
	})
	if w.timer != nil {
		w.timer.Stop()
	}
	w.destroy()
}

func (w *worker) event(ev *unix.EpollEvent) {
	switch {
	case ev.Fd == wakeEvent:
		w.poller.Woken()
		w.readInbox(false)
	case ev.Fd <= firstListener:
		if ln := w.listeners[ev.Fd]; ln != nil {
			w.accept(ln)
		}
	default:
		i, side := uint32(ev.Fd)>>1, int(ev.Fd&1)
		s, _ := w.slots.at(i)
		if s.gen != ev.Pad {
			return
		}
		defer w.guard(i, s.gen)
		switch {
		case s.phase == reading:
			w.readHead(i)
		case s.phase == connecting && side == client:
			w.waits(i, ev.Events)
		case s.phase == connecting:
			w.progress(i, ev.Events)
			if s.gen == ev.Pad && s.phase == relaying {
				// What arrived with the connection raises no event of its own.
				w.relay(i, side, ev.Events)
			}
		case s.phase == relaying:
			w.relay(i, side, ev.Events)
		}
	}
}

// ending are the events of a side that sends no more, or has failed.
const ending = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR

// relay acts on an event of a tunnel's side.
func (w *worker) relay(i uint32, side int, events uint32) {
	s, _ := w.slots.at(i)
	gen := s.gen
	if from := &s.dir[side]; events&(unix.EPOLLIN|ending) != 0 {
		switch {
		case from.state == opening:
			w.hear(i, events&ending != 0)
		case from.state == waiting && events&ending != 0:
			from.state = draining
			w.pump(i, side)
		case from.state == waiting:
			from.state = flowing
			w.pump(i, side)
		}
	}
	if to := &s.dir[1-side]; s.gen == gen && to.state == full && events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		to.state = draining
		w.pump(i, 1-side)
	}
	if s.gen == gen && events&unix.EPOLLERR != 0 {
		if errno, ok := kernel.PendingError(s.fd[side]).(syscall.Errno); ok {
			w.deaf(i, side, errno)
		}
	}
}

// takeTurns goes on with directions whose budget was spent.
func (w *worker) takeTurns() {
	turns := len(w.ready)
	for k := range turns {
		t := w.ready[k]
		if s, _ := w.slots.at(t.slot); s.gen == t.gen && s.dir[t.dir].state == queued {
			s.dir[t.dir].state = draining
			w.guarded(t.slot, func(i uint32) { w.pump(i, t.dir) })
		}
	}
	w.ready = append(w.ready[:0], w.ready[turns:]...)
}

// guarded calls f for a slot, and keeps its panic to that.
func (w *worker) guarded(i uint32, f func(i uint32)) {
	s, _ := w.slots.at(i)
	defer w.guard(i, s.gen)
	f(i)
}

// guard, deferred, keeps a panic to the slot that it was about.
func (w *worker) guard(i uint32, gen int32) {
	fault := recover()
	if !w.engine.cfg.caught(fault) {
		return
	}
	switch s, _ := w.slots.at(i); {
	case s.gen != gen: // it has ended
	case s.phase == relaying:
		w.end(i, fmt.Errorf("panic: %v", fault))
	default:
		w.drop(i)
	}
}

// each calls f for every slot that is in use; f may free it.
func (w *worker) each(f func(i uint32, s *slot)) {
	for c, chunk := range w.slots.chunks {
		for k := range chunk {
			if chunk[k].phase != free {
				f(uint32(c*chunkLen+k), &chunk[k])
			}
		}
	}
}

// begin starts to relay a slot whose two descriptors are connected. connect and to are
// those of Owner.TunnelOpened; a client whose tunnel the worker connected is told.
func (w *worker) begin(i uint32, connect time.Duration, to netip.AddrPort) {
	s, m := w.slots.at(i)
	gen := s.gen
	s.phase, s.since = relaying, w.now
	m.owner.TunnelOpened(connect, to)
	if to.IsValid() {
		if n, err := kernel.Write(s.fd[client], established); n < len(established) {
			// A new socket takes more than these bytes: err is set otherwise.
			w.fail(i, client, writeTo, cmp.Or(err, error(unix.EAGAIN)))
			return
		}
	}
	for side := range s.fd {
		if s.watched[side] == 0 && !w.watch(i, side, incoming) {
			return
		}
	}
	more := s.dir[up].state == draining // came while connecting
	s.dir[up].state = opening
	if head := m.left[up]; len(head) > 0 {
		m.left[up] = nil
		w.judge(i, head, !more) // else watch raises an event
	}
	if more && s.gen == gen && s.dir[up].state == opening {
		w.hear(i, true)
	}
}

var established = []byte("HTTP/1.1 200 Connection established\r\n\r\n")

// expire ends what has lasted for too long. Upstreams get their keepAlive here, since most
// tunnels have ended before: it saves them four system calls.
func (w *worker) expire() {
	cfg := &w.engine.cfg
	w.each(func(i uint32, s *slot) {
		lasted := time.Duration(w.now - s.since)
		switch _, m := w.slots.at(i); s.phase {
		case relaying:
			if err := cfg.expired(lasted, s.dir[up].over() || s.dir[down].over()); err != nil {
				w.end(i, err)
			} else if s.unkept {
				s.unkept = kernel.SetKeepAlive(s.fd[upstream], keepAlive) != nil
			}
		case connecting:
			if lasted >= m.pending.route.Timeout {
				w.slow(i)
			}
		case reading:
			if lasted >= headTimeout {
				w.drop(i)
			}
		}
	})
}

// report tells the Owners of tunnels that have moved since the last report.
func (w *worker) report() {
	for _, i := range w.stirred {
		s, m := w.slots.at(i)
		if s.stirred = false; s.phase == relaying {
			m.owner.TunnelMoved(s.bytes[up], s.bytes[down])
		}
	}
	w.stirred = w.stirred[:0]
}

// end closes a tunnel and tells its owner.
func (w *worker) end(i uint32, err error) {
	s, m := w.slots.at(i)
	for side := range s.fd {
		w.putPipe(&s.dir[side])
		kernel.Close(s.fd[side])
	}
	stats := Stats{Up: s.bytes[up], Down: s.bytes[down], Err: err}
	service, owner := m.service, m.owner
	w.slots.put(i)
	w.engine.cfg.tell(owner, stats)
	w.engine.ended(service)
}
