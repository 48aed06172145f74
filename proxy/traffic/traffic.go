// Package traffic counts what flows for each service while it flows.
package traffic

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"espalier/policy"
	"espalier/policy/catalog"
)

// Counters holds the live counters of every service. Its size is fixed by the
// catalogue's list of services: hosts and clients never make it grow. It is
// safe for concurrent use, and a prometheus.Collector.
type Counters struct {
	services map[string]*Service
	connect  prometheus.Histogram
}

// Actions are the values that requests are counted by, in a fixed order. The
// slice must not be modified.
var Actions = []policy.Action{
	policy.Tunnel, policy.Forward, policy.Inspect, policy.Deny, policy.Challenge, policy.Error,
}

const cacheLine = 64

// A Service counts the traffic of one service since the process started. Each
// counter that tunnels add to while bytes flow has a cache line of its own, so
// that event loops on several cores do not wait for each other's services or
// directions.
type Service struct {
	ID string // must not be modified

	_        [cacheLine]byte
	up       atomic.Int64
	_        [cacheLine]byte
	down     atomic.Int64
	_        [cacheLine]byte
	tunnels  atomic.Int64
	requests [6]atomic.Int64 // by index in Actions
	recorded [2]atomic.Int64 // bytes up and down of requests that have ended
	_        [cacheLine]byte
}

// New returns counters that stand at zero.
func New() *Counters {
	c := &Counters{
		services: make(map[string]*Service, len(catalog.Services)),
		connect: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "espalier_connect_seconds",
			Help:    "Time to look up and connect to the upstream, where that succeeded.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	for _, s := range catalog.Services {
		c.services[s.ID] = &Service{ID: s.ID}
	}
	return c
}

// Service returns the counters of a service id; an id that is not in
// catalog.Services counts as catalog.Other.
func (c *Counters) Service(id string) *Service {
	if s, ok := c.services[id]; ok {
		return s
	}
	return c.services[catalog.Other]
}

// Connected counts the time that one connection to an upstream took, its
// look-up included.
func (c *Counters) Connected(d time.Duration) { c.connect.Observe(d.Seconds()) }

// AddUp counts bytes that came from the client.
func (s *Service) AddUp(n int64) { s.up.Add(n) }

// AddDown counts bytes that went to the client.
func (s *Service) AddDown(n int64) { s.down.Add(n) }

// TunnelOpened and TunnelClosed keep the number of open tunnels.
func (s *Service) TunnelOpened() { s.tunnels.Add(1) }
func (s *Service) TunnelClosed() { s.tunnels.Add(-1) }

// Request counts a request by what was done with it. What is none of Actions
// is not counted.
func (s *Service) Request(a policy.Action) {
	if i := slices.Index(Actions, a); i >= 0 {
		s.requests[i].Add(1)
	}
}

// Recorded counts the bytes of a request that has ended, in its record; those
// that are counted in no record yet are in flight.
func (s *Service) Recorded(up, down int64) {
	if up != 0 {
		s.recorded[0].Add(up)
	}
	if down != 0 {
		s.recorded[1].Add(down)
	}
}

// A Snapshot is what the counters of a service stood at. Counters go on while
// it is taken, so that the sum over services may be of slightly different
// moments.
type Snapshot struct {
	Service  string
	Up, Down int64 // bytes of payload, from and to clients
	// UpInFlight and DownInFlight are how many of these belong to requests and
	// tunnels that have not ended, so that no record has them yet.
	UpInFlight, DownInFlight int64
	Tunnels                  int64                   // open now
	Requests                 map[policy.Action]int64 // every one of Actions
}

// Bytes is the sum of both directions.
func (s Snapshot) Bytes() int64 { return s.Up + s.Down }

// Total is the number of requests, whatever was done with them.
func (s Snapshot) Total() int64 {
	var n int64
	for _, x := range s.Requests {
		n += x
	}
	return n
}

// Snapshot returns the counters of every service, in the order of
// catalog.Services.
func (c *Counters) Snapshot() []Snapshot {
	list := make([]Snapshot, 0, len(catalog.Services))
	for _, known := range catalog.Services {
		s := c.services[known.ID]
		// What has ended is read first, so that nothing is missed in between.
		up, down := s.recorded[0].Load(), s.recorded[1].Load()
		snap := Snapshot{
			Service: s.ID, Up: s.up.Load(), Down: s.down.Load(), Tunnels: s.tunnels.Load(),
			Requests: make(map[policy.Action]int64, len(Actions)),
		}
		snap.UpInFlight, snap.DownInFlight = max(snap.Up-up, 0), max(snap.Down-down, 0)
		for i, a := range Actions {
			snap.Requests[a] = s.requests[i].Load()
		}
		list = append(list, snap)
	}
	return list
}

var (
	bytesDesc = prometheus.NewDesc("espalier_bytes_total",
		"Bytes of payload, counted while they flow; up comes from clients, down goes to them.",
		[]string{"service", "direction"}, nil)
	requestsDesc = prometheus.NewDesc("espalier_requests_total",
		"Finished requests by what was done with them.",
		[]string{"service", "action"}, nil)
	tunnelsDesc = prometheus.NewDesc("espalier_tunnels",
		"Open tunnels.",
		[]string{"service"}, nil)
)

// Describe implements prometheus.Collector.
func (c *Counters) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector. Every service has every series from
// the start, so that rates over them need no first sample.
func (c *Counters) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.Snapshot() {
		ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.CounterValue, float64(s.Up), s.Service, "up")
		ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.CounterValue, float64(s.Down), s.Service, "down")
		for _, a := range Actions {
			ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(s.Requests[a]), s.Service, string(a))
		}
		ch <- prometheus.MustNewConstMetric(tunnelsDesc, prometheus.GaugeValue, float64(s.Tunnels), s.Service)
	}
	c.connect.Collect(ch)
}
