package app

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"espalier/web"
)

// A handover is a restart with the sockets that were passed: the next process
// listens on them while this one still does, with the same data directory, and
// then this one is stopped.

// handover reports whether another process can take over the proxy's sockets.
func (s sockets) handover() bool {
	return slices.ContainsFunc(s, func(on socket) bool { return on.passed && on.purpose == forProxy })
}

// release leaves to the next process what it shares with this one, but for the
// proxy's own sockets, which Shutdown closes.
func (a *App) release() {
	for _, on := range a.sockets {
		if on.passed && on.purpose != forProxy && on.purpose != forTLS {
			on.Close()
		}
	}
	if a.sockets.handover() {
		_ = a.control.release()
	}
}

// A controlSocket is where commands ask the process. Two processes may want it during a
// handover.
type controlSocket struct {
	server *http.Server

	mu       sync.Mutex
	on       net.Listener // nil while another process has it
	released bool         // it is another's to take, now and from now on
}

// take listens on the control socket. It returns nil after release.
func (c *controlSocket) take(data string) (net.Listener, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released {
		return nil, nil
	}
	l, err := web.ListenControl(data)
	if err == nil {
		c.on = l
	}
	return c.on, err
}

// release closes the control socket, so that another may take it.
func (c *controlSocket) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released = true
	if c.on != nil {
		c.on.Close()
	}
	return nil
}

// openControl takes the control socket, unless the process before has it still.
func (a *App) openControl() error {
	_, err := a.control.take(a.data)
	if a.sockets.handover() && errors.Is(err, web.ErrRunning) {
		err = nil
	}
	a.opened("control socket", a.control.release)
	a.opened("server of the control socket", quietly(func() { a.control.server.Close() }))
	return err
}

// controlRetry is how often the control socket is tried while another has it.
const controlRetry = 100 * time.Millisecond

// serveControl answers on the control socket, once the process before has
// released it.
func (a *App) serveControl(ctx context.Context) error {
	l := a.control.on
	if l == nil {
		a.log.Info("another espalier runs with this data directory; this one can be controlled when the other is stopped")
	}
	for l == nil {
		select {
		case <-time.After(controlRetry):
		case <-ctx.Done():
			return nil
		}
		var err error
		if l, err = a.control.take(a.data); l == nil && err == nil {
			return nil
		}
	}
	return serveHTTP(ctx, a.control.server, l)
}
