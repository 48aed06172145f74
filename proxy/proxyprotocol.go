package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"

	"espalier/policy"
	"espalier/proxy/tunnel"
	"espalier/proxy/wire"
)

// balancers are the load balancers of proxy.proxy_protocol, which say with the
// PROXY protocol who the client is.
type balancers struct {
	trusted policy.Networks
	timeout time.Duration // for the header to arrive
	ops     *zap.Logger
	// panicked is told of a panic that was met before net/http keeps them to
	// their connection.
	panicked func(fault any)
	mu       sync.Mutex
	told     time.Time // when a bad header was logged last
}

// balancerTimeout is how long a load balancer may take to send its header. It
// sends it at once, so this is ample.
const balancerTimeout = 5 * time.Second

// balancedListener accepts connections of load balancers and of others. Those of
// load balancers must begin with a PROXY header, version 1 or 2: without one,
// all the clients behind would be taken for the load balancer. Of anybody else a
// header is not read, and so is a malformed request.
type balancedListener struct {
	net.Listener
	*balancers
}

func (l balancedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok || !l.trusted.Contains(wire.AddrPort(tcp).Addr()) {
		return c, nil
	}
	return &balancedConn{Conn: tcp, balancers: l.balancers}, nil
}

// balancedConn is a load balancer's connection. The header is read when the
// client's address is asked for or the first byte is read, not while accepting,
// so that a slow one holds up nobody else.
type balancedConn struct {
	net.Conn // a *net.TCPConn
	*balancers
	once   sync.Once
	rest   net.Conn // what follows the header
	client net.Addr
	err    error
}

// header reads the header, the first time. Where it is bad, the connection is
// closed: whoever gets a header wrong would not understand an answer either.
func (c *balancedConn) header() error {
	c.once.Do(func() {
		c.client = c.Conn.RemoteAddr()
		_ = c.SetReadDeadline(time.Now().Add(c.timeout))
		in := bufio.NewReaderSize(c.Conn, 512)
		client, err := c.readHeader(in)
		if err != nil {
			if !left(in, err) {
				c.tell(err)
			}
			c.err = io.EOF // net/http tries to answer to most others
			c.Close()
			return
		}
		if client != nil {
			c.client = client
		}
		_ = c.SetReadDeadline(time.Time{})
		unread, _ := in.Peek(in.Buffered()) // buffered bytes cannot fail
		c.rest = tunnel.Replay(c.Conn.(*net.TCPConn), unread)
	})
	return c.err
}

// readHeader reads a PROXY header. The client is nil where it is the load
// balancer itself, as LOCAL and UNKNOWN say.
func (b *balancers) readHeader(in *bufio.Reader) (client net.Addr, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			b.panicked(fault)
			err = fmt.Errorf("panic: %v", fault)
		}
	}()
	awaitHeader(in)
	h, err := proxyproto.Read(in)
	if err != nil {
		return nil, err
	}
	if h.Command.IsLocal() || h.SourceAddr == nil {
		return nil, nil
	}
	if _, ok := h.SourceAddr.(*net.TCPAddr); !ok {
		return nil, fmt.Errorf("the client's address is one of %s, not of TCP", h.SourceAddr.Network())
	}
	return h.SourceAddr, nil
}

// awaitHeader waits for all of a header of version 1, which proxyproto.Read takes
// in one piece only. Nothing on the way promises that, and the connection's
// deadline bounds the wait. Whatever is wrong is for proxyproto.Read to find.
func awaitHeader(in *bufio.Reader) {
	const begins, longest = "PROXY ", 107
	for n := 1; n <= longest; n++ {
		b, err := in.Peek(n)
		if err != nil || b[n-1] == '\n' || n <= len(begins) && b[n-1] != begins[n-1] {
			return
		}
	}
}

// left reports whether somebody has only looked whether the proxy is here, as
// load balancers do, or the connection was closed meanwhile.
func left(in *bufio.Reader, err error) bool {
	return in.Buffered() == 0 && (errors.Is(err, proxyproto.ErrNoProxyProtocol) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed))
}

// tell logs a bad header, one a minute: a load balancer that is set up wrongly
// makes no other connections.
func (c *balancedConn) tell(err error) {
	c.mu.Lock()
	recent := !c.told.IsZero() && time.Since(c.told) < time.Minute
	if !recent {
		c.told = time.Now()
	}
	c.mu.Unlock()
	if recent {
		return
	}
	c.ops.Warn("a connection from an address of proxy.proxy_protocol does not begin with a good PROXY header and is closed (told once a minute)",
		zap.Stringer("peer", c.Conn.RemoteAddr()), zap.Error(err))
}

// RemoteAddr is the client's address.
func (c *balancedConn) RemoteAddr() net.Addr {
	_ = c.header()
	return c.client
}

func (c *balancedConn) Read(p []byte) (int, error) {
	if err := c.header(); err != nil {
		return 0, err
	}
	return c.rest.Read(p)
}

// NetConn returns the connection behind the header, for the tunnel engine.
func (c *balancedConn) NetConn() net.Conn {
	if c.header() != nil {
		return c.Conn
	}
	return c.rest
}

// CloseWrite ends the sending direction.
func (c *balancedConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

// newBalancers returns nil where there are none.
func newBalancers(list []string, ops *zap.Logger, panicked func(fault any)) *balancers {
	if len(list) == 0 {
		return nil
	}
	trusted, _ := policy.ParseNetworks(list) // validated
	return &balancers{trusted: trusted, timeout: balancerTimeout, ops: ops, panicked: panicked}
}
