package wire

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const canSplice = true

// acked is how many bytes the peer has acknowledged, which changes while the peer takes
// any, and whether more wait in the socket.
func acked(raw syscall.RawConn) (n uint64, more bool) {
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n, more = info.Bytes_acked, info.Unacked > 0 || info.Notsent_bytes > 0
		}
	})
	return n, more
}
