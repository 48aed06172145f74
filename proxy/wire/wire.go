// Package wire is a connection on which HTTP/1 is spoken, to a client or an
// origin: it holds what was read and is not used, and its times begin anew
// whenever a byte moves.
package wire

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A Conn is a connection with what was read ahead of its use. One goroutine may
// read while another writes.
type Conn struct {
	net.Conn // TCP, TLS, or a stream

	carrier net.Conn        // that carries it
	tcp     *net.TCPConn    // the carrier; nil: it is another
	raw     syscall.RawConn // of tcp
	secure  bool            // by TLS
	buf     []byte
	from    int // of what is unused in buf

	halted atomic.Bool

	look    func(fd uintptr) // peek, made once; nil: not yet
	peeked  int              // by look
	peekErr error
}

// New returns a Conn on c. unread comes before what is read from c; it is kept.
func New(c net.Conn, unread []byte) *Conn {
	w := &Conn{Conn: c, buf: unread}
	w.carrier, w.secure = Carrier(c)
	if w.tcp, _ = w.carrier.(*net.TCPConn); w.tcp != nil {
		w.raw, _ = w.tcp.SyscallConn() // only that of a nil connection fails
	}
	return w
}

// Carrier returns the connection beneath all that wraps it in c, and whether TLS is on
// the way to it.
func Carrier(c net.Conn) (carrier net.Conn, secure bool) {
	for {
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return c, secure
		}
		if _, ok := w.(interface{ Handshake() error }); ok {
			secure = true
		}
		c = w.NetConn()
	}
}

// AddrPort is the remote address of a TCP connection; zero for others.
func AddrPort(c interface{ RemoteAddr() net.Addr }) netip.AddrPort {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Secure reports whether the connection is TLS.
func (c *Conn) Secure() bool { return c.secure }

// Unread is what was read and not used. It stays valid until the next More.
func (c *Conn) Unread() []byte { return c.buf[c.from:] }

// Use notes that the first n bytes of Unread were used.
func (c *Conn) Use(n int) {
	if c.from += n; c.from == len(c.buf) {
		c.buf, c.from = c.buf[:0], 0
	}
}

// firstBuffer is what most heads fit in.
const firstBuffer = 4 << 10

var firstBuffers = sync.Pool{New: func() any { return new([firstBuffer]byte) }}

// More reads once, behind Unread. It fails if nothing comes within limit; 0 leaves
// the deadline as it is. An end without a byte is io.EOF.
func (c *Conn) More(limit time.Duration) error {
	if len(c.buf) == cap(c.buf) {
		c.grow()
	}
	if limit > 0 {
		c.expect(time.Now().Add(limit))
	}
	n, err := c.read(c.buf[len(c.buf):cap(c.buf)])
	c.buf = c.buf[:len(c.buf)+n]
	return err
}

// read reads once. It fails if it has read nothing.
func (c *Conn) read(p []byte) (n int, err error) {
	switch n, err = c.Conn.Read(p); {
	case n > 0:
		err = nil // which comes again
	case err == nil:
		err = io.ErrNoProgress
	}
	return n, err
}

// grow makes room behind what is unread.
func (c *Conn) grow() {
	unread := c.Unread()
	var grown []byte
	switch {
	case cap(c.buf) == firstBuffer && len(unread) <= firstBuffer/2:
		grown = c.buf[:0] // in place
	case len(unread) < firstBuffer:
		grown = firstBuffers.Get().(*[firstBuffer]byte)[:0]
	default:
		grown = make([]byte, 0, max(2*firstBuffer, 2*cap(c.buf)))
	}
	old := c.buf
	c.buf, c.from = append(grown, unread...), 0
	if cap(old) == firstBuffer && cap(c.buf) != firstBuffer {
		firstBuffers.Put((*[firstBuffer]byte)(old[:firstBuffer]))
	}
}

// expect sets the time by which something must come, unless reading is halted.
func (c *Conn) expect(until time.Time) {
	_ = c.SetReadDeadline(until)
	if c.halted.Load() {
		_ = c.SetReadDeadline(past)
	}
}

var past = time.Unix(1, 0)

// WaitLong takes the bound off reading.
func (c *Conn) WaitLong() { c.expect(time.Time{}) }

// Halt makes reading fail, now and until Resume, with os.ErrDeadlineExceeded. It may
// be called while another goroutine reads.
func (c *Conn) Halt() {
	c.halted.Store(true)
	_ = c.SetReadDeadline(past)
}

// Resume ends Halt.
func (c *Conn) Resume() {
	c.halted.Store(false)
	_ = c.SetReadDeadline(time.Time{})
}

// PutBack makes p, the end of what the last Take has returned, unread again.
func (c *Conn) PutBack(p []byte) {
	if c.from >= len(p) { // the rest is still there, and so is p before it
		c.from -= len(p)
	} else {
		c.buf, c.from = append(c.buf[:0], p...), 0
	}
}

// Free gives back the buffer, if nothing in it is unused. What Unread has returned is not
// valid any more.
func (c *Conn) Free() {
	if len(c.Unread()) > 0 {
		return
	}
	if cap(c.buf) == firstBuffer {
		firstBuffers.Put((*[firstBuffer]byte)(c.buf[:firstBuffer]))
	}
	c.buf, c.from = nil, 0
}

// Take reads once into p, or hands out what is unread. It fails if nothing comes
// within limit.
func (c *Conn) Take(p []byte, limit time.Duration) (int, error) {
	if u := c.Unread(); len(u) > 0 {
		n := copy(p, u)
		c.Use(n)
		return n, nil
	}
	c.expect(time.Now().Add(limit))
	return c.read(p)
}

// Send writes p. It fails if the peer takes nothing for limit; under TLS the Steady
// beneath says for how long.
func (c *Conn) Send(p []byte, limit time.Duration) error {
	if c.secure {
		_, err := c.Conn.Write(p)
		return err
	}
	_, err := steady(c.Conn, p, limit)
	return err
}

// steady writes p to c, with a deadline that is renewed while bytes are taken.
func steady(c net.Conn, p []byte, limit time.Duration) (written int, err error) {
	for {
		_ = c.SetWriteDeadline(time.Now().Add(limit))
		n, err := c.Write(p[written:])
		written += n
		if err == nil || n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return written, err
		}
	}
}

// A Steady is a connection beneath TLS, whose writes fail if the peer takes nothing
// for a time. TLS itself could not go on after a deadline.
type Steady struct {
	net.Conn
	limit time.Duration
	until atomic.Pointer[time.Time] // what SetWriteDeadline said; nil: nothing
}

// NewSteady returns a Steady on c.
func NewSteady(c net.Conn, limit time.Duration) *Steady { return &Steady{Conn: c, limit: limit} }

// Write implements io.Writer.
func (s *Steady) Write(p []byte) (int, error) {
	if s.until.Load() != nil { // TLS says goodbye
		return s.Conn.Write(p)
	}
	return steady(s.Conn, p, s.limit)
}

// SetDeadline implements net.Conn.
func (s *Steady) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetWriteDeadline bounds writes, in place of the time for each.
func (s *Steady) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		s.until.Store(nil)
	} else {
		s.until.Store(&t)
	}
	return s.Conn.SetWriteDeadline(t)
}

// NetConn returns the wrapped connection.
func (s *Steady) NetConn() net.Conn { return s.Conn }

// CloseWrite ends the sending direction.
func (s *Steady) CloseWrite() error { return CloseWrite(s.Conn) }

// CloseWrite ends the sending direction of c. It fails if c cannot do that.
func CloseWrite(c net.Conn) error {
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return net.ErrClosed
}

// Cut closes the connection so that what the peer got does not look whole: by a
// reset, without the goodbye of TLS.
func (c *Conn) Cut() {
	if c.tcp != nil {
		_ = c.tcp.SetLinger(0)
	}
	c.Interrupt()
	c.Conn.Close() // for what wraps the carrier
}

// Interrupt ends reading and writing at once, from another goroutine. Close must
// follow.
func (c *Conn) Interrupt() { c.carrier.Close() }

// Close closes the connection. It does not wait until the peer takes the goodbye of
// TLS, which may be seconds.
func (c *Conn) Close() error {
	if !c.secure {
		return c.Conn.Close()
	}
	go c.Conn.Close()
	return nil
}

// Bounds on Linger.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 256 << 10
)

// Linger ends the sending direction and waits, for a moment or until Halt, until the
// client has ended its own. Otherwise bytes that come after Close would reset the connection,
// and the client might lose the answer.
func (c *Conn) Linger() {
	if CloseWrite(c.Conn) == nil {
		c.expect(time.Now().Add(lingerTime))
		_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
	}
	c.Close()
}

// Buffers are for bodies on their way.
var Buffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}
