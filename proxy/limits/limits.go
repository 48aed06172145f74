// Package limits bounds what clients may have open at once, and says when the
// proxy is overloaded.
package limits

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"espalier/proxy/head"
)

// Config says what is bounded. The zero value takes every bound from the limits
// of the process.
type Config struct {
	// MaxTunnels bounds open tunnels; 0: what the limit of file descriptors
	// allows, with a reserve.
	MaxTunnels int
	// MaxTunnelsPerClient bounds the open tunnels of one client address, and its other
	// requests in progress; 0: three quarters of what the limit of file descriptors
	// allows.
	MaxTunnelsPerClient int
	// Relieve closes idle connections. It must not block.
	Relieve func()
	// Idle is the number of connections that Relieve could close, roughly.
	Idle func() int
	Ops  *zap.Logger
}

// Limits admits tunnels and requests, and counts those that are open. It is safe
// for concurrent use. It is a prometheus.Collector.
type Limits struct {
	maxTunnels  int64
	maxRequests int64 // requests other than CONNECT, in progress
	perAddress  bound // of one client address
	perNetwork  bound // of one IPv6 network of 64 bits

	// MaxWaiting bounds connections without a request in the event loop,
	// MaxScarce the same while descriptors are short, MaxHeads those elsewhere,
	// which may hold a part of a head.
	MaxWaiting, MaxScarce, MaxHeads int
	// Descriptors is the number that descriptors of clients and origins stay
	// below. Those above are the reserve for refusals, logs, look-ups, the control
	// socket and the console.
	Descriptors int

	tunnels  atomic.Int64
	requests atomic.Int64
	clients  clients
	shed     [len(reasons)]atomic.Int64
	overload overload
}

// A bound is what one client may have open.
type bound struct{ tunnels, requests, both int32 }

// New returns the limits that cfg, the limit of file descriptors and that of
// memory make. The Go runtime has raised the soft limit of descriptors to the
// hard one.
func New(cfg Config) *Limits {
	open := uint64(math.MaxInt32)
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		open = min(open, l.Cur)
	}
	usable := int64(open - min(descriptorReserve, open/4))
	each := usable / 2 // a tunnel takes two
	m := &Limits{
		maxTunnels:  int64(cfg.MaxTunnels),
		maxRequests: max(usable/4, 1), // and so half of the descriptors
		MaxWaiting:  int(min(max(usable/8, 16), 1<<14)),
		MaxScarce:   int(max((int64(open)-usable)/4, 1)),
		Descriptors: int(usable),
	}
	// All of them with nearly a whole head take half of the memory at most.
	m.MaxHeads = int(min(int64(m.MaxWaiting), max(debug.SetMemoryLimit(-1)/2/head.MaxBytes, 16)))
	if m.maxTunnels == 0 {
		m.maxTunnels = each
	}
	// One client stays below the point from which the proxy is overloaded.
	most := int32(max(each*3/4, 1))
	m.perAddress = bound{int32(cfg.MaxTunnelsPerClient), int32(max(m.maxRequests/2, 1)), most}
	if m.perAddress.tunnels == 0 {
		m.perAddress.tunnels = most
	}
	m.perAddress.requests = min(m.perAddress.requests, m.perAddress.tunnels)
	m.perAddress.both = max(most, m.perAddress.tunnels)
	m.perNetwork = m.perAddress
	m.perNetwork.tunnels = max(m.perAddress.tunnels, min(networkFactor*m.perAddress.tunnels, most))
	m.perNetwork.requests = max(m.perAddress.requests, min(networkFactor*m.perAddress.requests, int32(m.maxRequests/2)))
	if cfg.Relieve == nil {
		cfg.Relieve = func() {}
	}
	if cfg.Idle == nil {
		cfg.Idle = func() int { return 0 }
	}
	m.overload = overload{ops: cfg.Ops, start: time.Now(), relieve: cfg.Relieve, idle: cfg.Idle}
	return m
}

// networkFactor is how many times as much an IPv6 network of 64 bits may have
// open as one of its addresses: such a network is a whole classroom.
const networkFactor = 16

// descriptorReserve is kept back, or a quarter where that is less.
const descriptorReserve = 256

// reasons are the values of the label of espalier_shed_total, by Reason.
var reasons = [...]string{"tunnels", "client", "descriptors", "requests", "overload", "waiting"}

// A Reason is why something was turned away.
type Reason int

const (
	Tunnels Reason = iota // as many tunnels as there may be
	Client                // this client has its share
	Descriptors
	Requests
	Overload
	Waiting // a connection on which nothing was asked
)

// An Error says which limit turned a request away.
type Error struct {
	Reason Reason
	text   string
}

func (e *Error) Error() string { return e.text }

var (
	errTunnels     = &Error{Tunnels, "proxy.max_tunnels is reached"}
	errClient      = &Error{Client, "this client has as many tunnels or requests open as one client may (proxy.max_tunnels_per_client, open files)"}
	errRequests    = &Error{Requests, "as many requests are in progress as the limit on open files allows"}
	errDescriptors = &Error{Descriptors, "the limit on open files is reached: raise it (LimitNOFILE=, ulimit -n)"}
)

// A Kind is what something is counted as.
type Kind uint8

const (
	None Kind = iota
	Tunnel
	Request
)

// Enter counts a tunnel or request of client until Leave, or says why it does
// not. Apple's requests pass until a limit is reached, others until one is near.
func (m *Limits) Enter(what Kind, client netip.Addr, apple bool) *Error {
	counter, limit, full := m.counter(what)
	n := counter.Add(1)
	busy := m.busy()
	var err *Error
	switch {
	case n > limit:
		err = full
	case busy > int64(m.Descriptors):
		err = errDescriptors
	case !m.clients.enter(client, what, m.perAddress, m.perNetwork):
		err = errClient
	}
	if err != nil {
		counter.Add(-1)
		return err
	}
	// A storm starts the overload at once, not at the next tick.
	if (n > high(limit) || busy > high(int64(m.Descriptors))) && m.Overloaded() == "" {
		m.Look()
	}
	if !apple {
		if because := m.Overloaded(); because != "" {
			m.Leave(what, client)
			return &Error{Overload, "overloaded: " + because}
		}
	}
	return nil
}

// Leave ends what Enter counted.
func (m *Limits) Leave(what Kind, client netip.Addr) {
	m.clients.leave(client, what)
	counter, _, _ := m.counter(what)
	counter.Add(-1)
}

func (m *Limits) counter(what Kind) (counter *atomic.Int64, limit int64, full *Error) {
	if what == Request {
		return &m.requests, m.maxRequests, errRequests
	}
	return &m.tunnels, m.maxTunnels, errTunnels
}

// Open returns what is counted now: tunnels, requests, and the clients that have
// any.
func (m *Limits) Open() (tunnels, requests int64, clients int) {
	return m.tunnels.Load(), m.requests.Load(), m.clients.len()
}

// busy is the number of descriptors that tunnels and requests take.
func (m *Limits) busy() int64 { return 2 * (m.tunnels.Load() + m.requests.Load()) }

// Scarce returns an error if another tunnel would take descriptors from the
// reserve. The event loop knows that by itself.
func (m *Limits) Scarce() *Error {
	if m.outOfDescriptors() {
		return errDescriptors
	}
	return nil
}

// ScarceFor is Scarce if c itself has a descriptor of the reserve. It costs less.
func (m *Limits) ScarceFor(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil // c is closed
	}
	own := 0
	_ = raw.Control(func(fd uintptr) { own = int(fd) })
	if own >= m.Descriptors {
		return errDescriptors
	}
	return nil
}

// TurnedAway counts what was turned away for reason.
func (m *Limits) TurnedAway(reason Reason) {
	m.shed[reason].Add(1)
	if reason == Descriptors {
		m.RanShort()
	}
}

// Shed is how many were turned away for reason.
func (m *Limits) Shed(reason Reason) int64 { return m.shed[reason].Load() }

// outOfDescriptors reports whether another tunnel would take from the reserve.
// The system always gives the lowest that is free.
func (m *Limits) outOfDescriptors() bool {
	var fds [2]int
	for i := range fds {
		fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return IsOutOfDescriptors(err)
		}
		defer syscall.Close(fd)
		fds[i] = fd
	}
	return fds[1] >= m.Descriptors
}

// IsOutOfDescriptors reports whether err says that the process or the system has
// no descriptors left.
func IsOutOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// AsError returns the *Error in err, or the one that err amounts to; nil if err is
// about something else.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if IsOutOfDescriptors(err) {
		return &Error{Descriptors, fmt.Sprintf("%v: %v", errDescriptors, err)}
	}
	return nil
}
