package egress

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"

	"espalier/proxy/head"
)

// maxAnswer bounds the head of a parent's answer, with the interim ones before
// it.
const maxAnswer = 16 << 10

var (
	errBadAnswer  = errors.New("its answer to CONNECT is not valid HTTP/1")
	errLongAnswer = fmt.Errorf("the head of its answer to CONNECT is longer than %d bytes", maxAnswer)
)

// readAnswer reads the answer to a CONNECT and takes no byte from conn behind
// its head: it looks at what has come before it takes it. So what follows stays
// in the socket, and the connection is as any other to those who splice.
func readAnswer(conn *net.TCPConn) (status int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	buf, n := make([]byte, 1<<10), 0
	for {
		k, err := peek(raw, buf[n:])
		if err != nil {
			return 0, err
		}
		status, end, err := parseAnswer(buf[:n+k])
		if err != nil {
			return 0, err
		}
		if end == 0 {
			end = n + k
		}
		if _, err := io.ReadFull(conn, buf[n:end]); err != nil {
			return 0, err
		}
		if n = end; status != 0 {
			return status, nil
		}
		if n == len(buf) {
			if n >= maxAnswer {
				return 0, errLongAnswer
			}
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

// peek waits for bytes and copies them to b without taking them.
func peek(raw syscall.RawConn, b []byte) (n int, err error) {
	rerr := raw.Read(func(fd uintptr) bool {
		for {
			n, _, err = syscall.Recvfrom(int(fd), b, syscall.MSG_PEEK)
			if err != syscall.EINTR {
				return err != syscall.EAGAIN
			}
		}
	})
	switch {
	case rerr != nil:
		return 0, rerr
	case err != nil:
		return 0, fmt.Errorf("read its answer to CONNECT: %w", err)
	case n == 0:
		return 0, fmt.Errorf("it closed the connection without an answer to CONNECT: %w", io.ErrUnexpectedEOF)
	}
	return n, nil
}

// parseAnswer parses the head of the final answer at the start of b, behind any
// interim ones. It returns its status and where it ends; both are 0 if more
// has to come.
func parseAnswer(b []byte) (status, end int, err error) {
	for {
		r, err := head.ParseConnectResponse(b[end:])
		if err == head.ErrIncomplete && head.Plausible(b[end:]) {
			return 0, 0, nil
		}
		if err != nil || r.Status == http.StatusSwitchingProtocols {
			return 0, 0, errBadAnswer
		}
		if end += r.Len; r.Status >= 200 {
			return r.Status, end, nil
		}
	}
}
