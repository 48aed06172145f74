package tunnel

import (
	"errors"
	"net"
	"net/netip"
	"os"
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
	next  int       // index in route.Addrs of the address to try next
	tried []attempt // in the order of route.Addrs[:next]
	err   error     // the most telling one so far
}

// An attempt is a connection to an address under way; fd is -1 after it failed.
type attempt struct {
	fd int32
	to netip.AddrPort
}

// underWay returns the number of attempts that have neither succeeded nor failed.
func (p *pending) underWay() (n int) {
	for _, a := range p.tried {
		if a.fd >= 0 {
			n++
		}
	}
	return n
}

// failed notes that an attempt failed. What another address said tells more than
// that this machine has no route to the first.
func (p *pending) failed(to netip.AddrPort, err error) {
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
	if len(w.unused) >= keptPendings || cap(p.sent) > keptHead || cap(p.route.Addrs) > keptAddrs || cap(p.tried) > keptAddrs {
		return
	}
	*p = pending{sent: p.sent[:0], route: Route{Addrs: p.route.Addrs[:0]}, tried: p.tried[:0]}
	w.unused = append(w.unused, p)
}

// connect begins to connect. The error is nil, EINPROGRESS, or says why not; the
// descriptor is valid in the first two cases.
func (w *worker) connect(to netip.AddrPort) (int32, error) {
	n, err := socket(to.Addr())
	fd := int32(n)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if w.scarce(fd) {
		closeFD(fd)
		return -1, os.NewSyscallError("socket", unix.EMFILE)
	}
	if err = setOptions(int(fd)); err == nil {
		if err = connect(fd, to); err == nil || err == unix.EINPROGRESS {
			return fd, err
		}
		err = os.NewSyscallError("connect", err)
	}
	closeFD(fd)
	return -1, err
}

// attempt tries the next address of a slot, and those behind it where that fails
// at once. The slot is a tunnel then, or an attempt is under way, or all have
// failed and the gate has the client.
func (w *worker) attempt(i uint32) {
	s, m := w.slots.at(i)
	p := m.pending
	for p.next < len(p.route.Addrs) {
		to := p.route.Addrs[p.next]
		p.next++
		fd, err := w.connect(to)
		p.tried = append(p.tried, attempt{fd, to})
		switch err {
		case nil:
			s.watched[upstream] = 0
			w.connected(i, len(p.tried)-1)
			return
		case unix.EINPROGRESS:
			s.fd[upstream], s.watched[upstream] = fd, 0
			if err = w.register(i, upstream, incoming|outgoing); err == nil {
				if p.next < len(p.route.Addrs) {
					w.delay(i)
				}
				return
			}
			closeFD(fd)
			p.tried[len(p.tried)-1].fd = -1
			err = os.NewSyscallError("epoll_ctl", err)
		}
		p.failed(to, err)
	}
	if p.underWay() == 0 {
		w.unconnected(i)
	}
}

// delayed is a slot whose next attempt begins at a time, unless there has been
// another than its tried'th since.
type delayed struct {
	slot  uint32
	gen   int32
	tried int
	at    int64
}

// delay lets the next attempt of a slot begin Config.AttemptDelay from now. All
// wait equally long, so the list is in order.
func (w *worker) delay(i uint32) {
	s, m := w.slots.at(i)
	wait := w.engine.cfg.AttemptDelay
	w.delays = append(w.delays, delayed{i, s.gen, len(m.pending.tried), w.engine.cfg.clock() + int64(wait)})
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
		if s, m := w.slots.at(d.slot); s.gen == d.gen && s.phase == connecting && len(m.pending.tried) == d.tried {
			w.guarded(d.slot, w.attempt)
		}
	}
	w.delays = append(w.delays[:0], w.delays[due:]...)
	if len(w.delays) > 0 {
		w.wakeAfter(time.Duration(w.delays[0].at - now))
	}
}

// progress acts on an event of an attempt, whichever of the slot's it is.
func (w *worker) progress(i uint32) {
	_, m := w.slots.at(i)
	p := m.pending
	failed := false
	for k := range p.tried {
		a := &p.tried[k]
		if a.fd < 0 {
			continue
		}
		err := connect(a.fd, a.to) // says how it goes
		switch err {
		case nil, unix.EISCONN:
			w.connected(i, k)
			return
		case unix.EALREADY, unix.EINPROGRESS:
			continue
		}
		closeFD(a.fd)
		a.fd, failed = -1, true
		p.failed(a.to, os.NewSyscallError("connect", err))
	}
	if failed {
		w.attempt(i)
	}
}

// connected makes a tunnel of a slot whose attempt k has succeeded first. Those
// that had begun before it had their head start, and were slower.
func (w *worker) connected(i uint32, k int) {
	s, m := w.slots.at(i)
	p := m.pending
	won := p.tried[k]
	s.fd[upstream] = won.fd
	took := max(w.engine.cfg.clock()-s.since, 1)
	p.tried[k].fd = -1
	if r := p.route.Reach; r != nil {
		for _, a := range p.tried[:k] {
			if a.fd >= 0 {
				r.Failed(a.to, os.ErrDeadlineExceeded)
			}
		}
		r.Reached(won.to)
	}
	w.closeAttempts(p)
	if len(p.sent) > p.head {
		m.left[up] = append([]byte(nil), p.sent[p.head:]...)
	}
	m.pending = nil
	w.putPending(p)
	w.engine.opened(m.service)
	w.begin(i, time.Duration(took), won.to)
}

func (w *worker) closeAttempts(p *pending) {
	for k := range p.tried {
		if a := &p.tried[k]; a.fd >= 0 {
			closeFD(a.fd)
			a.fd = -1
		}
	}
}

// slow gives up a slot that has connected to nothing for as long as its Route
// allows.
func (w *worker) slow(i uint32) {
	_, m := w.slots.at(i)
	for _, a := range m.pending.tried {
		if a.fd >= 0 {
			m.pending.failed(a.to, os.ErrDeadlineExceeded)
		}
	}
	w.unconnected(i)
}

// unconnected gives a client to the gate none of whose addresses was reached.
func (w *worker) unconnected(i uint32) {
	s, m := w.slots.at(i)
	p := m.pending
	fd := s.fd[client]
	if s.watched[client] != 0 {
		_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, int(fd), nil)
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
	err := pendingError(s.fd[client])
	if err == nil {
		err = unix.ECONNRESET
	}
	w.abandon(i, &Error{Client: true, Op: readFrom, Err: err})
}
