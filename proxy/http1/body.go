package http1

import (
	"errors"
	"io"
	"time"

	"espalier/proxy/head"
	"espalier/proxy/upstream"
	"espalier/proxy/wire"
)

// A body is passed on as it is framed, from one connection to the other.
type body struct {
	dst, src   *wire.Conn
	length     int64 // still to come, or head.UntilClose, head.Chunked
	unchunk    bool  // pass the payload of chunks alone, to a client of HTTP/1.0
	take, send time.Duration
	count      func(payload int64)
	drained    func() // called when the last byte has been read, before it is sent; nil: not
}

// A sideError is an error of one side of a body.
type sideError struct {
	sender bool // of the one that the body comes from
	error
}

func (e *sideError) Unwrap() error { return e.error }

// sentBy reports whether err is of the side that sends a body.
func sentBy(err error) bool {
	e, ok := errors.AsType[*sideError](err)
	return ok && e.sender
}

// Portions in which a body is spliced. A portion is counted when it has passed, so a
// body that is slow goes without splice.
const (
	firstPortion = 256 << 10
	largePortion = 1 << 20
)

// pass sends prefix, and behind it the body. The error is a *sideError.
func (b *body) pass(prefix []byte) error {
	if b.length == head.Chunked {
		return b.passChunked(prefix)
	}
	buf := wire.Buffers.Get().(*[32 << 10]byte)
	defer wire.Buffers.Put(buf)
	u := b.src.Unread()
	if b.length >= 0 && int64(len(u)) >= b.length {
		u = u[:b.length]
		b.drain()
	}
	if len(prefix) > 0 || len(u) > 0 {
		if err := b.write(append(append(buf[:0], prefix...), u...), int64(len(u))); err != nil {
			return err
		}
		b.src.Use(len(u))
	}
	if b.took(int64(len(u))) {
		return nil
	}
	return b.passRest(buf[:])
}

// passRest passes what has not been read yet. buf is scratch space.
func (b *body) passRest(buf []byte) error {
	part := 0 // as long as it goes without splice
	for {
		var n int64
		var err error
		if part > 0 && b.length != 1 {
			n, part, err = b.splice(part)
		} else {
			n, err = b.copy(buf)
			if part = 0; n == int64(len(buf)) && b.dst.CanSplice(b.src) {
				part = firstPortion
			}
		}
		if done := b.took(n); done || err == io.EOF && b.length == head.UntilClose {
			return nil
		}
		if err == io.EOF {
			return &sideError{true, io.ErrUnexpectedEOF}
		}
		if err != nil {
			return err
		}
	}
}

// copy passes what one read yields. The error is io.EOF or a *sideError.
func (b *body) copy(buf []byte) (int64, error) {
	if b.length >= 0 {
		buf = buf[:min(b.length, int64(len(buf)))]
	}
	n, err := b.src.Take(buf, b.take)
	switch {
	case err == io.EOF:
		return int64(n), err
	case err != nil:
		return int64(n), &sideError{true, err}
	}
	if int64(n) == b.length {
		b.drain()
	}
	return int64(n), b.write(buf[:n], int64(n))
}

// splice passes at most part bytes within the kernel, and counts them. next is the
// portion that suits the body's speed, 0 if splice does not. The error is io.EOF or a
// *sideError.
func (b *body) splice(part int) (n int64, next int, err error) {
	began, want := time.Now(), int64(part)
	if b.length >= 0 {
		want = min(want, b.length)
	}
	if want == b.length && b.drained != nil {
		want-- // so that the last byte is known to be read before it is sent
	}
	n, sender, err := b.dst.Splice(b.src, want, b.take)
	if err != nil && err != io.EOF {
		err = &sideError{sender, err}
	}
	b.count(n)
	switch took := time.Since(began); {
	case took < 100*time.Millisecond:
		return n, min(2*part, largePortion), err
	case took > time.Second:
		return n, 0, err
	}
	return n, part, err
}

func (b *body) drain() {
	if b.drained != nil {
		b.drained()
	}
}

// took notes that n bytes have passed, and reports whether they were the last.
func (b *body) took(n int64) bool {
	if b.length > 0 {
		b.length -= n
	}
	return b.length == 0
}

func (b *body) write(p []byte, payload int64) error {
	if err := b.dst.Send(p, b.send); err != nil {
		return &sideError{false, err}
	}
	b.count(payload)
	return nil
}

// passChunked is pass for chunks.
func (b *body) passChunked(prefix []byte) error {
	var chunks head.Chunks
	buf, first := wire.Buffers.Get().(*[32 << 10]byte), wire.Buffers.Get().(*[32 << 10]byte)
	defer wire.Buffers.Put(buf)
	defer wire.Buffers.Put(first)
	var pieces []byte
	each := func(piece []byte) { pieces = append(pieces, piece...) }
	if !b.unchunk {
		each = nil
	}
	if len(prefix) > 0 && len(b.src.Unread()) == 0 { // the client may wait for the head
		if err := b.write(prefix, 0); err != nil {
			return err
		}
		prefix = nil
	}
	for !chunks.Done {
		n, err := b.src.Take(buf[:], b.take)
		if err != nil {
			return b.ended(err)
		}
		used, payload, err := chunks.Scan(buf[:n], each)
		if err != nil {
			return &sideError{true, err}
		}
		out := buf[:used]
		if b.unchunk {
			out = pieces
		}
		if len(prefix) > 0 {
			out = append(append(first[:0], prefix...), out...)
		}
		if err := b.write(out, payload); err != nil {
			return err
		}
		prefix, pieces = nil, pieces[:0]
		b.src.PutBack(buf[used:n])
	}
	return b.passTrailers()
}

// passTrailers passes the trailer section on, but for fields that may not stand in
// one.
func (b *body) passTrailers() error {
	for {
		fields, n, err := head.ParseTrailers(b.src.Unread())
		if err == head.ErrIncomplete {
			if err := b.src.More(b.take); err != nil {
				return b.ended(err)
			}
			continue
		}
		if err != nil {
			return &sideError{true, err}
		}
		var out []byte
		for f, rest, ok := fields.Next(); ok; f, rest, ok = rest.Next() {
			if upstream.InTrailer(f) {
				out = append(out, f.Line...)
			}
		}
		b.src.Use(n)
		b.length = 0
		b.drain()
		if b.unchunk {
			return nil
		}
		return b.write(append(out, "\r\n"...), 0)
	}
}

// ended is the error of a body that ended too early.
func (b *body) ended(err error) error {
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return &sideError{true, err}
}
