package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// controlSocket is the name of the control socket in the data directory.
const controlSocket = "espalier.sock"

// ControlPath is where a process with that data directory is controlled.
func ControlPath(dataDir string) string { return filepath.Join(dataDir, controlSocket) }

// ErrRunning says that a process answers at the control socket.
var ErrRunning = errors.New("another espalier runs with this data directory")

// ListenControl listens at the control socket of dataDir, which only the own
// user may open. A socket that nobody answers at is left over from a crash and
// replaced; where somebody does, the error is ErrRunning. The socket is removed when the listener is closed.
func ListenControl(dataDir string) (net.Listener, error) {
	path := ControlPath(dataDir)
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The descriptor's mode becomes that of the file, so that there is no moment
	// at which others could connect. Systems that do not know this have Chmod.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

// checkPath fails for a path that does not fit into a socket address, which the
// system would call an invalid argument.
func checkPath(path string) error {
	if limit := len(syscall.RawSockaddrUnix{}.Path) - 1; len(path) > limit {
		return fmt.Errorf("control socket %s: the path has %d bytes, but sockets are limited to %d: choose a shorter data directory (key data)",
			path, len(path), limit)
	}
	return nil
}

// removeStale removes a socket that nobody answers at.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("control socket %s: something else is there: move it away", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("control socket %s: %w: stop it, or choose another (key data)", path, ErrRunning)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("control socket: another espalier may run with this data directory: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}
