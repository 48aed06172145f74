// Package exchange is the way of every request through the proxy, whatever it came
// by: Admit decides about it, in one place, and the Exchange is its account until
// its access record is written.
package exchange

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"espalier/proxy/accesslog"
	"espalier/proxy/limits"
	"espalier/proxy/traffic"
	"espalier/proxy/trust"
)

// A Pipeline has what requests need: the State in force, limits, counters and the
// access log. It is safe for concurrent use. It is a prometheus.Collector.
type Pipeline struct {
	Limits *limits.Limits
	// Intercept takes over the client of an open tunnel that is to be intercepted. It must
	// be set before the first request, and not block.
	Intercept func(x *Exchange, client net.Conn)

	log      *accesslog.Log
	ops      *zap.Logger
	traffic  *traffic.Counters
	state    atomic.Pointer[State]
	panics   atomic.Uint64
	refusals *prometheus.CounterVec
	metrics  *prometheus.Registry
}

// New returns a Pipeline. Apply must be called before the first request.
func New(m *limits.Limits, log *accesslog.Log, ops *zap.Logger, counters *traffic.Counters) *Pipeline {
	p := &Pipeline{Limits: m, log: log, ops: ops, traffic: counters}
	p.refusals = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "espalier_refusals_total", Help: "Refused and failed requests, by the error type of RFC 9209.",
	}, []string{"error"})
	panics := prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "espalier_panics_total", Help: "Panics in requests, each a bug in Espalier; the log has their stacks.",
	}, func() float64 { return float64(p.Panics()) })
	p.metrics = prometheus.NewRegistry()
	p.metrics.MustRegister(append(m.Metrics(), p.refusals, panics)...)
	return p
}

// Apply makes st the state of requests that come from now on, and returns the one
// before, nil at first. st must not have been applied before.
func (p *Pipeline) Apply(st *State) *State {
	if st.Trust == nil {
		st.Trust = trust.New(st.Roots, nil)
	}
	return p.state.Swap(st)
}

// State returns the state in force.
func (p *Pipeline) State() *State { return p.state.Load() }

// Begin starts the account of a request of client. Finish must follow.
func (p *Pipeline) Begin(client netip.Addr, method, agent string) *Exchange {
	x := &Exchange{p: p, decided: &decided{}}
	x.Record = accesslog.Record{
		Time: time.Now(), ID: accesslog.NextID(), Client: client.Unmap(), Method: method, Agent: agent,
	}
	return x
}

// Panicked notes a panic that cost one request or connection; x is its Exchange, nil
// if it has none, and is finished.
func (p *Pipeline) Panicked(x *Exchange, fault any) {
	p.panics.Add(1)
	p.ops.Error("panic in a request", zap.Any("panic", fault), zap.Stack("stack"))
	if x != nil && !x.finished {
		x.Fail(fmt.Errorf("panic: %v", fault))
		x.Finish(0)
	}
}

// Panics is how many panics were noted.
func (p *Pipeline) Panics() uint64 { return p.panics.Load() }

// Describe implements prometheus.Collector.
func (p *Pipeline) Describe(ch chan<- *prometheus.Desc) { p.metrics.Describe(ch) }

// Collect implements prometheus.Collector.
func (p *Pipeline) Collect(ch chan<- prometheus.Metric) { p.metrics.Collect(ch) }
