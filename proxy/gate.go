package proxy

import (
	"net"
	"net/http"
	"net/netip"

	"espalier/policy"
	"espalier/proxy/exchange"
	"espalier/proxy/head"
	"espalier/proxy/tunnel"
	"espalier/proxy/wire"
)

// A gate admits the CONNECTs that the event loop accepts. It routes those that need no
// waiting and end in a tunnel; everything else goes to HTTP/1 on a goroutine.
type gate struct{ s *Server }

// Route implements tunnel.Gate.
func (g gate) Route(client netip.AddrPort, r head.Request, room []netip.AddrPort) (route tunnel.Route, ok bool) {
	s := g.s
	x := s.pipeline.Begin(client.Addr(), http.MethodConnect, string(r.Agent))
	defer func() {
		if fault := recover(); fault != nil {
			s.pipeline.Panicked(x, fault)
			route, ok = tunnel.Route{Owner: x}, false
		}
	}()
	err := x.Admit(s.clients.Context(), &exchange.Request{Door: &policy.Doors.Connect, Authority: string(r.Target), Header: r.Fields, InLoop: true})
	route.Owner = x
	if err != nil || x.Decision.Action != policy.Tunnel {
		return route, false
	}
	d := x.State.Dialer
	if route.Addrs = d.Immediate(x.Decision.Dial, room); len(route.Addrs) == 0 {
		return route, false
	}
	x.Record.Upstream = route.Addrs[0]
	route.Timeout, route.Reach, route.Service = d.Timeout(), d.Reachability(), x.Service()
	return route, true
}

// Serve implements tunnel.Gate.
func (g gate) Serve(c *net.TCPConn, unread []byte, h tunnel.HandedOn) {
	x, _ := h.Owner.(*exchange.Exchange)
	if x != nil {
		if x.Finished() { // by a panic
			c.Close()
			return
		}
		x.Record.Connect = h.Connect
		if h.Err == nil {
			h.Err = g.s.pipeline.Limits.ScarceFor(c)
		}
	}
	g.s.http1.Start(c, wire.AddrPort(c).Addr(), unread, x, h.Err)
}
