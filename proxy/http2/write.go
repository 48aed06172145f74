package http2

import (
	"bytes"
	"encoding/binary"
	"sync"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// writeSize is how many bytes of frames go out in one piece, about. What has to
// go out at once waits for no more.
const writeSize = 64 << 10

var outBuffers = sync.Pool{New: func() any { b := make([]byte, 0, writeSize+initialFrameSize+1<<10); return &b }}

// pending is the Framer's Writer: frames go to out, in whose order they are
// written. Headers must be compressed in that order. The caller holds mu.
type pending struct{ *Conn }

func (p pending) Write(b []byte) (int, error) {
	if len(p.out) == 0 && cap(p.out) == 0 {
		p.out = *outBuffers.Get().(*[]byte)
	}
	p.out = append(p.out, b...)
	p.appended += int64(len(b))
	p.wake.Signal()
	return len(b), nil
}

// write writes out until the connection ends.
func (c *Conn) write() {
	defer close(c.written)
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		c.moveData()
		if len(c.out) == 0 {
			if c.phase == closing {
				return
			}
			c.wake.Wait()
			continue
		}
		b := c.out
		c.out = nil
		c.room.Broadcast()
		c.mu.Unlock()
		err := c.conn.Send(b, c.cfg.Stall)
		c.mu.Lock()
		if c.gone += int64(len(b)); err != nil {
			c.endLocked(err)
			return
		}
		if cap(b) <= 2*writeSize {
			b = b[:0]
			outBuffers.Put(&b)
		}
	}
}

// moveData moves data of the streams that are ready to out, a frame of each in
// turn, as far as the client's window for the connection goes.
func (c *Conn) moveData() {
	for len(c.ready) > 0 && c.send > 0 && len(c.out) < writeSize {
		s := c.ready[0]
		c.ready[0] = nil
		c.ready = c.ready[1:]
		s.queued = false
		n := int(min(outflow(len(s.out)), s.send, c.send, outflow(c.peerFrame)))
		if n <= 0 {
			continue // it was withdrawn
		}
		end := s.outEnd && n == len(s.out)
		c.appendData(s.id, s.out[:n], end)
		s.out = s.out[n:]
		s.outAt = c.appended
		s.send -= outflow(n)
		c.send -= outflow(n)
		c.budget.fill(budgetPerData + n>>10*budgetPerKiB)
		if len(s.out) == 0 {
			s.out = nil
			s.writing.Broadcast()
			if end {
				s.endLocal()
			}
		}
		s.enqueue()
	}
	if len(c.ready) == 0 {
		c.ready = nil // the array's front is not to be kept
	}
}

// appendData appends a DATA frame to out. The Framer would copy data once more,
// and keep a buffer of the frame's size.
func (c *Conn) appendData(id uint32, data []byte, end bool) {
	var h [9]byte
	binary.BigEndian.PutUint32(h[0:], uint32(len(data))<<8|uint32(wire.FrameData))
	if end {
		h[4] = byte(wire.FlagDataEndStream)
	}
	binary.BigEndian.PutUint32(h[5:], id)
	_, _ = pending{c}.Write(h[:])
	_, _ = pending{c}.Write(data)
}

// appendHead appends a header list to out, the status first unless it is "".
func (c *Conn) appendHead(id uint32, status string, fields []hpack.HeaderField, end bool) {
	c.encoded.Reset()
	if status != "" {
		_ = c.enc.WriteField(hpack.HeaderField{Name: ":status", Value: status})
	}
	for _, f := range fields {
		_ = c.enc.WriteField(f)
	}
	rest := c.encoded.Bytes()
	cut := func() (b []byte, last bool) {
		n := min(len(rest), c.peerFrame)
		b, rest = rest[:n], rest[n:]
		return b, len(rest) == 0
	}
	b, last := cut()
	_ = c.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: id, BlockFragment: b, EndStream: end, EndHeaders: last})
	for !last {
		b, last = cut()
		_ = c.framer.WriteContinuation(id, last, b)
	}
	if c.encoded.Cap() > 8<<10 {
		c.encoded = bytes.Buffer{} // a large one is not kept
	}
}
