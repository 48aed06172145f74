//go:build linux

package scenario

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A link is a connection as a script sees it: it sends HTTP/1 bytes, and gives
// events of what it receives. A script uses it from one goroutine.
type link interface {
	send(p []byte) error
	// fill waits for events. At the end in order it returns io.EOF.
	fill(limit time.Duration) ([]event, error)
	// complete reports whether what was received ends with a whole message.
	complete() bool
	halfClose() error
	reset()
	close()
}

// h1link is a link by HTTP/1.1.
type h1link struct {
	tcp  *net.TCPConn
	conn net.Conn // tcp, or TLS on it
	in   *decoder
	out  *decoder // of what a client sends; nil: not looked at
	drip bool     // heads are sent in pieces
	err  error
}

func (l *h1link) send(p []byte) error {
	if l.out != nil {
		_, _ = l.out.write(p) // to know the methods; it may well be invalid
	}
	if l.drip && bytes.Contains(p, []byte(" HTTP/1.")) {
		for _, n := range []int{1, 30, len(p) - 32} {
			if n <= 0 || len(p) <= n {
				continue
			}
			if _, err := l.conn.Write(p[:n]); err != nil {
				return err
			}
			awaitRead(l.tcp)
			p = p[n:]
		}
	}
	_, err := l.conn.Write(p)
	return err
}

func (l *h1link) fill(limit time.Duration) ([]event, error) {
	if l.err != nil {
		return nil, l.err
	}
	buf := make([]byte, 64<<10)
	for {
		_ = l.conn.SetReadDeadline(time.Now().Add(limit))
		n, err := l.conn.Read(buf)
		list, bad := l.in.write(buf[:n])
		if bad != nil {
			err = bad
		}
		if err == io.EOF && l.in.state == untilClose {
			list = append(list, *l.in.end())
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			l.err = err
		}
		if len(list) > 0 || err != nil {
			if len(list) > 0 {
				err = nil // it comes next
			}
			return list, err
		}
	}
}

func (l *h1link) complete() bool { return !l.in.raw && l.in.between() }

func (l *h1link) halfClose() error {
	if secure, ok := l.conn.(*tls.Conn); ok {
		return secure.CloseWrite()
	}
	return l.tcp.CloseWrite()
}

func (l *h1link) reset() {
	_ = l.tcp.SetLinger(0)
	l.tcp.Close()
	l.err = net.ErrClosed
}

func (l *h1link) close() {
	l.conn.Close()
	l.err = net.ErrClosed
}

// awaitRead waits until the other end of c, which is on this machine, has read
// what was sent, so that what is sent next arrives by itself; a reader that is busy
// otherwise gets 50 ms.
func awaitRead(c *net.TCPConn) {
	for end := time.Now().Add(50 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Microsecond) {
		if unread(c.RemoteAddr().(*net.TCPAddr), c.LocalAddr().(*net.TCPAddr)) == 0 {
			return
		}
	}
}

// unread asks the kernel how many bytes wait in the socket between two IPv4
// addresses (sock_diag(7)); 1 where it does not say.
func unread(local, remote *net.TCPAddr) uint32 {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return 1
	}
	defer unix.Close(fd)
	const headerLen, requestLen, queueAt = 16, 56, 72
	b := make([]byte, 0, headerLen+requestLen)
	b = binary.NativeEndian.AppendUint32(b, headerLen+requestLen)
	b = binary.NativeEndian.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...) // sequence, port
	b = append(b, unix.AF_INET, unix.IPPROTO_TCP, 0, 0, 0xff, 0xff, 0xff, 0xff)
	b = binary.BigEndian.AppendUint16(b, uint16(local.Port))
	b = binary.BigEndian.AppendUint16(b, uint16(remote.Port))
	b = append(append(b, local.IP.To4()...), make([]byte, 12)...)
	b = append(append(b, remote.IP.To4()...), make([]byte, 12)...)
	b = append(b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // interface, no cookie
	answer := make([]byte, 1<<10)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 1
	}
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < queueAt+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.SOCK_DIAG_BY_FAMILY {
		return 1
	}
	return binary.NativeEndian.Uint32(answer[queueAt:])
}
