package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"espalier/proxy/egress"
	"espalier/proxy/head"
	"espalier/proxy/refusal"
	"espalier/proxy/upstream"
	"espalier/proxy/wire"
)

// askHTTP1 asks an origin that speaks HTTP/1. again is set if the request may be sent
// once more, on another connection.
func (fx *forwarded) askHTTP1(r *http.Request, req *upstream.Request, o *egress.Origin) (resp *http.Response, again bool, err error) {
	stop := context.AfterFunc(fx.ctx, o.Interrupt)
	up := &sending{fx: fx, o: o, done: make(chan struct{})}
	if err = o.Send(req.AppendHead(nil, o), fx.f.cfg.Stall); err == nil || r.ContentLength != 0 {
		if r.ContentLength == 0 {
			up.sent.Store(true)
			close(up.done)
		} else {
			go up.run(r)
		}
		var a head.Response
		if a, err = req.ReadAnswer(o, func() error { return fx.more(o) }, func(a head.Response) error {
			fx.passInterim(a.Status, fieldsOf(a))
			return nil
		}); err == nil {
			return fx.newResponse(req, o, a, up, stop), false, nil
		}
	} else {
		close(up.done)
	}
	stop()
	o.Interrupt()
	o.Close()
	if fx.ctx.Err() != nil {
		return nil, false, err
	}
	if _, failed := fx.upload.state(); failed != nil {
		return nil, false, failed // whatever the origin made of it
	}
	if up.stalled() {
		return nil, false, fmt.Errorf("send the request body: %w", up.err)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, false, &upstream.SlowReply{Err: err}
	}
	again, err = req.Again(o, err)
	return nil, again, err
}

// more reads more of an answer's head. The time for it begins anew while the request's
// body moves.
func (fx *forwarded) more(o *egress.Origin) error {
	for {
		still, failed := fx.upload.state()
		if still >= fx.f.cfg.Reply || failed != nil {
			return os.ErrDeadlineExceeded
		}
		if err := o.More(fx.f.cfg.Reply - still); !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// fieldsOf are the fields of an answer that go on to the client.
func fieldsOf(a head.Response) http.Header {
	h := http.Header{}
	upstream.AddFields(h, a.Fields, func(f head.Field) bool {
		return upstream.PassesOn(a, f) && !f.Is("transfer-encoding") // HTTP/2 frames bodies by itself
	})
	return h
}

// newResponse returns the answer whose head is a.
func (fx *forwarded) newResponse(req *upstream.Request, o *egress.Origin, a head.Response, up *sending, stop func() bool) *http.Response {
	resp := &http.Response{StatusCode: a.Status, ProtoMajor: 1, ProtoMinor: 1, Header: fieldsOf(a)}
	keep := req.Persists(a)
	length := a.Length
	if !a.HasBody(req.Head.Method) {
		length = 0
	}
	o.Use(a.Len)
	b := upstream.NewBody(o.Conn, length, fx.f.cfg.Stall)
	resp.ContentLength, resp.Trailer = b.Length(), b.Trailer
	resp.Body = &answerBody{Body: b, done: func() {
		keep = stop() && keep && b.Whole() && up.ended()
		if !keep {
			o.Interrupt()
		}
		if own := req.Release(fx.f.cfg.Pipeline, fx.f.cfg.Origins, o, keep); own != nil {
			own.Close() // HTTP/2 has no user of a connection
		}
	}}
	return resp
}

// An answerBody ends the use of the connection when it is closed.
type answerBody struct {
	*upstream.Body
	once sync.Once
	done func()
}

// Close implements io.Closer.
func (b *answerBody) Close() error {
	b.once.Do(b.done)
	return nil
}

// A sending is the body of a request on its way to an origin.
type sending struct {
	fx   *forwarded
	o    *egress.Origin
	read atomic.Bool // all of it was, before the last of it is sent
	sent atomic.Bool // whole
	done chan struct{}
	err  error // to be read after done
}

// ended reports whether the body was sent. The origin may have answered it before the
// proxy is back from sending its last bytes.
func (s *sending) ended() bool {
	if s.read.Load() {
		select {
		case <-s.done:
		case <-time.After(upstream.LastBytes):
		}
	}
	return s.sent.Load()
}

// stalled reports whether the origin has taken nothing of it for too long.
func (s *sending) stalled() bool {
	select {
	case <-s.done:
		return refusal.IsTimeout(s.err)
	default:
		return false
	}
}

func (s *sending) run(r *http.Request) {
	defer close(s.done)
	defer func() {
		if fault := recover(); fault != nil {
			s.fx.f.cfg.Pipeline.Panicked(nil, fault)
			s.err = fmt.Errorf("panic: %v", fault)
			s.o.Interrupt()
		}
	}()
	if s.err = sendBody(s.o.Conn, r.Body, r.ContentLength, &s.fx.upload.trailer, s.fx.f.cfg.Stall, func() { s.read.Store(true) }); s.err == nil {
		s.sent.Store(true)
	} else if _, failed := s.fx.upload.state(); failed != nil || refusal.IsTimeout(s.err) {
		s.o.Interrupt() // else its answer may say why
	}
}

// sendBody sends on c what body has: length bytes, or chunks with the trailer behind them
// if length is negative, in which case trailer is read when body has ended. ended is
// called once all of body has been read. The peer may pause for stall.
func sendBody(c *wire.Conn, body io.Reader, length int64, trailer *http.Header, stall time.Duration, ended func()) error {
	buf := wire.Buffers.Get().(*[32 << 10]byte)
	defer wire.Buffers.Put(buf)
	const before = 8 // for the size of a chunk
	for left := length; ; {
		n, err := body.Read(buf[before : len(buf)-2])
		if left -= int64(n); left == 0 || err == io.EOF {
			ended()
		}
		out := buf[before : before+n]
		if n > 0 && length < 0 {
			size := fmt.Sprintf("%x\r\n", n)
			out = buf[before-len(size) : before+n+2]
			copy(out, size)
			copy(out[len(out)-2:], "\r\n")
		}
		if n > 0 {
			if err := c.Send(out, stall); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF && length < 0:
			return c.Send(lastChunk(*trailer), stall)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// lastChunk is the last chunk with the fields behind it.
func lastChunk(trailer http.Header) []byte {
	t := trailer.Clone()
	cleanTrailer(t)
	var b bytes.Buffer
	b.WriteString("0\r\n")
	_ = t.Write(&b) // a bytes.Buffer takes everything
	b.WriteString("\r\n")
	return b.Bytes()
}
