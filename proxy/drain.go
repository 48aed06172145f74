package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"espalier/policy/catalog"
	"espalier/proxy/conns"
	"espalier/proxy/traffic"
	"espalier/proxy/tunnel"
)

// The tunnels of push are cut in the last part of a drain, in so many steps.
const (
	pushPart  = 5 // a fifth of the time
	pushSteps = 16
)

// cutInOrder cuts what is left when ctx ends, and tunnels partly before, so that not all
// go at once: when the last fifth of the time begins, all but those of push. The latter
// would last for days, devices notice when they go, and they come back at once, at the
// next proxy; so they are cut evenly over that fifth. Without a deadline tunnels are cut
// with the rest. stop ends it and returns the number of tunnels that were cut.
func (s *Server) cutInOrder(ctx context.Context) (stop func() int) {
	var cut atomic.Int64
	pick := func(share int64) {
		push := s.traffic.Service(catalog.Push)
		var seen atomic.Int64
		s.tunnels.Cut(func(service *traffic.Service, _ tunnel.Owner) error {
			if service == push && seen.Add(1)%share != 0 {
				return nil
			}
			cut.Add(1)
			return tunnel.ErrShutdown
		})
	}
	var cutting sync.WaitGroup
	done := make(chan struct{})
	cutting.Go(func() {
		end, ok := ctx.Deadline()
		step := time.Until(end) / pushPart / pushSteps
		for left := int64(pushSteps); ok && step > 0 && left > 0; left-- {
			select {
			case <-time.After(time.Until(end) - time.Duration(left)*step):
				pick(left)
			case <-done:
				return
			}
		}
		select {
		case <-ctx.Done():
			pick(1) // the engine's to cut, so that their records say why
			s.clients.Advance(conns.Cut)
		case <-done:
		}
	})
	return func() int {
		close(done)
		cutting.Wait()
		return int(cut.Load())
	}
}
