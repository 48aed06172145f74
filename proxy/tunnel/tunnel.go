// Package tunnel relays bytes between two connections: the hot core of the
// proxy. It knows nothing of HTTP, policy or logs.
package tunnel

import (
	"context"
	"errors"
	"net"
	"time"

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
	// Done is called once, when both connections are closed. It must not block.
	Done func(Stats)
}

// Stats tell how a tunnel went.
type Stats struct {
	Up, Down int64 // bytes relayed from and to the client
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
	// started until then.
	Shutdown(ctx context.Context) (cut int)
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
}

// scanInterval is how often tunnels are looked through for timeouts, and so the
// precision of a timeout.
const scanInterval = 5 * time.Second
