package kernel

import (
	"cmp"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SetNoDelay has a socket send small messages at once. Errors are *os.SyscallError.
func SetNoDelay(fd int32) error {
	return os.NewSyscallError("setsockopt", setOption(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
}

// SetKeepAlive has a socket send the probes of c, which is enabled. Errors are
// *os.SyscallError.
func SetKeepAlive(fd int32, c net.KeepAliveConfig) error {
	for _, o := range [...]struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(c.Idle / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(c.Interval / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, c.Count},
	} {
		if err := setOption(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}

// ResetIfSent has Close reset the connection of a socket, unless that would drop bytes that
// are not sent and acknowledged yet.
func ResetIfSent(fd int32) {
	if queued, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil && queued == 0 {
		_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
}

// Duplicate returns another descriptor for a socket, which Go's poller has no part in.
func Duplicate(c syscall.Conn) (fd int32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := raw.Control(func(old uintptr) {
		var n int
		n, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
		fd = int32(n)
	})
	if err = cmp.Or(cerr, err); err != nil {
		return -1, err
	}
	return fd, nil
}

// TCPConn makes a connection of a client's descriptor, with the probes of c, and closes the
// descriptor. It fails if descriptors have run out, or if the client has reset the
// connection meanwhile.
func TCPConn(fd int32, c net.KeepAliveConfig) (*net.TCPConn, error) {
	f := os.NewFile(uintptr(fd), "client")
	conn, err := net.FileConn(f)
	f.Close()
	if err != nil {
		return nil, err
	}
	if conn.RemoteAddr() == nil {
		conn.Close()
		return nil, unix.ENOTCONN
	}
	tcp := conn.(*net.TCPConn)
	_ = tcp.SetKeepAliveConfig(c) // net.FileConn sets its own, 15 s apart
	return tcp, nil
}
