package head

// A Body follows the framing of a message's body that is passed on as it comes.
// The zero value is no body.
type Body struct {
	left   int64 // or UntilClose, Chunked
	chunks Chunks
}

// NewBody returns the body that begins behind a head with length.
func NewBody(length int64) Body { return Body{left: length} }

// Done reports whether the last byte was scanned. A body until the connection
// closes is never done.
func (b *Body) Done() bool { return b.left == 0 }

// Scan looks through the next bytes. It returns how many of p belong to the body.
// The error is ErrChunks.
func (b *Body) Scan(p []byte) (n int, err error) {
	switch b.left {
	case UntilClose:
		return len(p), nil
	case Chunked:
		if n, _, err = b.chunks.Scan(p); b.chunks.Done {
			b.left = 0
		}
		return n, err
	}
	n = int(min(b.left, int64(len(p))))
	b.left -= int64(n)
	return n, nil
}
