// Package streams answers requests by HTTP/2, each a stream: tunnels and intercepted
// sessions in CONNECTs by itself, everything else by package forward. It answers the
// clients of a listener inside TLS and those inside intercepted connections alike.
//
// It wires package http2, which speaks the protocol, to package exchange, which decides.
package streams

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"espalier/proxy/exchange"
	"espalier/proxy/forward"
	"espalier/proxy/http2"
	"espalier/proxy/traffic"
	"espalier/proxy/tunnel"
	"espalier/proxy/waiting"
)

// maxStreams is how many tunnels and requests a client may have in a connection;
// proxy.max_tunnels_per_client counts those of all.
const maxStreams = 1000

// A Config has what a Server works with. All fields must be set.
type Config struct {
	Pipeline *exchange.Pipeline
	Forward  *forward.Forwarder
	Tunnels  tunnel.Engine
	// Inspect takes over a CONNECT that was admitted and is to be intercepted, or
	// denied by a page, whose client was told that it is established. It must not block.
	Inspect   func(x *exchange.Exchange, client net.Conn)
	Room      *waiting.Room
	KeepAlive time.Duration // between two requests of a client
	Stall     time.Duration // for a client to take an answer, and to send a body
	Ops       *zap.Logger
}

// A Server answers clients by HTTP/2. It is safe for concurrent use.
type Server struct {
	cfg Config

	alive context.Context // ends when what is left is cut
	cut   context.CancelCauseFunc

	mu       sync.Mutex
	conns    map[*conn]struct{}
	draining bool
	empty    chan struct{} // closed when the last connection ends, while Shutdown waits
}

// New returns a Server.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, conns: map[*conn]struct{}{}}
	s.alive, s.cut = context.WithCancelCause(context.Background())
	return s
}

// A conn is a client's connection.
type conn struct {
	*Server
	*http2.Conn
	session *exchange.Session // that it is inside of; nil: the proxy is asked
	client  netip.Addr
}

// Serve answers requests on c until it ends, and closes it.
func (s *Server) Serve(c net.Conn, client netip.Addr) { s.serve(c, &conn{client: client}) }

// ServeSession answers the requests inside an intercepted connection, c, until it
// ends, and closes it.
func (s *Server) ServeSession(c net.Conn, ses *exchange.Session) {
	s.serve(c, &conn{client: ses.Client(), session: ses})
}

func (s *Server) serve(c net.Conn, k *conn) {
	k.Server = s
	cfg := http2.Config{
		Context: s.alive, MaxStreams: maxStreams, Stall: s.cfg.Stall, IdleTimeout: s.cfg.KeepAlive,
		Malformed: k.malformed,
		Panicked:  func(_ *http2.Request, fault any) { s.cfg.Pipeline.Panicked(nil, fault) },
	}
	if k.session == nil { // a session is counted as a tunnel
		guest := &guest{c, k}
		cfg.Idle = guest.idle
		defer s.cfg.Room.Leave(guest)
	}
	k.Conn = http2.New(c, cfg, k.answer)
	if !s.enter(k) {
		c.Close()
		return
	}
	defer s.leave(k)
	if err := k.Conn.Serve(); err != nil {
		s.cfg.Ops.Debug("HTTP/2 connection", zap.Stringer("client", k.client), zap.Error(err))
	}
}

// A guest is a connection in the Room.
type guest struct {
	net.Conn
	k *conn
}

func (g *guest) idle(idle bool) {
	if idle {
		g.k.cfg.Room.Enter(g)
	} else {
		g.k.cfg.Room.Leave(g)
	}
}

// Close implements net.Conn. It does not block.
func (g *guest) Close() error {
	go g.k.Conn.Close()
	return nil
}

// enter notes a connection. It reports false if that would be cut anyway.
func (s *Server) enter(k *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alive.Err() != nil {
		return false
	}
	s.conns[k] = struct{}{}
	if s.draining {
		k.Conn.Shutdown()
	}
	return true
}

func (s *Server) leave(k *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, k)
	if len(s.conns) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// Drain tells clients to begin nothing more on their connections, which end with their
// last stream.
func (s *Server) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for k := range s.conns {
		k.Conn.Shutdown()
	}
}

// Shutdown drains, and cuts what is left when ctx ends; cut is the number of tunnels
// among it, of every protocol. It returns when all connections have ended. Sessions may
// begin until then, and may be waited for by another call.
func (s *Server) Shutdown(ctx context.Context) (cut int) {
	s.Drain()
	var n atomic.Int64
	for done := ctx.Done(); ; {
		s.mu.Lock()
		if len(s.conns) == 0 {
			s.mu.Unlock()
			return int(n.Load())
		}
		if ctx.Err() != nil && done != nil {
			done = nil
			s.cut(tunnel.ErrShutdown)
			// Tunnels are the engine's to cut, so that their records say why.
			s.cfg.Tunnels.Cut(func(*traffic.Service) bool { n.Add(1); return true })
			for k := range s.conns {
				k.Conn.Close()
			}
		}
		if s.empty == nil {
			s.empty = make(chan struct{})
		}
		empty := s.empty
		s.mu.Unlock()
		select {
		case <-empty: // another may have come meanwhile
		case <-done:
		}
	}
}
