package limits

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// While the proxy is overloaded, new requests to hosts that are not Apple's are turned
// away with 503, so that Apple's have the rest of the room. The listener stays
// open: devices would take a refused connection for a sign to use the next proxy
// of their script for everything, Apple's included, all at once, and long after
// this one has recovered. It answers 503 to OPTIONS *, so scripts name it last, and
// devices turn to the others as they fetch them.
//
// It begins when something exceeds nine tenths of its limit, and ends when
// nothing exceeds eight.
type overload struct {
	ops     *zap.Logger
	relieve func()
	idle    func() int
	start   time.Time

	now   atomic.Pointer[string] // why; nil: not overloaded
	short atomic.Int64           // when descriptors last ran out, on the clock of start; 0: never

	mu        sync.Mutex
	since     time.Time
	memory    memory
	collected time.Time // when a collection was last asked for
}

const (
	// overloadInterval is how often the proxy looks whether it is overloaded.
	overloadInterval = time.Second
	// collectInterval is how often memory is collected while it is short.
	collectInterval = 5 * time.Second
	// shortageLasts is how long descriptors count as short after they were.
	shortageLasts = 5 * time.Second
)

func high(limit int64) int64 { return limit - limit/10 }
func low(limit int64) int64  { return limit - limit/5 }

// Overloaded says why new requests that are not Apple's are refused; "" if they
// are not.
func (m *Limits) Overloaded() string {
	if s := m.overload.now.Load(); s != nil {
		return *s
	}
	return ""
}

// RanShort notes that descriptors have come to the reserve.
func (m *Limits) RanShort() {
	o := &m.overload
	o.short.Store(max(int64(time.Since(o.start)), 1))
	o.relieve()
	if m.Overloaded() == "" {
		m.Look()
	}
}

// Look enters and leaves the overload. Watch calls it every second.
func (m *Limits) Look() {
	o := &m.overload
	o.mu.Lock()
	defer o.mu.Unlock()
	before := m.Overloaded()
	bound := high
	if before != "" {
		bound = low
	}
	busy, descriptors := m.busy(), int64(m.Descriptors)
	used, allowed := o.memory.read()
	if before == "" && busy+int64(o.idle()) >= high(descriptors) || used > high(allowed) { // halves of heads take memory too
		o.relieve()
	}
	if used > bound(allowed) && time.Since(o.collected) > collectInterval {
		// A proxy that turns most requests away needs no collection for minutes, and would
		// not learn that memory has become free.
		o.collected = time.Now()
		go runtime.GC()
	}
	why, tunnels, requests := "", &m.kinds[Tunnel], &m.kinds[Request]
	short := o.short.Load()
	switch {
	case short > 0 && int64(time.Since(o.start))-short < int64(shortageLasts):
		why = errDescriptors.text
	case tunnels.open.Load() > bound(tunnels.limit):
		why = fmt.Sprintf("open tunnels come near proxy.max_tunnels, %d", tunnels.limit)
	case requests.open.Load() > bound(requests.limit):
		why = fmt.Sprintf("plain requests come near their limit, %d", requests.limit)
	case busy > bound(descriptors):
		why = "open files come near their limit (LimitNOFILE=, ulimit -n)"
	case used > bound(allowed):
		why = fmt.Sprintf("memory comes near its limit, %d MB (GOMEMLIMIT, or nine tenths of the control group's)", allowed>>20)
	}
	switch {
	case why != "" && before == "":
		o.since = time.Now()
		o.now.Store(&why)
		o.ops.Warn("overloaded: requests for what is not Apple's are refused until it eases", zap.String("because", why))
	case why == "" && before != "":
		o.now.Store(nil)
		o.ops.Info("no longer overloaded", zap.Duration("after", time.Since(o.since).Round(time.Millisecond)))
	}
}

// Watch looks for overload until stop is closed.
func (m *Limits) Watch(stop <-chan struct{}) {
	tick := time.NewTicker(overloadInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.Look()
		case <-stop:
			return
		}
	}
}

// memory reads what the process needs of memory. The zero value is ready.
type memory struct{ samples []metrics.Sample }

// read returns the bytes in use and the limit of them (GOMEMLIMIT). What the
// collector can free does not count, for it fills any limit in between.
func (r *memory) read() (used, limit int64) {
	limit = debug.SetMemoryLimit(-1)
	if limit == math.MaxInt64 {
		return 0, limit
	}
	if r.samples == nil {
		for _, name := range []string{
			"/gc/heap/live:bytes", "/memory/classes/total:bytes", "/memory/classes/heap/released:bytes",
			"/memory/classes/heap/objects:bytes", "/memory/classes/heap/unused:bytes", "/memory/classes/heap/free:bytes",
		} {
			r.samples = append(r.samples, metrics.Sample{Name: name})
		}
	}
	metrics.Read(r.samples)
	value := func(i int) int64 { return int64(r.samples[i].Value.Uint64()) }
	rest := value(1)
	for i := 2; i < len(r.samples); i++ {
		rest -= value(i)
	}
	return value(0) + max(rest, 0), limit
}

// Metrics returns the metrics of m.
func (m *Limits) Metrics() []prometheus.Collector {
	list := []prometheus.Collector{prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "espalier_overloaded", Help: "1 while new requests that are not Apple's are refused because a limit is near.",
	}, func() float64 { return float64(min(len(m.Overloaded()), 1)) })}
	for i, reason := range reasons {
		list = append(list, prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "espalier_shed_total",
			Help:        "Requests, and for the reason waiting connections without one, that were turned away because of a limit.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(m.shed[i].Load()) }))
	}
	return list
}
