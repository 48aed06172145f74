package http2

import "sync"

// An inflow is how much DATA the client may send on a stream, or on the connection: size
// bytes that wait to be read.
type inflow struct {
	size int
	left int // what it may send still
	owed int // what was read since, and is not told
}

// take notes that n bytes have come, and reports whether they were allowed.
func (f *inflow) take(n int) bool {
	f.left -= n
	return f.left >= 0
}

// credit notes that n bytes were read. It returns by how much the client is to be told
// that the window grows, some at a time; 0: not yet.
func (f *inflow) credit(n int) (told uint32) {
	if f.owed += n; f.owed < f.size/4 {
		return 0
	}
	told = uint32(f.owed)
	f.left, f.owed = f.left+f.owed, 0
	return told
}

// An outflow is how much DATA the client takes, of a stream or of all. A setting may make
// it negative.
type outflow int64

// grow reports whether the client may make the window so large.
func (f *outflow) grow(more int64) bool {
	*f += outflow(more)
	return *f <= maxWindow
}

// Large frames are received into memory that is used again.
var frames = sync.Pool{New: func() any { return new([initialFrameSize]byte) }}

// getFrame returns n bytes, at most initialFrameSize.
func getFrame(n int) []byte {
	if n <= initialFrameSize/2 {
		return make([]byte, n)
	}
	return frames.Get().(*[initialFrameSize]byte)[:n]
}

// putFrame ends the use of b, which may be from getFrame.
func putFrame(b []byte) {
	if cap(b) == initialFrameSize {
		frames.Put((*[initialFrameSize]byte)(b[:initialFrameSize]))
	}
}

// A queue holds received bytes, in at most twice their memory. The zero value is empty.
type queue struct {
	parts [][]byte // from getFrame, none longer than a frame
	read  int      // of the first
	len   int
}

// put takes data, which is from getFrame.
func (q *queue) put(data []byte) {
	q.len += len(data)
	last := len(q.parts) - 1
	if last < 0 || len(q.parts[last])+len(data) > initialFrameSize {
		q.parts = append(q.parts, data)
		return
	}
	q.parts[last] = append(q.parts[last], data...)
	putFrame(data)
}

func (q *queue) take(p []byte) (n int) {
	for n < len(p) && len(q.parts) > 0 {
		k := copy(p[n:], q.parts[0][q.read:])
		n, q.read = n+k, q.read+k
		if q.read == len(q.parts[0]) {
			putFrame(q.parts[0])
			q.parts[0] = nil
			q.parts, q.read = q.parts[1:], 0
		}
	}
	if q.len -= n; q.len == 0 {
		q.parts = nil
	}
	return n
}

// clear drops everything and returns how much that was.
func (q *queue) clear() (n int) {
	n = q.len
	for _, b := range q.parts {
		putFrame(b)
	}
	*q = queue{}
	return n
}
