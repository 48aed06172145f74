package proxy

import (
	"fmt"
	"time"

	"espalier/policy"
	"espalier/proxy/traffic"
	"espalier/proxy/tunnel"
)

// eachMinute calls f when a minute of the wall clock begins, until stop is closed: the
// hours of rules begin and end then.
func eachMinute(stop <-chan struct{}, f func(now time.Time)) {
	for {
		now := time.Now()
		select {
		case <-time.After(now.Truncate(time.Minute).Add(time.Minute).Sub(now)):
			f(time.Now())
		case <-stop:
			return
		}
	}
}

// endTunnels ends the open tunnels and inspected connections that the policy in force ends at
// now. It does not wait for that.
func (s *Server) endTunnels(now time.Time) {
	p := s.pipeline.State().Policy
	if !p.EndsOpen() {
		return
	}
	ends := func(x any) (err error) {
		defer func() {
			if fault := recover(); fault != nil {
				s.pipeline.Panicked(nil, fault)
				err = fmt.Errorf("panic: %v", fault)
			}
		}()
		return x.(interface { // an Exchange, or what embeds one
			Ends(*policy.Policy, time.Time) error
		}).Ends(p, now)
	}
	s.tunnels.Cut(func(_ *traffic.Service, o tunnel.Owner) error { return ends(o) })
	for _, c := range s.clients.All() {
		if ses, ok := c.(interface{ CutBy(func(any) error) }); ok {
			ses.CutBy(ends)
		}
	}
}
