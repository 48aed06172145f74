package tunnel

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the relay never block: descriptors are non-blocking, and
// epoll_wait is given no time. So they are made without telling the scheduler,
// which would otherwise hand the processor to another thread during a long
// splice and take it back after. What it costs is that a collection waits for
// the call under way, some 100 µs at most.

// call makes a system call again where a signal interrupted it. p is its second
// argument: it becomes a number only here, in the call itself, for until then
// the stack that it may point into can move.
func call(trap, a1 uintptr, p unsafe.Pointer, a3, a4, a5, a6 uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(trap, a1, uintptr(p), a3, a4, a5, a6)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN: // most often; no allocation
			return 0, unix.EAGAIN
		default:
			return 0, errno
		}
	}
}

func read(fd int32, b []byte) (int, error) {
	return call(unix.SYS_READ, uintptr(fd), unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)), 0, 0, 0)
}

func write(fd int32, b []byte) (int, error) {
	return call(unix.SYS_WRITE, uintptr(fd), unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)), 0, 0, 0)
}

func splice(from, to int32, n int) (int, error) {
	return call(unix.SYS_SPLICE, uintptr(from), nil, uintptr(to), 0, uintptr(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
}

// epollWait harvests the events that there are.
func epollWait(epoll int, events []unix.EpollEvent) (int, error) {
	return call(unix.SYS_EPOLL_PWAIT, uintptr(epoll), unsafe.Pointer(unsafe.SliceData(events)), uintptr(len(events)), 0, 0, 0)
}
