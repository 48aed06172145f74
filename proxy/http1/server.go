// Package http1 answers requests by HTTP/1: of every method, with or without a body,
// asked of the proxy or inside an intercepted connection. Bytes pass as they came,
// but for fields that concern one connection only.
package http1

import (
	"context"
	"net"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"espalier/proxy/conns"
	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/tunnel"
	"espalier/proxy/waiting"
	"espalier/proxy/wire"
)

// Times bound the phases of a request. Each begins anew whenever a byte moves, but
// for Head.
type Times struct {
	Head       time.Duration // for a request's head to arrive, from its first byte
	KeepAlive  time.Duration // between two requests of a client
	Reply      time.Duration // for an origin to begin its answer; some long-poll for minutes
	Stall      time.Duration // for a body to go on, in either direction
	HalfClosed time.Duration // for an answer to go on whose client has ended its direction
	Watch      time.Duration // for an answer, before the client is watched
}

// A Config has what a Server works with. All fields must be set.
type Config struct {
	Pipeline *exchange.Pipeline
	Conns    *conns.Group
	Origins  *egress.Origins
	Tunnels  tunnel.Engine
	// Inspect takes over a CONNECT that was admitted and is to be intercepted, or
	// denied by a page: client has what came behind its head. It says to the client
	// that the CONNECT is established, and must not block.
	Inspect func(x *exchange.Exchange, client net.Conn)
	// Translate lets the client of a request ask an origin that speaks only HTTP/2.
	Translate func(*egress.Origin)
	Room      *waiting.Room
	// RefuseTLS answers a client that begins with TLS on a plain port, and closes.
	RefuseTLS func(net.Conn)
	Times     Times
	Ops       *zap.Logger
}

// A Server answers clients by HTTP/1. It is safe for concurrent use.
type Server struct {
	cfg Config
}

// New returns a Server.
func New(cfg Config) *Server { return &Server{cfg} }

// Serve answers requests on c until it ends.
func (s *Server) Serve(c net.Conn, client netip.Addr) {
	if c := (&conn{Server: s, Conn: wire.New(c, nil), client: client}); s.enter(c) {
		s.serve(c)
	}
}

// Start answers requests on c, from which unread was read, on a goroutine of its own. x is
// what an event loop has admitted of the first request, and err why it could not connect;
// nil: nothing.
func (s *Server) Start(c net.Conn, client netip.Addr, unread []byte, x *exchange.Exchange, err error) {
	if c := (&conn{Server: s, Conn: wire.New(c, unread), client: client, x: x, handed: x, handedErr: err}); s.enter(c) {
		go s.serve(c)
	}
}

// ServeSession answers the requests inside an intercepted connection, c, until it
// ends, and closes it.
func (s *Server) ServeSession(c net.Conn, ses *exchange.Session) {
	if c := (&conn{Server: s, Conn: wire.New(c, nil), client: ses.Client(), session: ses}); s.enter(c) {
		s.serve(c)
	}
}

func (s *Server) serve(c *conn) {
	defer s.leave(c)
	defer func() {
		if fault := recover(); fault != nil {
			s.cfg.Pipeline.Panicked(c.x, fault)
			c.Cut()
		}
	}()
	c.run()
	c.Free() // not after a panic, when a reader may still use it
}

// askGrace is how long a client that has not asked anything may take to while the proxy
// ends: it has just connected, or got its answer to a CONNECT.
const askGrace = 5 * time.Second

// enter notes a connection. It reports false, and closes it, if that would end anyway.
func (s *Server) enter(c *conn) bool {
	c.place.Conn = c.Conn.Conn
	late := c.session == nil && len(c.Unread()) == 0 && s.cfg.Conns.Stage() >= conns.Closing
	if !late && s.cfg.Conns.Enter(c) {
		return true
	}
	if c.handed != nil {
		c.handed.Fail(tunnel.ErrShutdown)
		c.handed.Finish(0)
	}
	c.Close()
	return false
}

func (s *Server) leave(c *conn) {
	s.cfg.Conns.Leave(c)
	if c.origin != nil { // after a panic
		c.origin.Interrupt()
	}
}

// End implements conns.Conn.
func (c *conn) End(stage conns.Stage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case stage == conns.Cut:
		c.Interrupt()
		if c.origin != nil {
			c.origin.Interrupt()
		}
	case stage < conns.Closing:
	case c.phase == fresh:
		_ = c.SetReadDeadline(time.Now().Add(askGrace))
	case c.phase == idle:
		_ = c.SetReadDeadline(time.Unix(1, 0)) // so run closes it, which may take time
	case c.phase == leaving:
		c.Halt()
	}
}

// alive ends when the remaining connections are cut.
func (s *Server) alive() context.Context { return s.cfg.Conns.Context() }
