// Package streams answers requests by HTTP/2, each a stream: tunnels and intercepted
// sessions in CONNECTs by itself, everything else by package forward. It answers the
// clients of a listener inside TLS and those inside intercepted connections alike.
//
// It wires package http2, which speaks the protocol, to package exchange, which decides.
package streams

import (
	"net"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"espalier/proxy/conns"
	"espalier/proxy/exchange"
	"espalier/proxy/forward"
	"espalier/proxy/http2"
	"espalier/proxy/tunnel"
	"espalier/proxy/waiting"
)

// maxStreams is how many tunnels and requests a client may have in a connection;
// proxy.max_tunnels_per_client counts those of all.
const maxStreams = 1000

// A Config has what a Server works with. All fields must be set.
type Config struct {
	Pipeline *exchange.Pipeline
	Conns    *conns.Group
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
}

// New returns a Server.
func New(cfg Config) *Server { return &Server{cfg} }

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
		Context: s.cfg.Conns.Context(), MaxStreams: maxStreams, Stall: s.cfg.Stall, IdleTimeout: s.cfg.KeepAlive,
		Malformed: k.malformed,
		Panicked:  func(_ *http2.Request, fault any) { s.cfg.Pipeline.Panicked(nil, fault) },
	}
	if k.session == nil { // a session is counted as a tunnel
		place := &waiting.Place{Conn: guest{k}}
		cfg.Idle = func(idle bool) {
			if idle {
				s.cfg.Room.Enter(place)
			} else {
				s.cfg.Room.Leave(place)
			}
		}
		defer s.cfg.Room.Leave(place)
	}
	k.Conn = http2.New(c, cfg, k.answer)
	if !s.cfg.Conns.Enter(k) {
		c.Close()
		return
	}
	defer s.cfg.Conns.Leave(k)
	if err := k.Conn.Serve(); err != nil {
		s.cfg.Ops.Debug("HTTP/2 connection", zap.Stringer("client", k.client), zap.Error(err))
	}
}

// A guest is a connection in the Room.
type guest struct{ *conn }

// Close implements io.Closer. It does not block.
func (g guest) Close() error {
	go g.Conn.Close()
	return nil
}

// End implements conns.Conn.
func (k *conn) End(stage conns.Stage) {
	if stage == conns.Cut {
		k.Conn.Close()
	} else {
		k.Conn.Shutdown()
	}
}
