package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"espalier/policy"
	"espalier/proxy/exchange"
	"espalier/proxy/head"
	"espalier/proxy/refusal"
	"espalier/proxy/traffic"
	"espalier/proxy/tunnel"
)

// http2Server answers clients by HTTP/2: those of proxy.tls_listen, and those inside
// intercepted connections.
type http2Server struct {
	s        *Server
	server   *http.Server
	conns    *handedListener
	forward  *forwarder
	serving  sync.WaitGroup
	sessions sync.Map // of *exchange.Session, by *tls.Conn

	transport atomic.Pointer[http.Transport] // of the state in force
}

func newHTTP2Server(s *Server) *http2Server {
	h := &http2Server{s: s, conns: newHandedListener(nil), forward: newForwarder(s)}
	h.server = &http.Server{
		Handler:                      h,
		IdleTimeout:                  s.times.KeepAlive,
		MaxHeaderBytes:               head.MaxBytes,
		DisableGeneralOptionsHandler: true,
		// A device has its tunnels in one connection. Pings show that it is gone, in
		// minutes, for each wakes it.
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			// What an origin does not take holds up its own tunnel, and not at once the
			// others of the connection.
			MaxReceiveBufferPerStream: 256 << 10, MaxReceiveBufferPerConnection: 4 << 20,
			SendPingTimeout: 5 * time.Minute, PingTimeout: time.Minute, WriteByteTimeout: s.times.Stall,
		},
		ConnState: h.connState,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if ses, ok := h.sessions.Load(c); ok {
				ctx = context.WithValue(ctx, sessionKey{}, ses)
			}
			return ctx
		},
		ErrorLog: zap.NewStdLog(s.ops.WithOptions(zap.IncreaseLevel(zap.WarnLevel))),
	}
	markHTTPS(h.server)
	h.serving.Go(func() { _ = h.server.Serve(h.conns) }) // until shutdown
	return h
}

type sessionKey struct{}

// serveProxy serves c, on which the proxy is asked.
func (h *http2Server) serveProxy(c *tls.Conn) { h.conns.hand(c) }

// serveSession serves c, which is inside of ses.
func (h *http2Server) serveSession(c *tls.Conn, ses *exchange.Session) {
	h.sessions.Store(c, ses)
	if !h.conns.hand(c) {
		h.sessions.Delete(c)
	}
}

func (h *http2Server) connState(c net.Conn, state http.ConnState) {
	_, inside := h.sessions.Load(c)
	if !inside {
		h.s.room.ConnState(c, state)
	} else if state == http.StateClosed {
		h.sessions.Delete(c)
	}
}

func (h *http2Server) apply(st, old *State) {
	if t := h.transport.Swap(newTransport(st, h.s.times)); t != nil {
		t.CloseIdleConnections()
	}
}

func (h *http2Server) closeIdle() {
	if t := h.transport.Load(); t != nil {
		t.CloseIdleConnections()
	}
}

// shutdown waits for requests, and cuts what is left when ctx ends; cut is the number of
// tunnels among it.
func (h *http2Server) shutdown(ctx context.Context) (cut int) {
	var n atomic.Int64
	h.conns.Close()
	if h.server.Shutdown(ctx) != nil {
		// The tunnels in its connections are the engine's to cut, so that their records
		// say why.
		h.s.tunnels.Cut(func(*traffic.Service) bool { n.Add(1); return true })
		h.server.Close()
	}
	h.serving.Wait()
	return int(n.Load())
}

// ServeHTTP implements http.Handler.
func (h *http2Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.s
	s.handlers.enter()
	defer s.handlers.leave()
	var x *exchange.Exchange
	defer func() {
		if fault := recover(); fault != nil {
			if fault != http.ErrAbortHandler { // a way to reset the stream, after the record
				s.pipeline.Panicked(x, fault)
			}
			panic(http.ErrAbortHandler)
		}
	}()
	ses, _ := r.Context().Value(sessionKey{}).(*exchange.Session)
	client, err := netip.ParseAddrPort(r.RemoteAddr)
	if ses == nil && err != nil {
		s.ops.Error("client without an address", zap.String("remote", r.RemoteAddr))
		panic(http.ErrAbortHandler)
	}
	addr := client.Addr()
	if ses != nil {
		addr = ses.Client()
		ses.Accepted()
	}
	if s.Draining() {
		w.Header().Set("Connection", "close")
	}
	x = s.pipeline.Begin(addr, r.Method, r.UserAgent())
	m := s.multiplexed(w, r)
	defer m.end()
	h.answer(m, r, x, ses)
}

func (h *http2Server) answer(w *multiplexedWriter, r *http.Request, x *exchange.Exchange, ses *exchange.Session) {
	s := h.s
	ask := &exchange.Request{Header: header(r.Header), Session: ses, Authority: r.Host, Path: r.URL.EscapedPath()}
	isConnect := r.Method == http.MethodConnect
	switch {
	case isConnect && ses == nil:
		ask.Authority = r.RequestURI
		if r.ContentLength > 0 {
			ask.Invalid = errors.New("a CONNECT has a body")
		}
	case ses != nil:
		ask.Scheme = ses.Scheme()
	default:
		ask.Scheme = "http"
		if r.Context().Value(httpsKey{}) != nil {
			ask.Scheme = "https"
		}
	}
	switch {
	case !isConnect && !isPath(r.RequestURI):
		x.SetHeader(ask.Header)
		if t, err := policy.ParseTarget(r.Host, 80); err == nil {
			x.SetTarget(t)
		} else {
			x.Record.Host = r.Host
		}
		x.Deny(exchange.RuleMalformed, "malformed request: its target is not a path")
		s.answer(w, x, &exchange.Refused{Refusal: refusal.Malformed})
		return
	case ses == nil && r.RequestURI == "*" && r.Method == http.MethodOptions && r.Host == "":
		x.Drop()
		status := http.StatusOK
		if s.Overloaded() != "" {
			status = http.StatusServiceUnavailable
		}
		w.WriteHeader(status)
		return
	}
	if err := x.Admit(r.Context(), ask); err != nil {
		s.answer(w, x, err)
		return
	}
	switch {
	case isConnect:
		h.connect(w, r, x)
		return
	case r.Method == http.MethodTrace:
		x.Deny(exchange.RuleMethod, http.MethodTrace)
		refused := &exchange.Refused{Refusal: refusal.Method}
		refused.Field.Name, refused.Field.Value = "Allow", "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, CONNECT"
		s.answer(w, x, refused)
		return
	}
	r.URL.Scheme = ask.Scheme
	h.forward.serve(w, r, x)
}

// connect opens a tunnel, or an intercepted session, in a stream.
func (h *http2Server) connect(w http.ResponseWriter, r *http.Request, x *exchange.Exchange) {
	s := h.s
	if x.Decision.Action != policy.Tunnel {
		if x.Target.Addr.IsValid() && !x.Decision.Page {
			if _, err := x.State.Dialer.Lookup(r.Context(), x.Target); err != nil {
				s.fail(w, x, err)
				return
			}
		}
		c, err := newStream(w, r)
		if err != nil {
			x.Fail(exchange.ErrClientClosed)
			x.Finish(http.StatusOK)
			return
		}
		s.mitm.Take(x, c.piped(), true)
		s.await(c)
		return
	}
	dialing := time.Now()
	upstream, err := x.State.Dialer.Dial(r.Context(), x.Decision.Dial)
	x.Record.Connect = time.Since(dialing)
	if err != nil {
		s.fail(w, x, err)
		return
	}
	x.Record.Upstream = addrPort(upstream)
	c, err := newStream(w, r)
	if err != nil {
		upstream.Close()
		x.Fail(exchange.ErrClientClosed)
		x.Finish(http.StatusOK)
		return
	}
	s.tunnels.Start(tunnel.Tunnel{Client: c, Upstream: upstream, Service: x.Service(), Owner: x.HandOn()})
	s.await(c)
}

// await waits in a handler for the end of a stream, which is not the handler's work.
func (s *Server) await(c *stream) {
	s.handlers.leave()
	defer s.handlers.enter()
	c.wait()
}

// header is the header of a request by HTTP/2, as exchange.Header.
type header http.Header

func (h header) Get(name string) string { return strings.Join(http.Header(h).Values(name), ", ") }

// answer sends a refusal and finishes x.
func (s *Server) answer(w http.ResponseWriter, x *exchange.Exchange, err error) {
	refused, ok := errors.AsType[*exchange.Refused](err)
	if !ok {
		refused = &exchange.Refused{Refusal: refusal.For(err)}
	}
	h, body := x.Render(refused.Refusal)
	for name, values := range h {
		w.Header()[name] = values
	}
	if refused.Field.Name != "" {
		w.Header().Set(refused.Field.Name, refused.Field.Value)
	}
	w.WriteHeader(refused.Status)
	_, _ = io.WriteString(w, body) // a client that is gone needs no answer
	x.Finish(refused.Status)
}

// fail answers a request whose origin could not be reached.
func (s *Server) fail(w http.ResponseWriter, x *exchange.Exchange, err error) {
	x.Fail(err)
	s.answer(w, x, &exchange.Refused{Refusal: refusal.For(err)})
}

// httpsKey is in the context of requests by HTTP/2 whose :scheme is https.
type httpsKey struct{}

// markHTTPS lets srv mark such requests. Of the scheme net/http tells nothing, but
// that its HTTP/2 gives TLS to requests of https only, before its HTTP/1 gives it to
// all. Between the two stands TLSNextProto, which Serve fills.
func markHTTPS(srv *http.Server) {
	none := newHandedListener(nil)
	none.Close()
	_ = srv.Serve(none)
	if serve := srv.TLSNextProto["h2"]; serve != nil {
		srv.TLSNextProto["h2"] = func(srv *http.Server, c *tls.Conn, h http.Handler) { serve(srv, c, httpsMarker{h}) }
	}
}

type httpsMarker struct{ http.Handler }

func (m httpsMarker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.TLS != nil {
		r = r.WithContext(context.WithValue(r.Context(), httpsKey{}, true))
	}
	m.Handler.ServeHTTP(w, r)
}

// BaseContext is how net/http hands a connection's context to its HTTP/2.
func (m httpsMarker) BaseContext() context.Context {
	if h, ok := m.Handler.(interface{ BaseContext() context.Context }); ok {
		return h.BaseContext()
	}
	return context.Background()
}

// handedListener is a net.Listener of connections that somebody else accepted.
type handedListener struct {
	addr  net.Addr
	conns chan net.Conn
	mu    sync.Mutex // nothing is handed after done is closed
	once  sync.Once
	done  chan struct{}
}

// handedBacklog is as long as a listening socket's.
const handedBacklog = 4096

func newHandedListener(addr net.Addr) *handedListener {
	return &handedListener{addr: addr, conns: make(chan net.Conn, handedBacklog), done: make(chan struct{})}
}

// hand never blocks. It closes what nobody takes in time, and reports false.
func (l *handedListener) hand(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.done:
	default:
		select {
		case l.conns <- c:
			return true
		default:
		}
	}
	c.Close()
	return false
}

// Accept returns what was handed before Close also after it.
func (l *handedListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
	}
	select {
	case c := <-l.conns:
		return c, nil
	default:
		return nil, net.ErrClosed
	}
}

func (l *handedListener) Close() error {
	l.once.Do(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		close(l.done)
	})
	return nil
}

func (l *handedListener) Addr() net.Addr { return l.addr }
