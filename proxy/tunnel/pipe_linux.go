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

// A pipe between two splices. It is empty whenever it is in the pool.
type pipe struct {
	r, w int32
	size int32 // 0: closed, its place in the list is unused
}

// pipes are the pipes of one worker.
type pipes struct {
	budget *pipeBudget
	all    []pipe
	unused []int32 // places in all that hold no pipe
	idle   []int32 // places in all whose pipe nobody has
	least  int     // smallest len(idle) since shrink
	denied bool    // the system gave none since shrink
}

// of returns the pipe that a direction holds.
func (l *pipes) of(x *direction) *pipe { return &l.all[x.pipe-1] }

// take sees to it that a direction has a pipe. It reports false where the budget
// is spent; the direction then turns back to small messages.
func (l *pipes) take(x *direction) bool {
	if x.pipe != 0 {
		return true
	}
	if n := len(l.idle); n > 0 {
		x.pipe = l.idle[n-1] + 1
		l.idle = l.idle[:n-1]
		l.least = min(l.least, n-1)
		return true
	}
	var p pipe
	if !l.denied {
		var err error
		p, err = l.budget.open()
		l.denied = err != nil
	}
	if p.size == 0 {
		x.chunk = 0
		return false
	}
	if n := len(l.unused); n > 0 {
		x.pipe = l.unused[n-1] + 1
		l.unused = l.unused[:n-1]
	} else {
		l.all = append(l.all, pipe{})
		x.pipe = int32(len(l.all))
	}
	l.all[x.pipe-1] = p
	return true
}

// put takes back the pipe of a direction, where it has one. One that still holds
// bytes, of a tunnel that has failed, is closed.
func (l *pipes) put(x *direction) {
	if x.pipe == 0 {
		return
	}
	at := x.pipe - 1
	if x.held > 0 {
		l.close(at)
	} else {
		l.idle = append(l.idle, at)
	}
	x.pipe, x.held = 0, 0
}

// shrink closes the pipes that were not needed since it was last called.
func (l *pipes) shrink() {
	l.denied = false
	for range min(l.least, len(l.idle)) {
		n := len(l.idle) - 1
		l.close(l.idle[n])
		l.idle = l.idle[:n]
	}
	l.least = len(l.idle)
}

func (l *pipes) close(at int32) {
	p := &l.all[at]
	closeFD(p.r)
	closeFD(p.w)
	l.budget.closed(p.size)
	*p = pipe{}
	l.unused = append(l.unused, at)
}

func (l *pipes) closeAll() {
	for at := range l.all {
		if l.all[at].size > 0 {
			l.close(int32(at))
		}
	}
	l.idle = nil
}

// open makes a pipe where the budget allows one; its size is 0 otherwise. An
// error says that the system gives none, or none worth while.
func (b *pipeBudget) open() (pipe, error) {
	size := int32(largePipe)
	if !reserve(&b.large, b.maxLarge) {
		size = smallPipe
		if !reserve(&b.small, b.maxSmall) {
			return pipe{}, nil
		}
	}
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		b.closed(size)
		return pipe{}, err
	}
	if size == largePipe {
		// It may be refused, and then the pipe has the default size.
		_, _ = unix.FcntlInt(uintptr(fd[0]), unix.F_SETPIPE_SZ, largePipe)
	}
	got, err := unix.FcntlInt(uintptr(fd[0]), unix.F_GETPIPE_SZ, 0)
	if err == nil && got < smallPipe {
		err = unix.ENOMEM
	}
	ok := err == nil
	if ok && got < int(size) {
		b.closed(size)
		size = smallPipe
		ok = reserve(&b.small, b.maxSmall)
	} else if !ok {
		b.closed(size)
	}
	if !ok {
		unix.Close(fd[0])
		unix.Close(fd[1])
		return pipe{}, err
	}
	return pipe{r: int32(fd[0]), w: int32(fd[1]), size: size}, nil
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

func (b *pipeBudget) closed(size int32) {
	if size == largePipe {
		b.large.Add(-1)
	} else {
		b.small.Add(-1)
	}
}
