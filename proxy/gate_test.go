package proxy

import (
	"net/netip"
	"testing"

	"espalier/proxy/exchange"
	"espalier/proxy/head"
)

// BenchmarkRoute is what the event loop asks before it connects.
func BenchmarkRoute(b *testing.B) {
	r := start(b, setup{}, true)
	g := gate{r.server}
	h, err := head.ParseRequest([]byte("CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: 127.0.0.1:443\r\nUser-Agent: x\r\n\r\n"))
	if err != nil {
		b.Fatal(err)
	}
	client := netip.MustParseAddrPort("127.0.0.1:1234")
	room := make([]netip.AddrPort, 0, 4)
	b.ReportAllocs()
	for b.Loop() {
		route, ok := g.Route(client, h, room)
		if !ok {
			b.Fatal("not routed")
		}
		route.Owner.(*exchange.Exchange).Drop()
	}
}
