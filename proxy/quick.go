package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
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

// quick is the short way of a request without a body, asked of the proxy in plain,
// as software updates and certificate checks are, or by HTTP/1.1 within TLS that is
// intercepted: heads pass line by line as they were sent, plain bodies by splice.
// It takes what it can read in one way only; a connection on which anything else
// comes goes the general way from there on.
type quick struct {
	s    *Server
	pool pool

	mu      sync.Mutex
	clients map[*quickClient]struct{}
	closing bool
	dialing context.Context // ends when what is left is cut
	cut     context.CancelFunc
	busy    sync.WaitGroup
}

// quickHead bounds a request's head on the short way.
const quickHead = 8 << 10

var quickBuffers = sync.Pool{New: func() any { return new([quickHead]byte) }}

// quickClient is a client's connection on the short way.
type quickClient struct {
	*quick
	net.Conn
	ses     *session                         // that Conn is TLS within; nil: a proxy is asked
	general interface{ hand(net.Conn) bool } // takes over what is not for the short way
	from    netip.Addr
	buf     *[quickHead]byte
	n       int // bytes in buf
	out     []byte
	x       *exchange // of the last request

	// Guarded by quick.mu.
	waiting bool        // for a request
	fresh   bool        // it is the first one
	origin  *originConn // the destination's, during an exchange
}

// serve answers requests on conn, of which unread has come, until the client
// leaves or the connection is handed over.
func (q *quick) serve(conn *net.TCPConn, unread []byte, general *handedListener) {
	c := &quickClient{quick: q, Conn: conn, general: general, from: addrPort(conn).Addr()}
	switch {
	case len(unread) > quickHead:
		general.hand(tunnel.Replay(conn, unread))
	case !q.enter(c):
		conn.Close()
	default:
		c.run(unread)
	}
}

// takeSession answers the requests of ses, which come on conn, until the client
// leaves or the connection is handed over. It reports false during shutdown.
func (q *quick) takeSession(ses *session, conn *tls.Conn) bool {
	c := &quickClient{quick: q, Conn: conn, ses: ses, general: ses.i, from: ses.x.rec.Client}
	if !q.enter(c) {
		return false
	}
	go c.run(nil)
	return true
}

// run answers requests, the first of which may have come in part. enter must have
// been called.
func (c *quickClient) run(unread []byte) {
	defer c.leave(c)
	defer func() {
		if fault := recover(); fault != nil {
			c.s.panicked(c.x, fault)
			c.Close()
		}
	}()
	c.buf = quickBuffers.Get().(*[quickHead]byte)
	defer quickBuffers.Put(c.buf)
	c.n = copy(c.buf[:], unread)
	for c.wait() {
		if !c.request() {
			return
		}
	}
	c.Close()
}

func (q *quick) enter(c *quickClient) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return false
	}
	if q.clients == nil {
		q.clients = map[*quickClient]struct{}{}
		q.dialing, q.cut = context.WithCancel(context.Background())
	}
	q.clients[c] = struct{}{}
	q.busy.Add(1)
	return true
}

func (q *quick) leave(c *quickClient) {
	q.mu.Lock()
	delete(q.clients, c)
	q.mu.Unlock()
	q.busy.Done()
}

// askGrace is how long a client that has not asked anything may take to during
// shutdown: it has just got its answer to a CONNECT. net/http has the same.
const askGrace = 5 * time.Second

// shutdown closes connections that wait for another request, lets the others
// finish theirs, and closes what is left when ctx ends.
func (q *quick) shutdown(ctx context.Context) {
	q.mu.Lock()
	q.closing = true
	for c := range q.clients {
		switch {
		case c.waiting && c.fresh:
			_ = c.SetDeadline(time.Now().Add(askGrace))
		case c.waiting:
			_ = c.SetDeadline(time.Unix(1, 0)) // and so run closes it, which may take time
		}
	}
	q.mu.Unlock()
	q.pool.close()
	done := make(chan struct{})
	go func() { q.busy.Wait(); close(done) }()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	q.mu.Lock()
	if q.cut != nil {
		q.cut()
	}
	for c := range q.clients {
		go c.beneath().Close() // which may be TLS, that takes its time
		if c.origin != nil {
			c.origin.cut()
		}
	}
	q.mu.Unlock()
	<-done
}

// hold notes the destination's connection, so that shutdown can cut it. Where
// shutdown has cut already it closes o.
func (c *quickClient) hold(o *originConn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dialing.Err() != nil {
		o.Close()
		return tunnel.ErrShutdown
	}
	c.origin = o
	return nil
}

func (c *quickClient) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.origin = nil
}

// wait waits for the next request's first bytes. It returns false where the
// client has left, or should.
func (c *quickClient) wait() bool {
	if c.n > 0 {
		return true
	}
	until := time.Now().Add(c.s.times.KeepAlive)
	c.mu.Lock()
	c.waiting, c.fresh = true, c.x == nil
	switch {
	case c.closing && !c.fresh:
		c.mu.Unlock()
		return false
	case c.closing:
		until = time.Now().Add(askGrace)
	case c.fresh:
		until = time.Now().Add(c.s.times.Head)
	}
	_ = c.SetDeadline(until) // also to write, which TLS may have to
	c.mu.Unlock()
	if c.ses == nil { // else it is counted as a tunnel
		c.s.room.Enter(c.Conn)
		defer c.s.room.Leave(c.Conn)
	}
	n, _ := c.Read(c.buf[:])
	c.n = n
	c.mu.Lock()
	c.waiting = false
	c.mu.Unlock()
	return n > 0 // whatever comes behind it
}

// request handles the request at the start of the buffer. It returns true where
// the connection stays and the next may come; otherwise the connection was
// handed over or closed.
func (c *quickClient) request() bool {
	r, ok := head.ParseRequest(c.buf[:c.n])
	if !ok || r.Hosts == 0 {
		c.giveUp()
		return false
	}
	isHead := string(r.Method) == http.MethodHead
	if !isHead && string(r.Method) != http.MethodGet {
		c.giveUp()
		return false
	}
	authority, path, ok := c.split(r)
	if !ok {
		c.giveUp()
		return false
	}
	target, err := policy.ParseTarget(string(authority), c.defaultPort())
	if err != nil {
		c.giveUp()
		return false
	}
	st := c.s.state.Load()
	d, ok := c.decide(st, target)
	if !ok {
		c.giveUp()
		return false
	}
	x := c.s.begin(c.from, methodName(isHead), string(r.Agent))
	x.to(target)
	x.decided(d)
	bare, _, _ := bytes.Cut(path, []byte("?"))
	scheme, apple := "http", d.Match.OK()
	if c.ses != nil {
		scheme, apple = "https", false
		x.rec.User, x.rec.Action = c.ses.x.rec.User, policy.Inspect
		c.ses.accepted()
	}
	x.rec.URL = recordURL(scheme, string(authority), string(bare))
	if c.s.limits.admit(x, aRequest, apple) != nil {
		c.giveUp() // it says so
		return false
	}
	c.x = x

	_ = c.SetDeadline(time.Time{})
	e := quickExchange{quickClient: c, x: x, service: c.s.traffic.Service(d.Service()), isHead: isHead, close: r.Close || c.s.Draining(),
		request: r, authority: authority, path: path}
	switch e.run(st, endpoint{target, c.ses != nil}) {
	case handOver:
		x.release()
		if !c.giveUp() {
			x.failed(tunnel.ErrShutdown)
			x.finish(0)
		}
		return false
	case closeClient:
		c.Close()
		return false
	}
	c.n = copy(c.buf[:], c.buf[r.Len:c.n])
	return true
}

func methodName(isHead bool) string {
	if isHead {
		return http.MethodHead
	}
	return http.MethodGet
}

// giveUp hands the connection over with all that was read and not answered. It
// returns false where nobody takes it.
func (c *quickClient) giveUp() bool {
	_ = c.SetDeadline(time.Time{})
	return c.general.hand(tunnel.Replay(c.Conn, bytes.Clone(c.buf[:c.n])))
}

// split returns the authority and the path, with the query, that r asks for. ok is
// false where that is not for the short way.
func (c *quickClient) split(r head.Request) (authority, path []byte, ok bool) {
	if c.ses == nil {
		return splitURL(r.Target)
	}
	return r.Host, r.Target, r.Target[0] == '/' && bytes.IndexByte(r.Target, '#') < 0
}

// defaultPort is the port where the request names none.
func (c *quickClient) defaultPort() uint16 {
	if c.ses == nil {
		return 80
	}
	return c.ses.x.target.Port
}

// decide asks the policy. ok is false where more has to be done than to pass the
// request on.
func (c *quickClient) decide(st *State, t policy.Target) (d policy.Decision, ok bool) {
	if c.ses == nil {
		d = st.Policy.Decide(&policy.Request{Target: t, Client: c.from})
		ok = d.Action == policy.Forward
	} else if t == c.ses.x.target {
		d = st.Policy.Decide(c.ses.ask(t))
		ok = d.Action == policy.Inspect || d.Action == policy.Tunnel
	}
	return d, ok && d.Dial == t && !d.HasHeaders()
}

// splitURL splits an absolute http URL into its authority and its path with the
// query. Whatever a URL may be beside that is not for the short way.
func splitURL(url []byte) (authority, path []byte, ok bool) {
	rest, ok := bytes.CutPrefix(url, []byte("http://"))
	if !ok || bytes.IndexByte(rest, '#') >= 0 {
		return nil, nil, false
	}
	slash := bytes.IndexByte(rest, '/')
	if slash < 0 {
		return nil, nil, false
	}
	authority = rest[:slash]
	if len(authority) == 0 || bytes.ContainsAny(authority, "@?\\") {
		return nil, nil, false
	}
	return authority, rest[slash:], true
}

// writeRequest makes the request for the destination: the lines as they were
// sent, but for those that concern this connection. Host says what the URL says
// (RFC 9112, 3.2.2).
func (e *quickExchange) writeRequest(o *originConn) {
	b := append(e.out[:0], e.request.Method...)
	b = append(b, ' ')
	if o.parent != nil { // a proxy wants the absolute form (RFC 9112, 3.2.2)
		b = append(append(b, "http://"...), e.authority...)
	}
	b = append(b, e.path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, e.authority...)
	b = append(b, "\r\n"...)
	for f, rest, ok := e.request.Fields.Next(); ok; f, rest, ok = rest.Next() {
		if !f.Is("host") && !ofConnection(f) {
			b = append(b, f.Line...)
		}
	}
	if o.parent != nil && o.parent.ProxyAuthorization() != "" {
		b = append(append(b, "Proxy-Authorization: "...), o.parent.ProxyAuthorization()...)
		b = append(b, "\r\n"...)
	}
	e.out = append(b, "\r\n"...)
}

// ofConnection reports whether a header concerns one connection only. The short
// way takes no message whose Connection header nominates others.
func ofConnection(f head.Field) bool {
	switch len(f.Name) {
	case len("te"):
		return f.Is("te")
	case len("upgrade"):
		return f.Is("upgrade")
	case len("connection"): // and keep-alive
		return f.Is("connection") || f.Is("keep-alive")
	case len("proxy-connection"):
		return f.Is("proxy-connection")
	case len("proxy-authenticate"):
		return f.Is("proxy-authenticate")
	case len("proxy-authorization"):
		return f.Is("proxy-authorization")
	case len("proxy-authentication-info"):
		return f.Is("proxy-authentication-info")
	}
	return false
}

// refuse answers in the destination's place.
func (e *quickExchange) refuse(err error) outcome {
	e.x.failed(err)
	r := refusalFor(err)
	e.x.asked = http.Header{}
	for f, rest, ok := e.request.Fields.Next(); ok; f, rest, ok = rest.Next() {
		e.x.asked.Add(string(f.Name), string(f.Value))
	}
	h := http.Header{}
	body := e.x.tell(r, h)
	if e.close = e.close || r.isLimit(); e.close {
		h.Set("Connection", "close")
	}
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 " + strconv.Itoa(r.status) + " " + http.StatusText(r.status) + "\r\n")
	_ = h.Write(&b) // a bytes.Buffer takes everything
	b.WriteString("\r\n")
	if !e.isHead {
		b.WriteString(body)
	}
	_ = e.SetWriteDeadline(time.Now().Add(e.s.times.Stall))
	_, werr := e.Write(b.Bytes())
	e.x.finish(r.status)
	if werr != nil || e.close {
		return closeClient
	}
	return stayOpen
}
