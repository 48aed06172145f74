// Package proxy is the proxy itself: it takes requests, asks the policy, and
// tunnels, forwards or refuses.
//
// Nobody, client or destination, can hold the proxy up for ever. The phases of a
// connection and what bounds them:
//
//	a PROXY header to arrive                      5 s
//	a TLS hello on the plain port                 refused at its first byte, closed in 0.2 s
//	a request's head to arrive                    20 s, 64 KB, 200 lines
//	the next request on a kept connection         2 min, and 20 s from its first bytes
//	a name to be looked up, and to connect        egress.connect_timeout
//	a destination's 100 Continue                  1 s, then the body is sent
//	a destination's answer to begin, and its head 5 min, 64 KB, 200 lines, 10 interim answers
//	… where a client within TLS has left          1 s, and is looked for from then on
//	a portion of a body, sent or received         5 min, on either side
//	… of an answer within TLS, by HTTP/2          as long as the client waits
//	a body by HTTP/2 whose answer has begun       as long as that takes
//	what surrounds chunks                         1 KB of an extension, 16 KB of trailers
//	a tunnel or WebSocket without a byte          proxy.idle_timeout
//	a tunnel of which one side has closed         5 min
//	a connection kept to a destination            1.5 min
//
// They hold inside an intercepted connection too, whose beginning has the bounds
// that intercept.go lists.
package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"espalier/policy"
	"espalier/policy/auth"
	"espalier/proxy/accesslog"
	"espalier/proxy/egress"
	"espalier/proxy/head"
	"espalier/proxy/hello"
	"espalier/proxy/inspect"
	"espalier/proxy/traffic"
	"espalier/proxy/tunnel"
	"espalier/proxy/waiting"
)

// State is what a reload replaces. Requests under way and open tunnels keep the
// one they began with.
type State struct {
	Policy *policy.Policy
	Dialer *egress.Dialer
	Auth   *auth.Auth // nil: nobody can sign in
	// Contact is whom people may ask who are refused; empty: nobody.
	Contact string
	// Leaves are the certificates of what is intercepted. They must be set where
	// the Policy may say inspect.
	Leaves *inspect.Leaves
	// Exceptions learns of clients that cannot be intercepted; nil: nobody does.
	Exceptions *inspect.Exceptions
	// Roots are the CAs of intercepted destinations; nil: those of the system.
	Roots *x509.CertPool

	transport *http.Transport // of requests on the general way; Apply makes it
	tls       *tls.Config     // towards clients that are intercepted; likewise
	originTLS *tls.Config     // towards destinations; likewise
}

const proxyName = "espalier" // in Proxy-Status, RFC 9209

// A Server is a proxy. It is safe for concurrent use. It is a
// prometheus.Collector of what concerns no service.
type Server struct {
	cfg     Config
	log     *accesslog.Log
	ops     *zap.Logger
	traffic *traffic.Counters
	tunnels tunnel.Engine
	limits  *limits
	room    *waiting.Room // of connections on which nothing is asked
	times   Timeouts
	lbs     *balancers // nil: none

	state       atomic.Pointer[State]
	quick       quick
	forward     *forwarder
	intercepted *interceptor
	http        *http.Server
	http2       *http.Server // inside TLS
	handlers    handlers
	panics      atomic.Uint64
	draining    atomic.Bool
	relieving   atomic.Bool
	watching    sync.Once       // for overload
	alive       context.Context // until the end of Shutdown
	ended       context.CancelFunc
	serving     sync.WaitGroup
	mu          sync.Mutex
	stops       []stops
	shared      bool // a listener is
}

// New builds a Server of a valid Config. Apply must be called before Serve. The
// caller closes log after Shutdown has returned.
func New(cfg Config, log *accesslog.Log, ops *zap.Logger, counters *traffic.Counters) *Server {
	s := &Server{
		cfg: cfg, log: log, ops: ops, traffic: counters,
		times: cfg.Timeouts.withDefaults(), limits: newLimits(cfg),
	}
	s.alive, s.ended = context.WithCancel(context.Background())
	m := s.limits
	turned := func() { m.turnedAway(shedWaiting) }
	panicked := func(fault any) { s.panicked(nil, fault) }
	s.room = waiting.NewRoom(m.maxHeads, turned)
	m.overload = overload{ops: ops, start: time.Now(), relieve: s.relieve, idle: s.idle}
	s.tunnels = tunnel.New(tunnel.Config{
		Idle: cfg.IdleTimeout, HalfClosed: s.times.HalfClosed, AttemptDelay: egress.AttemptDelay,
		MaxWaiting: m.maxWaiting, Descriptors: m.descriptors, MaxScarce: m.maxScarce,
		Turned: turned, Short: m.ranShort, Panicked: panicked,
	})
	s.lbs = newBalancers(cfg.ProxyProtocol, ops, panicked)
	s.quick.s = s
	s.forward = newForwarder(s)
	s.intercepted = newInterceptor(s)
	s.http2 = newSecureServer(s)
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.times.Head,
		IdleTimeout:       s.times.KeepAlive,
		MaxHeaderBytes:    head.MaxBytes,
		// OPTIONS * is answered like every other request, by the handler.
		DisableGeneralOptionsHandler: true,
		ConnContext:                  keepConn,
		ConnState:                    s.connState,
		ErrorLog:                     zap.NewStdLog(ops.WithOptions(zap.IncreaseLevel(zap.WarnLevel))),
	}
	return s
}

// Apply makes st, which must be new, the state for requests that come from now
// on.
func (s *Server) Apply(st *State) {
	st.Dialer.KeepBelow(s.limits.descriptors)
	st.tls, st.originTLS = newServerTLS(), newOriginTLS(st.Roots)
	st.transport = newTransport(st, s.times)
	old := s.state.Swap(st)
	// Kept connections were dialed by the old rules.
	s.quick.pool.closeIdle()
	if old != nil {
		old.transport.CloseIdleConnections()
	}
}

// stops ends what a listener takes.
type stops struct {
	pause func() // nothing is accepted any more
	stop  func() // and who has not asked for anything is turned away
}

// handoverGrace is how long clients that connected before Shutdown may take to
// ask, where another process takes over the listening socket: those that have
// just connected, and those whose connections are kept.
const handoverGrace = time.Second

// Listen opens a listener with the proxy's socket options.
func Listen(addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: egress.KeepAlive}
	return lc.Listen(context.Background(), "tcp", addr)
}

// Serve answers clients on l until Shutdown, and then returns nil. It closes l.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, false) }

// ServeShared is Serve for a listening socket that another process is to take
// over: Shutdown then leaves the clients that have connected before the time to
// ask, and tells those on kept connections to open another.
func (s *Server) ServeShared(l net.Listener) error { return s.serve(l, true) }

// enter notes a listener that is served from now on, until serving.Done. It
// reports false where Shutdown has begun.
func (s *Server) enter(l stops, shared bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Draining() {
		return false
	}
	s.serving.Add(1)
	s.stops = append(s.stops, l)
	s.shared = s.shared || shared
	s.watching.Do(func() { go s.limits.watch(s.alive.Done()) })
	return true
}

func (s *Server) serve(l net.Listener, shared bool) error {
	from := l
	pause := func() { l.Close() }
	stop := pause
	if s.lbs != nil { // a header comes first, so that accepting is net/http's
		from = balancedListener{l, s.lbs}
	} else if a, ok := s.tunnels.(tunnel.Acceptor); ok {
		if tcp, ok := l.(*net.TCPListener); ok {
			handed := newHandedListener(l.Addr())
			pauseEngine, stopEngine, err := a.Accept(tcp, &gate{s, handed})
			if err != nil {
				l.Close()
				return fmt.Errorf("accept on %s: %w", l.Addr(), err)
			}
			from = handed
			pause = func() { pauseEngine(); l.Close() }
			stop = func() { stopEngine(); l.Close() }
		}
	}
	if !shared {
		pause = stop // clients should find the port closed
	}
	defer stop()
	if !s.enter(stops{pause, stop}, shared) {
		return nil
	}
	defer s.serving.Done()
	err := s.http.Serve(watchedListener{hello.NewListener(from), s})
	if errors.Is(err, http.ErrServerClosed) || s.Draining() { // Shutdown has closed l
		return nil
	}
	return fmt.Errorf("serve %s: %w", l.Addr(), err)
}

// Tunnels is the number of open tunnels.
func (s *Server) Tunnels() int { return s.tunnels.Len() }

// Draining reports whether Shutdown has begun.
func (s *Server) Draining() bool { return s.draining.Load() }

// Shutdown closes the listeners first, so that devices turn to the next proxy of
// their PAC script, and connections that wait for a request; where ServeShared
// was called these have a second for it, and are closed after the answer. Then it
// lets requests and tunnels come to their end. What is left when ctx ends is cut,
// tunnels partly before, see cutInOrder; cut is the number of tunnels among it.
func (s *Server) Shutdown(ctx context.Context) (cut int) {
	s.mu.Lock()
	s.draining.Store(true)
	list, shared := s.stops, s.shared
	s.mu.Unlock()
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
	var quick sync.WaitGroup
	quick.Go(func() { s.quick.shutdown(ctx) })
	var plain sync.WaitGroup
	plain.Go(func() {
		if s.http.Shutdown(ctx) != nil {
			s.http.Close()
		}
	})
	s.serving.Wait()
	// Its connections have tunnels in them, which are the engine's to cut, so that
	// their records say why.
	var secure sync.WaitGroup
	var cutSecure atomic.Int64
	secure.Go(func() {
		if s.http2.Shutdown(ctx) != nil {
			s.tunnels.Cut(func(*traffic.Service) bool { cutSecure.Add(1); return true })
			s.http2.Close()
		}
	})
	plain.Wait()
	quick.Wait() // its sessions may go the general way
	s.intercepted.shutdown(ctx)
	s.handlers.shutdown(ctx)
	s.intercepted.open.Wait()
	cut = s.tunnels.Shutdown(ctx) + cutBefore()
	secure.Wait()
	cut += int(cutSecure.Load())
	s.handlers.shutdown(ctx)
	s.ended()
	s.state.Load().transport.CloseIdleConnections()
	return cut
}

// ServeHTTP handles a request that net/http has parsed.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.handlers.enter()
	defer s.handlers.leave()
	var x *exchange
	defer func() {
		if fault := recover(); fault != nil {
			s.panicked(x, fault)
			panic(http.ErrAbortHandler)
		}
	}()
	handled(r)
	client, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		s.ops.Error("a client has no address", zap.String("remote", r.RemoteAddr))
		panic(http.ErrAbortHandler)
	}
	if s.Draining() {
		w.Header().Set("Connection", "close")
	}
	x = s.begin(client.Addr().Unmap(), r.Method, r.UserAgent())
	if r.ProtoMajor == 2 {
		m := s.multiplexed(w, r)
		defer m.end()
		w = m
	}
	if r.Method == http.MethodConnect {
		s.connect(w, r, x)
	} else {
		s.plain(w, r, x)
	}
}

// answer sends a refusal and finishes x.
func (s *Server) answer(w http.ResponseWriter, x *exchange, r refusal) {
	body := x.tell(r, w.Header())
	w.WriteHeader(r.status)
	_, _ = io.WriteString(w, body) // a client that is gone needs no answer
	x.finish(r.status)
}

// fail answers a request whose destination could not be reached.
func (s *Server) fail(w http.ResponseWriter, x *exchange, err error) {
	x.failed(err)
	s.answer(w, x, refusalFor(err))
}
