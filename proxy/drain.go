package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"espalier/policy/catalog"
	"espalier/proxy/traffic"
)

// The tunnels of push are cut in the last part of a drain, in so many steps.
const (
	pushPart  = 5 // a fifth of the time
	pushSteps = 16
)

// cutInOrder cuts tunnels before ctx ends, so that not all go at once: when the
// last fifth of the time begins all but those of push. The latter would last for
// days, devices notice when they go, and they come back at once, at the next
// proxy; so they are cut evenly over that fifth. stop ends it and returns the
// number of tunnels that were cut. Without a deadline nothing is.
func (s *Server) cutInOrder(ctx context.Context) (stop func() int) {
	end, ok := ctx.Deadline()
	step := time.Until(end) / pushPart / pushSteps
	if !ok || step <= 0 {
		return func() int { return 0 }
	}
	var cut atomic.Int64
	var cutting sync.WaitGroup
	done := make(chan struct{})
	cutting.Go(func() {
		push := s.traffic.Service(catalog.Push)
		for left := int64(pushSteps); left > 0; left-- {
			select {
			case <-time.After(time.Until(end) - time.Duration(left)*step):
			case <-done:
				return
			}
			var seen atomic.Int64
			s.tunnels.Cut(func(service *traffic.Service) bool {
				if service == push && seen.Add(1)%left != 0 {
					return false
				}
				cut.Add(1)
				return true
			})
		}
	})
	return func() int {
		close(done)
		cutting.Wait()
		return int(cut.Load())
	}
}
