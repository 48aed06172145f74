package tunnel

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Pipes cost kernel memory while they hold bytes for a stalled receiver, and a
// user without privileges may have 64 MB of them in all, past which every new one
// is tiny (pipe(7), pipe-user-pages-soft). So a fixed number is large, some more
// are of the default size, and past both the relay reads and writes.
const (
	largePipe  = 1 << 20
	smallPipe  = 64 << 10
	largePipes = 32
	smallPipes = 384
)

// pipeBudget counts the pipes of all workers.
type pipeBudget struct {
	large, small       atomic.Int32
	maxLarge, maxSmall int32
}

// A pipe between two splices. It is empty whenever it is idle.
type pipe struct{ r, w, size int32 } // size 0: none

// pipes are the pipes of one worker that no direction has.
type pipes struct {
	budget *pipeBudget
	idle   []pipe
	least  int  // smallest len(idle) since shrink
	denied bool // the system gave none since shrink
}

// take sees to it that a direction has a pipe. It reports false where the budget
// is spent; the direction then turns back to small messages.
func (l *pipes) take(x *direction) bool {
	switch n := len(l.idle); {
	case x.pipe.size > 0:
	case n > 0:
		x.pipe, l.idle = l.idle[n-1], l.idle[:n-1]
		l.least = min(l.least, n-1)
	case !l.denied:
		var err error
		x.pipe, err = l.budget.open()
		l.denied = err != nil
	}
	if x.pipe.size == 0 {
		x.chunk = 0
	}
	return x.pipe.size > 0
}

// put takes back the pipe of a direction, where it has one. One that still holds
// bytes, of a tunnel that has failed, is closed.
func (l *pipes) put(x *direction) {
	switch {
	case x.pipe.size == 0:
	case x.held > 0:
		l.budget.close(x.pipe)
	default:
		l.idle = append(l.idle, x.pipe)
	}
	x.pipe, x.held = pipe{}, 0
}

// shrink closes the pipes that were not needed since it was last called.
func (l *pipes) shrink() {
	l.denied = false
	l.close(min(l.least, len(l.idle)))
	l.least = len(l.idle)
}

// close closes n idle pipes.
func (l *pipes) close(n int) {
	rest := len(l.idle) - n
	for _, p := range l.idle[rest:] {
		l.budget.close(p)
	}
	l.idle = l.idle[:rest]
}

// open makes a pipe where the budget allows one; its size is 0 otherwise. An
// error says that the system gives none, or none worth while.
func (b *pipeBudget) open() (p pipe, err error) {
	switch {
	case reserve(&b.large, b.maxLarge):
		p.size = largePipe
	case reserve(&b.small, b.maxSmall):
		p.size = smallPipe
	default:
		return pipe{}, nil
	}
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		b.release(p)
		return pipe{}, err
	}
	p.r, p.w = int32(fd[0]), int32(fd[1])
	if p.size == largePipe {
		// It may be refused, and then the pipe has the default size.
		_, _ = unix.FcntlInt(uintptr(p.r), unix.F_SETPIPE_SZ, largePipe)
	}
	got, err := unix.FcntlInt(uintptr(p.r), unix.F_GETPIPE_SZ, 0)
	if err == nil && got < smallPipe {
		err = unix.ENOMEM
	}
	if err == nil && got < int(p.size) && reserve(&b.small, b.maxSmall) {
		b.release(p)
		p.size = smallPipe
	}
	if err != nil || got < int(p.size) {
		b.close(p)
		return pipe{}, err
	}
	return p, nil
}

// reserve adds to n, where that does not pass limit.
func reserve(n *atomic.Int32, limit int32) bool {
	if n.Add(1) > limit {
		n.Add(-1)
		return false
	}
	return true
}

// any reports whether there is a pipe.
func (b *pipeBudget) any() bool { return b.large.Load()+b.small.Load() > 0 }

func (b *pipeBudget) close(p pipe) {
	closeFD(p.r)
	closeFD(p.w)
	b.release(p)
}

// release gives back the place of p.
func (b *pipeBudget) release(p pipe) {
	if p.size == largePipe {
		b.large.Add(-1)
	} else {
		b.small.Add(-1)
	}
}
