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

var errSlow = errors.New("the disk does not keep up")

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
	room    chan struct{} // closed when no caller need wait any longer; nil if none waits
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

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// add takes a copy of line, which ends with its newline.
func (w *writer) add(line []byte) {
	w.mu.Lock()
	if !w.fits(len(line)) {
		w.waitForRoom(len(line))
	}
	if w.closed || !w.fits(len(line)) {
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

// fits reports whether there is room for n bytes. mu is held.
func (w *writer) fits(n int) bool { return len(w.waiting)+n <= maxWaiting }

// waitForRoom waits until n bytes fit, or it is of no use to wait. It is called and
// returns with mu held.
func (w *writer) waitForRoom(n int) {
	signal(w.full)
	timeout := time.After(maxBlocked)
	for w.trouble == nil && !w.closed && !w.fits(n) {
		if w.room == nil {
			w.room = make(chan struct{})
		}
		room := w.room
		w.mu.Unlock()
		slow := false
		select {
		case <-room:
		case <-timeout:
			slow = true
		}
		w.mu.Lock()
		if !slow {
			continue
		}
		if w.room == room { // nothing was taken all the while
			w.giveUp(errSlow)
			w.mu.Unlock() // the operational log may be slow too
			w.log.Error("the access log's disk does not keep up: records are being lost")
			w.mu.Lock()
		}
		return
	}
}

// giveUp lets no caller wait until something is taken again. mu is held.
func (w *writer) giveUp(why error) {
	if w.trouble == nil {
		w.since = time.Now()
	}
	w.trouble = why
	w.release()
}

// release wakes the callers that wait for room. mu is held.
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
		early := w.full
		for again := true; again; again = w.flush() != nil {
			select {
			case <-time.After(flushInterval):
			case <-early:
			case <-w.stop:
				return
			}
			early = nil // which would try a full disk again at once
		}
	}
}

// flush writes everything that was added before the call.
func (w *writer) flush() error {
	w.writing.Lock()
	defer w.writing.Unlock()
	err := w.writePending()
	if err == nil {
		w.take()
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
	if w.trouble == nil {
		return Health{Lost: w.lost.Load()}
	}
	return Health{Err: w.trouble, Since: w.since, Lost: w.lost.Load()}
}

// take moves what waits to pending, which is empty, and goes on with its memory.
func (w *writer) take() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cap(w.pending) > maxSpare {
		w.pending = nil
	}
	w.pending, w.waiting = w.waiting, w.pending[:0]
	w.trouble = nil
	w.release()
}

// writePending writes pending, or as much of it as there is room for.
func (w *writer) writePending() (err error) {
	rest := w.pending
	for len(rest) > 0 && err == nil {
		piece := rest[:min(len(rest), maxPiece)]
		if i := bytes.LastIndexByte(piece, '\n'); i >= 0 {
			piece = piece[:i+1]
		}
		var n int
		n, err = w.out.Write(piece)
		if err == nil && n < len(piece) {
			err = io.ErrShortWrite
		}
		rest = rest[n:]
	}
	// The buffer is used again from its start.
	w.pending = w.pending[:copy(w.pending, rest)]
	return err
}

// report tells the operational log when writing begins to fail and when it is
// over, once each. writing is held.
func (w *writer) report(err error) {
	if err != nil {
		if !w.failing {
			w.log.Error("the access log cannot be written; what fits is kept in memory and tried again", zap.Error(err))
		}
		w.mu.Lock()
		w.giveUp(err)
		w.mu.Unlock()
	} else if lost := w.lost.Load(); w.failing || lost > w.told {
		w.log.Warn("the access log is written again", zap.Uint64("records_lost", lost-w.told))
		w.told = lost
	}
	w.failing = err != nil
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
