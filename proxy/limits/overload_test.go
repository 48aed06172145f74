package limits

import (
	"math"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

// Clients that send the better part of a head, and then wait, do not fill memory.
func TestHeadsKeepWithinMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	for _, tt := range []struct {
		name   string
		memory int64
		most   int64
	}{
		{"no limit", math.MaxInt64, math.MaxInt64},
		{"64 MB", 64 << 20, 512},
		{"next to nothing", 1, 16},
	} {
		t.Run(tt.name, func(t *testing.T) {
			debug.SetMemoryLimit(tt.memory)
			defer debug.SetMemoryLimit(before)
			m := New(Config{})
			if want := int(min(tt.most, int64(m.MaxWaiting))); m.MaxHeads != want {
				t.Errorf("%d may wait, want %d", m.MaxHeads, want)
			}
		})
	}
}

// That memory has become free is noticed though nothing else makes the collector
// run.
func TestOverloadByMemoryEnds(t *testing.T) {
	m := New(Config{Ops: zap.NewNop()})
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	ballast := make([]byte, 256<<20)
	runtime.GC()
	debug.SetMemoryLimit(1 << 40)
	used, _ := new(memory).read()
	debug.SetMemoryLimit(used + used/20)
	m.Look()
	if m.Overloaded() == "" {
		t.Fatal("not overloaded")
	}
	runtime.KeepAlive(ballast)
	m.overload.mu.Lock()
	m.overload.collected = time.Time{} // as after collectInterval
	m.overload.mu.Unlock()
	for end := time.Now().Add(time.Minute); m.Overloaded() != ""; m.Look() {
		if time.Now().After(end) {
			t.Fatal("it does not end")
		}
	}
}

// What the collector could free is no reason to turn anybody away.
func TestOverloadByMemory(t *testing.T) {
	m := New(Config{Ops: zap.NewNop()})
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	debug.SetMemoryLimit(1 << 40)
	used, limit := new(memory).read()
	if limit != 1<<40 || used <= 0 || used > 1<<30 {
		t.Fatalf("%d bytes used of %d", used, limit)
	}
	m.Look()
	if why := m.Overloaded(); why != "" {
		t.Errorf("overloaded with room to spare: %s", why)
	}
	relieved := 0
	m.overload.relieve = func() { relieved++ }
	debug.SetMemoryLimit(used)
	m.Look()
	if why := m.Overloaded(); !strings.Contains(why, "GOMEMLIMIT") {
		t.Errorf("overloaded because %q", why)
	}
	if relieved == 0 {
		t.Error("idle connections, which may hold a part of a head, are kept")
	}
	debug.SetMemoryLimit(before)
	m.Look()
	if why := m.Overloaded(); why != "" {
		t.Errorf("still overloaded: %s", why)
	}
}
