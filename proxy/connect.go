package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"espalier/policy"
	"espalier/proxy/egress"
	"espalier/proxy/tunnel"
)

const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// connect handles CONNECT: it decides, dials, and hands both connections to the
// tunnel engine. Whatever is wrong with a CONNECT is answered with 403 and never
// with 400, after which iOS would try without the proxy.
func (s *Server) connect(w http.ResponseWriter, r *http.Request, x *exchange) {
	target, err := policy.ParseTarget(r.RequestURI, 0)
	if err != nil {
		x.rec.Host = r.RequestURI
	} else if x.to(target); r.ContentLength > 0 || r.ContentLength != 0 && r.ProtoMajor == 1 || len(r.TransferEncoding) > 0 {
		err = errors.New("a CONNECT has a body")
	}
	if err != nil {
		x.refuse(ruleTarget, err.Error())
		w.Header().Set("Connection", "close")
		s.answer(w, x, refuseName)
		return
	}
	st := s.state.Load()
	if st.Dialer.IsLoop(r.Header["Via"]) {
		w.Header().Set("Connection", "close")
		s.fail(w, x, fmt.Errorf("the parent proxy sends the request back: %w", egress.ErrLoop))
		return
	}
	d, refuse := s.decide(st, x, r, w.Header())
	if d.Page && s.limits.admitTunnel(x, false) == nil {
		s.intercept(w, r, x, st, d)
		return
	}
	if refuse != nil {
		s.answer(w, x, *refuse)
		return
	}
	if err := s.limits.admitTunnel(x, d.Match.OK()); err != nil {
		s.fail(w, x, err)
		return
	}
	if d.Action == policy.Inspect {
		if target.Addr.IsValid() { // where a name leads to is asked for the requests inside
			if _, err := st.Dialer.Lookup(r.Context(), target); err != nil {
				s.fail(w, x, err)
				return
			}
		}
		s.intercept(w, r, x, st, d)
		return
	}
	dialing := time.Now()
	upstream, err := st.Dialer.Dial(egress.WithVia(r.Context(), r.Header["Via"]), d.Dial)
	x.rec.Connect = time.Since(dialing)
	if err != nil {
		s.fail(w, x, err)
		return
	}
	x.rec.Upstream = addrPort(upstream)

	client, head, err := takeOver(w, r)
	if err != nil {
		upstream.Close()
		x.failed(err)
		x.finish(http.StatusOK)
		return
	}
	s.tunnels.Start(tunnel.Tunnel{
		Client: client, Upstream: upstream, Head: head,
		Service: s.traffic.Service(d.Service()), Owner: x,
	})
	if c, ok := client.(*stream); ok {
		s.await(c)
	}
}

// await waits in a handler for the end of a stream, which is not the handler's
// work.
func (s *Server) await(c *stream) {
	s.handlers.leave()
	defer s.handlers.enter()
	c.wait()
}

// addrPort is the remote address of a TCP connection.
func addrPort(c net.Conn) netip.AddrPort {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
