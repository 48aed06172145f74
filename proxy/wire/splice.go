package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// ErrStalled says that a peer has taken nothing for the time allowed. It is a timeout.
var ErrStalled error = stallError{}

type stallError struct{}

func (stallError) Error() string { return "nothing moved in time" }
func (stallError) Unwrap() error { return os.ErrDeadlineExceeded }

// CanSplice reports whether bytes can go from src to c in the kernel: both are TCP
// without TLS, and nothing of src is unread.
func (c *Conn) CanSplice(src *Conn) bool {
	_, plain := src.Conn.(*net.TCPConn)
	return plain && c.tcp != nil && !c.secure && !src.secure && len(src.Unread()) == 0 && canSplice
}

// Splice moves up to n bytes from src to c, until src has none for limit, or c takes
// none for limit. It returns as soon as it has moved some and no more come in time,
// without an error. sender is set if err is of src.
func (c *Conn) Splice(src *Conn, n int64, limit time.Duration) (moved int64, sender bool, err error) {
	src.expect(time.Now().Add(limit))
	_ = c.SetWriteDeadline(time.Time{})
	w := watch{c: c, limit: limit}
	w.mu.Lock()
	w.timer = time.AfterFunc(limit, w.look)
	w.mu.Unlock()
	moved, err = io.CopyN(c.tcp, src.Conn, n)
	stalled := w.stop()
	switch {
	case err == nil, err == io.EOF:
		return moved, true, err
	case stalled:
		return moved, false, ErrStalled
	case errors.Is(err, os.ErrDeadlineExceeded) && moved > 0:
		return moved, true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return moved, true, err
	}
	return moved, !src.alive(), err // a splice does not say which side failed
}

// A watch finds out that the receiver of a splice takes nothing. A write deadline
// would also cut one that is slow: the kernel does not say how much of a splice has
// gone out, but how much was acknowledged.
type watch struct {
	c     *Conn
	limit time.Duration

	mu      sync.Mutex
	timer   *time.Timer
	acked   uint64 // when it was looked at last; 0: not yet
	stopped bool
	stalled bool
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch now, waits := acked(w.c.raw); {
	case w.stopped:
	case now != w.acked, !waits: // the sender's deadline counts then
		w.acked = now
		w.timer.Reset(w.limit)
	default:
		w.stalled = true
		_ = w.c.SetWriteDeadline(past)
	}
}

// stop ends the watch, and reports whether the receiver has stalled.
func (w *watch) stop() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
	return w.stalled
}

// alive reports whether the connection has neither ended nor failed, as far as one
// can see without reading.
func (c *Conn) alive() bool {
	n, err := c.Peek()
	return n > 0 || err == syscall.EAGAIN
}

// Quiet reports whether the connection is open and nothing has come on it.
func (c *Conn) Quiet() bool {
	if len(c.Unread()) > 0 {
		return false
	}
	if _, err := c.Peek(); err != syscall.EAGAIN {
		return false
	}
	if !c.secure {
		return true
	}
	// TLS may have read ahead. This does not wait for more.
	_ = c.SetReadDeadline(past)
	var b [1]byte
	n, err := c.Conn.Read(b[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// Peek looks whether there is something to read, without waiting for it or taking
// it. Without an error n is 0 at the end, else 1; EAGAIN says that nothing has come.
func (c *Conn) Peek() (n int, err error) {
	if c.raw == nil {
		return 0, net.ErrClosed
	}
	if c.look == nil {
		c.look = c.peek
	}
	if err := c.raw.Control(c.look); err != nil {
		return 0, err
	}
	return c.peeked, c.peekErr
}

func (c *Conn) peek(fd uintptr) {
	var b [1]byte
	c.peeked, _, c.peekErr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
}
