// Package proxy is the proxy itself: Server listens, wires the parts that answer clients,
// and ends them in order.
//
// No client and no origin can hold the proxy up. What bounds the phases of a connection;
// times marked with * begin anew whenever a byte moves:
//
//	a PROXY header to arrive                      5 s
//	a TLS hello on the plain port                 refused at its first byte, closed in 0.2 s
//	a request's head to arrive                    20 s, 64 KB, 200 lines
//	the next request on a kept connection         2 min, and 20 s from its first bytes
//	a name to be looked up, and to connect        egress.connect_timeout
//	an origin's answer to begin, and its head     5 min*, 64 KB, 200 lines, 10 interim answers
//	… if the client has ended its direction       1 min*
//	a body, sent or received                      5 min*, on either side
//	… an answer of an origin by HTTP/2            as long as the client waits; pings tell that it is gone
//	… of a request by HTTP/2, its answer begun    as long as that takes
//	what surrounds chunks                         1 KB of an extension, 16 KB of trailers
//	a tunnel or WebSocket without a byte          proxy.idle_timeout*
//	a tunnel of which one side has closed         5 min*
//	a connection kept to an origin                1.5 min
//	a client to read a refusal and close          2 s
//
// They hold inside an intercepted connection too, whose beginning has the bounds of
// package mitm.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"espalier/proxy/accesslog"
	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/forward"
	"espalier/proxy/hello"
	"espalier/proxy/http1"
	"espalier/proxy/limits"
	"espalier/proxy/mitm"
	"espalier/proxy/streams"
	"espalier/proxy/traffic"
	"espalier/proxy/tunnel"
	"espalier/proxy/waiting"
	"espalier/proxy/wire"
)

// State is what a reload replaces.
type State = exchange.State

// A Server is a proxy. It is safe for concurrent use. It is a prometheus.Collector of
// what concerns no service.
type Server struct {
	cfg      Config
	ops      *zap.Logger
	traffic  *traffic.Counters
	tunnels  tunnel.Engine
	pipeline *exchange.Pipeline
	origins  egress.Origins
	http1    *http1.Server
	mitm     *mitm.Interceptor
	room     *waiting.Room // of connections on which nothing is asked
	times    Timeouts
	lbs      *balancers // nil: none

	forward *forward.Forwarder
	streams *streams.Server
	taken   sync.WaitGroup // clients, on goroutines of their own

	draining  atomic.Bool
	relieving atomic.Bool
	watching  sync.Once       // for overload
	alive     context.Context // until the end of Shutdown
	ended     context.CancelFunc
	serving   sync.WaitGroup
	mu        sync.Mutex
	stops     []stops
	shared    bool // a listener is
}

// New builds a Server of a valid Config. Apply must be called before Serve. The caller
// closes log after Shutdown has returned.
func New(cfg Config, log *accesslog.Log, ops *zap.Logger, counters *traffic.Counters) *Server {
	s := &Server{cfg: cfg, ops: ops, traffic: counters, times: cfg.Timeouts.withDefaults()}
	s.origins.Stall = s.times.Stall
	s.alive, s.ended = context.WithCancel(context.Background())
	m := limits.New(limits.Config{
		MaxTunnels: cfg.MaxTunnels, MaxTunnelsPerClient: cfg.MaxTunnelsPerClient,
		Relieve: s.relieve, Idle: s.idle, Ops: ops,
	})
	s.pipeline = exchange.New(m, log, ops, counters)
	turned := func() { m.TurnedAway(limits.Waiting) }
	panicked := func(fault any) { s.pipeline.Panicked(nil, fault) }
	s.room = waiting.NewRoom(m.MaxHeads, turned)
	s.tunnels = tunnel.New(tunnel.Config{
		Idle: cfg.IdleTimeout, HalfClosed: s.times.HalfClosed, AttemptDelay: egress.AttemptDelay,
		MaxWaiting: m.MaxWaiting, Descriptors: m.Descriptors, MaxScarce: m.MaxScarce,
		Turned: turned, Short: m.RanShort, Panicked: panicked,
	})
	s.lbs = newBalancers(cfg.ProxyProtocol, ops, panicked)
	s.http1 = http1.New(http1.Config{
		Pipeline: s.pipeline, Origins: &s.origins, Tunnels: s.tunnels, Room: s.room, RefuseTLS: hello.Refuse, Ops: ops,
		Inspect: func(x *exchange.Exchange, client net.Conn) { s.mitm.Take(x, client, false) },
		Times: http1.Times{
			Head: s.times.Head, KeepAlive: s.times.KeepAlive, Reply: s.times.Reply,
			Stall: s.times.Stall, HalfClosed: min(s.times.HalfClosed, halfClosedRequest), Watch: s.times.Watch,
		},
	})
	s.forward = forward.New(forward.Config{
		Pipeline: s.pipeline, Origins: &s.origins, Reply: s.times.Reply, Stall: s.times.Stall, Ops: ops,
	})
	s.streams = streams.New(streams.Config{
		Pipeline: s.pipeline, Forward: s.forward, Tunnels: s.tunnels, Room: s.room,
		KeepAlive: s.times.KeepAlive, Stall: s.times.Stall, Ops: ops,
		Inspect: func(x *exchange.Exchange, client net.Conn) { s.mitm.Take(x, client, true) },
	})
	s.mitm = mitm.New(mitm.Config{
		Pipeline: s.pipeline, Tunnels: s.tunnels, Idle: cfg.IdleTimeout, Stall: s.times.Stall, Draining: s.Draining, Ops: ops,
		HTTP1: s.http1.ServeSession, HTTP2: s.streams.ServeSession,
	})
	return s
}

// halfClosedRequest is how long an answer may be awaited, and may pause, whose client
// has ended its direction: it may as well have left.
const halfClosedRequest = time.Minute

// Apply makes st, which must be new, the state for requests that come from now on.
func (s *Server) Apply(st *State) {
	st.Dialer.KeepBelow(s.pipeline.Limits.Descriptors)
	s.pipeline.Apply(st)
	s.origins.CloseIdle() // they were dialed by the old rules
}

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) { s.pipeline.Describe(ch) }

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) { s.pipeline.Collect(ch) }

// Overloaded says why new requests that are not Apple's are refused; "" if they are
// not.
func (s *Server) Overloaded() string { return s.pipeline.Limits.Overloaded() }

// Room is where connections wait that have not asked for anything. What else the
// process serves should wait there too: the longest wait is the first to end.
func (s *Server) Room() *waiting.Room { return s.room }

// relieve closes connections that are kept for later only, as many as help soon. It
// does not block.
func (s *Server) relieve() {
	if !s.relieving.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer s.relieving.Store(false)
		s.room.Shed(s.room.Len()/2 + 1)
		s.origins.CloseIdle()
	}()
}

// idle is the number of connections that relieve could close.
func (s *Server) idle() int { return s.room.Len() + s.origins.Len() }

// stops ends what a listener takes.
type stops struct {
	pause func() // nothing is accepted any more
	stop  func() // and clients that have not asked for anything are turned away
}

// handoverGrace is how long clients that connected before Shutdown may take to ask, if
// another process takes over the listening socket: those that have just connected, and
// those whose connections are kept.
const handoverGrace = time.Second

// Listen opens a listener with the proxy's socket options.
func Listen(addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: egress.KeepAlive}
	return lc.Listen(context.Background(), "tcp", addr)
}

// Serve answers clients on l until Shutdown, and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, false) }

// ServeShared is Serve for a listening socket that another process is to take over:
// Shutdown then leaves the clients that have connected before the time to ask, and
// tells those on kept connections to open another.
func (s *Server) ServeShared(l net.Listener) error { return s.serve(l, true) }

// enter notes a listener that is served from now on, until serving.Done. It reports
// false if Shutdown has begun.
func (s *Server) enter(l stops, shared bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Draining() {
		return false
	}
	s.serving.Add(1)
	s.stops = append(s.stops, l)
	s.shared = s.shared || shared
	s.watching.Do(func() { go s.pipeline.Limits.Watch(s.alive.Done()) })
	return true
}

func (s *Server) serve(l net.Listener, shared bool) error {
	tcp, isTCP := l.(*net.TCPListener)
	a, ok := s.tunnels.(tunnel.Acceptor)
	if !ok || !isTCP || s.lbs != nil { // a PROXY header comes first
		return s.acceptAll(l, shared, func(_ context.Context, c net.Conn) { s.serveHTTP1(c) })
	}
	pauseEngine, stopEngine, err := a.Accept(tcp, gate{s})
	if err != nil {
		l.Close()
		return fmt.Errorf("accept on %s: %w", l.Addr(), err)
	}
	stopped := make(chan struct{})
	stop := sync.OnceFunc(func() { stopEngine(); l.Close(); close(stopped) })
	pause := func() { pauseEngine(); l.Close() }
	if !shared {
		pause = stop // clients should find the port closed
	}
	if !s.enter(stops{pause, stop}, shared) {
		stop()
		return nil
	}
	defer s.serving.Done()
	<-stopped
	return nil
}

// clientOf is the client's address, which a PROXY header may tell. It reports false
// after it has closed c, which has none.
func (s *Server) clientOf(c net.Conn) (netip.Addr, bool) {
	client, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		s.ops.Error("client without an address", zap.Stringer("remote", c.RemoteAddr()))
		c.Close()
		return netip.Addr{}, false
	}
	return client.Addr().Unmap(), true
}

// serveHTTP1 answers a client that speaks HTTP/1.
func (s *Server) serveHTTP1(c net.Conn) {
	if client, ok := s.clientOf(c); ok {
		s.http1.Serve(c, client)
	}
}

// acceptAll accepts clients from l, and has each taken on a goroutine of its own, until
// Shutdown. The context ends when clients that have not asked for anything are turned
// away.
func (s *Server) acceptAll(l net.Listener, shared bool, take func(context.Context, net.Conn)) error {
	from := l
	if s.lbs != nil {
		from = balancedListener{l, s.lbs}
	}
	ctx, cancel := context.WithCancel(s.alive)
	defer cancel()
	if !s.enter(stops{pause: func() { l.Close() }, stop: func() { l.Close(); cancel() }}, shared) {
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
			s.taken.Go(func() {
				defer func() {
					if fault := recover(); fault != nil {
						s.pipeline.Panicked(nil, fault)
						c.Close()
					}
				}()
				take(ctx, c)
			})
		case s.Draining():
			<-ctx.Done() // clients that have connected before may have some time left
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		default: // mostly out of descriptors
			if limits.IsOutOfDescriptors(err) {
				s.pipeline.Limits.RanShort()
			}
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(wait):
			case <-s.alive.Done():
			}
		}
	}
}

// helloTimeout bounds the TLS handshake of a client of the proxy.
const helloTimeout = 10 * time.Second

// ServeTLS is Serve for clients that speak to the proxy inside TLS, by HTTP/1.1 or
// HTTP/2 (RFC 9113). config must have certificates; which protocols are spoken is up to
// it. Policy, counters and records are those of Serve.
func (s *Server) ServeTLS(l net.Listener, config *tls.Config) error {
	return s.acceptAll(l, false, func(ctx context.Context, c net.Conn) { s.shake(ctx, c, config) })
}

// ServeTLSShared is to ServeTLS what ServeShared is to Serve.
func (s *Server) ServeTLSShared(l net.Listener, config *tls.Config) error {
	return s.acceptAll(l, true, func(ctx context.Context, c net.Conn) { s.shake(ctx, c, config) })
}

// shake does the handshake with a client, and serves it.
func (s *Server) shake(ctx context.Context, c net.Conn, config *tls.Config) {
	s.room.Enter(c)
	defer s.room.Leave(c)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	_ = c.RemoteAddr() // reads a PROXY header, which has its own time
	_ = c.SetDeadline(time.Now().Add(helloTimeout))
	secure := tls.Server(wire.NewSteady(c, s.times.Stall), config)
	if err := secure.Handshake(); err != nil {
		s.ops.Debug("TLS handshake with client failed", zap.Stringer("client", c.RemoteAddr()), zap.Error(err))
		c.Close()
		return
	}
	if !stop() {
		return // it is closed
	}
	s.room.Leave(c)
	_ = secure.SetDeadline(time.Time{})
	protocol := secure.ConnectionState().NegotiatedProtocol
	s.ops.Debug("client connected by TLS", zap.Stringer("client", c.RemoteAddr()), zap.String("protocol", protocol))
	switch protocol {
	case "h2":
		if client, ok := s.clientOf(secure); ok {
			s.streams.Serve(secure, client)
		}
	case "", "http/1.1":
		s.serveHTTP1(secure)
	default: // an authority has looked for its challenge
		secure.Close()
	}
}

// Tunnels is the number of open tunnels.
func (s *Server) Tunnels() int { return s.tunnels.Len() }

// ReportTunnels has the access log's journal told, soon, of the tunnels that have
// carried bytes since the call before.
func (s *Server) ReportTunnels() { s.tunnels.Report() }

// Draining reports whether Shutdown has begun.
func (s *Server) Draining() bool { return s.draining.Load() }

// Shutdown closes the listeners first, so that devices turn to the next proxy of their
// PAC script, and connections that wait for a request; those of ServeShared have a
// second for it, and are closed after the answer. Then it lets requests and tunnels come
// to their end. What is left when ctx ends is cut, tunnels partly before, see
// cutInOrder; cut is the number of tunnels among it.
func (s *Server) Shutdown(ctx context.Context) (cut int) {
	s.mu.Lock()
	s.draining.Store(true)
	list, shared := s.stops, s.shared
	s.mu.Unlock()
	s.http1.Drain()
	s.streams.Drain()
	for _, l := range list {
		l.pause()
	}
	if shared {
		select {
		case <-time.After(handoverGrace):
		case <-ctx.Done():
		}
	}
	for _, l := range list {
		l.stop()
	}
	cutBefore := s.cutInOrder(ctx)
	s.serving.Wait()
	var requests sync.WaitGroup
	var cutInside int
	requests.Go(func() { s.http1.Shutdown(ctx) })
	requests.Go(func() { cutInside = s.streams.Shutdown(ctx) })
	requests.Wait()
	s.mitm.Shutdown(ctx)
	s.http1.Shutdown(ctx) // sessions that have begun meanwhile
	s.streams.Shutdown(ctx)
	s.mitm.Wait()
	cut = s.tunnels.Shutdown(ctx) + cutBefore() + cutInside
	s.taken.Wait()
	s.ended()
	return cut
}
