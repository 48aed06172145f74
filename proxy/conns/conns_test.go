package conns

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
)

var errCut = errors.New("cut")

// A recorded notes the stages that it is told, and leaves by itself at one of them.
type recorded struct {
	group  *Group
	leaves Stage
	mu     sync.Mutex
	told   []Stage
}

func (r *recorded) End(s Stage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told = append(r.told, s); s == r.leaves {
		go r.group.Leave(r)
	}
}

func (r *recorded) stages() []Stage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.told)
}

func TestGroupStages(t *testing.T) {
	g := New(errCut)
	early, gone := &recorded{group: g}, &recorded{group: g}
	for _, c := range []*recorded{early, gone} {
		if !g.Enter(c) {
			t.Fatal("not entered")
		}
	}
	g.Leave(gone)
	g.Leave(gone) // again makes no difference
	g.Advance(Draining)
	g.Advance(Closing)
	late := &recorded{group: g}
	if !g.Enter(late) || !g.Draining() || g.Len() != 2 {
		t.Errorf("draining %t, %d connections", g.Draining(), g.Len())
	}
	g.Advance(Draining) // it has passed
	if g.Context().Err() != nil {
		t.Error("the context has ended before Cut")
	}
	g.Advance(Cut)
	if err := context.Cause(g.Context()); !errors.Is(err, errCut) {
		t.Errorf("the context ended by %v", err)
	}
	if g.Enter(&recorded{}) {
		t.Error("entered after Cut")
	}
	for _, tt := range []struct {
		name string
		c    *recorded
		want []Stage
	}{
		{"from the beginning", early, []Stage{Draining, Closing, Cut}},
		{"has left", gone, nil},
		{"entered while closing", late, []Stage{Closing, Cut}},
	} {
		if got := tt.c.stages(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: told %v, want %v", tt.name, got, tt.want)
		}
	}
}

// Shutdown waits for every connection, those that enter meanwhile too, and cuts what is
// left when its time is over.
func TestGroupShutdown(t *testing.T) {
	g := New(errCut)
	ctx, cancel := context.WithCancel(context.Background())
	outer, inner := &recorded{group: g, leaves: Cut}, &recorded{group: g, leaves: Cut}
	g.Enter(outer)
	ended := make(chan struct{})
	go func() { defer close(ended); g.Shutdown(ctx) }()
	g.Advance(Closing)
	g.Enter(inner) // as a request inside a session
	select {
	case <-ended:
		t.Fatal("Shutdown did not wait")
	default:
	}
	cancel()
	<-ended
	if n := g.Len(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}
