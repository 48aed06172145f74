package tunnel

import (
	"context"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"espalier/proxy/traffic"
)

// New returns the Engine of this platform: an event loop for plain TCP, and two
// goroutines a tunnel for every other connection.
func New(cfg Config) Engine { return newLoop(cfg, runtime.GOMAXPROCS(0)) }

// loop is the Engine of Linux. Each worker owns its tunnels outright: only it
// reads, writes and closes their descriptors, so they need no lock. Others reach
// a worker by its inbox.
type loop struct {
	cfg      Config
	portable *relay // for what is no plain TCP
	workers  []*worker
	running  sync.WaitGroup
	next     atomic.Uint32 // the worker that gets the next tunnel
	pipes    pipeBudget

	open    atomic.Int64 // tunnels
	pending atomic.Int64 // clients whose head has not come
	// connecting counts clients that have asked and are no tunnel yet.
	connecting atomic.Int64
	left       atomic.Int64 // tunnels that the workers' end has cut

	ticking, hurrying atomic.Bool // a timer is set

	mu      sync.Mutex
	closed  bool
	waiting chan struct{} // closed when no tunnel is open, while Shutdown waits
	peak    int64         // most tunnels open since memory was given back
}

func newLoop(cfg Config, workers int) Engine {
	e := &loop{cfg: cfg, portable: newRelay(cfg)}
	e.pipes.maxLarge, e.pipes.maxSmall = largePipes, smallPipes
	for range workers {
		w, err := newWorker(e)
		if err != nil {
			// Descriptors have run out at start; what works everywhere still may.
			for _, w := range e.workers {
				w.destroy()
			}
			return e.portable
		}
		e.workers = append(e.workers, w)
	}
	for _, w := range e.workers {
		e.running.Add(1)
		go w.run()
	}
	return e
}

func (e *loop) Len() int { return int(e.open.Load()) + e.portable.Len() }

func (e *loop) Start(t Tunnel) {
	client, rest, okClient := plainTCP(t.Client)
	upstream, _, okUpstream := plainTCP(t.Upstream)
	if !okClient || !okUpstream {
		e.portable.Start(t)
		return
	}
	m := message{kind: msgTunnel, service: t.Service, owner: t.Owner, head: t.Head}
	if len(rest) > 0 {
		m.head = append(m.head[:len(m.head):len(m.head)], rest...)
	}
	var err error
	m.fd[0], err = detach(client)
	if err == nil {
		if m.fd[1], err = detach(upstream); err != nil {
			unix.Close(m.fd[0])
		}
	}
	if err != nil {
		t.Client.Close()
		t.Upstream.Close()
		e.cfg.tell(t.Owner, Stats{Err: err})
		return
	}
	e.mu.Lock()
	closed := e.closed
	if !closed {
		e.opened(t.Service)
		e.workers[int(e.next.Add(1))%len(e.workers)].post(m)
	}
	e.mu.Unlock()
	if closed {
		unix.Close(m.fd[0])
		unix.Close(m.fd[1])
		e.cfg.tell(t.Owner, Stats{Err: ErrShutdown})
	}
}

// opened and ended keep the number of open tunnels.
func (e *loop) opened(s interface{ TunnelOpened() }) {
	s.TunnelOpened()
	e.open.Add(1)
	e.startTicking()
}

func (e *loop) ended(s interface{ TunnelClosed() }) {
	s.TunnelClosed()
	if e.open.Add(-1) > 0 {
		return
	}
	e.signal()
}

// settled notes that a client that was connecting is a tunnel, or none.
func (e *loop) settled() {
	if e.connecting.Add(-1) == 0 && e.open.Load() == 0 {
		e.signal()
	}
}

// empty reports whether no tunnel is open or about to be. What connects counts as
// open before it no longer counts as connecting.
func (e *loop) empty() bool { return e.connecting.Load() == 0 && e.open.Load() == 0 }

// signal tells Shutdown that the last tunnel has ended.
func (e *loop) signal() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.waiting != nil && e.empty() {
		close(e.waiting)
		e.waiting = nil
	}
}

func (e *loop) Shutdown(ctx context.Context) (cut int) {
	for {
		e.mu.Lock()
		if e.empty() {
			e.closed = true
			e.mu.Unlock()
			break
		}
		if e.waiting == nil {
			e.waiting = make(chan struct{})
		}
		waiting := e.waiting
		e.mu.Unlock()
		select {
		case <-waiting:
			continue // another may have been started meanwhile
		case <-ctx.Done():
		}
		e.mu.Lock()
		e.closed = true
		e.mu.Unlock()
		break
	}
	e.postAll(msgStop) // ends what is left
	e.running.Wait()
	return int(e.left.Swap(0)) + e.portable.Shutdown(ctx)
}

func (e *loop) Cut(pick func(*traffic.Service) bool) {
	for _, w := range e.workers {
		w.post(message{kind: msgCut, pick: pick})
	}
	e.portable.Cut(pick)
}

func (e *loop) Report() {
	if e.open.Load() > 0 {
		e.postAll(msgReport)
	}
	e.portable.Report()
}

// headTimeout is how long a client may take to ask.
const headTimeout = 20 * time.Second

// hurryInterval is how often clients that are no tunnel yet are looked through,
// and how long a listener rests when descriptors have run out.
const hurryInterval = 500 * time.Millisecond

// wait counts a client whose head has not come.
func (e *loop) wait() {
	e.pending.Add(1)
	e.startHurrying()
}

func (e *loop) startHurrying() {
	if e.hurrying.CompareAndSwap(false, true) {
		time.AfterFunc(hurryInterval, e.hurry)
	}
}

func (e *loop) hurry() {
	e.hurrying.Store(false) // first: who finds it set may count on the message
	e.postAll(msgHurry)
	if e.pending.Load()+e.connecting.Load() > 0 {
		e.startHurrying()
	}
}

// startTicking sees to it that workers look for timeouts while there is a tunnel
// or a pipe, and not while there is nothing.
func (e *loop) startTicking() {
	if e.ticking.CompareAndSwap(false, true) {
		time.AfterFunc(e.cfg.scanInterval(), e.tick)
	}
}

func (e *loop) tick() {
	e.ticking.Store(false)
	e.postAll(msgTick)
	e.giveBack()
	if e.open.Load() > 0 || e.pipes.any() {
		e.startTicking()
	}
}

func (e *loop) postAll(k kind) {
	for _, w := range e.workers {
		w.post(message{kind: k})
	}
}

// storm is how many tunnels have to end before memory is given back to the
// system: the collector keeps what a storm of opens has used.
const storm = 2000

func (e *loop) giveBack() {
	open := e.open.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	if open > e.peak {
		e.peak = open
	} else if e.peak-open >= storm {
		e.peak = open
		go debug.FreeOSMemory()
	}
}

// plainTCP finds the TCP connection below wrappers that only replay what was
// read, and returns what they have not handed out yet.
func plainTCP(c net.Conn) (_ *net.TCPConn, unread []byte, ok bool) {
	for {
		switch x := c.(type) {
		case *net.TCPConn:
			return x, unread, true
		case *replayConn:
			unread = append(unread, x.unread...)
			c = x.Conn
		case interface{ NetConn() net.Conn }:
			if c = x.NetConn(); c == nil {
				return nil, nil, false
			}
			// What is below TLS is not what flows through it.
			if _, tls := x.(interface{ Handshake() error }); tls {
				return nil, nil, false
			}
		default:
			return nil, nil, false
		}
	}
}

// detach takes a connection out of Go's poller and returns a descriptor of its
// own. c is closed where it succeeds.
func detach(c *net.TCPConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if cerr := raw.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); cerr != nil {
		return -1, cerr
	}
	if err != nil {
		return -1, err
	}
	c.Close()
	return fd, nil
}
