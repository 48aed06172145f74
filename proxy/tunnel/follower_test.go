package tunnel

import (
	"io"
	"net/netip"
	"testing"
	"time"
)

// follower is an Owner that notes what it is told.
type follower struct {
	opened chan bool
	moved  chan [2]int64
	owner
}

func (f *follower) TunnelOpened(time.Duration, netip.AddrPort) { f.opened <- true }
func (f *follower) TunnelMoved(up, down int64)                 { f.moved <- [2]int64{up, down} }

// An Owner is told that its tunnel is open before a byte is relayed, and at a report
// what has moved.
func TestOwnerFollows(t *testing.T) {
	engines(t, func(t *testing.T, newEngine func(Config) Engine) {
		s := newStage(t, newEngine(patient))
		client, nearClient := s.pair()
		nearUpstream, upstream := s.pair()
		f := &follower{make(chan bool, 9), make(chan [2]int64, 9), make(owner, 1)}
		s.engine.Start(Tunnel{Client: nearClient, Upstream: nearUpstream, Service: s.service, Owner: f})
		say(t, client, "hello")
		if _, err := io.ReadFull(upstream, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if len(f.opened) != 1 {
			t.Error("a byte was relayed before the Owner was told")
		}
		reported := func(want [2]int64) {
			t.Helper()
			waitFor(t, "the report", func() bool {
				s.engine.Report() // the byte may be counted behind its arrival
				select {
				case got := <-f.moved:
					return got == want
				default:
					return false
				}
			})
		}
		reported([2]int64{5, 0})
		say(t, upstream, "goodbye")
		reported([2]int64{5, 7})
		client.Close()
		upstream.Close()
		f.wait(t)
	})
}
