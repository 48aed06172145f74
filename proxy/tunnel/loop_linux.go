package tunnel

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"espalier/proxy/traffic"
	"espalier/proxy/tunnel/kernel"
	"espalier/proxy/tunnel/pipes"
	"espalier/proxy/wire"
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
	pipes    pipes.Budget

	census  census       // of tunnels, and of clients that have asked and are none yet
	open    atomic.Int64 // tunnels
	pending atomic.Int64 // clients whose head has not come
	left    atomic.Int64 // tunnels that the workers' end has cut
	stirred atomic.Bool  // a worker has something to report
	peak    int64        // most tunnels open since memory was given back; tick's

	// ticking has workers look for timeouts while there is a tunnel or a pipe, hurrying
	// more often while there are clients that are no tunnel yet, and holding while openings
	// are not complete.
	ticking, hurrying, holding alarm
}

func newLoop(cfg Config, workers int) Engine {
	e := &loop{cfg: cfg, portable: newRelay(cfg)}
	e.pipes.MaxLarge, e.pipes.MaxSmall = pipes.Large, pipes.Small
	e.ticking = alarm{after: cfg.scanInterval(), ring: e.tick}
	e.hurrying = alarm{after: hurryInterval, ring: e.hurry}
	e.holding = alarm{after: hurryInterval, ring: func() { e.postAll((*worker).expireHolds) }}
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
	head := t.Head
	if len(rest) > 0 {
		head = append(head[:len(head):len(head)], rest...)
	}
	var fd [2]int32
	var err error
	if fd[0], err = kernel.Duplicate(client); err == nil {
		if fd[1], err = kernel.Duplicate(upstream); err != nil {
			kernel.Close(fd[0])
		}
	}
	if err != nil {
		t.Client.Close()
		t.Upstream.Close()
		e.cfg.tell(t.Owner, Stats{Err: err})
		return
	}
	client.Close() // not what wraps it, whose Close may do more
	upstream.Close()
	service, owner := t.Service, t.Owner
	if e.census.enter() {
		e.opened(service)
		if e.workers[int(e.next.Add(1))%len(e.workers)].post(func(w *worker) {
			i := w.slots.take()
			s, m := w.slots.at(i)
			s.fd = fd
			m.service, m.owner, m.left[up] = service, owner, head
			w.begin(i, 0, netip.AddrPort{})
		}) {
			return
		}
		e.ended(service)
	}
	kernel.Close(fd[0])
	kernel.Close(fd[1])
	e.cfg.tell(owner, Stats{Err: ErrShutdown})
}

// opened counts a tunnel that is in the census, until ended.
func (e *loop) opened(s *traffic.Service) {
	s.TunnelOpened()
	e.open.Add(1)
	e.ticking.set()
}

func (e *loop) ended(s *traffic.Service) {
	s.TunnelClosed()
	e.open.Add(-1)
	e.census.leave()
}

// connecting is the number of clients that have asked and are no tunnel yet.
func (e *loop) connecting() int { return e.census.len() - int(e.open.Load()) }

func (e *loop) Shutdown(ctx context.Context) (cut int) {
	e.census.close(ctx)
	e.postAll(func(w *worker) { w.stopped = true }) // ends what is left
	e.running.Wait()
	return int(e.left.Swap(0)) + e.portable.Shutdown(ctx)
}

func (e *loop) Cut(pick func(*traffic.Service, Owner) error) {
	e.postAll(func(w *worker) {
		w.each(func(i uint32, s *slot) {
			if s.phase != relaying {
				return
			}
			_, m := w.slots.at(i)
			if err := pick(m.service, m.owner); err != nil {
				w.end(i, err)
			}
		})
	})
	e.portable.Cut(pick)
}

func (e *loop) Report() {
	if e.stirred.Swap(false) {
		e.postAll((*worker).report)
	}
	e.portable.Report()
}

func (e *loop) postAll(f func(*worker)) {
	for _, w := range e.workers {
		w.post(f)
	}
}

// headTimeout is how long a client may take to ask.
const headTimeout = 20 * time.Second

// hurryInterval is how often clients that are no tunnel yet are looked through,
// and how long a listener rests when descriptors have run out.
const hurryInterval = 500 * time.Millisecond

func (e *loop) hurry() {
	e.postAll(func(w *worker) {
		w.expire()
		w.forget()
		for _, ln := range w.listeners { // descriptors may have run out
			w.listen(ln)
		}
	})
	if e.pending.Load() > 0 || e.connecting() > 0 {
		e.hurrying.set()
	}
}

func (e *loop) tick() {
	e.postAll(func(w *worker) {
		w.expire()
		w.pipes.Shrink()
	})
	e.giveBack()
	if e.open.Load() > 0 || e.pipes.Any() {
		e.ticking.set()
	}
}

// An alarm rings once, some time after it was set.
type alarm struct {
	isSet atomic.Bool
	after time.Duration
	ring  func()
}

func (a *alarm) set() {
	if a.isSet.CompareAndSwap(false, true) {
		time.AfterFunc(a.after, func() {
			a.isSet.Store(false) // first: a caller that finds it set counts on the ring
			a.ring()
		})
	}
}

// storm is how many tunnels have to end before memory is given back to the
// system: the collector keeps what a storm of opens has used.
const storm = 2000

func (e *loop) giveBack() {
	open := e.open.Load()
	if e.peak-open >= storm {
		e.peak = open
		go debug.FreeOSMemory()
	}
	e.peak = max(e.peak, open)
}

// plainTCP finds the TCP connection below wrappers that only replay what was
// read, and returns what they have not handed out yet.
func plainTCP(c net.Conn) (tcp *net.TCPConn, unread []byte, ok bool) {
	carrier, secure := wire.Carrier(c)
	if tcp, ok = carrier.(*net.TCPConn); !ok || secure { // what is below TLS is not what flows through it
		return nil, nil, false
	}
	for c != carrier {
		if r, ok := c.(*replayConn); ok {
			unread = append(unread, r.unread...)
		}
		c = c.(interface{ NetConn() net.Conn }).NetConn()
	}
	return tcp, unread, true
}
