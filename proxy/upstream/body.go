package upstream

import (
	"io"
	"net/http"
	"net/textproto"
	"time"

	"golang.org/x/net/http/httpguts"

	"espalier/proxy/head"
	"espalier/proxy/wire"
)

// A Body is the body of a message by HTTP/1, without its framing.
type Body struct {
	// Trailer is filled with the fields behind a chunked body when Read returns
	// io.EOF; it must be set.
	Trailer http.Header

	c      *wire.Conn
	length int64 // still to come, or head.UntilClose, head.Chunked
	stall  time.Duration

	chunks head.Chunks
	left   [][]byte // pieces of payload in buf, of a chunked body
	buf    []byte
	err    error
}

// NewBody returns a body of length, or head.UntilClose, head.Chunked, that comes on c. The
// sender may pause for stall.
func NewBody(c *wire.Conn, length int64, stall time.Duration) *Body {
	return &Body{c: c, length: length, stall: stall, Trailer: http.Header{}}
}

// Length is how long the body is; -1: as long as it takes.
func (b *Body) Length() int64 { return max(b.length, -1) }

// Whole reports whether the origin can be asked again behind the body: it was read,
// and its end is not that of the connection.
func (b *Body) Whole() bool { return b.length == 0 }

// Read implements io.Reader. Behind an error it returns that error.
func (b *Body) Read(p []byte) (n int, err error) {
	switch {
	case b.err != nil:
		return 0, b.err
	case b.length == 0:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	case b.length == head.Chunked:
		n, err = b.readChunked(p)
	default:
		if b.length > 0 {
			p = p[:min(int64(len(p)), b.length)]
		}
		if n, err = b.c.Take(p, b.stall); b.length > 0 {
			b.length -= int64(n)
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
		}
	}
	b.err = err
	return n, err
}

// chunkBuffer is how much is read of a chunked body at a time.
const chunkBuffer = 16 << 10

func (b *Body) readChunked(p []byte) (n int, err error) {
	for {
		for len(b.left) > 0 && n < len(p) {
			k := copy(p[n:], b.left[0])
			n += k
			if b.left[0] = b.left[0][k:]; len(b.left[0]) == 0 {
				b.left = b.left[1:]
			}
		}
		switch {
		case n > 0:
			return n, nil
		case b.chunks.Done:
			return 0, b.readTrailer()
		}
		if b.buf == nil {
			b.buf = make([]byte, chunkBuffer)
		}
		m, err := b.c.Take(b.buf, b.stall)
		if err != nil {
			return 0, unexpected(err)
		}
		used, _, err := b.chunks.Scan(b.buf[:m], func(piece []byte) { b.left = append(b.left, piece) })
		if err != nil {
			return 0, err
		}
		b.c.PutBack(b.buf[used:m])
	}
}

// readTrailer reads what is behind the last chunk, and returns io.EOF.
func (b *Body) readTrailer() error {
	if err := ReadTrailer(b.c, b.stall, func(f head.Field) { b.Trailer.Add(string(f.Name), string(f.Value)) }); err != nil {
		return err
	}
	b.length = 0
	return io.EOF
}

// ReadTrailer reads the trailer section of a chunked body from c, which may pause for
// stall, and calls each for the fields that may be passed on.
func ReadTrailer(c *wire.Conn, stall time.Duration, each func(head.Field)) error {
	for {
		fields, n, err := head.ParseTrailers(c.Unread())
		if err == head.ErrIncomplete {
			if err := c.More(stall); err != nil {
				return unexpected(err)
			}
			continue
		}
		if err != nil {
			return err
		}
		for f, rest, ok := fields.Next(); ok; f, rest, ok = rest.Next() {
			if InTrailer(f) {
				each(f)
			}
		}
		c.Use(n)
		return nil
	}
}

// AddFields adds the fields to h for which keep returns true.
func AddFields(h http.Header, fields head.Fields, keep func(head.Field) bool) {
	for f, rest, ok := fields.Next(); ok; f, rest, ok = rest.Next() {
		if keep(f) {
			h.Add(string(f.Name), string(f.Value))
		}
	}
}

// InTrailer reports whether f may be passed on behind a body: a recipient might take it
// for a header field (RFC 9110, 6.5.1).
func InTrailer(f head.Field) bool {
	return !f.HopByHop() && httpguts.ValidTrailerHeader(textproto.CanonicalMIMEHeaderKey(string(f.Name)))
}

// unexpected is the error of a body that ended too early.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
