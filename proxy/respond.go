package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"espalier/proxy/tunnel"
)

// responseWriter stands between goproxy and the client: it counts, streams where
// the length is not known, and adds no header of its own.
type responseWriter struct {
	http.ResponseWriter
	fx     *forwarded
	status int
	own    bool         // the answer is the proxy's own and does not count as payload
	stream bool         // the body's length is not known
	body   io.Reader    // the destination's body
	conn   *countedConn // hijacked for a WebSocket
}

func (w *responseWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.status = status
	}
	// Where a body ends that is broken, or still comes, nobody knows for sure.
	if status >= 200 && (w.fx.server.Draining() || w.fx.amidUpload()) {
		w.Header().Set("Connection", "close")
	}
	// net/http adds these where they are missing; the destination did not.
	for _, name := range []string{"Date", "Content-Type"} {
		if _, ok := w.Header()[name]; !ok {
			w.Header()[name] = nil
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err != nil && w.fx.clientErr == nil {
		w.fx.clientErr = err
	}
	if !w.own {
		w.fx.down(int64(n))
	}
	return n, err
}

var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// ReadFrom copies a body and remembers what cut it short. What arrives is passed
// on at once, for somebody may be waiting for it; of a body whose length is not
// known that goes for the head too.
func (w *responseWriter) ReadFrom(r io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	if w.stream {
		w.Flush()
	}
	var total int64
	for {
		n, err := w.read(r, buf[:])
		if n > 0 {
			m, werr := w.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
			if n < len(buf) && err == nil {
				w.Flush()
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			if r == w.body {
				w.fx.bodyErr = err
			}
			return total, err
		}
	}
}

// read is r.Read, which ends in time.
func (w *responseWriter) read(r io.Reader, p []byte) (int, error) {
	if w.fx.stalled != nil {
		defer time.AfterFunc(w.fx.server.times.Stall, w.fx.stalled).Stop()
	}
	return r.Read(p)
}

// Flush implements http.Flusher, which goproxy looks for.
func (w *responseWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap lets http.ResponseController through.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack implements http.Hijacker for WebSockets. goproxy never closes what it
// hijacks, nor what is idle: closeHijacked does, and a timer.
func (w *responseWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, errors.Join(errors.New("take over the connection for a WebSocket"), err)
	}
	idle := w.fx.server.cfg.IdleTimeout
	c := &countedConn{Conn: conn, fx: w.fx, idle: idle}
	c.timer = time.AfterFunc(idle, c.expire)
	w.conn = c
	w.fx.server.handlers.take(w.conn)
	// What net/http has read ahead counts too.
	w.fx.up(int64(rw.Reader.Buffered()))
	return w.conn, rw, nil
}

// closeHijacked returns when what has passed on the hijacked connection is counted.
func (w *responseWriter) closeHijacked() {
	c := w.conn
	if c == nil {
		return
	}
	c.timer.Stop()
	c.Close()
	w.fx.server.handlers.release(c)
	c.using.Lock()
	defer c.using.Unlock()
	if c.expired.Load() {
		w.fx.Record.Error = tunnel.ErrIdle.Error()
	}
}

// countedConn counts what a WebSocket carries, and ends one that has carried
// nothing for idle.
type countedConn struct {
	net.Conn
	fx      *forwarded
	idle    time.Duration
	timer   *time.Timer
	expired atomic.Bool
	using   sync.RWMutex // for reading: while bytes pass and are counted
}

func (c *countedConn) expire() {
	c.expired.Store(true)
	c.Close()
}

func (c *countedConn) Read(p []byte) (int, error) {
	c.using.RLock()
	defer c.using.RUnlock()
	n, err := c.Conn.Read(p)
	c.fx.up(int64(n))
	c.moved(n)
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.using.RLock()
	defer c.using.RUnlock()
	n, err := c.Conn.Write(p)
	c.fx.down(int64(n))
	c.moved(n)
	return n, err
}

func (c *countedConn) moved(n int) {
	// A timer that has fired, or was stopped at the end, is not set again.
	if n > 0 && c.timer.Stop() {
		c.timer.Reset(c.idle)
	}
}
