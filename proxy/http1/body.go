package http1

import (
	"errors"
	"io"
	"time"

	"espalier/proxy/head"
	"espalier/proxy/upstream"
	"espalier/proxy/wire"
)

// A body is passed on as it is framed, from one connection to the other: of a request if
// up is set, else of the answer.
type body struct {
	*reader
	up       bool
	dst, src *wire.Conn
	length   int64 // still to come, or head.UntilClose, head.Chunked
	unchunk  bool  // pass the payload of chunks alone, to a client of HTTP/1.0

	chunks head.Chunks
	pieces []byte // of the payload, for unchunk
}

// A sourceError is an error of the side that a body comes from.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

func fromSource(err error) bool {
	_, ok := errors.AsType[*sourceError](err)
	return ok
}

// Portions in which a body is spliced. A portion is counted when it has passed, so a
// body that is slow goes without splice.
const (
	firstPortion = 256 << 10
	largePortion = 1 << 20
)

// pass sends prefix, and behind it the body. An error of src is a *sourceError.
func (b *body) pass(prefix []byte) error {
	out, used, payload, err := b.portion(b.src.Unread())
	if err == nil && len(prefix)+len(out) > 0 {
		err = b.write(append(prefix, out...), payload)
	}
	if err != nil {
		return err
	}
	b.src.Use(used)
	if b.length == 0 {
		return nil
	}
	return b.passRest()
}

// portion takes the part of p that belongs to the body. It returns its form for dst, its
// length, and how much of it is payload.
func (b *body) portion(p []byte) (out []byte, used int, payload int64, err error) {
	if b.length == head.Chunked {
		b.pieces = b.pieces[:0]
		var each func([]byte)
		if b.unchunk {
			each = func(piece []byte) { b.pieces = append(b.pieces, piece...) }
		}
		if used, payload, err = b.chunks.Scan(p, each); err != nil {
			return nil, 0, 0, &sourceError{err}
		}
		if b.unchunk {
			return b.pieces, used, payload, nil
		}
		return p[:used], used, payload, nil
	}
	if b.length >= 0 {
		p = p[:min(b.length, int64(len(p)))]
		b.took(int64(len(p)))
	}
	return p, len(p), int64(len(p)), nil
}

// took notes that n bytes of a body of known length were read.
func (b *body) took(n int64) {
	if b.length -= n; b.length == 0 {
		b.ended()
	}
}

// ended notes that all of the body was read.
func (b *body) ended() {
	b.length = 0
	if b.up {
		b.upload.Store(drained)
	}
}

// count notes what was sent.
func (b *body) count(payload int64) {
	if !b.up {
		b.c.x.AddDown(payload)
		return
	}
	b.c.x.AddUp(payload)
	b.movedNow()
}

// passRest passes what has not been read yet.
func (b *body) passRest() error {
	buf := wire.Buffers.Get().(*[32 << 10]byte)
	defer wire.Buffers.Put(buf)
	part := 0 // to splice next; 0: the body goes without
	for b.length != 0 && !b.chunks.Done {
		var err error
		if part > 0 && b.length != 1 {
			part, err = b.splice(part)
		} else {
			var n int
			n, err = b.copy(buf[:])
			if part = 0; n == len(buf) && b.length != head.Chunked && b.dst.CanSplice(b.src) {
				part = firstPortion
			}
		}
		switch {
		case err == io.EOF && b.length == head.UntilClose:
			return nil
		case err == io.EOF:
			return &sourceError{io.ErrUnexpectedEOF}
		case err != nil:
			return err
		}
	}
	if b.length == head.Chunked {
		return b.passTrailer()
	}
	return nil
}

// copy passes what one read yields. The error of an end is io.EOF.
func (b *body) copy(buf []byte) (n int, err error) {
	if b.length >= 0 {
		buf = buf[:min(b.length, int64(len(buf)))]
	}
	n, err = b.take(buf)
	if err == io.EOF {
		return n, err
	}
	if err != nil {
		return n, &sourceError{err}
	}
	out, used, payload, err := b.portion(buf[:n])
	if err != nil {
		return n, err
	}
	b.src.PutBack(buf[used:n])
	return n, b.write(out, payload)
}

// take reads once. When an answer pauses, the client is read meanwhile.
func (b *body) take(buf []byte) (int, error) {
	times := &b.c.cfg.Times
	if b.up || b.running || times.Watch >= times.Stall {
		return b.src.Take(buf, times.Stall)
	}
	n, err := b.src.Take(buf, times.Watch)
	if !isTimeout(err) {
		return n, err
	}
	b.start()
	return b.src.Take(buf, times.Stall-times.Watch)
}

// splice passes at most part bytes within the kernel, and counts them. next is the
// portion that suits the body's speed, 0 if splice does not. The error of an end is io.EOF.
func (b *body) splice(part int) (next int, err error) {
	b.start()
	began, want := time.Now(), int64(part)
	if b.length >= 0 {
		want = min(want, b.length)
	}
	if want == b.length && b.up {
		want-- // so that the last byte is known to be read before it is sent
	}
	n, sender, err := b.dst.Splice(b.src, want, b.c.cfg.Times.Stall)
	if err != nil && err != io.EOF && sender {
		err = &sourceError{err}
	}
	b.count(n)
	if b.length > 0 {
		if b.took(n); b.length == 0 {
			err = nil
		}
	}
	switch took := time.Since(began); {
	case took < 100*time.Millisecond:
		return min(2*part, largePortion), err
	case took > time.Second:
		return 0, err
	}
	return part, err
}

func (b *body) write(p []byte, payload int64) error {
	if err := b.dst.Send(p, b.c.cfg.Times.Stall); err != nil {
		return err
	}
	b.count(payload)
	return nil
}

// passTrailer passes the trailer section on, but for fields that may not be in one.
func (b *body) passTrailer() error {
	var out []byte
	err := upstream.ReadTrailer(b.src, b.c.cfg.Times.Stall, func(f head.Field) { out = append(out, f.Line...) })
	if err != nil {
		return &sourceError{err}
	}
	b.ended()
	if b.unchunk {
		return nil
	}
	return b.write(append(out, "\r\n"...), 0)
}
