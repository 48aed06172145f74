package tunnel

import (
	"errors"
	"espalier/proxy/tunnel/kernel"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// pending is what a slot has beside its meta until it relays. Workers use it
// again, so that to connect allocates nothing.
type pending struct {
	gate Gate
	from netip.AddrPort // the client
	sent []byte         // by the client, while connecting
	head int            // the length of the head in sent

	route Route
	tries []int32 // connections to the first of route.Addrs; noTry after they failed
	err   error   // the most telling one so far
}

const noTry = -1

// failed notes that the try of an address failed. What another address said tells more
// than that this machine has no route to the first.
func (p *pending) failed(k int, err error) {
	to := p.route.Addrs[k]
	if p.tries[k] != noTry {
		kernel.Close(p.tries[k])
		p.tries[k] = noTry
	}
	if p.err == nil || errors.Is(p.err, unix.ENETUNREACH) || errors.Is(p.err, unix.EADDRNOTAVAIL) || errors.Is(p.err, unix.EAFNOSUPPORT) {
		p.err = &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	if p.route.Reach != nil {
		p.route.Reach.Failed(to, err)
	}
}

// Bounds on what a worker keeps of unused pendings: a burst's worth of connects,
// and of each no more than a usual head and a usual number of addresses.
const (
	keptPendings = 256
	keptHead     = 1 << 10
	keptAddrs    = 16
)

func (w *worker) takePending() *pending {
	n := len(w.unused)
	if n == 0 {
		return &pending{}
	}
	p := w.unused[n-1]
	w.unused = w.unused[:n-1]
	return p
}

func (w *worker) putPending(p *pending) {
	if len(w.unused) >= keptPendings || cap(p.sent) > keptHead || cap(p.route.Addrs) > keptAddrs || cap(p.tries) > keptAddrs {
		return
	}
	*p = pending{sent: p.sent[:0], route: Route{Addrs: p.route.Addrs[:0]}, tries: p.tries[:0]}
	w.unused = append(w.unused, p)
}

// connect begins to connect. The error is nil, EINPROGRESS, or says why not; the
// descriptor is valid in the first two cases.
func (w *worker) connect(to netip.AddrPort) (int32, error) {
	fd, err := kernel.Socket(to.Addr())
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if w.scarce(fd) {
		kernel.Close(fd)
		return -1, os.NewSyscallError("socket", unix.EMFILE)
	}
	if err = kernel.SetNoDelay(fd); err == nil {
		if err = kernel.Connect(fd, to); err == nil || err == unix.EINPROGRESS {
			return fd, err
		}
		err = os.NewSyscallError("connect", err)
	}
	kernel.Close(fd)
	return -1, err
}

// attempt tries the next address of a slot, and those behind it where that fails
// at once. The slot is a tunnel then, or an attempt is under way, or all have
// failed and the gate has the client.
func (w *worker) attempt(i uint32) {
	s, m := w.slots.at(i)
	p := m.pending
	for len(p.tries) < len(p.route.Addrs) {
		k := len(p.tries)
		fd, err := w.connect(p.route.Addrs[k])
		p.tries = append(p.tries, fd)
		switch err {
		case nil:
			w.connected(i, k, 0)
			return
		case unix.EINPROGRESS:
			s.fd[upstream], s.watched[upstream] = fd, 0
			if err = w.register(i, upstream, incoming|outgoing); err == nil {
				if k+1 < len(p.route.Addrs) {
					w.delay(i)
				}
				return
			}
			err = os.NewSyscallError("epoll_ctl", err)
		}
		p.failed(k, err)
	}
	if !slices.ContainsFunc(p.tries, func(fd int32) bool { return fd != noTry }) {
		w.unconnected(i)
	}
}

// delayed is a slot whose next attempt begins at a time, unless there has been
// another since.
type delayed struct {
	slot  uint32
	gen   int32
	tries int // so far
	at    int64
}

// delay lets the next attempt of a slot begin Config.AttemptDelay from now. All
// wait equally long, so the list is in order.
func (w *worker) delay(i uint32) {
	s, m := w.slots.at(i)
	wait := w.engine.cfg.AttemptDelay
	w.delays = append(w.delays, delayed{i, s.gen, len(m.pending.tries), w.engine.cfg.clock() + int64(wait)})
	if len(w.delays) == 1 {
		w.wakeAfter(wait)
	}
}

func (w *worker) wakeAfter(d time.Duration) {
	if w.timer == nil {
		w.timer = time.AfterFunc(d, func() { w.post((*worker).nextAttempts) })
		return
	}
	w.timer.Reset(d)
}

// nextAttempts begins the attempts whose delay is over.
func (w *worker) nextAttempts() {
	now := w.engine.cfg.clock()
	due := 0
	for ; due < len(w.delays) && w.delays[due].at <= now; due++ {
		d := w.delays[due]
		if s, m := w.slots.at(d.slot); s.gen == d.gen && s.phase == connecting && len(m.pending.tries) == d.tries {
			w.guarded(d.slot, w.attempt)
		}
	}
	w.delays = append(w.delays[:0], w.delays[due:]...)
	if len(w.delays) > 0 {
		w.wakeAfter(time.Duration(w.delays[0].at - now))
	}
}

// progress acts on an event of an attempt, whichever of the slot's it is.
func (w *worker) progress(i uint32, events uint32) {
	_, m := w.slots.at(i)
	p := m.pending
	if len(p.tries) == 1 && events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) == unix.EPOLLOUT {
		w.connected(i, 0, incoming|outgoing)
		return
	}
	failed := false
	for k, fd := range p.tries {
		if fd == noTry {
			continue
		}
		switch err := kernel.Connect(fd, p.route.Addrs[k]); err { // which says how it goes
		case nil, unix.EISCONN:
			w.connected(i, k, incoming|outgoing)
			return
		case unix.EALREADY, unix.EINPROGRESS:
		default:
			p.failed(k, os.NewSyscallError("connect", err))
			failed = true
		}
	}
	if failed {
		w.attempt(i)
	}
}

// connected makes a tunnel of a slot whose try k, which is watched for these events, has
// succeeded first. Those that had begun before it had their head start, and were slower.
func (w *worker) connected(i uint32, k int, watched uint32) {
	s, m := w.slots.at(i)
	p := m.pending
	to := p.route.Addrs[k]
	s.fd[upstream], s.watched[upstream], p.tries[k] = p.tries[k], watched, noTry
	s.unkept = true
	took := max(w.engine.cfg.clock()-s.since, 1)
	w.giveUp(p, k)
	if r := p.route.Reach; r != nil {
		r.Reached(to)
	}
	if len(p.sent) > p.head {
		m.left[up] = append([]byte(nil), p.sent[p.head:]...)
	}
	m.pending = nil
	w.putPending(p)
	w.engine.opened(m.service)
	w.begin(i, time.Duration(took), to)
}

// giveUp ends the tries that are under way. The first late of them have failed.
func (w *worker) giveUp(p *pending, late int) {
	for k, fd := range p.tries {
		switch {
		case fd == noTry:
		case k < late:
			p.failed(k, os.ErrDeadlineExceeded)
		default:
			kernel.Close(fd)
			p.tries[k] = noTry
		}
	}
}

// slow gives up a slot that has connected to nothing for as long as its Route
// allows.
func (w *worker) slow(i uint32) {
	_, m := w.slots.at(i)
	w.giveUp(m.pending, len(m.pending.tries))
	w.unconnected(i)
}

// unconnected gives a client to the gate none of whose addresses was reached.
func (w *worker) unconnected(i uint32) {
	s, m := w.slots.at(i)
	p := m.pending
	fd := s.fd[client]
	if s.watched[client] != 0 {
		w.poller.Remove(fd)
	}
	failure := HandedOn{Owner: p.route.Owner, Connect: time.Duration(w.engine.cfg.clock() - s.since), Err: p.err}
	w.handOver(fd, p.gate, p.sent, failure)
	w.release(i)
}

// waits acts on an event of a client whose upstream is being connected. One that
// has ended its direction still waits for the other; one that has reset the
// connection has left.
func (w *worker) waits(i uint32, events uint32) {
	s, _ := w.slots.at(i)
	if events&(unix.EPOLLERR|unix.EPOLLHUP) == 0 {
		s.dir[up].state = draining // once it relays
		return
	}
	err := kernel.PendingError(s.fd[client])
	if err == nil {
		err = unix.ECONNRESET
	}
	w.abandon(i, &Error{Client: true, Op: readFrom, Err: err})
}
