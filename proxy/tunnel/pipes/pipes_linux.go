// Package pipes keeps the pipes that splice moves bytes through.
package pipes

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"espalier/proxy/tunnel/kernel"
)

// Pipes cost kernel memory while they hold bytes for a stalled receiver, and a
// user without privileges may have 64 MB of them in all, past which every new one
// is tiny (pipe(7), pipe-user-pages-soft). So a fixed number is large, some more
// are of the default size, and past both the relay reads and writes.
const (
	largeSize = 1 << 20
	smallSize = 64 << 10
	// Large and Small are how many of each a process may have.
	Large = 32
	Small = 384
)

// A Budget bounds the pipes of several Pools. The zero Budget allows none. It is safe for
// concurrent use.
type Budget struct {
	large, small       atomic.Int32
	MaxLarge, MaxSmall int32
}

// A Pipe is between two splices: one into W, one out of R. The zero Pipe is none.
type Pipe struct{ R, W, Size int32 }

// A Pool has the pipes of one goroutine that are not in use. They are empty.
type Pool struct {
	budget *Budget
	idle   []Pipe
	least  int  // smallest len(idle) since Shrink
	denied bool // the system gave none since Shrink
}

// NewPool returns a Pool without pipes.
func NewPool(b *Budget) Pool { return Pool{budget: b} }

// Take returns a pipe, or none where the budget is spent.
func (l *Pool) Take() (p Pipe) {
	switch n := len(l.idle); {
	case n > 0:
		p, l.idle = l.idle[n-1], l.idle[:n-1]
		l.least = min(l.least, n-1)
	case !l.denied:
		var err error
		p, err = l.budget.open()
		l.denied = err != nil
	}
	return p
}

// Put takes back a pipe. One that holds bytes is closed.
func (l *Pool) Put(p Pipe, empty bool) {
	if empty {
		l.idle = append(l.idle, p)
	} else {
		l.budget.close(p)
	}
}

// Close closes the pipes that are not in use.
func (l *Pool) Close() { l.close(len(l.idle)) }

// Shrink closes the pipes that were not needed since it was last called.
func (l *Pool) Shrink() {
	l.denied = false
	l.close(min(l.least, len(l.idle)))
	l.least = len(l.idle)
}

// close closes n idle pipes.
func (l *Pool) close(n int) {
	rest := len(l.idle) - n
	for _, p := range l.idle[rest:] {
		l.budget.close(p)
	}
	l.idle = l.idle[:rest]
}

// open makes a pipe where the budget allows one, and none otherwise. An
// error says that the system gives none, or none worth while.
func (b *Budget) open() (p Pipe, err error) {
	switch {
	case reserve(&b.large, b.MaxLarge):
		p.Size = largeSize
	case reserve(&b.small, b.MaxSmall):
		p.Size = smallSize
	default:
		return Pipe{}, nil
	}
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		b.release(p)
		return Pipe{}, err
	}
	p.R, p.W = int32(fd[0]), int32(fd[1])
	if p.Size == largeSize {
		// It may be refused, and then the pipe has the default size.
		_, _ = unix.FcntlInt(uintptr(p.R), unix.F_SETPIPE_SZ, largeSize)
	}
	got, err := unix.FcntlInt(uintptr(p.R), unix.F_GETPIPE_SZ, 0)
	if err == nil && got < smallSize {
		err = unix.ENOMEM
	}
	if err == nil && got < int(p.Size) && reserve(&b.small, b.MaxSmall) {
		b.release(p)
		p.Size = smallSize
	}
	if err != nil || got < int(p.Size) {
		b.close(p)
		return Pipe{}, err
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

// Any reports whether there is a pipe.
func (b *Budget) Any() bool { return b.large.Load()+b.small.Load() > 0 }

func (b *Budget) close(p Pipe) {
	kernel.Close(p.R)
	kernel.Close(p.W)
	b.release(p)
}

// release gives back the place of p.
func (b *Budget) release(p Pipe) {
	if p.Size == largeSize {
		b.large.Add(-1)
	} else {
		b.small.Add(-1)
	}
}
