package http2

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	link "espalier/proxy/wire"
)

// Values that RFC 9113, 6.5.2 and 6.9.2 begin with.
const (
	initialWindow    = 65535
	initialFrameSize = 16 << 10
	maxWindow        = 1<<31 - 1
	maxStreamID      = 1<<31 - 1
	maxTableSize     = 4 << 10 // of header compression, in both directions
)

const (
	flushTime  = time.Second      // for the last frames to go out after an error, and to arrive
	lingerTime = 10 * time.Second // for the client to leave after an end in order
	drainTime  = time.Second      // for the client to learn that it must not begin streams
)

// ErrShutdown is the error of streams that Conn.Close cuts.
var ErrShutdown = errors.New("HTTP/2 connection closed by the proxy")

// A ConnError ends a connection whose client broke the protocol or a bound. The
// client gets Code and Reason with GOAWAY.
type ConnError struct {
	Code   wire.ErrCode
	Reason string
}

func (e *ConnError) Error() string {
	return fmt.Sprintf("HTTP/2 connection error %s: %s", e.Code, e.Reason)
}

func connError(code wire.ErrCode, format string, a ...any) error {
	return &ConnError{code, fmt.Sprintf(format, a...)}
}

// phase is where a connection is in its life:
//
//	serving → draining   Shutdown: GOAWAY that names no stream, and a ping
//	draining → refusing  the ping came back, or drainTime is over: GOAWAY that names the last stream
//	refusing → closing   the last stream has ended
//	any → closing        an error, idle for too long, Close: the last frames go out
type phase uint8

const (
	serving phase = iota
	draining
	refusing
	closing
)

// A Conn serves one connection. Its methods may be called concurrently.
type Conn struct {
	conn   *link.Conn
	cfg    Config
	handle Handler

	// Of the goroutine that reads.
	in     *bufio.Reader
	framer *wire.Framer // writes to out; under mu
	dec    *hpack.Decoder
	block  *block // that dec writes to

	begun    time.Time
	lastRead atomic.Int64 // since begun
	handlers sync.WaitGroup

	mu      sync.Mutex
	phase   phase
	begins  bool  // SETTINGS are written, which come first
	ends    bool  // Shutdown was called
	cause   error // of closing
	streams map[uint32]*Stream
	recent  recent
	lastID  uint32 // the highest of the client's
	active  int    // streams that are open, or have a handler

	recv       inflow
	send       outflow // of all streams
	peerWindow outflow // of a new stream
	peerFrame  int
	budget     budget

	enc            *hpack.Encoder
	encoded        bytes.Buffer
	out            []byte    // frames that are to be written
	appended, gone int64     // bytes that ever came to out, and that were written
	ready          []*Stream // have data and window
	wake           sync.Cond // for the writer
	room           sync.Cond // for those that write heads; out has become short
	written        chan struct{}

	timer      *time.Timer
	quietSince time.Duration // when active became 0
	pinged     time.Duration // when a ping went out that is not answered; 0 without
}

// New returns a Conn for c, which may be a *tls.Conn after its handshake. Serve
// must be called; it closes c.
func New(c net.Conn, cfg Config, h Handler) *Conn {
	conn := &Conn{
		conn: link.New(c, nil), cfg: cfg.withDefaults(), handle: h, begun: time.Now(),
		streams: map[uint32]*Stream{}, written: make(chan struct{}),
		send: initialWindow, peerWindow: initialWindow, peerFrame: initialFrameSize,
		budget: budget{budgetFull, time.Now()},
	}
	conn.wake.L, conn.room.L = &conn.mu, &conn.mu
	conn.in = bufio.NewReaderSize(readTimer{conn}, 4<<10)
	conn.framer = wire.NewFramer(pending{conn}, conn.in)
	conn.framer.SetMaxReadFrameSize(initialFrameSize)
	conn.dec = hpack.NewDecoder(maxTableSize, func(f hpack.HeaderField) { conn.block.add(f, conn.dec) })
	conn.enc = hpack.NewEncoder(&conn.encoded)
	return conn
}

// readTimer notes when the client was last heard.
type readTimer struct{ *Conn }

func (r readTimer) Read(p []byte) (int, error) {
	n, err := r.conn.Read(p)
	if n > 0 {
		r.lastRead.Store(int64(r.age()))
	}
	return n, err
}

func (c *Conn) age() time.Duration { return time.Since(c.begun) }

// Serve serves the connection until it ends, and closes it. It returns when every
// handler has: nil if the client or a shutdown ended it in order.
func (c *Conn) Serve() error {
	c.mu.Lock()
	c.timer = time.AfterFunc(c.cfg.IdleTimeout, c.late)
	c.setTimer(0, 0)
	c.cfg.Idle(true)
	settings := []wire.Setting{
		{ID: wire.SettingMaxConcurrentStreams, Val: uint32(c.cfg.MaxStreams)},
		{ID: wire.SettingInitialWindowSize, Val: uint32(c.cfg.StreamWindow)},
		{ID: wire.SettingMaxHeaderListSize, Val: maxHead},
	}
	if c.cfg.ExtendedConnect {
		settings = append(settings, wire.Setting{ID: wire.SettingEnableConnectProtocol, Val: 1})
	}
	_ = c.framer.WriteSettings(settings...)
	if more := c.cfg.ConnWindow - initialWindow; more > 0 {
		_ = c.framer.WriteWindowUpdate(0, uint32(more))
	}
	c.recv = inflow{size: c.cfg.ConnWindow, left: c.cfg.ConnWindow}
	c.begins = true
	if c.ends {
		c.drain()
	}
	c.mu.Unlock()
	go c.write()
	c.end(c.read())
	<-c.written
	c.mu.Lock()
	c.timer.Stop()
	err := c.cause
	c.mu.Unlock()
	c.linger(err)
	c.conn.Close()
	c.handlers.Wait()
	return err
}

// linger lets the client read the last frames: closing with unread input, or
// before input that is on its way, would reset the connection under them.
func (c *Conn) linger(err error) {
	d := flushTime
	if err == nil {
		d = lingerTime
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(d))
	if w, ok := c.conn.Conn.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, c.conn)
	}
}

// Shutdown lets the streams finish, tells the client to begin no others, and
// then ends the connection. It does not wait.
func (c *Conn) Shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ends = true; c.begins && c.phase == serving {
		c.drain()
	}
}

// drain is the first step of Shutdown.
func (c *Conn) drain() {
	c.phase = draining
	_ = c.framer.WriteGoAway(maxStreamID, wire.ErrCodeNo, nil)
	_ = c.framer.WritePing(false, pingDrain)
	time.AfterFunc(drainTime, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.refuse()
	})
}

// refuse is the second step of Shutdown.
func (c *Conn) refuse() {
	if c.phase != draining {
		return
	}
	c.phase = refusing
	_ = c.framer.WriteGoAway(c.lastID, wire.ErrCodeNo, nil)
	if c.active == 0 {
		c.endLocked(nil)
	}
}

// Close cuts every stream and ends the connection. It does not wait.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == closing { // lets nothing linger
		c.conn.Close()
	}
	c.endLocked(ErrShutdown)
}

func (c *Conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(err)
}

// endLocked ends the connection because of err, or in order if that is nil. The
// first call counts.
func (c *Conn) endLocked(err error) {
	if c.phase == closing {
		return
	}
	if errors.Is(err, io.EOF) && c.active == 0 {
		err = nil
	}
	told := c.phase == refusing
	c.phase, c.cause = closing, err
	var ce *ConnError
	switch {
	case errors.As(err, &ce):
		_ = c.framer.WriteGoAway(c.lastID, ce.Code, []byte(ce.Reason))
	case !told:
		_ = c.framer.WriteGoAway(c.lastID, wire.ErrCodeNo, nil)
	}
	if err == nil {
		err = ErrShutdown // for those that write after all has ended
	}
	left := errors.Is(err, io.EOF)
	if left {
		err = syscall.ECONNRESET
	}
	for _, s := range c.streams {
		if left && s.connect && s.side == localClosed {
			s.endRemote() // the client has got all, and leaves, as by TCP
		} else {
			s.fail(fmt.Errorf("connection ended: %w", err))
		}
	}
	c.wake.Broadcast()
	c.room.Broadcast()
	_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	if c.cause != nil { // the last frames may not go out
		time.AfterFunc(2*flushTime, c.conn.Interrupt)
	}
}

var (
	pingAlive = [8]byte{'a', 'l', 'i', 'v', 'e', '?'}
	pingDrain = [8]byte{'d', 'r', 'a', 'i', 'n'}
)

// late ends a connection that was idle for too long, and pings a client that was
// silent for too long. It is the timer's function.
func (c *Conn) late() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, heard := c.age(), time.Duration(c.lastRead.Load())
	if c.phase == closing {
		return
	}
	if c.active == 0 && c.appended > c.gone {
		c.quietSince = now // the last answer is on its way still
	}
	if c.active == 0 && now-c.quietSince >= c.cfg.IdleTimeout {
		c.endLocked(nil)
		return
	}
	if c.pinged > 0 && heard >= c.pinged {
		c.pinged = 0
	}
	switch {
	case c.pinged > 0 && now-c.pinged >= c.cfg.PingTimeout:
		c.endLocked(fmt.Errorf("no answer to a ping within %v", c.cfg.PingTimeout))
		return
	case c.pinged == 0 && now-heard >= c.cfg.PingInterval:
		_ = c.framer.WritePing(false, pingAlive)
		c.pinged = now
	}
	c.setTimer(now, heard)
}

// setTimer sets the timer for the next moment at which late has something to do.
func (c *Conn) setTimer(now, heard time.Duration) {
	at := heard + c.cfg.PingInterval
	if c.pinged > 0 {
		at = c.pinged + c.cfg.PingTimeout
	}
	if c.active == 0 {
		at = min(at, c.quietSince+c.cfg.IdleTimeout)
	}
	c.timer.Reset(max(at-now, time.Millisecond))
}

// quiet is called when the last stream has ended.
func (c *Conn) quiet() {
	switch c.phase {
	case refusing:
		c.endLocked(nil)
	case serving, draining:
		c.cfg.Idle(true)
		c.quietSince = c.age()
		c.setTimer(c.quietSince, time.Duration(c.lastRead.Load()))
	}
}
