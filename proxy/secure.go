package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"espalier/proxy/head"
)

// newSecureServer returns the server of clients that have chosen HTTP/2 inside
// TLS.
func newSecureServer(s *Server) *http.Server {
	srv := &http.Server{
		Handler:                      s,
		IdleTimeout:                  s.times.KeepAlive,
		MaxHeaderBytes:               head.MaxBytes,
		DisableGeneralOptionsHandler: true,
		// A device has its tunnels in one connection. Pings show that it is gone, in
		// minutes, for each wakes it.
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			// What a destination does not take holds up its own tunnel, and not at once
			// the others of the connection.
			MaxReceiveBufferPerStream: 256 << 10, MaxReceiveBufferPerConnection: 4 << 20,
			SendPingTimeout: 5 * time.Minute, PingTimeout: time.Minute, WriteByteTimeout: s.times.Stall,
		},
		ConnState: s.connState,
		ErrorLog:  zap.NewStdLog(s.ops.WithOptions(zap.IncreaseLevel(zap.WarnLevel))),
	}
	markHTTPS(srv)
	return srv
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

// maxStreams is how many tunnels and requests a client may have in a connection;
// proxy.max_tunnels_per_client counts those of all.
const maxStreams = 1000

// secureListener hands out clients whose TLS handshake is done, those that chose
// HTTP/2 apart from the others.
type secureListener struct {
	s            *Server
	ctx          context.Context // of handshakes
	config       *tls.Config
	http1, http2 *handedListener
}

// ServeTLS is Serve for clients that speak to the proxy inside TLS, by HTTP/1.1
// or HTTP/2 (RFC 9113). config must have certificates; which protocols are spoken
// is up to it. Policy, counters and records are those of Serve.
func (s *Server) ServeTLS(l net.Listener, config *tls.Config) error {
	return s.serveTLS(l, config, false)
}

// ServeTLSShared is to ServeTLS what ServeShared is to Serve.
func (s *Server) ServeTLSShared(l net.Listener, config *tls.Config) error {
	return s.serveTLS(l, config, true)
}

func (s *Server) serveTLS(l net.Listener, config *tls.Config, shared bool) error {
	from := l
	if s.lbs != nil {
		from = balancedListener{l, s.lbs}
	}
	ctx, cancel := context.WithCancel(s.alive)
	secure := &secureListener{s: s, ctx: ctx, config: config, http1: newHandedListener(l.Addr()), http2: newHandedListener(l.Addr())}
	stop := func() {
		l.Close()
		cancel()
		secure.http1.Close()
		secure.http2.Close()
	}
	if !s.enter(stops{pause: func() { l.Close() }, stop: stop}, shared) {
		stop()
		return nil
	}
	defer s.serving.Done()
	defer stop()
	failed := make(chan error, 3)
	go func() { failed <- secure.accept(from) }()
	go func() { failed <- s.http.Serve(watchedListener{secure.http1, s}) }()
	go func() { failed <- s.http2.Serve(secure.http2) }()
	err := <-failed
	stop()
	for range 2 {
		<-failed
	}
	if s.Draining() {
		return nil
	}
	return fmt.Errorf("serve %s: %w", l.Addr(), err)
}

// accept takes clients until l is closed.
func (l *secureListener) accept(from net.Listener) error {
	var pause time.Duration
	for {
		c, err := from.Accept()
		switch {
		case err == nil:
			pause = 0
			l.s.handlers.enter()
			go l.shake(c)
		case errors.Is(err, net.ErrClosed):
			if l.s.Draining() {
				<-l.ctx.Done() // who has connected before may have some time left
			}
			return err
		default: // mostly out of descriptors, as net/http has it
			if isOutOfDescriptors(err) {
				l.s.limits.ranShort()
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-l.ctx.Done():
			}
		}
	}
}

// shake does the handshake with a client.
func (l *secureListener) shake(c net.Conn) {
	s := l.s
	defer s.handlers.leave()
	defer func() {
		if fault := recover(); fault != nil {
			s.panicked(nil, fault)
			c.Close()
		}
	}()
	s.room.Enter(c)
	defer s.room.Leave(c)
	stop := context.AfterFunc(l.ctx, func() { c.Close() })
	defer stop()
	_ = c.RemoteAddr() // reads a PROXY header, which has its own time
	_ = c.SetDeadline(time.Now().Add(helloTimeout))
	secure := tls.Server(c, l.config)
	if err := secure.Handshake(); err != nil {
		s.ops.Debug("TLS handshake with a client of the proxy", zap.Stringer("client", c.RemoteAddr()), zap.Error(err))
		c.Close()
		return
	}
	if !stop() {
		return // it is closed
	}
	s.room.Leave(c)
	_ = c.SetDeadline(time.Time{})
	protocol := secure.ConnectionState().NegotiatedProtocol
	s.ops.Debug("a client speaks to the proxy inside TLS", zap.Stringer("client", c.RemoteAddr()), zap.String("protocol", protocol))
	switch protocol {
	case "h2":
		l.http2.hand(secure)
	case "", "http/1.1":
		l.http1.hand(secure)
	default: // an authority has looked for its challenge
		secure.Close()
	}
}
