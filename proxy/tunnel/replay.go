package tunnel

import (
	"net"

	"espalier/proxy/wire"
)

// Replay returns a connection that hands out unread before what comes from c. An
// Engine that it is given to finds c again, and loses nothing of unread.
func Replay(c net.Conn, unread []byte) net.Conn {
	return &replayConn{Conn: c, unread: unread}
}

type replayConn struct {
	net.Conn
	unread []byte
}

// NetConn returns the wrapped connection, from which nothing unread is read again.
func (c *replayConn) NetConn() net.Conn { return c.Conn }

func (c *replayConn) Read(p []byte) (int, error) {
	if len(c.unread) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.unread)
	if c.unread = c.unread[n:]; len(c.unread) == 0 {
		c.unread = nil
	}
	return n, nil
}

// CloseWrite ends the sending direction.
func (c *replayConn) CloseWrite() error { return wire.CloseWrite(c.Conn) }
