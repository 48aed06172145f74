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
	return &http.Server{
		Handler:                      s,
		IdleTimeout:                  s.times.keepAlive,
		MaxHeaderBytes:               head.MaxBytes,
		DisableGeneralOptionsHandler: true,
		// A device has its tunnels in one connection. Pings show that it is gone, in
		// minutes, for each wakes it.
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			SendPingTimeout:      5 * time.Minute, PingTimeout: time.Minute, WriteByteTimeout: s.times.stall,
		},
		ConnState: s.connState,
		ErrorLog:  zap.NewStdLog(s.ops.WithOptions(zap.IncreaseLevel(zap.WarnLevel))),
	}
}

// maxStreams is how many tunnels and requests a client may have in a connection;
// proxy.max_tunnels_per_client counts those of all.
const maxStreams = 1000

// secureListener hands out clients whose TLS handshake is done, those that chose
// HTTP/2 apart from the others.
type secureListener struct {
	s            *Server
	config       *tls.Config
	http1, http2 *handedListener
}

// ServeTLS is Serve for clients that speak to the proxy inside TLS, by HTTP/1.1
// or HTTP/2 (RFC 9113). config must have certificates; which protocols are spoken
// is up to it. Policy, counters and records are those of Serve.
func (s *Server) ServeTLS(l net.Listener, config *tls.Config) error {
	from := l
	if s.lbs != nil {
		from = balancedListener{l, s.lbs}
	}
	secure := &secureListener{s: s, config: config, http1: newHandedListener(l.Addr()), http2: newHandedListener(l.Addr())}
	stop := func() {
		l.Close()
		secure.http1.Close()
		secure.http2.Close()
	}
	if !s.enter(stops{pause: func() { l.Close() }, stop: stop}, false) {
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
			return err
		default: // mostly out of descriptors, as net/http has it
			if isOutOfDescriptors(err) {
				l.s.limits.ranShort()
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-l.s.alive.Done():
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
	s.handlers.take(c)
	defer s.handlers.release(c)
	_ = c.RemoteAddr() // reads a PROXY header, which has its own time
	_ = c.SetDeadline(time.Now().Add(helloTimeout))
	secure := tls.Server(c, l.config)
	ctx, cancel := context.WithTimeout(s.alive, helloTimeout)
	defer cancel()
	if err := secure.HandshakeContext(ctx); err != nil {
		s.ops.Debug("TLS handshake with a client of the proxy", zap.Stringer("client", c.RemoteAddr()), zap.Error(err))
		c.Close()
		return
	}
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
