package proxy

import (
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap/zapcore"

	"espalier/policy"
	"espalier/proxy/limits"
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

func (r *rig) shed(reason limits.Reason) int64 { return r.server.pipeline.Limits.Shed(reason) }

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
		await(t, "its place", func() bool { tunnels, _, _ := r.server.pipeline.Limits.Open(); return tunnels == 1 })
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
		if n != 1 || r.shed(limits.Client) != 1 {
			t.Errorf("%d records of a refusal, %d counted, want 1", n, r.shed(limits.Client))
		}
	})
}

// What is intercepted takes no descriptor of the reserve either.
func TestInterceptKeepsDescriptors(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, setup{inspect: policy.InspectAll, prepare: func(s *Server) { s.pipeline.Limits.Descriptors = 8 }})
		c := r.dial()
		c.send(connectTo("example.com:443"))
		c.refused()
		if recs := r.stop(); len(recs) != 1 || recs[0].Status != 503 || r.shed(limits.Descriptors) != 1 {
			t.Errorf("%d refused for descriptors, records %+v", r.shed(limits.Descriptors), recs)
		}
	})
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
			# HELP espalier_overloaded 1 while new requests that are not Apple's are refused because a limit is near.
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
		await(t, "three ends", func() bool { return r.server.openTunnels() == 17 })
		r.server.pipeline.Limits.Look()
		refused(at.String())
		open[3].end()
		await(t, "another end", func() bool { return r.server.openTunnels() == 16 })
		r.server.pipeline.Limits.Look()
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

// Clients that ask for nothing push each other out, and nobody who asks.
func TestWaitingClients(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		before := debug.SetMemoryLimit(1)
		r := start(t, setup{})
		debug.SetMemoryLimit(before)
		const most = 16 // what little memory allows
		get := "GET http://" + at.String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n"
		kept := r.dial()
		kept.send(get)
		if a := kept.answer("GET"); a.body != "ok" {
			t.Fatal(a.Status, a.body)
		}
		await(t, "it to wait", func() bool { return r.server.room.Len() == 1 })
		var slow [most + 1]*client
		for i := range slow {
			slow[i] = r.dial()
			slow[i].send("C") // on both ways the rest is waited for in the same place
			await(t, "it to wait", func() bool { return r.server.room.Len() == min(i+2, most) })
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
		if n := r.shed(limits.Waiting); n < 2 {
			t.Errorf("%d were counted as turned away, want 2 at least", n)
		}
	})
}
