package hello

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// firstByteLimit bounds how long a client may take to show which of both it
// speaks, and then for the TLS handshake.
const firstByteLimit = 10 * time.Second

// A Both takes plain HTTP and TLS on the same port.
type Both struct {
	net.Listener
	config *tls.Config
	state  func(net.Conn, http.ConnState)
	conns  chan net.Conn
	err    chan error
	ctx    context.Context
	cancel context.CancelFunc
	once   sync.Once
	shakes sync.WaitGroup
}

// NewBoth returns a Both on l. config must have certificates; clients that
// negotiate an application protocol which is none of HTTP are closed. state is
// told of connections that have not shown what they speak as of new ones, and
// then as of closed ones; it may close them, as Room.ConnState of package waiting
// does. nil: nobody is.
func NewBoth(l net.Listener, config *tls.Config, state func(net.Conn, http.ConnState)) *Both {
	if state == nil {
		state = func(net.Conn, http.ConnState) {}
	}
	b := &Both{Listener: l, config: config, state: state, conns: make(chan net.Conn), err: make(chan error)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// Accept returns a connection on which the client has sent something: a
// *tls.Conn whose handshake is done, or one of plain HTTP with the methods NetConn
// and CloseWrite.
func (b *Both) Accept() (net.Conn, error) {
	b.once.Do(func() { b.shakes.Go(b.run) })
	select {
	case c := <-b.conns:
		return c, nil
	case err := <-b.err:
		return nil, err
	case <-b.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close closes the listener, and connections that Accept has not returned.
func (b *Both) Close() error {
	b.once.Do(func() {}) // nothing begins any more
	err := b.Listener.Close()
	b.cancel()
	b.shakes.Wait()
	return err
}

func (b *Both) run() {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			select {
			case b.err <- err: // whoever accepts knows which ones pass
			case <-b.ctx.Done():
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		b.shakes.Go(func() { b.take(c) })
	}
}

// take finds out what the client speaks.
func (b *Both) take(c net.Conn) {
	stop := context.AfterFunc(b.ctx, func() { c.Close() })
	defer stop()
	b.state(c, http.StateNew)
	ready := b.open(c)
	b.state(c, http.StateClosed)
	if ready == nil {
		c.Close()
		return
	}
	if !stop() {
		return // it is closed
	}
	select {
	case b.conns <- ready:
	case <-b.ctx.Done():
		c.Close()
	}
}

// open returns what is to be accepted, nil where the client is no use.
func (b *Both) open(c net.Conn) net.Conn {
	_ = c.SetDeadline(time.Now().Add(firstByteLimit))
	first := make([]byte, 1)
	if _, err := c.Read(first); err != nil {
		return nil
	}
	begun := &begunConn{Conn: c, first: first}
	if first[0] != 22 {
		_ = c.SetDeadline(time.Time{})
		return begun
	}
	secure := tls.Server(begun, b.config)
	if secure.HandshakeContext(b.ctx) != nil {
		return nil
	}
	_ = c.SetDeadline(time.Time{})
	switch secure.ConnectionState().NegotiatedProtocol {
	case "", "http/1.1", "h2":
		return secure
	}
	return nil
}

// begunConn is a connection whose first byte was read.
type begunConn struct {
	net.Conn
	first []byte // until it is read again
}

// NetConn returns the wrapped connection. What Read has returned is not read
// again from it.
func (c *begunConn) NetConn() net.Conn { return c.Conn }

// CloseWrite ends the sending direction.
func (c *begunConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return net.ErrClosed
}

func (c *begunConn) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}
