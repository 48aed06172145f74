// Package proxyprotocol accepts the connections of load balancers, which say with the PROXY
// protocol, version 1 or 2, who the client is.
package proxyprotocol

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
	"go.uber.org/zap/zapcore"

	"espalier/policy"
	"espalier/proxy/tunnel"
	"espalier/proxy/wire"
)

// DefaultTimeout is how long a load balancer may take to send its header. It sends it at
// once, so this is ample.
const DefaultTimeout = 5 * time.Second

// Balancers are the load balancers that are trusted.
type Balancers struct {
	Trusted policy.Networks
	Timeout time.Duration // for the header to arrive
	// Panicked is told of a panic of reading a header, which costs that connection only.
	Panicked func(fault any)
	ops      *zap.Logger
}

// New returns the Balancers in a list of networks that are valid; nil where there are none.
func New(list []string, ops *zap.Logger, panicked func(fault any)) *Balancers {
	if len(list) == 0 {
		return nil
	}
	trusted, _ := policy.ParseNetworks(list) // validated
	// A load balancer that is set up wrongly makes no other connections.
	once := zap.WrapCore(func(c zapcore.Core) zapcore.Core { return zapcore.NewSamplerWithOptions(c, time.Minute, 1, 0) })
	return &Balancers{Trusted: trusted, Timeout: DefaultTimeout, Panicked: panicked, ops: ops.WithOptions(once)}
}

// Listener wraps l. Connections of load balancers must begin with a header: without one, all
// the clients behind would be taken for the load balancer. Of others a header is not read,
// and so is a malformed request.
func (b *Balancers) Listener(l net.Listener) net.Listener { return listener{l, b} }

type listener struct {
	net.Listener
	*Balancers
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok || !l.Trusted.Contains(wire.AddrPort(tcp).Addr()) {
		return c, nil
	}
	return &conn{Conn: tcp, Balancers: l.Balancers}, nil
}

// A conn is a load balancer's connection. The header is read when the client's address is
// asked for or the first byte is read, not while accepting, so that a slow one holds up no
// other.
type conn struct {
	net.Conn // a *net.TCPConn
	*Balancers
	once   sync.Once
	rest   net.Conn // what follows the header
	client net.Addr
	err    error
}

// header reads the header, the first time. Where it is bad, the connection is closed: a
// peer that gets a header wrong would not understand an answer either.
func (c *conn) header() error {
	c.once.Do(func() {
		c.client = c.Conn.RemoteAddr()
		_ = c.SetReadDeadline(time.Now().Add(c.Timeout))
		in := bufio.NewReaderSize(c.Conn, 512)
		client, err := c.readHeader(in)
		if err != nil {
			if !left(in, err) {
				c.tell(err)
			}
			c.err = io.EOF
			c.Close()
			return
		}
		if client != nil {
			c.client = client
		}
		_ = c.SetReadDeadline(time.Time{})
		unread, _ := in.Peek(in.Buffered()) // buffered bytes cannot fail
		c.rest = tunnel.Replay(c.Conn, unread)
	})
	return c.err
}

// readHeader reads a PROXY header. The client is nil where it is the load
// balancer itself, as LOCAL and UNKNOWN say.
func (b *Balancers) readHeader(in *bufio.Reader) (client net.Addr, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			b.Panicked(fault)
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

// left reports whether a peer has only looked whether the proxy is here, as load balancers
// do, or the connection was closed meanwhile.
func left(in *bufio.Reader, err error) bool {
	return in.Buffered() == 0 && (errors.Is(err, proxyproto.ErrNoProxyProtocol) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed))
}

// tell logs a bad header.
func (c *conn) tell(err error) {
	c.ops.Warn("a connection from an address of proxy.proxy_protocol does not begin with a good PROXY header and is closed (told once a minute)",
		zap.Stringer("peer", c.Conn.RemoteAddr()), zap.Error(err))
}

// RemoteAddr is the client's address.
func (c *conn) RemoteAddr() net.Addr {
	_ = c.header()
	return c.client
}

func (c *conn) Read(p []byte) (int, error) {
	if err := c.header(); err != nil {
		return 0, err
	}
	return c.rest.Read(p)
}

// NetConn returns the connection behind the header, for the tunnel engine.
func (c *conn) NetConn() net.Conn {
	if c.header() != nil {
		return c.Conn
	}
	return c.rest
}

// CloseWrite ends the sending direction.
func (c *conn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }
