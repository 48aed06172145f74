package forward

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"espalier/proxy/egress"
	"espalier/proxy/head"
	"espalier/proxy/refusal"
	"espalier/proxy/upstream"
	"espalier/proxy/wire"
)

// askHTTP1 asks an origin that speaks HTTP/1.
func (fx *forwarded) askHTTP1(ctx context.Context, r *http.Request, req *upstream.Request, o *egress.Origin) (*http.Response, error) {
	stop := context.AfterFunc(ctx, o.Interrupt)
	up := &sending{done: make(chan struct{})}
	err := o.Send(req.AppendHead(nil, o), fx.f.cfg.Stall)
	if r.ContentLength == 0 {
		up.sent.Store(true)
		close(up.done)
	} else {
		go up.run(fx, r, o)
		err = nil // the answer may say why
	}
	var a head.Response
	if err == nil {
		o.WaitLong()
		a, err = req.ReadAnswer(o, func() error { return o.More(0) }, func(a head.Response) error {
			fx.passInterim(a.Status, fieldsOf(a))
			return nil
		})
	}
	if err != nil {
		stop()
		o.Interrupt()
		o.Close()
		return nil, up.explain(err)
	}
	o.Use(a.Len)
	keep := req.Persists(a)
	if !a.HasBody(req.Head.Method) {
		a.Length = 0
	}
	b := upstream.NewBody(o.Conn, a.Length, fx.f.cfg.Stall)
	return &http.Response{
		StatusCode: a.Status, ProtoMajor: 1, ProtoMinor: 1, Header: fieldsOf(a), ContentLength: b.Length(), Trailer: b.Trailer,
		Body: &answerBody{b, sync.OnceFunc(func() {
			keep = stop() && keep && b.Whole() && up.ended()
			if !keep {
				o.Interrupt()
			}
			if own := req.Release(fx.f.cfg.Pipeline, fx.f.cfg.Origins, o, keep); own != nil {
				own.Close() // HTTP/2 has no user of a connection
			}
		})},
	}, nil
}

// fieldsOf are the fields of an answer that go on to the client.
func fieldsOf(a head.Response) http.Header {
	h := http.Header{}
	upstream.AddFields(h, a.Fields, func(f head.Field) bool {
		return upstream.PassesOn(a, f) && !f.Is("transfer-encoding") // HTTP/2 frames bodies by itself
	})
	return h
}

// An answerBody ends the use of the connection when it is closed.
type answerBody struct {
	*upstream.Body
	done func()
}

// Close implements io.Closer.
func (b *answerBody) Close() error {
	b.done()
	return nil
}

// A sending is the body of a request on its way to an origin.
type sending struct {
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

// explain returns what an origin has failed with, err or that it took nothing of the body
// for too long.
func (s *sending) explain(err error) error {
	select {
	case <-s.done:
		if refusal.IsTimeout(s.err) {
			return fmt.Errorf("send the request body: %w", s.err)
		}
	default:
	}
	return err
}

func (s *sending) run(fx *forwarded, r *http.Request, o *egress.Origin) {
	defer close(s.done)
	defer func() {
		if fault := recover(); fault != nil {
			fx.f.cfg.Pipeline.Panicked(nil, fault)
			s.err = fmt.Errorf("panic: %v", fault)
			o.Interrupt()
		}
	}()
	s.err = sendBody(o.Conn, r.Body, r.ContentLength, &fx.upload.trailer, fx.f.cfg.Stall, func() { s.read.Store(true) })
	s.sent.Store(s.err == nil)
	if fx.upload.err() != nil || refusal.IsTimeout(s.err) { // else the answer may say why
		o.Interrupt()
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
