package pipes

import (
	"testing"

	"golang.org/x/sys/unix"
)

// isOpen reports whether a descriptor is.
func isOpen(fd int32) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

func TestBudget(t *testing.T) {
	for _, tc := range []struct {
		name         string
		large, small int32
		want         []int32 // sizes
	}{
		{"none", 0, 0, []int32{0}},
		{"small", 0, 2, []int32{smallSize, smallSize, 0}},
		{"large first", 1, 1, []int32{largeSize, smallSize, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := &Budget{MaxLarge: tc.large, MaxSmall: tc.small}
			one, other := NewPool(b), NewPool(b)
			defer one.Close()
			defer other.Close()
			var taken []Pipe
			for i, want := range tc.want {
				p := one.Take()
				if p.Size != want && (want != largeSize || p.Size != smallSize) { // the system may refuse large ones
					t.Errorf("pipe %d has size %d, want %d", i, p.Size, want)
				}
				if p.Size > 0 {
					taken = append(taken, p)
				}
			}
			if p := other.Take(); p.Size != 0 {
				t.Errorf("another pool has a pipe of size %d", p.Size)
			}
			if b.Any() != (len(taken) > 0) {
				t.Errorf("Any is %v with %d pipes", b.Any(), len(taken))
			}
			for _, p := range taken {
				one.Put(p, true)
			}
			if one.Close(); b.Any() {
				t.Error("there are pipes after Close")
			}
		})
	}
}

func TestPool(t *testing.T) {
	b := &Budget{MaxSmall: 4}
	l := NewPool(b)
	defer l.Close()
	first, second := l.Take(), l.Take()
	l.Put(first, false)
	if isOpen(first.R) || isOpen(first.W) {
		t.Error("a pipe that holds bytes is still open")
	}
	l.Put(second, true)
	if again := l.Take(); again != second {
		t.Errorf("took %v, want the idle %v", again, second)
	}
	l.Put(second, true)
	l.Shrink() // it was needed since the start
	if !isOpen(second.R) {
		t.Error("Shrink closed a pipe that was needed")
	}
	l.Shrink()
	if isOpen(second.R) || b.Any() {
		t.Error("Shrink left a pipe that was not needed")
	}
}
