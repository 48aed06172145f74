// Package kernel makes system calls of Linux: for non-blocking sockets and pipes, and for
// epoll.
//
// They never block: descriptors are non-blocking, and epoll_wait is given no time. So they
// are made without telling the scheduler, which would otherwise watch each of them, and
// hand the processor to another thread during a long splice to take it back after. The
// price: a collection waits for the call under way, some 100 µs at most.
//
// Errors are of type syscall.Errno where nothing else is said. Read, Write and Splice try
// again after a signal, and return EAGAIN if nothing can be moved now.
package kernel

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

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

// Read is read(2).
func Read(fd int32, b []byte) (int, error) {
	return call(unix.SYS_READ, uintptr(fd), unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)), 0, 0, 0)
}

// Write is write(2).
func Write(fd int32, b []byte) (int, error) {
	return call(unix.SYS_WRITE, uintptr(fd), unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)), 0, 0, 0)
}

// Splice moves up to n bytes between two descriptors, one of which is a pipe.
func Splice(from, to int32, n int) (int, error) {
	return call(unix.SYS_SPLICE, uintptr(from), nil, uintptr(to), 0, uintptr(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
}

// Close closes a descriptor. It is closed whatever close says.
func Close(fd int32) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// ShutdownWrite ends the sending direction of a socket.
func ShutdownWrite(fd int32) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0)
	return asError(errno)
}

// Accept accepts a client as a non-blocking descriptor.
func Accept(fd int32) (int32, netip.AddrPort, error) {
	var sa unix.RawSockaddrInet6 // the larger of the two that there may be
	size := uint32(unsafe.Sizeof(sa))
	r, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
		uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	port := networkOrder(sa.Port)
	if sa.Family == unix.AF_INET {
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
		return int32(r), netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), port), nil
	}
	return int32(r), netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port), nil
}

// Socket makes a non-blocking TCP socket for addresses like addr.
func Socket(addr netip.Addr) (int32, error) {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	return int32(fd), err
}

// Connect is connect(2) of a non-blocking socket. Further calls say how it goes: EALREADY
// while it is under way.
func Connect(fd int32, to netip.AddrPort) error {
	var err error
	if to.Addr().Is6() {
		sa := unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: networkOrder(to.Port()), Addr: to.Addr().As16()}
		_, err = call(unix.SYS_CONNECT, uintptr(fd), unsafe.Pointer(&sa), unsafe.Sizeof(sa), 0, 0, 0)
	} else {
		sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: networkOrder(to.Port()), Addr: to.Addr().As4()}
		_, err = call(unix.SYS_CONNECT, uintptr(fd), unsafe.Pointer(&sa), unsafe.Sizeof(sa), 0, 0, 0)
	}
	return err
}

func setOption(fd int32, level, name, value int) error {
	v := int32(value)
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	return asError(errno)
}

// PendingError takes the error that a socket has waiting, nil where there is none.
func PendingError(fd int32) error {
	errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return err
}

// networkOrder turns a port from the machine's byte order into the network's, or
// back.
func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func asError(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
