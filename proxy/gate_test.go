package proxy

import (
	"net/netip"
	"testing"

	"espalier/proxy/head"
)

// What the short way asks before it connects.
func BenchmarkRoute(b *testing.B) {
	r := start(b, setup{}, true)
	g := &gate{s: r.server}
	h, ok := head.ParseRequest([]byte("CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\nUser-Agent: x\r\n\r\n"))
	if !ok {
		b.Fatal("not for the short way")
	}
	client := netip.MustParseAddrPort("127.0.0.1:1234")
	room := make([]netip.AddrPort, 0, 4)
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		route, ok := g.Route(client, h, room)
		if !ok {
			b.Fatal("not routed")
		}
		route.Owner.(*exchange).release()
	}
}

// What the limits take of that, and give back at the end.
func BenchmarkAdmit(b *testing.B) {
	s := &Server{limits: newLimits(Config{})}
	x := &exchange{s: s}
	x.rec.Client = netip.MustParseAddr("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		if err := s.limits.admit(x, aTunnel, true); err != nil {
			b.Fatal(err)
		}
		x.release()
	}
}
