package accesslog

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// flushInterval is how long a line waits in memory at most.
	flushInterval = 500 * time.Millisecond
	// flushSize is how much waits before it is written ahead of the interval.
	flushSize = 128 << 10
	// maxPiece bounds one write, so that files are rotated near their limit.
	maxPiece = 256 << 10
	// maxWaiting bounds what waits in memory; as much again may be on its way
	// to the disk.
	maxWaiting = 4 << 20
	// maxBlocked is how long a caller waits for a slow disk.
	maxBlocked = time.Second
	// maxSpare bounds the memory kept between flushes.
	maxSpare = 1 << 20
)

// writer takes lines into memory and writes them to out in a goroutine, so that
// a slow disk does not hold up the traffic. (zap's BufferedWriteSyncer holds
// its lock while it writes, and never writes again after one error.)
//
// out sees pieces that end at line ends, except that what a failed write left
// over is tried again, from the byte where it stopped: a disk that was full for
// a while tears no line.
type writer struct {
	log  *zap.Logger
	lost atomic.Uint64 // records

	mu      sync.Mutex    // held to copy memory, never while writing
	waiting []byte        // whole lines
	spare   []byte        // an empty buffer to go on with
	room    chan struct{} // closed when waiting is taken; nil where nobody asks
	trouble error         // nothing was taken for too long, or writing fails: do not wait
	since   time.Time     // of the trouble
	closed  bool

	writing sync.Mutex // taken before mu
	out     io.WriteCloser
	pending []byte   // taken from waiting; what of it is still to be written
	failing bool     // the last write failed
	told    uint64   // lost records that the operational log knows of
	written []func() // called when lines have been written

	some, full chan struct{} // there is something to write; do it now
	stop, done chan struct{}
}

func newWriter(out io.WriteCloser, log *zap.Logger) *writer {
	w := &writer{
		log: log, out: out,
		some: make(chan struct{}, 1), full: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go w.run()
	return w
}

// add takes a copy of line, which ends with its newline.
func (w *writer) add(line []byte) {
	w.mu.Lock()
	if w.closed || len(w.waiting)+len(line) > maxWaiting && !w.waitForRoom(len(line)) {
		w.mu.Unlock()
		w.lost.Add(1)
		return
	}
	first := len(w.waiting) == 0
	w.waiting = append(w.waiting, line...)
	full := len(w.waiting) >= flushSize
	w.mu.Unlock()
	if first {
		signal(w.some)
	}
	if full {
		signal(w.full)
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// waitForRoom waits until n bytes fit. It is called and returns with mu held.
func (w *writer) waitForRoom(n int) bool {
	signal(w.full)
	timeout := time.NewTimer(maxBlocked)
	defer timeout.Stop()
	for w.trouble == nil && !w.closed && len(w.waiting)+n > maxWaiting {
		if w.room == nil {
			w.room = make(chan struct{})
		}
		room := w.room
		w.mu.Unlock()
		select {
		case <-room:
			w.mu.Lock()
		case <-timeout.C:
			w.mu.Lock()
			if w.room == room { // nothing was taken all the while
				w.giveUp(errSlow)
				w.mu.Unlock() // the operational log may be slow too
				w.log.Error("the access log's disk does not keep up: records are being lost")
				w.mu.Lock()
			}
			return !w.closed && len(w.waiting)+n <= maxWaiting
		}
	}
	return !w.closed && len(w.waiting)+n <= maxWaiting
}

var errSlow = errors.New("the disk does not keep up")

// giveUp lets nobody wait until something is taken again. mu is held.
func (w *writer) giveUp(why error) {
	if w.trouble == nil {
		w.since = time.Now()
	}
	w.trouble = why
	w.release()
}

// release wakes who waits for room. mu is held.
func (w *writer) release() {
	if w.room != nil {
		close(w.room)
		w.room = nil
	}
}

// run writes while there is something to write, and sleeps otherwise.
func (w *writer) run() {
	defer close(w.done)
	for {
		select {
		case <-w.some:
		case <-w.stop:
			return
		}
		w.pause(w.full)
		for w.flush() != nil {
			if !w.pause(nil) {
				return
			}
		}
	}
}

// pause waits for the interval, or until early says so. It returns false where
// the writer is closed.
func (w *writer) pause(early <-chan struct{}) bool {
	timer := time.NewTimer(flushInterval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-early:
	case <-w.stop:
		return false
	}
	return true
}

// flush writes everything that was added before the call.
func (w *writer) flush() error {
	w.writing.Lock()
	defer w.writing.Unlock()
	err := w.writePending()
	if err == nil && w.take() {
		err = w.writePending()
	}
	w.report(err)
	for _, f := range w.written {
		if err == nil {
			f()
		}
	}
	return err
}

// tell has f called whenever lines have been written. f must not block.
func (w *writer) tell(f func()) {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.written = append(w.written, f)
}

func (w *writer) health() Health {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := Health{Err: w.trouble, Lost: w.lost.Load()}
	if h.Err != nil {
		h.Since = w.since
	}
	return h
}

// take moves what waits to pending, which is empty.
func (w *writer) take() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cap(w.pending) <= maxSpare {
		w.spare = w.pending
	}
	w.pending, w.waiting, w.spare = w.waiting, w.spare[:0], nil
	w.trouble = nil
	w.release()
	return len(w.pending) > 0
}

// writePending writes pending, or as much of it as there is room for.
func (w *writer) writePending() error {
	rest := w.pending
	var failed error
	for len(rest) > 0 && failed == nil {
		piece := rest
		if len(piece) > maxPiece {
			piece = piece[:maxPiece]
			if i := bytes.LastIndexByte(piece, '\n'); i >= 0 {
				piece = piece[:i+1]
			}
		}
		n, err := w.out.Write(piece)
		if err == nil && n < len(piece) {
			err = io.ErrShortWrite
		}
		rest, failed = rest[n:], err
	}
	// The buffer is used again from its start.
	w.pending = w.pending[:copy(w.pending, rest)]
	return failed
}

// report tells the operational log when writing begins to fail and when it is
// over, once each. writing is held.
func (w *writer) report(err error) {
	lost := w.lost.Load()
	switch {
	case err != nil && !w.failing:
		w.failing = true
		w.log.Error("the access log cannot be written; what fits is kept in memory and tried again", zap.Error(err))
	case err == nil && (w.failing || lost > w.told):
		w.failing = false
		w.log.Warn("the access log is written again", zap.Uint64("records_lost", lost-w.told))
		w.told = lost
	}
	if err != nil {
		w.mu.Lock()
		w.giveUp(err)
		w.mu.Unlock()
	}
}

// close writes what waits and closes out.
func (w *writer) close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	w.release()
	w.mu.Unlock()
	close(w.stop)
	<-w.done
	err := w.flush()
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost.Add(uint64(bytes.Count(w.pending, []byte{'\n'}) + bytes.Count(w.waiting, []byte{'\n'})))
	w.pending, w.waiting = nil, nil
	return errors.Join(err, w.out.Close())
}
