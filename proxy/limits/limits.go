// Package limits bounds what clients may have open at once, and says when the
// proxy is overloaded.
package limits

import (
	"cmp"
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
// for concurrent use.
type Limits struct {
	kinds   [3]kind // by Kind
	clients clients

	// MaxWaiting bounds connections without a request in the event loop,
	// MaxScarce the same while descriptors are short, MaxHeads those elsewhere,
	// which may hold a part of a head.
	MaxWaiting, MaxScarce, MaxHeads int
	// Descriptors is the number that descriptors of clients and origins stay
	// below. Those above are the reserve for refusals, logs, look-ups, the control
	// socket and the console.
	Descriptors int

	shed     [len(reasons)]atomic.Int64
	overload overload
}

// A kind counts one Kind.
type kind struct {
	open  atomic.Int64
	limit int64
	full  *Error // once the limit is reached
}

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
		MaxWaiting:  int(min(max(usable/8, 16), 1<<14)),
		MaxScarce:   int(max((int64(open)-usable)/4, 1)),
		Descriptors: int(usable),
	}
	// All of them with nearly a whole head take half of the memory at most.
	m.MaxHeads = int(min(int64(m.MaxWaiting), max(debug.SetMemoryLimit(-1)/2/head.MaxBytes, 16)))
	inProgress := max(usable/4, 1) // and so half of the descriptors
	m.kinds[Tunnel].limit, m.kinds[Tunnel].full = cmp.Or(int64(cfg.MaxTunnels), each), errTunnels
	m.kinds[Request].limit, m.kinds[Request].full = inProgress, errRequests
	// One client stays below the point from which the proxy is overloaded.
	most, half := int32(max(each*3/4, 1)), int32(max(inProgress/2, 1))
	tunnels := cmp.Or(int32(cfg.MaxTunnelsPerClient), most)
	requests := min(half, tunnels)
	m.clients.perAddress = usage{Tunnel: tunnels, Request: requests, both: max(most, tunnels)}
	m.clients.perNetwork = usage{
		Tunnel:  max(tunnels, min(networkFactor*tunnels, most)),
		Request: max(requests, min(networkFactor*requests, half)),
		both:    max(most, tunnels),
	}
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
	Request // other than CONNECT
)

// Enter counts a tunnel or request of client until Leave, or says why it does
// not. Apple's requests pass until a limit is reached, others until one is near.
func (m *Limits) Enter(what Kind, client netip.Addr, apple bool) *Error {
	k := &m.kinds[what]
	n := k.open.Add(1)
	busy := m.busy()
	var err *Error
	switch {
	case n > k.limit:
		err = k.full
	case busy > int64(m.Descriptors):
		err = errDescriptors
	case !m.clients.enter(client, what):
		err = errClient
	}
	if err != nil {
		k.open.Add(-1)
		return err
	}
	// A storm starts the overload at once, not at the next tick.
	if (n > high(k.limit) || busy > high(int64(m.Descriptors))) && m.Overloaded() == "" {
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
	m.kinds[what].open.Add(-1)
}

// Open returns what is counted now: tunnels, requests, and the clients that have
// any.
func (m *Limits) Open() (tunnels, requests int64, clients int) {
	return m.kinds[Tunnel].open.Load(), m.kinds[Request].open.Load(), m.clients.len()
}

// busy is the number of descriptors that tunnels and requests take.
func (m *Limits) busy() int64 {
	return 2 * (m.kinds[Tunnel].open.Load() + m.kinds[Request].open.Load())
}

// Scarce returns an error if another tunnel would take descriptors from the
// reserve. The event loop knows that by itself.
func (m *Limits) Scarce() *Error {
	for range 2 { // the system always gives the lowest that is free
		fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err == nil {
			defer syscall.Close(fd)
		}
		if IsOutOfDescriptors(err) || fd >= m.Descriptors {
			return errDescriptors
		}
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
