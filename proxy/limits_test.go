package proxy

import (
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap/zapcore"

	"espalier/policy"
	"espalier/proxy/waiting"
)

// dialFrom connects from a loopback address of its own.
func (r *rig) dialFrom(addr string) *client {
	r.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}, Timeout: limit}
	c, err := d.Dial("tcp", r.listener.Addr().String())
	if err != nil {
		r.t.Skipf("this system has the one loopback address only: %v", err)
	}
	_ = c.SetDeadline(time.Now().Add(limit))
	r.t.Cleanup(func() { c.Close() })
	return asClient(r.t, c)
}

// tunnel opens a tunnel to an echo.
func (c *client) tunnel(target string) {
	c.t.Helper()
	c.send(connectTo(target) + "x")
	c.expect(established + "x")
}

// refused expects the answer of a limit, and the end.
func (c *client) refused() reply {
	c.t.Helper()
	a := c.answer("GET")
	if a.StatusCode != 503 || a.Header.Get("Proxy-Status") != "espalier; error=connection_limit_reached" || a.Header.Get("Retry-After") == "" {
		c.t.Errorf("%s %v", a.Status, a.Header)
	}
	c.expectEnd()
	return a
}

func (c *client) end() {
	c.t.Helper()
	c.finish()
	c.expectEnd()
}

func (r *rig) shed(reason int) int64 { return r.server.limits.shed[reason].Load() }

// A client has so many tunnels and no more, Apple's among them; others are not
// concerned, and what has ended does not count.
func TestTunnelsPerClient(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		apple := fmt.Sprintf("1-courier.push.apple.com:%d", at.Port())
		r := start(t, setup{perClient: 2, clients: []string{"127.0.0.0/8"}, hosts: map[string]string{"*.push.apple.com": "127.0.0.1"}})
		first, second := r.dial(), r.dial()
		first.tunnel(at.String())
		second.tunnel(apple)
		third := r.dial()
		third.send(connectTo(apple))
		if a := third.refused(); !strings.Contains(a.body, "This client") {
			t.Errorf("body %q", a.body)
		}
		other := r.dialFrom("127.0.0.2")
		other.tunnel(at.String())
		other.end()
		// One that comes to nothing does not count either.
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		free.Close()
		second.end()
		failing := r.dial()
		failing.send(connectTo(free.Addr().String()))
		if a := failing.answer("GET"); a.StatusCode != 502 {
			t.Errorf("a closed port: %s", a.Status)
		}
		again := r.dial()
		again.tunnel(apple)
		again.end()
		first.end()
		n := 0
		for _, rec := range r.stop() {
			if rec.Status == 503 {
				n++
				if rec.Action != policy.Error || !strings.Contains(rec.Error, "proxy.max_tunnels_per_client") || rec.Service != "apple-other" && rec.Service != "push" {
					t.Errorf("record %+v", rec)
				}
			}
		}
		if n != 1 || r.shed(shedClient) != 1 {
			t.Errorf("%d records of a refusal, %d counted, want 1", n, r.shed(shedClient))
		}
	})
}

// What is intercepted takes no descriptor of the reserve either.
func TestInterceptKeepsDescriptors(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, setup{inspect: policy.InspectAll, prepare: func(s *Server) { s.limits.descriptors = 8 }})
		c := r.dial()
		c.send(connectTo("example.com:443"))
		c.refused()
		if recs := r.stop(); len(recs) != 1 || recs[0].Status != 503 || r.shed(shedDescriptors) != 1 {
			t.Errorf("%d refused for descriptors, records %+v", r.shed(shedDescriptors), recs)
		}
	})
}

func TestClientKey(t *testing.T) {
	for _, tt := range []struct {
		name, a, b string
		same       bool
	}{
		{"the same IPv4 address", "192.0.2.1", "192.0.2.1", true},
		{"mapped", "192.0.2.1", "::ffff:192.0.2.1", true},
		{"neighbours", "192.0.2.1", "192.0.2.2", false},
		{"one IPv6 network", "2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true},
		{"two IPv6 networks", "2001:db8:1:2::1", "2001:db8:1:3::1", false},
		{"zones", "fe80::1%eth0", "fe80::2%eth1", true},
		{"loopbacks", "127.0.0.1", "::1", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c clients
			c.enter(netip.MustParseAddr(tt.a), 1)
			if got := !c.enter(netip.MustParseAddr(tt.b), 1); got != tt.same {
				t.Errorf("%s and %s count together: %v", tt.a, tt.b, got)
			}
			c.leave(netip.MustParseAddr(tt.a))
			if !tt.same {
				c.leave(netip.MustParseAddr(tt.b))
			}
			if n := c.len(); n != 0 {
				t.Errorf("%d clients without a tunnel are remembered", n)
			}
		})
	}
}

// Near the limit Apple's tunnels go on and others are refused, up to the limit.
// It ends below eight tenths, not before.
func TestOverloadByTunnels(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		apple := fmt.Sprintf("gs.apple.com:%d", at.Port())
		r := start(t, setup{maxTunnels: 20, hosts: map[string]string{"*.apple.com": "127.0.0.1"}})
		var open []*client
		tunnel := func(target string) {
			t.Helper()
			c := r.dial()
			c.tunnel(target)
			open = append(open, c)
		}
		refused := func(target string) {
			t.Helper()
			c := r.dial()
			c.send(connectTo(target))
			c.refused()
		}
		for range 18 {
			tunnel(at.String())
		}
		if why := r.server.Overloaded(); why != "" {
			t.Fatalf("overloaded at nine tenths: %s", why)
		}
		refused(at.String())
		tunnel(apple)
		tunnel(apple)
		refused(apple)
		plain := r.dial()
		plain.send("GET http://" + at.String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
		plain.refused()
		itself := func() int {
			t.Helper()
			c := r.dial()
			c.send("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")
			return c.answer("OPTIONS").StatusCode
		}
		if got := itself(); got != http.StatusServiceUnavailable {
			t.Errorf("of itself it says %d", got)
		}
		if why := r.server.Overloaded(); !strings.Contains(why, "proxy.max_tunnels") {
			t.Errorf("overloaded because %q", why)
		}
		want := `
			# HELP espalier_overloaded 1 while new requests for what is not Apple's are turned away because a limit is near.
			# TYPE espalier_overloaded gauge
			espalier_overloaded 1
			# HELP espalier_shed_total Requests, and for the reason waiting connections without one, that were turned away because of a limit.
			# TYPE espalier_shed_total counter
			espalier_shed_total{reason="client"} 0
			espalier_shed_total{reason="descriptors"} 0
			espalier_shed_total{reason="overload"} 2
			espalier_shed_total{reason="requests"} 0
			espalier_shed_total{reason="tunnels"} 1
			espalier_shed_total{reason="waiting"} 0
		`
		if err := testutil.CollectAndCompare(r.server, strings.NewReader(want), "espalier_overloaded", "espalier_shed_total"); err != nil {
			t.Error(err)
		}
		for _, c := range open[:3] { // 17 are left
			c.end()
		}
		await(t, "three ends", func() bool { return r.server.limits.tunnels.Load() == 17 })
		r.server.limits.look()
		refused(at.String())
		open[3].end()
		await(t, "another end", func() bool { return r.server.limits.tunnels.Load() == 16 })
		r.server.limits.look()
		open = open[4:]
		tunnel(at.String())
		if got := itself(); got != http.StatusOK {
			t.Errorf("of itself it says %d when it has recovered", got)
		}
		for _, c := range open {
			c.end()
		}
		r.stop()
		if n := r.ops.FilterLevelExact(zapcore.WarnLevel).FilterMessageSnippet("overloaded").Len(); n != 1 {
			t.Errorf("the overload was logged %d times", n)
		}
		if n := r.ops.FilterMessageSnippet("no longer overloaded").Len(); n != 1 {
			t.Errorf("its end was logged %d times", n)
		}
	})
}

// Plain requests have a limit of their own, so that slow ones do not take the
// place of tunnels.
func TestPlainLimit(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		addr, asked, answer := slowOrigin(t)
		r := start(t, setup{prepare: func(s *Server) { s.limits.maxRequests = 1 }})
		get := "GET http://" + addr + "/ HTTP/1.1\r\nHost: x\r\n\r\n"
		slow := r.dial()
		slow.send(get)
		<-asked
		more := r.dial()
		more.send(get)
		more.refused()
		at := newOrigin(t, echo)
		tunnel := r.dial()
		tunnel.tunnel(at.String())
		tunnel.end()
		answer <- struct{}{}
		if a := slow.answer("GET"); a.StatusCode != 200 || a.body != "ok" {
			t.Errorf("%s %q", a.Status, a.body)
		}
		r.stop()
		if n := r.shed(shedRequests); n != 1 {
			t.Errorf("%d were counted as turned away", n)
		}
	})
}

// Clients that ask for nothing push each other out, and nobody who asks.
func TestWaitingClients(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		r := start(t, setup{prepare: func(s *Server) {
			s.room = waiting.NewRoom(2, func() { s.limits.turnedAway(shedWaiting) })
		}})
		get := "GET http://" + at.String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n"
		kept := r.dial()
		kept.send(get)
		if a := kept.answer("GET"); a.body != "ok" {
			t.Fatal(a.Status, a.body)
		}
		await(t, "it to wait", func() bool { return r.server.room.Len() == 1 })
		var slow [3]*client
		for i := range slow {
			slow[i] = r.dial()
			slow[i].send("C") // on both ways the rest is waited for in the same place
			await(t, "it to wait", func() bool { return r.server.room.Len() == min(i+2, 2) })
		}
		kept.expectEnd()
		slow[0].expectEnd()
		last := r.dial()
		last.send(get)
		if a := last.answer("GET"); a.body != "ok" {
			t.Error(a.Status, a.body)
		}
		for _, c := range append(slow[1:], last) {
			c.Close()
		}
		r.stop()
		if n := r.shed(shedWaiting); n < 2 {
			t.Errorf("%d were counted as turned away, want 2 at least", n)
		}
	})
}

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
			m := newLimits(Config{})
			if want := int(min(tt.most, int64(m.maxWaiting))); m.maxHeads != want {
				t.Errorf("%d may wait, want %d", m.maxHeads, want)
			}
		})
	}
}

// That memory has become free is noticed though nothing else makes the collector
// run.
func TestOverloadByMemoryEnds(t *testing.T) {
	r := start(t, setup{}, false)
	m := r.server.limits
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	ballast := make([]byte, 256<<20)
	runtime.GC()
	debug.SetMemoryLimit(1 << 40)
	used, _ := new(memory).read()
	debug.SetMemoryLimit(used + used/20)
	m.look()
	if r.server.Overloaded() == "" {
		t.Fatal("not overloaded")
	}
	runtime.KeepAlive(ballast)
	m.overload.mu.Lock()
	m.overload.collected = time.Time{} // as after collectInterval
	m.overload.mu.Unlock()
	await(t, "the end of the overload", func() bool { m.look(); return r.server.Overloaded() == "" })
}

// What the collector could free is no reason to turn anybody away.
func TestOverloadByMemory(t *testing.T) {
	r := start(t, setup{}, false)
	m := r.server.limits
	before := debug.SetMemoryLimit(-1)
	defer debug.SetMemoryLimit(before)
	debug.SetMemoryLimit(1 << 40)
	used, limit := new(memory).read()
	if limit != 1<<40 || used <= 0 || used > 1<<30 {
		t.Fatalf("%d bytes used of %d", used, limit)
	}
	m.look()
	if why := r.server.Overloaded(); why != "" {
		t.Errorf("overloaded with room to spare: %s", why)
	}
	slow := r.dial()
	slow.send("G")
	await(t, "it to wait", func() bool { return r.server.room.Len() == 1 })
	debug.SetMemoryLimit(used)
	m.look()
	if why := r.server.Overloaded(); !strings.Contains(why, "GOMEMLIMIT") {
		t.Errorf("overloaded because %q", why)
	}
	slow.expectEnd() // it could go on to fill memory
	debug.SetMemoryLimit(before)
	m.look()
	if why := r.server.Overloaded(); why != "" {
		t.Errorf("still overloaded: %s", why)
	}
}
