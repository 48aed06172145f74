package mitm

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"espalier/policy"
	"espalier/proxy/exchange"
	"espalier/proxy/tunnel"
)

// first waits until the client says something, or the destination does, which it
// connects to where the client is silent: in some protocols that speaks first.
// It reports whether it was the client. Only so is a client that is slow, or
// waits on purpose, not taken for one that cannot be intercepted.
func (ses *session) first() (bool, error) {
	_ = ses.SetDeadline(time.Now().Add(firstByteTimeout))
	n, err := ses.more()
	if n > 0 {
		return true, nil
	}
	d := ses.State.Policy.Unknown(ses.Decision)
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return false, exchange.ErrClientClosed
	case d.Action != policy.Tunnel: // whatever the destination says
		_ = ses.SetDeadline(time.Now().Add(helloTimeout))
		if n, err = ses.more(); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			return n > 0, nil
		}
		return false, exchange.ErrClientClosed
	}
	if err := ses.dial(d.Dial); err != nil {
		return false, err
	}
	_ = ses.SetDeadline(time.Now().Add(ses.i.cfg.Idle))
	spoke := make(chan bool, 1)
	go func() {
		has := readable(ses.upstream)
		if has {
			_ = ses.SetReadDeadline(time.Unix(1, 0)) // the client is waited for no longer
		}
		spoke <- has
	}()
	n, err = ses.more()
	_ = ses.upstream.SetReadDeadline(time.Unix(1, 0))
	has := <-spoke
	_ = ses.upstream.SetReadDeadline(time.Time{})
	switch {
	case has:
		return false, nil
	case n > 0:
		return true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, tunnel.ErrIdle
	}
	return false, exchange.ErrClientClosed
}

// readable waits until c, a TCP connection, has something to read or has ended.
// It reads nothing. It reports false where a deadline came first.
func readable(c net.Conn) bool {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		return err != syscall.EAGAIN && err != syscall.EINTR
	})
	return err == nil
}
