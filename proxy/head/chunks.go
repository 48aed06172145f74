package head

import (
	"errors"
	"strings"
)

// ErrChunks says that a chunked body is malformed (RFC 9112, 7.1).
var ErrChunks = errors.New("malformed chunked body")

// Bounds on what a chunked body carries beside payload.
const (
	maxExtension = 1 << 10
	maxTrailers  = 16 << 10
)

// Chunks follows the framing of a chunked body that is passed on as it comes, up
// to its trailers, which ParseTrailers reads. The zero value is ready for the first
// chunk.
type Chunks struct {
	// Done is set once the line of the last chunk was scanned.
	Done bool

	state  chunkState
	left   int64 // of the chunk's data
	digits int
	extra  int // bytes of extensions
}

type chunkState uint8

const (
	inSize  chunkState = iota
	inSpace            // behind the size
	inExtension
	inSizeLF
	inData
	inDataCR
	inDataLF
)

// Scan looks through the next bytes of the body. It returns how many of b come
// before the trailers, all of them unless Done is set, and how many of these are
// payload. each, if it is not nil, is called with each piece of payload.
func (c *Chunks) Scan(b []byte, each func([]byte)) (n int, payload int64, err error) {
	for n < len(b) && !c.Done {
		if c.state == inData {
			k := min(c.left, int64(len(b)-n))
			if each != nil {
				each(b[n : n+int(k)])
			}
			n, payload, c.left = n+int(k), payload+k, c.left-k
			if c.left == 0 {
				c.state = inDataCR
			}
			continue
		}
		if !c.step(b[n]) {
			return n, payload, ErrChunks
		}
		n++
	}
	return n, payload, nil
}

// step takes one byte of framing.
func (c *Chunks) step(x byte) bool {
	switch c.state {
	case inSize:
		digit, ok := hex(x)
		switch {
		case ok && c.digits < 15:
			c.left, c.digits = c.left<<4|digit, c.digits+1
		case c.digits == 0 || ok:
			return false
		case x == ';':
			c.state = inExtension
		case x == ' ', x == '\t':
			c.state = inSpace
		case x == '\r':
			c.state = inSizeLF
		default:
			return false
		}
	case inSpace, inExtension:
		if c.state == inSpace && x == ';' {
			c.state = inExtension
		} else if c.state == inSpace && x != ' ' && x != '\t' && x != '\r' {
			return false // it might be taken for more of the size
		}
		if c.extra++; c.extra > maxExtension || x != '\t' && x != '\r' && (x < ' ' || x == 0x7f) {
			return false
		}
		if x == '\r' {
			c.state = inSizeLF
		}
	case inSizeLF:
		if x != '\n' {
			return false
		}
		c.state, c.digits, c.extra = inData, 0, 0
		c.Done = c.left == 0
	case inDataCR:
		c.state = inDataLF
		return x == '\r'
	case inDataLF:
		c.state = inSize
		return x == '\n'
	}
	return true
}

func hex(x byte) (digit int64, ok bool) {
	if 'A' <= x && x <= 'F' {
		x += 'a' - 'A'
	}
	digit = int64(strings.IndexByte("0123456789abcdef", x))
	return digit, digit >= 0
}

// ParseTrailers parses the trailer section of a chunked body, and returns its
// length with the empty line at its end. The error is ErrIncomplete, ErrChunks, or
// an *Error.
func ParseTrailers(b []byte) (f Fields, n int, err error) {
	n, err = new(reading).fields(b, func(_, _ []byte) error { return nil })
	switch {
	case err == errFields, err == ErrIncomplete && len(b) > maxTrailers:
		return nil, 0, ErrChunks
	case err != nil:
		return nil, 0, err
	}
	return Fields(b[:n-2]), n, nil
}
