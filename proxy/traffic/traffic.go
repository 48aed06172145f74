// Package traffic counts what flows for each service while it flows.
package traffic

import (
	"sync/atomic"

	"espalier/policy"
	"espalier/policy/catalog"
)

// Counters holds the live counters of every service. Its size is fixed by the
// catalogue's list of services: hosts and clients never make it grow. It is
// safe for concurrent use.
type Counters struct {
	services map[string]*Service
}

// actions are the values that requests are counted by, in a fixed order.
var actions = []policy.Action{
	policy.Tunnel, policy.Forward, policy.Inspect, policy.Deny, policy.Challenge, policy.Error,
}

// A Service counts the traffic of one service since the process started.
type Service struct {
	ID string

	up, down, tunnels atomic.Int64
	requests          [6]atomic.Int64 // by index in actions
	_                 [64]byte        // services are counted on different cores
}

// New returns counters that stand at zero.
func New() *Counters {
	c := &Counters{services: make(map[string]*Service, len(catalog.Services))}
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

// AddUp counts bytes that came from the client.
func (s *Service) AddUp(n int64) { s.up.Add(n) }

// AddDown counts bytes that went to the client.
func (s *Service) AddDown(n int64) { s.down.Add(n) }

// TunnelOpened and TunnelClosed keep the number of open tunnels.
func (s *Service) TunnelOpened() { s.tunnels.Add(1) }
func (s *Service) TunnelClosed() { s.tunnels.Add(-1) }

// Request counts a request by what was done with it.
func (s *Service) Request(a policy.Action) {
	for i, x := range actions {
		if x == a {
			s.requests[i].Add(1)
			return
		}
	}
}
