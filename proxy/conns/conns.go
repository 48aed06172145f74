// Package conns keeps the clients' connections of a server until they have ended.
//
// All parts of the proxy that serve clients share one Group, so that a connection that
// one part hands on to another is in it all the time.
package conns

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// A Stage is how far the end of a Group has come. Stages only advance.
type Stage int32

const (
	Serving  Stage = iota
	Draining       // answers end their connections: clients should open others, elsewhere
	Closing        // connections on which nothing is asked are closed
	Cut            // all are
)

// A Conn is a client's connection, or a session inside one.
type Conn interface {
	// End does what a stage asks for. It must not block, nor call the Group. It is called
	// for each stage after Serving that is reached between Enter and Leave, and by Enter for
	// the stage that was reached before.
	End(Stage)
}

// A Group has the connections that have not ended. It is safe for concurrent use.
type Group struct {
	stage atomic.Int32
	alive context.Context
	cut   context.CancelCauseFunc
	cause error

	mu    sync.Mutex
	conns map[Conn]struct{}
	left  sync.Cond
}

// New returns an empty Group. cause is why what is cut ends.
func New(cause error) *Group {
	g := &Group{conns: map[Conn]struct{}{}, cause: cause}
	g.left.L = &g.mu
	g.alive, g.cut = context.WithCancelCause(context.Background())
	return g
}

// Stage is the stage that was reached.
func (g *Group) Stage() Stage { return Stage(g.stage.Load()) }

// Draining reports whether the end has begun.
func (g *Group) Draining() bool { return g.Stage() >= Draining }

// Context ends, with the cause of the Group, when Cut is reached.
func (g *Group) Context() context.Context { return g.alive }

// Enter adds c until Leave. It reports false, and adds nothing, after Cut.
func (g *Group) Enter(c Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	stage := g.Stage()
	if stage == Cut {
		return false
	}
	g.conns[c] = struct{}{}
	if stage != Serving {
		c.End(stage)
	}
	return true
}

// Leave removes c, which may have left before.
func (g *Group) Leave(c Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
	if len(g.conns) == 0 {
		g.left.Broadcast()
	}
}

// All returns the connections that are in the Group.
func (g *Group) All() []Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Keys(g.conns))
}

// Len is the number of connections.
func (g *Group) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

// Advance begins a stage, unless that or a later one was reached.
func (g *Group) Advance(to Stage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if to <= g.Stage() {
		return
	}
	g.stage.Store(int32(to))
	if to == Cut {
		g.cut(g.cause)
	}
	for c := range g.conns {
		c.End(to)
	}
}

// Wait returns when no connection is left.
func (g *Group) Wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.conns) > 0 {
		g.left.Wait()
	}
}

// Shutdown begins Closing, and Cut when ctx ends, then or later. It returns when no
// connection is left.
func (g *Group) Shutdown(ctx context.Context) {
	g.Advance(Closing)
	context.AfterFunc(ctx, func() { g.Advance(Cut) })
	g.Wait()
}
