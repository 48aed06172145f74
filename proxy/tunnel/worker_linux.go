package tunnel

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"espalier/proxy/traffic"
)

// worker is a goroutine that relays the tunnels it owns.
type worker struct {
	engine *loop
	epoll  int
	file   *os.File        // the epoll descriptor, in Go's poller
	raw    syscall.RawConn // of file: parks the goroutine, not a thread
	wake   int             // an eventfd, written when the inbox gets its first message

	mu    sync.Mutex
	inbox []message
	dead  bool // nobody reads the inbox any more

	slots     slots
	pipes     pipes
	listeners []*listener
	ready     []turn // directions that had more to do than their budget
	waiting   []turn // clients whose head has not come, the first first; some are gone
	reading   int    // of them that are there
	unused    []*pending
	delays    []delayed   // attempts to come, the first first
	timer     *time.Timer // for the first of them; nil: none yet
	now       int64
	reported  int64 // when Followers were told what was relayed; ns
	again     bool  // there may be events that raise no further news
	stopped   bool
	events    [128]unix.EpollEvent
	buf       [16 << 10]byte
}

// A message is what others ask of a worker.
type message struct {
	kind     kind
	fd       [2]int
	head     []byte
	service  *traffic.Service
	owner    Owner
	listener *listener
	pick     func(*traffic.Service) bool
}

type kind uint8

const (
	msgTunnel kind = iota
	msgListen
	msgPause
	msgUnlisten
	msgAttempt // begin the attempts that are due
	msgTick    // look for timeouts, and give back what is not needed
	msgHurry   // look for timeouts, and accept again
	msgCut     // end the tunnels that pick names
	msgReport  // tell Followers what was relayed
	msgStop    // end the worker and what it has
)

// turn is a direction of a slot that waits for its next turn.
type turn struct {
	slot uint32
	gen  int32
	dir  int
}

// Values of EpollEvent.Fd that are no slot: the eventfd, and listeners from
// firstListener downwards.
const (
	wakeEvent     = -1
	firstListener = -2
)

func newWorker(e *loop) (*worker, error) {
	w := &worker{engine: e, epoll: -1, wake: -1}
	w.pipes.budget = &e.pipes
	var err error
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	if w.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		w.destroy()
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	err = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, w.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeEvent})
	if err == nil {
		err = unix.SetNonblock(w.epoll, true) // makes os.NewFile use Go's poller
	}
	if err != nil {
		w.destroy()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	w.file = os.NewFile(uintptr(w.epoll), "epoll")
	if w.raw, err = w.file.SyscallConn(); err != nil {
		w.destroy()
		return nil, err
	}
	return w, nil
}

// destroy closes the worker's own descriptors.
func (w *worker) destroy() {
	if w.file != nil {
		w.file.Close()
	} else if w.epoll >= 0 {
		unix.Close(w.epoll)
	}
	if w.wake >= 0 {
		unix.Close(w.wake)
	}
	w.pipes.closeAll()
}

// post hands m to the worker. It may be called from any goroutine.
func (w *worker) post(m message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		if m.kind == msgUnlisten {
			m.listener.gone.Done()
		}
		return
	}
	w.inbox = append(w.inbox, m)
	if len(w.inbox) == 1 {
		var one = [8]byte{1}
		_, _ = unix.Write(w.wake, one[:]) // cannot fail while it is open: the counter is far from full
	}
}

func (w *worker) run() {
	defer w.engine.running.Done()
	defer w.retire()
	// The goroutine lives inside Read, which calls turn again whenever the epoll
	// descriptor has news. Read looks for news itself before it calls the first
	// time only, so an event costs one epoll_wait and not a second that finds
	// nothing.
	if err := w.raw.Read(w.turn); err != nil {
		panic(fmt.Sprintf("epoll descriptor out of Go's poller: %v", err))
	}
}

// turn acts on all that there is to do. It reports whether the worker is done
// for good; otherwise it is called again at the next event.
func (w *worker) turn(epoll uintptr) (done bool) {
	for {
		n, err := epollWait(int(epoll), w.events[:])
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

// cut ends a slot in use, whatever it is, at the worker's end.
func (w *worker) cut(i uint32, s *slot) {
	if s.phase == relaying {
		w.engine.left.Add(1)
		w.end(i, ErrShutdown)
	} else {
		w.drop(i)
	}
}

// retire ends the worker and every tunnel that it has. What was posted too late
// to be read is answered here.
func (w *worker) retire() {
	w.each(w.cut)
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Lock()
	w.dead = true
	late := w.inbox
	w.inbox = nil
	w.mu.Unlock()
	for _, m := range late {
		if m.kind == msgUnlisten {
			m.listener.gone.Done()
		}
	}
	w.destroy()
}

func (w *worker) event(ev *unix.EpollEvent) {
	switch {
	case ev.Fd == wakeEvent:
		w.drainInbox()
	case ev.Fd <= firstListener:
		w.accept(int(firstListener - ev.Fd))
	default:
		i, side := uint32(ev.Fd)>>1, int(ev.Fd&1)
		s, _ := w.slots.at(i)
		if s.gen != ev.Pad {
			return
		}
		defer w.guard(i, s.gen)
		switch s.phase {
		case reading:
			w.readHead(i)
		case connecting:
			if side == client {
				w.waits(i, ev.Events)
				return
			}
			w.progress(i)
			if s.gen == ev.Pad && s.phase == relaying {
				// What arrived with the connection raises no event of its own.
				w.relay(i, side, ev.Events)
			}
		case relaying:
			w.relay(i, side, ev.Events)
		}
	}
}

// relay acts on an event of a tunnel's side.
func (w *worker) relay(i uint32, side int, events uint32) {
	s, _ := w.slots.at(i)
	gen := s.gen
	const ending = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	if events&(unix.EPOLLIN|ending) != 0 {
		s.dir[side].readable = true
		s.dir[side].hup = s.dir[side].hup || events&ending != 0
		w.pump(i, side)
	}
	if other := 1 - side; s.gen == gen && s.dir[other].blocked && events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.dir[other].blocked = false
		w.pump(i, other)
	}
	if s.gen == gen && events&unix.EPOLLERR != 0 {
		w.broken(i, side)
	}
}

// broken acts on a side whose connection has failed.
func (w *worker) broken(i uint32, side int) {
	s, _ := w.slots.at(i)
	if errno, ok := pendingError(s.fd[side]).(syscall.Errno); ok {
		w.deaf(i, side, errno)
	}
}

// takeTurns goes on with directions whose budget was spent.
func (w *worker) takeTurns() {
	turns := len(w.ready)
	for k := range turns {
		t := w.ready[k]
		if s, _ := w.slots.at(t.slot); s.gen == t.gen {
			s.dir[t.dir].queued = false
			w.takeTurn(t)
		}
	}
	w.ready = append(w.ready[:0], w.ready[turns:]...)
}

func (w *worker) takeTurn(t turn) {
	defer w.guard(t.slot, t.gen)
	w.pump(t.slot, t.dir)
}

// guarded calls f for a slot, and keeps its panic to that.
func (w *worker) guarded(i uint32, gen int32, f func(i uint32)) {
	defer w.guard(i, gen)
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

func (w *worker) drainInbox() {
	var b [8]byte
	_, _ = read(int32(w.wake), b[:])
	w.mu.Lock()
	inbox := w.inbox
	w.inbox = nil
	w.mu.Unlock()
	for _, m := range inbox {
		switch m.kind {
		case msgTunnel:
			i := w.slots.take()
			s, x := w.slots.at(i)
			s.fd = [2]int32{int32(m.fd[0]), int32(m.fd[1])}
			x.service, x.owner = m.service, m.owner
			x.left[up] = m.head
			w.begin(i)
		case msgListen:
			w.listen(m.listener)
		case msgPause:
			w.pause(m.listener)
		case msgUnlisten:
			w.unlisten(m.listener)
		case msgAttempt:
			w.nextAttempts()
		case msgTick:
			w.expire()
			w.pipes.shrink()
		case msgHurry:
			w.expire()
			w.forget()
			w.resumeListeners()
		case msgCut:
			w.each(func(i uint32, s *slot) {
				if _, x := w.slots.at(i); s.phase == relaying && m.pick(x.service) {
					w.end(i, ErrShutdown)
				}
			})
		case msgReport:
			w.report()
		case msgStop:
			w.stopped = true
		}
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

// watch registers a side of a slot, or changes what it is watched for.
func (w *worker) watch(i uint32, side int, op int) error {
	s, _ := w.slots.at(i)
	events := uint32(unix.EPOLLET)
	if !s.dir[side].muted {
		events |= unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if s.out[side] {
		events |= unix.EPOLLOUT
	}
	err := epollCtl(w.epoll, op, s.fd[side], &unix.EpollEvent{
		Events: events, Fd: int32(i<<1 | uint32(side)), Pad: s.gen,
	})
	s.watched[side] = s.watched[side] || err == nil
	return err
}

// begin starts to relay a slot whose two descriptors are connected.
func (w *worker) begin(i uint32) {
	s, m := w.slots.at(i)
	s.phase, s.since, s.last = relaying, w.now, w.now
	opened(m.owner, time.Duration(s.connect), m.upstream)
	for side := range s.fd {
		if s.watched[side] {
			continue // since it was connecting
		}
		if err := w.watch(i, side, unix.EPOLL_CTL_ADD); err != nil {
			w.end(i, fmt.Errorf("epoll: %w", err))
			return
		}
	}
	if len(m.left[up]) > 0 || s.dir[up].readable {
		w.pump(i, up)
	}
}

// expire ends what has lasted for too long.
func (w *worker) expire() {
	idle, half := int64(w.engine.cfg.Idle), int64(w.engine.cfg.HalfClosed)
	w.each(func(i uint32, s *slot) {
		switch s.phase {
		case relaying:
			switch silent := w.now - s.last; {
			case silent >= idle:
				w.end(i, ErrIdle)
			case silent >= half && (s.dir[up].done || s.dir[down].done):
				w.end(i, ErrHalfOpen)
			}
		case connecting:
			if _, m := w.slots.at(i); w.now-s.since >= int64(m.pending.route.Timeout) {
				w.slow(i)
			}
		case reading:
			if w.now-s.since >= int64(headTimeout) {
				w.drop(i)
			}
		}
	})
}

// report tells the Followers of tunnels that have moved since the last report.
func (w *worker) report() {
	w.each(func(i uint32, s *slot) {
		if s.phase == relaying && s.last >= w.reported {
			_, m := w.slots.at(i)
			moved(m.owner, s.bytes[up], s.bytes[down])
		}
	})
	w.reported = w.now
}

// end closes a tunnel and tells its owner.
func (w *worker) end(i uint32, err error) {
	s, m := w.slots.at(i)
	for d := range s.dir {
		w.pipes.put(&s.dir[d])
	}
	closeFD(s.fd[client])
	closeFD(s.fd[upstream])
	stats := Stats{Up: s.bytes[up], Down: s.bytes[down], Connect: time.Duration(s.connect), Upstream: m.upstream, Err: err}
	service, owner := m.service, m.owner
	w.slots.put(i)
	w.engine.cfg.tell(owner, stats)
	w.engine.ended(service)
}
