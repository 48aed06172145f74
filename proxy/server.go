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
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"espalier/proxy/accesslog"
	"espalier/proxy/conns"
	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/forward"
	"espalier/proxy/hello"
	"espalier/proxy/http1"
	"espalier/proxy/limits"
	"espalier/proxy/mitm"
	"espalier/proxy/proxyprotocol"
	"espalier/proxy/streams"
	"espalier/proxy/traffic"
	"espalier/proxy/tunnel"
	"espalier/proxy/waiting"
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
	origins  *egress.Origins
	http1    *http1.Server
	mitm     *mitm.Interceptor
	room     *waiting.Room // of connections on which nothing is asked
	times    Timeouts
	lbs      *proxyprotocol.Balancers // nil: none

	forward *forward.Forwarder
	streams *streams.Server
	clients *conns.Group

	relieving atomic.Bool
	watching  sync.Once // for overload, and the hours of rules
	mu        sync.Mutex
	listeners []*listener
	serving   sync.WaitGroup // those
}

// New builds a Server of a valid Config. Apply must be called before Serve. The caller
// closes log after Shutdown has returned.
func New(cfg Config, log *accesslog.Log, ops *zap.Logger, counters *traffic.Counters) *Server {
	s := &Server{cfg: cfg, ops: ops, traffic: counters, times: cfg.Timeouts.withDefaults(), clients: conns.New(tunnel.ErrShutdown)}
	s.origins = egress.NewOrigins(s.times.Stall)
	s.origins.CertificateAsked = func(host string, authorities [][]byte) {
		s.pipeline.State().Exceptions.Asked(host, authorities)
	}
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
		Stirred: log.Stirred, Turned: turned, Short: m.RanShort, Panicked: panicked,
	})
	s.lbs = proxyprotocol.New(cfg.ProxyProtocol, ops, panicked)
	s.newProtocols()
	return s
}

// newProtocols makes what answers clients by each protocol.
func (s *Server) newProtocols() {
	s.forward = forward.New(forward.Config{
		Pipeline: s.pipeline, Origins: s.origins, Reply: s.times.Reply, Stall: s.times.Stall, Ops: s.ops,
	})
	s.http1 = http1.New(http1.Config{
		Pipeline: s.pipeline, Conns: s.clients, Origins: s.origins, Tunnels: s.tunnels, Room: s.room,
		RefuseTLS: hello.Refuse, Ops: s.ops,
		Inspect:   func(x *exchange.Exchange, client net.Conn) { s.mitm.Take(x, client, false) },
		Translate: s.forward.Translate,
		Times: http1.Times{
			Head: s.times.Head, KeepAlive: s.times.KeepAlive, Reply: s.times.Reply,
			Stall: s.times.Stall, HalfClosed: min(s.times.HalfClosed, halfClosedRequest), Watch: s.times.Watch,
		},
	})
	s.streams = streams.New(streams.Config{
		Pipeline: s.pipeline, Conns: s.clients, Tunnels: s.tunnels, Room: s.room,
		Forward: s.forward, KeepAlive: s.times.KeepAlive, Stall: s.times.Stall, Ops: s.ops,
		Inspect: func(x *exchange.Exchange, client net.Conn) { s.mitm.Take(x, client, true) },
	})
	s.mitm = mitm.New(mitm.Config{
		Pipeline: s.pipeline, Conns: s.clients, Tunnels: s.tunnels, Idle: s.cfg.IdleTimeout, Stall: s.times.Stall, Ops: s.ops,
		HTTP1: s.http1.ServeSession, HTTP2: s.streams.ServeSession,
	})
	s.pipeline.Intercept = func(x *exchange.Exchange, client net.Conn) { s.mitm.Take(x, client, true) }
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

// Tunnels is the number of open tunnels.
func (s *Server) Tunnels() int { return s.tunnels.Len() }

// ReportTunnels has the access log's journal told, soon, of the tunnels that have
// carried bytes since the call before.
func (s *Server) ReportTunnels() { s.tunnels.Report() }

// Draining reports whether Shutdown has begun.
func (s *Server) Draining() bool { return s.clients.Draining() }

// Shutdown closes the listeners first, so that devices turn to the next proxy of their
// PAC script, and connections that wait for a request; those of a Shared listener have a
// second for it, and are closed after the answer. Then it lets requests and tunnels come
// to their end. What is left when ctx ends is cut, tunnels partly before, see
// cutInOrder; cut is the number of tunnels among it.
func (s *Server) Shutdown(ctx context.Context) (cut int) {
	s.mu.Lock()
	s.clients.Advance(conns.Draining)
	listeners := s.listeners
	s.mu.Unlock()
	shared := false
	for _, l := range listeners {
		l.pause()
		shared = shared || l.shared
	}
	if shared {
		select {
		case <-time.After(handoverGrace):
		case <-ctx.Done():
		}
	}
	for _, l := range listeners {
		l.stop()
	}
	s.serving.Wait()
	ordered := s.cutInOrder(ctx)
	s.clients.Advance(conns.Closing)
	s.origins.Close()
	s.clients.Wait()
	cut = s.tunnels.Shutdown(ctx) + ordered()
	s.clients.Advance(conns.Cut) // ends what goes by their Context
	return cut
}
