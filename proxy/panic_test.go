package proxy

import (
	"net/netip"
	"strings"
	"testing"

	"espalier/policy"
	"espalier/proxy/egress/lookup"
	"espalier/proxy/panics"
)

// A panic of any handler costs the request that met it, which has its record.
func TestPanics(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		o := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		r := start(t, setup{})
		good := r.server.pipeline.State()
		bad := *good
		bad.Dialer = nil
		r.server.pipeline.Apply(&bad)
		requests := map[string]string{
			"CONNECT": "CONNECT " + o.String() + " HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET":     "GET http://" + o.String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST":    "POST http://" + o.String() + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		}
		for _, request := range requests {
			c := r.dial()
			c.send(request)
			c.expectCut()
		}
		r.server.pipeline.Apply(good)
		c := r.dial()
		c.send(requests["GET"])
		if a := c.answer("GET"); a.body != "ok" {
			t.Errorf("after the panics: %s %q", a.Status, a.body)
		}
		c.Close()
		list := r.stop()
		if len(list) != len(requests)+1 {
			t.Fatalf("records %+v", list)
		}
		for _, rec := range list[:len(requests)] {
			if rec.Action != policy.Error || !strings.Contains(rec.Error, "panic: ") || rec.Host != "127.0.0.1" {
				t.Errorf("record %+v", rec)
			}
		}
		if n := int(r.server.pipeline.Panics()); n < len(requests) || r.ops.FilterMessage("panic in a request").Len() != n {
			t.Errorf("%d panics counted, in the log %v", n, r.ops.All())
		}
	})
}

// So does one of a request within TLS.
func TestPanicsInside(t *testing.T) {
	eachLane(t, func(t *testing.T, l lane) {
		o := l.newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		r := l.start(t, setup{})
		c := l.dial(r, o)
		good := r.server.pipeline.State()
		bad := *good
		bad.Dialer = nil
		r.server.pipeline.Apply(&bad)
		c.send(l.get(o, "/", ""))
		c.expectCut()
		r.server.pipeline.Apply(good)
		c = l.dial(r, o)
		c.send(l.get(o, "/", ""))
		if a := c.answer("GET"); a.body != "ok" {
			t.Errorf("after the panic: %s %q", a.Status, a.body)
		}
		c.Close()
		list := l.records(r)
		if len(list) != 2 || list[0].Action != policy.Error || !strings.Contains(list[0].Error, "panic: ") {
			t.Errorf("records %+v", list)
		}
		if n := r.server.pipeline.Panics(); n != 1 {
			t.Errorf("%d panics counted", n)
		}
	})
}

// A panic that was met in a goroutine of the look-up counts for each request that
// it costs.
func TestPanicOnTheWayToADestination(t *testing.T) {
	r := start(t, setup{}, false)
	x := r.server.pipeline.Begin(netip.MustParseAddr("127.0.0.1"), "CONNECT", "")
	x.Fail(&lookup.Error{Host: "host.example", Err: &panics.Error{Fault: "of a test", Stack: []byte("the stack")}})
	x.Finish(502)
	if rec := r.record(); rec.Action != policy.Error || !strings.Contains(rec.Error, "panic: of a test") {
		t.Errorf("record %+v", rec)
	}
	log := r.ops.FilterMessageSnippet("panic").All()
	if n := r.server.pipeline.Panics(); n != 1 || len(log) != 1 || log[0].ContextMap()["stack"] != "the stack" {
		t.Errorf("%d panics counted, in the log %v", n, log)
	}
}
