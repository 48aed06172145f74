package http2

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"espalier/proxy/head"
)

// read reads frames until the connection ends. Its error is a *ConnError where
// the client is to be told.
func (c *Conn) read() error {
	if err := c.readPreface(); err != nil {
		return err
	}
	for {
		fh, err := c.framer.ReadFrameHeader()
		if err == nil {
			err = c.readFrame(fh)
		}
		var se wire.StreamError
		if errors.As(err, &se) {
			c.mu.Lock()
			err = c.fault(se.StreamID, se.Code, se.Cause)
			c.mu.Unlock()
		}
		if err != nil {
			return c.explain(err)
		}
	}
}

// explain turns the Framer's errors into those of this package.
func (c *Conn) explain(err error) error {
	var ce wire.ConnectionError
	switch {
	case errors.As(err, &ce):
		reason := "invalid frame"
		if d := c.framer.ErrorDetail(); d != nil {
			reason = d.Error()
		}
		return connError(wire.ErrCode(ce), "%s", reason)
	case errors.Is(err, wire.ErrFrameTooLarge):
		return connError(wire.ErrCodeFrameSize, "frame longer than %d bytes", initialFrameSize)
	}
	return err
}

func (c *Conn) readPreface() error {
	defer c.within("connection preface")()
	got := make([]byte, len(wire.ClientPreface))
	if _, err := io.ReadFull(c.in, got); err != nil {
		return err
	}
	if string(got) != wire.ClientPreface {
		return connError(wire.ErrCodeProtocol, "invalid connection preface")
	}
	fh, err := c.framer.ReadFrameHeader()
	if err != nil {
		return c.explain(err)
	}
	if fh.Type != wire.FrameSettings || fh.Flags.Has(wire.FlagSettingsAck) {
		return connError(wire.ErrCodeProtocol, "the first frame is %s, not SETTINGS", fh.Type)
	}
	return c.explain(c.readFrame(fh))
}

// within ends the connection unless the function it returns is called within
// headTimeout.
func (c *Conn) within(part string) func() bool {
	return time.AfterFunc(headTimeout, func() {
		c.end(connError(wire.ErrCodeEnhanceYourCalm, "incomplete %s after %v", part, headTimeout))
	}).Stop
}

func (c *Conn) readFrame(fh wire.FrameHeader) error {
	if fh.Type == wire.FrameData {
		return c.readData(fh)
	}
	f, err := c.framer.ReadFrameForHeader(fh)
	if err != nil {
		if fh.Type == wire.FrameHeaders && errors.As(err, new(wire.StreamError)) {
			// Its header list was not read, and so none after it can be.
			return connError(wire.ErrCodeProtocol, "invalid HEADERS frame")
		}
		return err
	}
	if f, ok := f.(*wire.HeadersFrame); ok {
		return c.readHeaders(f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f := f.(type) {
	case *wire.SettingsFrame:
		err = c.takeSettings(f)
	case *wire.WindowUpdateFrame:
		err = c.takeWindow(f)
	case *wire.RSTStreamFrame:
		err = c.takeReset(f)
	case *wire.PingFrame:
		err = c.takePing(f)
	case *wire.GoAwayFrame: // the client begins no more streams; it may finish those it has
	case *wire.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return c.fault(f.StreamID, wire.ErrCodeProtocol, errors.New("stream depends on itself"))
		}
		err = c.spend()
	case *wire.PushPromiseFrame:
		return connError(wire.ErrCodeProtocol, "PUSH_PROMISE from a client")
	default: // RFC 9113, 5.5: unknown types are ignored
		err = c.spend()
	}
	if err == nil && len(c.out) > maxPending {
		return connError(wire.ErrCodeEnhanceYourCalm, "the client reads no answers")
	}
	return err
}

// spend takes one from the budget.
func (c *Conn) spend() error {
	if !c.budget.spend(1) {
		return connError(wire.ErrCodeEnhanceYourCalm, "too many resets, invalid requests or control frames")
	}
	return nil
}

// fault resets a stream whose client broke the protocol.
func (c *Conn) fault(id uint32, code wire.ErrCode, err error) error {
	if id > c.lastID {
		return connError(code, "invalid frame for idle stream %d", id)
	}
	if s := c.streams[id]; s != nil {
		s.reset(code, err)
	} else {
		_ = c.framer.WriteRSTStream(id, code)
	}
	return c.spend()
}

func (c *Conn) takeSettings(f *wire.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if f.NumSettings() > maxSettings {
		return connError(wire.ErrCodeEnhanceYourCalm, "SETTINGS frame with %d settings", f.NumSettings())
	}
	if err := f.ForeachSetting(c.takeSetting); err != nil {
		return err
	}
	_ = c.framer.WriteSettingsAck()
	return c.spend()
}

func (c *Conn) takeSetting(s wire.Setting) error {
	if err := s.Valid(); err != nil {
		return err
	}
	switch s.ID {
	case wire.SettingHeaderTableSize:
		c.enc.SetMaxDynamicTableSize(min(s.Val, maxTableSize))
	case wire.SettingMaxFrameSize: // longer frames would hold up the other streams
		c.peerFrame = int(min(s.Val, initialFrameSize))
	case wire.SettingInitialWindowSize:
		more := int64(s.Val) - int64(c.peerWindow)
		c.peerWindow = outflow(s.Val)
		for _, s := range c.streams {
			if !s.send.grow(more) {
				return connError(wire.ErrCodeFlowControl, "window of stream %d above 2^31-1", s.id)
			}
			s.enqueue()
		}
	}
	return nil
}

func (c *Conn) takeWindow(f *wire.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if !c.send.grow(int64(f.Increment)) {
			return connError(wire.ErrCodeFlowControl, "window of the connection above 2^31-1")
		}
		c.wake.Signal()
	} else if f.StreamID > c.lastID {
		return connError(wire.ErrCodeProtocol, "WINDOW_UPDATE for idle stream %d", f.StreamID)
	} else if s := c.streams[f.StreamID]; s != nil {
		if !s.send.grow(int64(f.Increment)) {
			return c.fault(s.id, wire.ErrCodeFlowControl, errors.New("window above 2^31-1"))
		}
		s.enqueue()
	}
	return c.spend()
}

func (c *Conn) takeReset(f *wire.RSTStreamFrame) error {
	if f.StreamID > c.lastID {
		return connError(wire.ErrCodeProtocol, "RST_STREAM for idle stream %d", f.StreamID)
	}
	if s := c.streams[f.StreamID]; s != nil {
		s.fail(fmt.Errorf("stream reset by client: %s: %w", f.ErrCode, syscall.ECONNRESET))
	}
	return c.spend()
}

func (c *Conn) takePing(f *wire.PingFrame) error {
	if f.IsAck() {
		if f.Data == pingDrain {
			c.refuse()
		}
		return nil
	}
	_ = c.framer.WritePing(true, f.Data)
	return c.spend()
}

// readData reads the rest of a DATA frame.
func (c *Conn) readData(fh wire.FrameHeader) error {
	if fh.StreamID == 0 {
		return connError(wire.ErrCodeProtocol, "DATA for stream 0")
	}
	n, pad := int(fh.Length), 0
	if fh.Flags.Has(wire.FlagDataPadded) {
		if n == 0 {
			return connError(wire.ErrCodeFrameSize, "DATA without its pad length")
		}
		b, err := c.in.ReadByte()
		if err != nil {
			return err
		}
		if pad = int(b); pad > n-1 {
			return connError(wire.ErrCodeProtocol, "DATA with more padding than frame")
		}
		n -= 1 + pad
	}
	data := getFrame(n)
	if _, err := io.ReadFull(c.in, data); err != nil {
		return err
	}
	if _, err := c.in.Discard(pad); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.recv.take(int(fh.Length)) {
		return connError(wire.ErrCodeFlowControl, "more DATA than the connection's window")
	}
	s, err := c.takeData(fh, int64(n))
	if s == nil {
		c.credit(int(fh.Length))
		putFrame(data)
		return err
	}
	s.received.put(data)
	s.credit(int(fh.Length) - n) // padding
	if fh.Flags.Has(wire.FlagDataEndStream) {
		s.endRemote()
	}
	s.reading.Broadcast()
	return nil
}

// takeData returns the stream that takes the n bytes of a DATA frame; nil: none does.
func (c *Conn) takeData(fh wire.FrameHeader, n int64) (*Stream, error) {
	end := fh.Flags.Has(wire.FlagDataEndStream)
	if n == 0 && !end {
		if err := c.spend(); err != nil {
			return nil, err
		}
	}
	s := c.streams[fh.StreamID]
	if s == nil || s.eof {
		return nil, c.closed(fh.StreamID, "DATA")
	}
	if !s.recv.take(int(fh.Length)) {
		return nil, c.fault(s.id, wire.ErrCodeFlowControl, errors.New("more DATA than the stream's window"))
	}
	if s.want >= 0 {
		if s.want -= n; s.want < 0 || end && s.want > 0 {
			return nil, c.fault(s.id, wire.ErrCodeProtocol, errors.New("body longer or shorter than content-length"))
		}
	}
	return s, nil
}

// credit gives n bytes of the connection's window back to the client.
func (c *Conn) credit(n int) {
	if told := c.recv.credit(n); told > 0 && c.phase != closing {
		_ = c.framer.WriteWindowUpdate(0, told)
	}
}

// closed handles a frame for a stream whose receiving side is closed (RFC 9113,
// 5.1). Frames may be on their way when the proxy resets a stream.
func (c *Conn) closed(id uint32, frame string) error {
	if id > c.lastID || id%2 == 0 {
		return connError(wire.ErrCodeProtocol, "%s for idle stream %d", frame, id)
	}
	how := c.recent.how(id)
	if c.streams[id] != nil {
		how = unknown
	}
	switch how {
	case resetByProxy:
		return c.spend()
	case ended:
		return connError(wire.ErrCodeStreamClosed, "%s for stream %d, which has ended", frame, id)
	case skipped:
		return connError(wire.ErrCodeProtocol, "%s for stream %d below %d", frame, id, c.lastID)
	}
	return c.fault(id, wire.ErrCodeStreamClosed, errors.New(frame+" behind the stream's end"))
}

// A block is a header list while it is read.
type block struct {
	fields   []hpack.HeaderField
	size     uint32 // as RFC 9113, 6.5.2 counts it
	pseudo   int
	tooLarge bool
}

func (b *block) add(f hpack.HeaderField, dec *hpack.Decoder) {
	if f.IsPseudo() {
		b.pseudo++
	}
	if b.size += f.Size(); b.size > maxHead || len(b.fields)-min(b.pseudo, maxPseudo) == head.MaxFields {
		b.tooLarge = true
		dec.SetEmitEnabled(false) // the rest is read for the table only
		return
	}
	b.fields = append(b.fields, f)
}

// maxPseudo is how many pseudo-header fields a request may have.
const maxPseudo = 5

// readBlock reads the header list that f begins.
func (c *Conn) readBlock(f *wire.HeadersFrame) (*block, error) {
	b := &block{fields: make([]hpack.HeaderField, 0, 16)}
	c.block = b
	defer func() { c.block = nil }()
	c.dec.SetEmitEnabled(true)
	part, last := f.HeaderBlockFragment(), f.HeadersEnded()
	if !last {
		defer c.within("header list")()
	}
	for size, frames := 0, 1; ; frames++ {
		if size += len(part); size > maxBlock || frames > maxFrames {
			return nil, connError(wire.ErrCodeEnhanceYourCalm, "header list of more than %d bytes or %d frames", maxBlock, maxFrames)
		}
		if _, err := c.dec.Write(part); err != nil {
			return nil, connError(wire.ErrCodeCompression, "invalid header compression")
		}
		if last {
			break
		}
		next, err := c.framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		cont := next.(*wire.ContinuationFrame) // the Framer takes no other here
		part, last = cont.HeaderBlockFragment(), cont.HeadersEnded()
	}
	if err := c.dec.Close(); err != nil {
		return nil, connError(wire.ErrCodeCompression, "incomplete header list")
	}
	return b, nil
}

func (c *Conn) readHeaders(f *wire.HeadersFrame) error {
	id, end := f.StreamID, f.StreamEnded()
	selfish := f.HasPriority() && f.Priority.StreamDep == id
	b, err := c.readBlock(f)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case id%2 == 0:
		return connError(wire.ErrCodeProtocol, "HEADERS for stream %d: a client's are odd", id)
	case id <= c.lastID:
		return c.takeTrailers(id, b, end)
	}
	c.lastID = id
	switch {
	case c.phase == closing:
		return nil
	case c.phase == refusing || c.active >= c.cfg.MaxStreams:
		c.recent.add(id, resetByProxy)
		return c.fault(id, wire.ErrCodeRefusedStream, nil)
	case selfish:
		c.recent.add(id, resetByProxy)
		return c.fault(id, wire.ErrCodeProtocol, errors.New("stream depends on itself"))
	}
	r, err := parseRequest(b.fields, end, c.cfg.ExtendedConnect)
	s := c.newStream(id, r)
	if end {
		s.endRemote()
	}
	if b.tooLarge {
		err = ErrHeadTooLarge
	}
	switch {
	case err == nil:
		s.start(r, c.handle)
		return nil
	case c.cfg.Malformed == nil && !b.tooLarge:
		return c.fault(id, wire.ErrCodeProtocol, err)
	}
	s.start(r, func(s *Stream, r *Request) {
		if c.cfg.Malformed != nil {
			c.cfg.Malformed(s, r, err)
		} else {
			_ = s.WriteHeaders(http.StatusRequestHeaderFieldsTooLarge, nil, true)
		}
		s.accuse(b.tooLarge)
	})
	return c.spend()
}

// ErrHeadTooLarge is what Config.Malformed gets for a header list of more than
// head.MaxBytes or head.MaxFields. Without it the answer is 431.
var ErrHeadTooLarge = errors.New("header list too large")

func (c *Conn) takeTrailers(id uint32, b *block, end bool) error {
	s := c.streams[id]
	if s == nil || s.eof {
		return c.closed(id, "HEADERS")
	}
	var err error
	for _, f := range b.fields {
		if err = checkField(f); err != nil {
			break
		}
	}
	switch {
	case s.connect:
		err = errors.New("HEADERS inside a tunnel")
	case !end:
		err = errors.New("trailers without the stream's end")
	case b.tooLarge:
		err = errors.New("trailers too large")
	case s.want > 0:
		err = errors.New("body shorter than content-length")
	}
	if err != nil {
		return c.fault(id, wire.ErrCodeProtocol, err)
	}
	s.trailers = b.fields
	s.endRemote()
	s.reading.Broadcast()
	return nil
}

// recent remembers how the last streams were closed. Frames that still come for
// them are judged by it.
type recent [64]struct { // the last one first
	id  uint32
	how how
}

type how uint8

const (
	unknown       how = iota // too long ago
	skipped                  // never opened
	ended                    // in order, on both sides
	resetByClient            // or lost
	resetByProxy
)

func (r *recent) add(id uint32, h how) {
	copy(r[1:], r[:])
	r[0].id, r[0].how = id, h
}

// how returns how the stream was closed, which is not open.
func (r *recent) how(id uint32) how {
	for _, s := range r {
		if s.id == id {
			return s.how
		}
	}
	if r[len(r)-1].id != 0 {
		return unknown
	}
	return skipped // none was forgotten yet
}
