// Package tunnel relays bytes between two connections: the hot core of the
// proxy. It knows nothing of HTTP, policy or logs.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"espalier/proxy/head"
	"espalier/proxy/traffic"
)

// A Tunnel is a pair of connections to be joined.
type Tunnel struct {
	Client, Upstream net.Conn
	// Head is what the client has sent already; it is relayed first. The engine
	// keeps it until it is sent.
	Head []byte
	// Service is counted on while bytes flow.
	Service *traffic.Service
	// Owner is told of the end.
	Owner Owner
}

// An Owner is told how its tunnel goes. Its methods must not block: the engine waits
// for them.
type Owner interface {
	// TunnelOpened is told before a byte is relayed. connect is how long the engine took
	// to connect, and to the address that it reached; both are zero if it was given the
	// connection.
	TunnelOpened(connect time.Duration, to netip.AddrPort)
	// TunnelOpening is told all that the client has sent so far, at least a byte, until it
	// answers something else than Hold. Nothing of it is relayed before; what the upstream
	// says is: down is how many bytes. It must not keep b.
	TunnelOpening(b []byte, down int64) Verdict
	// TunnelTaken is told, in place of TunnelDone, after a Verdict of Take. client is the
	// owner's from then on, and the upstream is closed. What the client has sent is read
	// from it again.
	TunnelTaken(client net.Conn)
	// TunnelMoved is told what was relayed so far, by Engine.Report. It may be called by
	// another goroutine, after TunnelDone too.
	TunnelMoved(up, down int64)
	// TunnelDone is told once, when the tunnel has ended and both connections are closed.
	TunnelDone(Stats)
}

// A Verdict is what becomes of a tunnel by what its client says first. The zero value
// relays it.
type Verdict struct {
	Step Step
	// Service is counted on from now on; nil: the one before. For Relay alone.
	Service *traffic.Service
	// Say is sent to the client before its connection is closed, and Err is in Stats. For
	// Refuse alone.
	Say []byte
	Err error
}

// A Step is what to do next.
type Step uint8

const (
	Relay  Step = iota // everything, what was held too
	Hold               // what the client sends; ask again when there is more
	Refuse             // end the tunnel
	Take               // leave the client to the owner
)

// Bounds on what is held. A client whose opening is not complete by then is refused.
const (
	maxHeld  = 64 << 10
	holdTime = 9500 * time.Millisecond // and up to half a second
)

// ErrOpening is in Stats of tunnels whose opening was never complete.
var ErrOpening = errors.New("the client's first message is not complete")

var (
	errHeldLong  = fmt.Errorf("%w after 10 s", ErrOpening)
	errHeldMuch  = fmt.Errorf("%w after 64 KB", ErrOpening)
	errHeldEnded = fmt.Errorf("%w at the client's end", ErrOpening)
)

// ask asks the Owner about what the client has sent, and refuses what is too much.
func ask(o Owner, b []byte, down int64) Verdict {
	v := o.TunnelOpening(b, down)
	if v.Step == Hold && len(b) > maxHeld {
		return Verdict{Step: Refuse, Err: errHeldMuch}
	}
	return v
}

// Stats tell how a tunnel went.
type Stats struct {
	Up, Down int64 // bytes relayed from and to the client
	// Unopened says that the tunnel ended before it was open, after Connect.
	Unopened bool
	Connect  time.Duration
	// Err is nil if both sides closed in order, or one did and did not take what the
	// other still sent, as clients do with the last words of TLS. Otherwise it says
	// what ended the tunnel.
	Err error
}

// An Engine relays tunnels. It is safe for concurrent use.
type Engine interface {
	// Start takes over both connections of t and relays in the background. After
	// Shutdown it closes them at once, with ErrShutdown.
	Start(t Tunnel)
	// Len is the number of open tunnels.
	Len() int
	// Shutdown waits until no tunnel is open. When ctx ends it cuts those that
	// are left, with ErrShutdown, and returns their number. New tunnels may be
	// started until then, but none may be accepted any more.
	Shutdown(ctx context.Context) (cut int)
	// Cut ends the open tunnels for which pick returns an error, with that error. It does
	// not wait for that. pick must not block. Several goroutines may call it at once, but
	// not while they call the methods of the same Owner, other than TunnelMoved.
	Cut(pick func(*traffic.Service, Owner) error)
	// Report tells the Owners whose tunnels have carried bytes since the call before.
	// It does not wait for that.
	Report()
}

// A Gate decides about clients that an engine accepts by itself. Its methods must
// not block. What they are given as a connection and bytes read from it is theirs;
// Replay puts both together.
type Gate interface {
	// Route is asked about a valid CONNECT. It must not keep r. It may append to room,
	// which is empty, for Route.Addrs. If it returns false, the client goes to Serve,
	// with the Owner of the Route.
	Route(client netip.AddrPort, r head.Request, room []netip.AddrPort) (Route, bool)
	// Serve takes over a connection that is not for Route, or whose Route came to
	// nothing.
	Serve(c *net.TCPConn, unread []byte, h HandedOn)
}

// A Route is where a client's tunnel goes.
type Route struct {
	// Addrs are the addresses to try in this order, each Config.AttemptDelay after
	// the one before it, or as soon as that fails (RFC 8305). The first that is
	// reached wins. They are the engine's to keep.
	Addrs []netip.AddrPort
	// Timeout bounds connecting. Its precision is half a second.
	Timeout time.Duration
	Service *traffic.Service
	Owner   Owner
	Reach   Reach // nil: not told
}

// A Reach learns which addresses answer. Its methods must not block.
type Reach interface {
	// Failed is told of an attempt that failed, or lost to one that began after it.
	Failed(to netip.AddrPort, err error)
	Reached(to netip.AddrPort)
}

// HandedOn is what a Gate has begun for a client that goes to Serve. The zero value
// is nothing. The Owner is told nothing more.
type HandedOn struct {
	Owner   Owner         // of the Route; nil: there was none
	Connect time.Duration // spent on connecting
	Err     error         // why no address was reached; nil: none was tried
}

// An Acceptor is an Engine that can accept clients by itself, connect and relay
// without a goroutine for each.
type Acceptor interface {
	// Accept takes clients from l until pause or stop is called. Both may be; stop
	// must be, and turns away clients that have not asked for anything, while pause
	// leaves them their time. l stays the caller's to close.
	Accept(l *net.TCPListener, g Gate) (pause, stop func(), err error)
}

// Reasons that Stats.Err has beside the errors of the connections.
var (
	ErrIdle     = errors.New("no byte either way for the idle timeout")
	ErrHalfOpen = errors.New("one side closed, and no byte the other way for the half-closed timeout")
	ErrShutdown = errors.New("cut by the shutdown")
)

// Values of Error.Op.
const (
	readFrom = "read from"
	writeTo  = "write to"
)

// An Error is one of a side of a tunnel.
type Error struct {
	Client bool   // the side of the client
	Op     string // readFrom or writeTo
	Err    error
}

func (e *Error) Error() string {
	side := "upstream"
	if e.Client {
		side = "client"
	}
	return e.Op + " " + side + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Left reports whether the side has closed or reset the connection.
func (e *Error) Left() bool { return isGone(e.Err) }

// Config holds the limits of an Engine.
type Config struct {
	// Idle ends a tunnel that has carried no byte for so long; it must be
	// positive.
	Idle time.Duration
	// HalfClosed is the same for a tunnel of which one side has closed.
	HalfClosed time.Duration
	// AttemptDelay is the head start that each address of a Route has over the next
	// one, the Connection Attempt Delay of RFC 8305.
	AttemptDelay time.Duration

	// MaxWaiting bounds the clients of an Acceptor that have not asked for
	// anything; past it those that have waited longest are closed. 0: no bound.
	MaxWaiting int
	// Descriptors is the number that the descriptors of an Acceptor's clients and
	// destinations stay below; 0: no bound. Clients whose descriptor is not below
	// are not routed but served, and when more than MaxScarce of them wait, those
	// that have waited longest are closed.
	Descriptors, MaxScarce int
	// Stirred is told that tunnels have carried bytes, once or a few times until Report.
	// It must not block. nil: not told.
	Stirred func()
	// Turned is told of each client that is closed for these bounds, in a worker:
	// it must not block. nil: nobody is.
	Turned func()
	// Short is told, likewise, that a client could not be accepted because there
	// were no descriptors. The listener rests then.
	Short func()
	// Panicked is told of each panic that was kept from the process, in the
	// deferred call that did: a tunnel was lost, or an Owner was not told. nil:
	// nobody is.
	Panicked func(fault any)

	// In place of scanInterval and coarse, for tests.
	scan time.Duration
	now  func() int64
}

// scanInterval is how often tunnels are looked through for timeouts, and so the
// precision of a timeout.
const scanInterval = 5 * time.Second

func (c Config) scanInterval() time.Duration {
	if c.scan > 0 {
		return c.scan
	}
	return scanInterval
}

var start = time.Now()

// clock is a monotonic clock in nanoseconds, cheap enough for every event.
func (c Config) clock() int64 {
	if c.now != nil {
		return c.now()
	}
	return int64(time.Since(start))
}

// Sides of a tunnel. The direction that reads from a side has its number: up is
// client to upstream, down the reverse.
const (
	client   = 0
	upstream = 1
	up       = client
	down     = upstream
)

// stir tells that there is something to report.
func (c *Config) stir() {
	if c.Stirred != nil {
		c.Stirred()
	}
}

// count counts n bytes of a direction.
func count(s *traffic.Service, direction, n int) {
	if direction == up {
		s.AddUp(int64(n))
	} else {
		s.AddDown(int64(n))
	}
}

// expired says why a tunnel ends that has been silent for so long; nil if it does not.
// half says that one side has closed.
func (c *Config) expired(silent time.Duration, half bool) error {
	switch {
	case silent >= c.Idle:
		return ErrIdle
	case half && silent >= c.HalfClosed:
		return ErrHalfOpen
	}
	return nil
}

// tookAll reports whether a side that err was met in writing to ended well: it has
// ended in order, and wants no more.
func tookAll(ended bool, err error) bool { return ended && isGone(err) }

// A census counts the tunnels of an Engine, for Shutdown. Tunnels enter and leave without
// a lock.
type census struct {
	n      atomic.Int64
	closed atomic.Bool
	mu     sync.Mutex
	empty  chan struct{} // closed when n is 0; nil: that is not waited for
}

// enter counts a tunnel until leave. It reports false after close.
func (c *census) enter() bool {
	c.n.Add(1)
	if c.closed.Load() {
		c.leave()
		return false
	}
	return true
}

func (c *census) leave() {
	if c.n.Add(-1) > 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.empty != nil {
		close(c.empty)
		c.empty = nil
	}
}

func (c *census) len() int { return int(c.n.Load()) }

// close waits until no tunnel is left, or ctx ends. None enters from then on.
func (c *census) close(ctx context.Context) {
	c.wait(ctx)
	c.closed.Store(true)
	c.wait(ctx) // for those that have entered meanwhile
}

func (c *census) wait(ctx context.Context) {
	for ctx.Err() == nil {
		c.mu.Lock()
		if c.empty == nil {
			c.empty = make(chan struct{})
		}
		empty, n := c.empty, c.n.Load()
		c.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-empty: // another may have entered meanwhile
		case <-ctx.Done():
		}
	}
}

// isGone reports whether a connection failed because the other end closed or reset
// it.
func isGone(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ENOTCONN)
}

// caught reports whether fault is a panic, of which Panicked is told then.
func (c *Config) caught(fault any) bool {
	if fault != nil && c.Panicked != nil {
		c.Panicked(fault)
	}
	return fault != nil
}

// tell tells o of its end. Its panic costs no other tunnel.
func (c *Config) tell(o Owner, s Stats) {
	defer func() { c.caught(recover()) }()
	o.TunnelDone(s)
}
