package main

import (
	"context"
	"net"
	"slices"
	"time"

	"espalier/web"
)

// A handover is a restart with the sockets that were passed: the next process
// listens on them while this one still does, with the same data directory, and
// then this one is stopped.

// handover reports whether another process can take over the proxy's sockets.
func (a *app) handover() bool {
	return slices.ContainsFunc(a.proxyOn, func(l net.Listener) bool { return a.passed[l] })
}

// release leaves to the next process what it shares with this one, but for the
// proxy's own sockets, which Shutdown closes.
func (a *app) release() {
	for l := range a.passed {
		if !slices.Contains(a.proxyOn, l) && !slices.Contains(a.secureOn, l) {
			l.Close()
		}
	}
	if a.handover() {
		a.releaseControl()
	}
}

// takeControl listens on the control socket. It returns nil after releaseControl.
func (a *app) takeControl() (net.Listener, error) {
	a.controlMu.Lock()
	defer a.controlMu.Unlock()
	if a.released {
		return nil, nil
	}
	l, err := web.ListenControl(a.data)
	if err != nil {
		return nil, err
	}
	a.controlOn = l
	return l, nil
}

// releaseControl closes the control socket, so that another may take it.
func (a *app) releaseControl() {
	a.controlMu.Lock()
	defer a.controlMu.Unlock()
	a.released = true
	if a.controlOn != nil {
		a.controlOn.Close()
	}
}

// controlRetry is how often the control socket is tried while another has it.
const controlRetry = 100 * time.Millisecond

// serveControl answers on the control socket, once the process before has
// released it.
func (a *app) serveControl(ctx context.Context) error {
	l := a.controlOn
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
		if l, err = a.takeControl(); l == nil && err == nil {
			return nil
		}
	}
	err := serveHTTP(a.control, l)
	if ctx.Err() != nil {
		return nil // it was released
	}
	return err
}
