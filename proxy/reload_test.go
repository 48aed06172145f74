package proxy

import (
	"runtime"
	"testing"
)

// A policy, and its lists of maybe millions of names, does not stay in memory because
// tunnels are open that it has decided about.
func TestReloadFreesTheOldState(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		r := start(t, setup{})
		freed := make(chan struct{})
		func() {
			st := r.state(setup{})
			runtime.AddCleanup(st, func(c chan struct{}) { close(c) }, freed)
			r.server.Apply(st)
		}()
		c := r.dial()
		c.tunnel(at.String())
		r.server.Apply(r.state(setup{}))
		await(t, "the old state to be freed", func() bool {
			runtime.GC()
			select {
			case <-freed:
				return true
			default:
				return false
			}
		})
		c.end()
	})
}
