package proxy

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"espalier/policy"
	"espalier/proxy/head"
	"espalier/proxy/tunnel"
)

// gate is the short way of a CONNECT, on which the tunnel engine accepts, and
// connects without a goroutine. It takes only what needs no waiting and ends in
// a tunnel. Everything else goes to quick, and what is not for that either, the
// general way through net/http.
type gate struct {
	s     *Server
	conns *handedListener
}

// Route implements tunnel.Gate.
func (g *gate) Route(client netip.AddrPort, r head.Request, room []netip.AddrPort) (route tunnel.Route, ok bool) {
	s := g.s
	defer func() {
		if fault := recover(); fault != nil {
			s.panicked(nil, fault)
			route, ok = tunnel.Route{}, false // the general way has the record
		}
	}()
	target, err := policy.ParseTarget(string(r.Target), 0)
	if err != nil {
		return tunnel.Route{}, false
	}
	st := s.state.Load()
	d := st.Policy.Decide(&policy.Request{Target: target, Client: client.Addr(), Connect: true})
	if d.Action != policy.Tunnel {
		return tunnel.Route{}, false
	}
	addrs := st.Dialer.Immediate(d.Dial, room)
	if len(addrs) == 0 {
		return tunnel.Route{}, false
	}
	x := s.begin(client.Addr(), http.MethodConnect, string(r.Agent))
	x.to(target)
	x.decided(d)
	x.rec.Upstream = addrs[0]
	if s.limits.admit(x, aTunnel, d.Match.OK()) != nil {
		return tunnel.Route{}, false
	}
	return tunnel.Route{
		Addrs: addrs, Timeout: st.Dialer.Timeout(), Reach: st.Dialer.Reachability(),
		Service: s.traffic.Service(d.Service()), Owner: x,
	}, true
}

// Serve implements tunnel.Gate.
func (g *gate) Serve(c *net.TCPConn, unread []byte) {
	if len(unread) > 0 && (unread[0] == 'G' || unread[0] == 'H') {
		go g.s.quick.serve(c, unread, g.conns)
		return
	}
	if g.intercept(c, unread) {
		return
	}
	g.conns.hand(tunnel.Replay(c, unread))
}

// Unreached implements tunnel.Gate: it refuses the CONNECT and closes, since what
// the client sends next may be for the tunnel.
func (g *gate) Unreached(c *net.TCPConn, _ []byte, f tunnel.Failure) {
	g.s.handlers.enter()
	go func() {
		defer g.s.handlers.leave()
		defer c.Close()
		x := f.Owner.(*exchange)
		x.rec.Connect = f.Connect
		x.failed(f.Err)
		r := refusalFor(f.Err)
		h := http.Header{}
		body := x.tell(r, h)
		h.Set("Connection", "close")
		var b bytes.Buffer
		b.WriteString("HTTP/1.1 " + strconv.Itoa(r.status) + " " + http.StatusText(r.status) + "\r\n")
		_ = h.Write(&b) // a bytes.Buffer takes everything
		b.WriteString("\r\n" + body)
		_ = c.SetDeadline(time.Now().Add(refusalTimeout))
		_, _ = c.Write(b.Bytes()) // a client that is gone needs no answer
		x.finish(r.status)
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c) // else a reset may overtake the answer
	}()
}

// refusalTimeout is how long a client may take to read a refusal and close.
const refusalTimeout = time.Second

// intercept takes a CONNECT that is to be looked into and needs nothing else. It
// reports whether it did.
func (g *gate) intercept(c *net.TCPConn, unread []byte) (taken bool) {
	s := g.s
	defer func() {
		if fault := recover(); fault != nil {
			s.panicked(nil, fault)
			taken = false // the general way has the record
		}
	}()
	r, ok := head.ParseRequest(unread)
	if !ok || string(r.Method) != http.MethodConnect {
		return false
	}
	target, err := policy.ParseTarget(string(r.Target), 0)
	if err != nil || target.Addr.IsValid() { // which the guard has to see first
		return false
	}
	client := addrPort(c).Addr()
	st := s.state.Load()
	d := st.Policy.Decide(&policy.Request{Target: target, Client: client, Connect: true})
	if d.Action != policy.Inspect && !d.Page || cameBack(st, r) { // the general way says so
		return false
	}
	x := s.begin(client, http.MethodConnect, string(r.Agent))
	x.to(target)
	x.decided(d)
	if s.limits.fromReserve(c) || s.limits.admit(x, aTunnel, false) != nil {
		return false // the general way says so
	}
	s.intercepted.opening.enter()
	go s.intercepted.take(&session{Conn: c, x: x, st: st, d: d, unread: unread[r.Len:], silent: true})
	return true
}

// cameBack reports whether a request has been here, and went to a parent.
func cameBack(st *State, r head.Request) bool {
	if !st.Dialer.HasParent() {
		return false
	}
	for f, rest, ok := r.Fields.Next(); ok; f, rest, ok = rest.Next() {
		if f.Is("via") && st.Dialer.IsLoop([]string{string(f.Value)}) {
			return true
		}
	}
	return false
}

// handedListener is a net.Listener of connections that somebody else accepted.
type handedListener struct {
	addr  net.Addr
	conns chan net.Conn
	mu    sync.Mutex // nothing is handed after done is closed
	once  sync.Once
	done  chan struct{}
}

// handedBacklog is as long as a listening socket's.
const handedBacklog = 4096

func newHandedListener(addr net.Addr) *handedListener {
	return &handedListener{addr: addr, conns: make(chan net.Conn, handedBacklog), done: make(chan struct{})}
}

// hand never blocks. It closes what nobody takes in time, and reports false.
func (l *handedListener) hand(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.done:
	default:
		select {
		case l.conns <- c:
			return true
		default:
		}
	}
	c.Close()
	return false
}

// Accept returns what was handed before Close also after it.
func (l *handedListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
	}
	select {
	case c := <-l.conns:
		return c, nil
	default:
		return nil, net.ErrClosed
	}
}

func (l *handedListener) Close() error {
	l.once.Do(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		close(l.done)
	})
	return nil
}

func (l *handedListener) Addr() net.Addr { return l.addr }
