// Package tunnel relays bytes between two connections: the hot core of the
// proxy. It knows nothing of HTTP, policy or logs.
package tunnel

import (
	"context"
	"errors"
	"net"
	"net/netip"
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

// An Owner is told once when its tunnel has ended and both connections are
// closed. Its methods must not block: the engine waits for them.
type Owner interface {
	TunnelDone(Stats)
	// TunnelDropped is called in place of TunnelDone where a Route comes to
	// nothing, before its client goes to Gate.Serve.
	TunnelDropped()
}

// Stats tell how a tunnel went.
type Stats struct {
	Up, Down int64 // bytes relayed from and to the client
	// Connect is how long the engine took to connect upstream; 0 where it was
	// given the connection.
	Connect time.Duration
	// Err is nil where both sides closed in order, and otherwise says what ended
	// the tunnel.
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
	// Cut ends, with ErrShutdown, the open tunnels that pick names by their
	// service. It does not wait for that. pick may be called by several goroutines
	// at once.
	Cut(pick func(*traffic.Service) bool)
}

// A Gate decides about clients that an engine accepts by itself.
type Gate interface {
	// Route is asked about a CONNECT of the strict common form. It must not
	// block, and it must not keep r. Where it returns false, or connecting does not
	// succeed at once, the client goes to Serve as if Route had never been asked,
	// after TunnelDropped.
	Route(client netip.AddrPort, r head.Request) (Route, bool)
	// Serve takes over a connection, and what was read from it. It must not
	// block. Replay puts both together.
	Serve(c *net.TCPConn, unread []byte)
}

// A Route is where a client's tunnel goes.
type Route struct {
	Addr    netip.AddrPort
	Service *traffic.Service
	Owner   Owner
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

// Config holds the limits of an Engine.
type Config struct {
	// Idle ends a tunnel that has carried no byte for so long; it must be
	// positive.
	Idle time.Duration
	// HalfClosed is the same for a tunnel of which one side has closed.
	HalfClosed time.Duration

	// MaxWaiting bounds the clients of an Acceptor that have not asked for
	// anything; past it those that have waited longest are closed. 0: no bound.
	MaxWaiting int
	// Descriptors is the number that the descriptors of an Acceptor's clients and
	// destinations stay below; 0: no bound. Clients whose descriptor is not below
	// are not routed but served, and when more than MaxScarce of them wait, those
	// that have waited longest are closed.
	Descriptors, MaxScarce int
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
