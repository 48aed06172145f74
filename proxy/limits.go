package proxy

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"

	"espalier/proxy/head"
)

// limits says whether there is room for another tunnel or plain request, and
// counts those that are admitted. It is safe for concurrent use.
type limits struct {
	maxTunnels   int64
	maxPerClient int32 // tunnels
	maxRequests  int64 // plain, under way
	maxWaiting   int   // connections without a request, of each of the two ways
	maxScarce    int   // likewise, while descriptors are short
	maxHeads     int   // of those of the general way, which may hold a part of a head
	// descriptors is the number that descriptors of clients and destinations stay
	// below. Those from it on are the reserve for answers that say so, and for
	// logs, look-ups, the control socket and the console.
	descriptors int

	tunnels  atomic.Int64
	requests atomic.Int64
	clients  clients
	shed     [len(shedReasons)]atomic.Int64
	overload overload
}

// newLimits returns the limits that cfg, which must be valid, the limit of file
// descriptors and that of memory make. The Go runtime has raised the soft limit of
// descriptors to the hard one.
func newLimits(cfg Config) *limits {
	open := uint64(math.MaxInt32)
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		open = min(open, l.Cur)
	}
	usable := int64(open - min(descriptorReserve, open/4))
	each := usable / 2 // tunnels take two
	m := &limits{
		maxTunnels:   int64(cfg.MaxTunnels),
		maxPerClient: int32(cfg.MaxTunnelsPerClient),
		maxRequests:  max(usable/4, 1), // and so half of the descriptors
		maxWaiting:   int(min(max(usable/8, 16), 1<<14)),
		maxScarce:    int(max((int64(open)-usable)/4, 1)),
		descriptors:  int(usable),
	}
	// All of them with nearly a whole head take half of the memory at most.
	m.maxHeads = int(min(int64(m.maxWaiting), max(debug.SetMemoryLimit(-1)/2/head.MaxBytes, 16)))
	if m.maxTunnels == 0 {
		m.maxTunnels = each
	}
	if m.maxPerClient == 0 {
		m.maxPerClient = int32(max(each*3/4, 1))
	}
	return m
}

// descriptorReserve is kept back, or a quarter where that is less.
const descriptorReserve = 256

// shedReasons are the values of the label of espalier_shed_total.
var shedReasons = [...]string{"tunnels", "client", "descriptors", "requests", "overload", "waiting"}

// What requests are turned away for, by index in shedReasons.
const (
	shedTunnels = iota
	shedClient
	shedDescriptors
	shedRequests
	shedOverload
	shedWaiting // a connection on which nothing was asked
)

// A limitError says which limit turned a request away.
type limitError struct {
	reason int
	text   string
}

func (e *limitError) Error() string { return e.text }

var (
	errTunnels     = &limitError{shedTunnels, "as many tunnels as proxy.max_tunnels allows are open"}
	errClient      = &limitError{shedClient, "this client has as many open tunnels as proxy.max_tunnels_per_client allows"}
	errRequests    = &limitError{shedRequests, "as many plain requests as the limit on open files allows are under way"}
	errDescriptors = &limitError{shedDescriptors, "open files have come to their limit: raise it (LimitNOFILE=, ulimit -n)"}
)

// refusal says how the client is told.
func (e *limitError) refusal() refusal {
	switch e.reason {
	case shedTunnels:
		return refuseFull
	case shedClient:
		return refuseClientFull
	}
	return refuseBusy
}

// admitted says what an exchange was counted as.
type admitted uint8

const (
	uncounted admitted = iota
	aTunnel
	aRequest
)

// admit counts x as what, until x.release, or says why not. What is Apple's
// passes until a limit is reached, everything else until one comes near.
func (m *limits) admit(x *exchange, what admitted, apple bool) *limitError {
	if err := m.count(x, what); err != nil {
		return err
	}
	if !apple {
		if because := m.overload.because(); because != "" {
			x.release()
			return &limitError{shedOverload, "overloaded: " + because}
		}
	}
	return nil
}

func (m *limits) count(x *exchange, what admitted) *limitError {
	counter, limit, full := &m.tunnels, m.maxTunnels, errTunnels
	if what == aRequest {
		counter, limit, full = &m.requests, m.maxRequests, errRequests
	}
	n := counter.Add(1)
	busy := m.busy()
	switch {
	case n > limit:
		counter.Add(-1)
		return full
	case busy > int64(m.descriptors):
		counter.Add(-1)
		return errDescriptors
	case what == aTunnel && !m.clients.enter(x.rec.Client, m.maxPerClient):
		counter.Add(-1)
		return errClient
	}
	x.counted = what
	// A storm finds the overload on at once, not when it is next looked for.
	if (n > high(limit) || busy > high(int64(m.descriptors))) && m.overload.because() == "" {
		m.look()
	}
	return nil
}

// busy is the number of descriptors that tunnels and plain requests take.
func (m *limits) busy() int64 { return 2 * (m.tunnels.Load() + m.requests.Load()) }

// admitTunnel is admit for a tunnel to which the engine has not looked whether
// there are descriptors.
func (m *limits) admitTunnel(x *exchange, apple bool) error {
	if err := m.admit(x, aTunnel, apple); err != nil {
		return err
	}
	if m.outOfDescriptors() {
		return errDescriptors
	}
	return nil
}

// fromReserve reports whether c has a descriptor of the reserve. It costs less
// than to look whether there are others.
func (m *limits) fromReserve(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false // c is closed
	}
	own := 0
	_ = raw.Control(func(fd uintptr) { own = int(fd) })
	return own >= m.descriptors
}

// turnedAway counts what was turned away for reason.
func (m *limits) turnedAway(reason int) {
	m.shed[reason].Add(1)
	if reason == shedDescriptors {
		m.ranShort()
	}
}

// release ends what admit counted x as.
func (x *exchange) release() {
	m := x.s.limits
	switch x.counted {
	case aTunnel:
		m.clients.leave(x.rec.Client)
		m.tunnels.Add(-1)
	case aRequest:
		m.requests.Add(-1)
	}
	x.counted = uncounted
}

// outOfDescriptors reports whether another tunnel would take from the reserve.
// The system always gives the lowest that is free.
func (m *limits) outOfDescriptors() bool {
	var fds [2]int
	for i := range fds {
		fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err != nil {
			return isOutOfDescriptors(err)
		}
		defer syscall.Close(fd)
		fds[i] = fd
	}
	return fds[1] >= m.descriptors
}

// isOutOfDescriptors reports whether err says that there are none left, in the
// process or in the system.
func isOutOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// limited is the limitError in err, or what stands for it; nil where none does.
func limited(err error) *limitError {
	if e, ok := errors.AsType[*limitError](err); ok {
		return e
	}
	if isOutOfDescriptors(err) {
		return &limitError{shedDescriptors, fmt.Sprintf("%v: %v", errDescriptors, err)}
	}
	return nil
}

// clients counts the tunnels of each client: of an IPv4 address, or of an IPv6
// network of 64 bits, which one machine can have all addresses of. Whoever has
// none takes no room. The zero value is ready.
type clients [64]struct {
	mu   sync.Mutex
	open map[uint64]int32
	_    [48]byte // a cache line for each
}

// clientKey is what a client is counted by. No client's network is mapped IPv4.
func clientKey(a netip.Addr) uint64 {
	b := a.As16()
	if a.Is4() || a.Is4In6() {
		return 0xffff<<32 | uint64(b[12])<<24 | uint64(b[13])<<16 | uint64(b[14])<<8 | uint64(b[15])
	}
	var key uint64
	for _, x := range b[:8] {
		key = key<<8 | uint64(x)
	}
	return key
}

// shard spreads keys by Fibonacci hashing.
func shard(key uint64) int { return int(key * 0x9e3779b97f4a7c15 >> 58) }

// enter counts a tunnel of a, unless there are limit already.
func (c *clients) enter(a netip.Addr, limit int32) bool {
	key := clientKey(a)
	s := &c[shard(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.open[key]
	if n >= limit {
		return false
	}
	if s.open == nil {
		s.open = map[uint64]int32{}
	}
	s.open[key] = n + 1
	return true
}

// leave ends the count of a tunnel that enter counted.
func (c *clients) leave(a netip.Addr) {
	key := clientKey(a)
	s := &c[shard(key)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.open[key]; n > 1 {
		s.open[key] = n - 1
	} else {
		delete(s.open, key)
	}
}

// len is the number of clients that have a tunnel.
func (c *clients) len() int {
	n := 0
	for i := range c {
		c[i].mu.Lock()
		n += len(c[i].open)
		c[i].mu.Unlock()
	}
	return n
}
