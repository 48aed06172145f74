// Package hello knows TLS by its first byte, on ports where plain HTTP is spoken.
// A Listener refuses it at once, and a Mux answers it: iPadOS asks for an http PAC
// URL with TLS first, and goes on only when that has come to an end.
package hello

import (
	"io"
	"net"
	"sync/atomic"
	"time"

	"espalier/proxy/wire"
)

// recordHandshake is the type of the record that TLS begins with.
const recordHandshake = 22

// alert is a fatal handshake_failure (RFC 8446, section 6), in a record of the
// version that every client reads.
var alert = []byte{21, 3, 1, 0, 2, 2, 40}

// A Listener refuses connections that begin with a TLS record. It looks at them
// when they are first read, so Accept takes no longer, and a client that sends
// nothing costs what it costs without.
type Listener struct {
	net.Listener
	refused atomic.Uint64
}

// NewListener returns a Listener on l.
func NewListener(l net.Listener) *Listener { return &Listener{Listener: l} }

// Refused counts the connections refused so far. It may be called at any time.
func (l *Listener) Refused() uint64 { return l.refused.Load() }

// Accept returns a connection with the methods CloseWrite and NetConn. If the client
// speaks TLS, its first Read sends a TLS alert, closes it, and fails with io.EOF.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, refused: &l.refused}, nil
}

type conn struct {
	net.Conn
	refused *atomic.Uint64
	known   atomic.Bool // the first byte has been looked at
}

// NetConn returns the wrapped connection. What Read has returned is not read
// again from it.
func (c *conn) NetConn() net.Conn { return c.Conn }

// CloseWrite ends the sending direction.
func (c *conn) CloseWrite() error { return wire.CloseWrite(c.Conn) }

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n == 0 || c.known.Swap(true) || p[0] != recordHandshake {
		return n, err
	}
	c.refused.Add(1)
	Refuse(c)
	return 0, io.EOF
}

// lingerLimit bounds how long a refused client may take to hang up.
const lingerLimit = 200 * time.Millisecond

// Refuse sends the alert and closes c, whose client began with TLS. Unless the rest of
// the hello is read first, closing resets the connection and the client may never see
// the alert.
func Refuse(c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(lingerLimit))
	if _, err := c.Write(alert); err == nil && wire.CloseWrite(c) == nil {
		_, _ = io.Copy(io.Discard, c)
	}
}
