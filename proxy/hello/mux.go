package hello

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"espalier/proxy/tunnel"
)

// firstByteLimit bounds how long a client may take to show whether it speaks TLS,
// and then for the handshake.
const firstByteLimit = 10 * time.Second

// A Mux takes plain HTTP and TLS on the same port.
type Mux struct {
	net.Listener
	config   *tls.Config
	state    func(net.Conn, http.ConnState)
	accepted chan accepted
	ctx      context.Context
	cancel   context.CancelFunc
	once     sync.Once
	taking   sync.WaitGroup
}

// accepted is what Accept returns.
type accepted struct {
	conn net.Conn
	err  error
}

// NewMux returns a Mux on l. config must have certificates; a client that negotiates
// an application protocol other than HTTP is closed. state is told of connections
// that have not shown what they speak as of new ones, and then as of closed ones; it
// may close them, as Room.ConnState of package waiting does. Nil: nothing is told.
func NewMux(l net.Listener, config *tls.Config, state func(net.Conn, http.ConnState)) *Mux {
	if state == nil {
		state = func(net.Conn, http.ConnState) {}
	}
	m := &Mux{Listener: l, config: config, state: state, accepted: make(chan accepted)}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Accept returns a connection on which the client has sent something: a *tls.Conn
// whose handshake is done, or one of plain HTTP with the methods NetConn and
// CloseWrite.
func (m *Mux) Accept() (net.Conn, error) {
	m.once.Do(func() { m.taking.Go(m.run) })
	select {
	case a := <-m.accepted:
		return a.conn, a.err
	case <-m.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close closes the listener, and connections that Accept has not returned.
func (m *Mux) Close() error {
	m.once.Do(func() {}) // nothing begins any more
	err := m.Listener.Close()
	m.cancel()
	m.taking.Wait()
	return err
}

func (m *Mux) run() {
	for {
		c, err := m.Listener.Accept()
		switch {
		case err == nil:
			m.taking.Go(func() { m.take(c) })
		case !m.offer(accepted{err: err}), errors.Is(err, net.ErrClosed): // the caller of Accept knows which others pass
			return
		}
	}
}

// offer waits for Accept to take a, and reports whether it has.
func (m *Mux) offer(a accepted) bool {
	select {
	case m.accepted <- a:
		return true
	case <-m.ctx.Done():
		return false
	}
}

// take finds out what the client speaks.
func (m *Mux) take(c net.Conn) {
	stop := context.AfterFunc(m.ctx, func() { c.Close() })
	defer stop()
	m.state(c, http.StateNew)
	ready := m.open(c)
	m.state(c, http.StateClosed)
	if ready == nil || !stop() || !m.offer(accepted{conn: ready}) {
		c.Close()
	}
}

// open returns the connection to accept, nil if the client shows no HTTP.
func (m *Mux) open(c net.Conn) net.Conn {
	_ = c.SetDeadline(time.Now().Add(firstByteLimit))
	first := make([]byte, 1)
	if _, err := c.Read(first); err != nil {
		return nil
	}
	begun := tunnel.Replay(c, first)
	if first[0] != recordHandshake {
		_ = c.SetDeadline(time.Time{})
		return begun
	}
	secure := tls.Server(begun, m.config)
	if secure.HandshakeContext(m.ctx) != nil {
		return nil
	}
	_ = c.SetDeadline(time.Time{})
	switch secure.ConnectionState().NegotiatedProtocol {
	case "", "http/1.1", "h2":
		return secure
	}
	return nil
}
