package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"espalier/proxy/conns"
	"espalier/proxy/egress"
	"espalier/proxy/limits"
	"espalier/proxy/tunnel"
	"espalier/proxy/waiting"
	"espalier/proxy/wire"
)

// A Shared is a listening socket that another process is to take over: Shutdown leaves
// the clients that have connected before the time to ask, and tells those on kept
// connections to open another.
type Shared struct{ net.Listener }

// handoverGrace is how long clients that connected before Shutdown may take to ask, if
// another process takes over the listening socket: those that have just connected, and
// those whose connections are kept.
const handoverGrace = time.Second

// Listen opens a listener with the proxy's socket options.
func Listen(addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: egress.KeepAlive}
	return lc.Listen(context.Background(), "tcp", addr)
}

// A listener is one that is served.
type listener struct {
	net.Listener
	shared bool
	pause  func() // nothing is accepted any more
	stop   func() // and clients that have not asked for anything are turned away
}

// enter notes a listener that is served from now on, until serving.Done. It reports
// false if Shutdown has begun.
func (s *Server) enter(l *listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Draining() {
		return false
	}
	s.serving.Add(1)
	s.listeners = append(s.listeners, l)
	s.watching.Do(func() {
		stop := s.clients.Context().Done()
		go s.pipeline.Limits.Watch(stop)
		go eachMinute(stop, s.endTunnels)
	})
	return true
}

// unshared returns the listener that l is, or marks as Shared.
func unshared(l net.Listener) *listener {
	if s, ok := l.(Shared); ok {
		return &listener{Listener: s.Listener, shared: true}
	}
	return &listener{Listener: l}
}

// Serve answers clients on l, which may be Shared, until Shutdown, and then returns nil.
// It closes l.
func (s *Server) Serve(l net.Listener) error {
	served := unshared(l)
	tcp, isTCP := served.Listener.(*net.TCPListener)
	a, ok := s.tunnels.(tunnel.Acceptor)
	if !ok || !isTCP || s.lbs != nil { // a PROXY header comes first
		return s.acceptAll(served, s.plain)
	}
	return s.acceptInLoop(a, served, tcp)
}

// ServeTLS is Serve for clients that speak to the proxy inside TLS, by HTTP/1.1 or
// HTTP/2 (RFC 9113). config must have certificates; which protocols are spoken is up to
// it. Policy, counters and records are those of Serve.
func (s *Server) ServeTLS(l net.Listener, config *tls.Config) error {
	return s.acceptAll(unshared(l), func(g *guest) { s.shake(g, config) })
}

// acceptInLoop has the event loop accept clients from l, until Shutdown.
func (s *Server) acceptInLoop(a tunnel.Acceptor, l *listener, tcp *net.TCPListener) error {
	pauseEngine, stopEngine, err := a.Accept(tcp, gate{s})
	if err != nil {
		l.Close()
		return fmt.Errorf("accept on %s: %w", l.Addr(), err)
	}
	stopped := make(chan struct{})
	l.stop = sync.OnceFunc(func() { stopEngine(); l.Close(); close(stopped) })
	l.pause = func() { pauseEngine(); l.Close() }
	if !l.shared {
		l.pause = l.stop // clients should find the port closed
	}
	if !s.enter(l) {
		l.stop()
		return nil
	}
	defer s.serving.Done()
	<-stopped
	return nil
}

// acceptAll accepts clients from l, and has each taken on a goroutine of its own, until
// Shutdown.
func (s *Server) acceptAll(l *listener, take func(*guest)) error {
	from := l.Listener
	if s.lbs != nil {
		from = s.lbs.Listener(from)
	}
	stop := func() { l.Close() }
	if l.pause, l.stop = stop, stop; !s.enter(l) {
		l.Close()
		return nil
	}
	defer s.serving.Done()
	defer l.Close()
	var wait time.Duration
	for {
		c, err := from.Accept()
		switch {
		case err == nil:
			wait = 0
			s.greet(c, take)
		case s.Draining():
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		default: // mostly out of descriptors
			if limits.IsOutOfDescriptors(err) {
				s.pipeline.Limits.RanShort()
			}
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			time.Sleep(wait)
		}
	}
}

// A guest is a client's connection that was accepted: in the Group before anything that
// serves it is, and until that has ended.
type guest struct {
	net.Conn
	mu     sync.Mutex
	served bool
}

// End implements conns.Conn.
func (g *guest) End(stage conns.Stage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if stage >= conns.Closing && !g.served {
		g.Conn.Close()
	}
}

// begin notes that another member of the Group serves the connection from now on.
func (g *guest) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.served = true
}

// greet has a client taken on a goroutine of its own.
func (s *Server) greet(c net.Conn, take func(*guest)) {
	g := &guest{Conn: c}
	if !s.clients.Enter(g) {
		c.Close()
		return
	}
	go func() {
		defer s.clients.Leave(g)
		defer func() {
			if fault := recover(); fault != nil {
				s.pipeline.Panicked(nil, fault)
				c.Close()
			}
		}()
		take(g)
	}()
}

// plain serves a client by HTTP/1.
func (s *Server) plain(g *guest) { s.serve(g, g.Conn, s.http1.Serve) }

// serve has c, the connection of a guest or TLS inside it, served for the client's
// address, which a PROXY header may tell.
func (s *Server) serve(g *guest, c net.Conn, by func(net.Conn, netip.Addr)) {
	client := wire.AddrPort(c).Addr()
	g.begin()
	by(c, client)
}

// helloTimeout bounds the TLS handshake of a client of the proxy.
const helloTimeout = 10 * time.Second

// shake does the handshake with a client, and serves it.
func (s *Server) shake(g *guest, config *tls.Config) {
	c := g.Conn
	place := &waiting.Place{Conn: c}
	s.room.Enter(place)
	defer s.room.Leave(place)
	_ = c.RemoteAddr() // reads a PROXY header, which has its own time
	_ = c.SetDeadline(time.Now().Add(helloTimeout))
	secure := tls.Server(wire.NewSteady(c, s.times.Stall), config)
	if err := secure.Handshake(); err != nil {
		s.ops.Debug("TLS handshake with client failed", zap.Stringer("client", c.RemoteAddr()), zap.Error(err))
		c.Close()
		return
	}
	s.room.Leave(place)
	_ = secure.SetDeadline(time.Time{})
	protocol := secure.ConnectionState().NegotiatedProtocol
	s.ops.Debug("client connected by TLS", zap.Stringer("client", c.RemoteAddr()), zap.String("protocol", protocol))
	switch protocol {
	case "h2":
		s.serve(g, secure, s.streams.Serve)
	case "", "http/1.1":
		s.serve(g, secure, s.http1.Serve)
	default: // an authority has looked for its challenge
		secure.Close()
	}
}
