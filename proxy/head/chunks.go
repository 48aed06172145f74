package head

import "errors"

// ErrChunks says that a chunked body is malformed (RFC 9112, 7.1).
var ErrChunks = errors.New("malformed chunked body")

// Bounds on what a chunked body carries beside payload.
const (
	maxExtension = 1 << 10
	maxTrailers  = 16 << 10
)

// Chunks follows the framing of a chunked body that is passed on as it comes.
// The zero value stands before the first chunk.
type Chunks struct {
	// Done is set once the last byte of the body, trailers included, was scanned.
	Done bool

	state  chunkState
	left   int64 // of the chunk's data
	digits int
	extra  int // bytes of extensions, or of trailers
	empty  bool
}

type chunkState uint8

const (
	inSize chunkState = iota
	inExtension
	inSizeLF
	inData
	inDataCR
	inDataLF
	inTrailer
	inTrailerLF
)

// Scan looks through the next bytes of the body. It returns how many of b belong
// to it, all of them unless Done is set, and how many of these are payload.
func (c *Chunks) Scan(b []byte) (n int, payload int64, err error) {
	for n < len(b) && !c.Done {
		if c.state == inData {
			k := min(c.left, int64(len(b)-n))
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

// step takes one byte that is no data.
func (c *Chunks) step(x byte) bool {
	switch c.state {
	case inSize:
		digit, ok := hex(x)
		switch {
		case ok && c.digits < 15:
			c.left, c.digits = c.left<<4|digit, c.digits+1
		case c.digits == 0 || ok:
			return false
		case x == ';', x == ' ', x == '\t':
			c.state = inExtension
		case x == '\r':
			c.state = inSizeLF
		default:
			return false
		}
	case inExtension:
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
		if c.left == 0 {
			c.state, c.empty = inTrailer, true
		}
	case inDataCR:
		c.state = inDataLF
		return x == '\r'
	case inDataLF:
		c.state = inSize
		return x == '\n'
	case inTrailer:
		if c.extra++; c.extra > maxTrailers || x == '\n' || x == 0 {
			return false
		}
		if x == '\r' {
			c.state = inTrailerLF
		} else {
			c.empty = false
		}
	case inTrailerLF:
		if x != '\n' {
			return false
		}
		c.Done = c.empty
		c.state, c.empty = inTrailer, true
	}
	return true
}

func hex(x byte) (int64, bool) {
	switch {
	case '0' <= x && x <= '9':
		return int64(x - '0'), true
	case 'a' <= x && x <= 'f':
		return int64(x-'a') + 10, true
	case 'A' <= x && x <= 'F':
		return int64(x-'A') + 10, true
	}
	return 0, false
}
