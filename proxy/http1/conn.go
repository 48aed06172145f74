package http1

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"espalier/policy"
	"espalier/proxy/conns"
	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/head"
	"espalier/proxy/tunnel"
	"espalier/proxy/upstream"
	"espalier/proxy/waiting"
	"espalier/proxy/wire"
)

// A phase is what a client's connection waits for:
//
//	fresh → asking ⇄ idle
//	          └→ leaving
type phase uint8

const (
	fresh   phase = iota // its first request
	idle                 // another one
	asking               // the answer to one
	leaving              // the client to read the last answer
)

// A conn is a client's connection. A single goroutine answers its requests in turn;
// another, in reader.go, reads the client meanwhile.
type conn struct {
	*Server
	*wire.Conn
	session *exchange.Session // that it is inside of; nil: the proxy is asked
	client  netip.Addr
	place   waiting.Place // while nothing is asked

	handed    *exchange.Exchange // of the first request, which an event loop has admitted
	handedErr error              // why that could not connect

	head    []byte // of the request, copied
	out     []byte // to send
	x       *exchange.Exchange
	request request        // that is being answered
	reader  reader         // of it
	body    body           // of the answer
	own     *egress.Origin // that the client has signed in to; nil: none
	owner   string         // the user then
	served  bool           // a request was

	mu     sync.Mutex // of what follows
	phase  phase
	origin *egress.Origin // during a request
}

// run answers requests until the connection has to end, and closes it or hands it on.
func (c *conn) run() {
	defer func() {
		if c.own != nil {
			c.own.Close()
		}
	}()
	for {
		r := c.next()
		if r == nil {
			c.Close()
			return
		}
		switch c.answer(r) {
		case closing:
			if n, _ := c.Peek(); n > 0 || len(c.Unread()) > 0 {
				c.linger() // requests behind the last would reset the connection
			} else {
				c.Close()
			}
			return
		case lingering:
			c.linger()
			return
		case cutting:
			c.Cut()
			return
		case gone:
			return
		}
		c.served, c.x = true, nil
	}
}

// linger lets the client read the last answer.
func (c *conn) linger() {
	c.setPhase(leaving)
	c.enterRoom() // so that it ends if there is no room
	c.Linger()
	c.leaveRoom()
}

// An outcome says what becomes of the client's connection behind a request.
type outcome uint8

const (
	staying   outcome = iota // the next request may come
	closing                  // it is closed
	lingering                // it is closed once the client has read the answer
	cutting                  // it is reset, so that the answer does not look whole
	gone                     // it was handed on
)

// next waits for a request and reads its head; nil: the connection has ended, or is to be
// closed without an answer.
func (c *conn) next() *request {
	r := &c.request
	*r = request{}
	if !c.wait() {
		return nil
	}
	defer c.leaveRoom()
	var until time.Time
	for scanned, checked := 0, false; ; {
		b := c.Unread()
		end := head.End(b, scanned)
		scanned = len(b)
		line := bytes.IndexByte(b, '\n')
		switch {
		case 0 < end && end <= head.MaxBytes:
			c.head = append(c.head[:0], b[:end]...)
			c.Use(end)
			r.head, r.err = head.ParseRequest(c.head)
		case len(b) > head.MaxBytes:
			r.head, _ = head.ParseRequest(b)
			r.err = errLongHead
		case line >= 0 && !checked: // the rest of something else than a request is not waited for
			checked = true
			if h, err := head.ParseRequest(b[:line+1]); err != head.ErrIncomplete {
				r.head, r.err = h, err
			}
		}
		if r.err != nil {
			r.noise = !c.served && line >= 0 && string(r.head.Method) != http.MethodConnect && !bytes.Contains(b[:line], []byte(" HTTP/"))
		}
		if r.err != nil || r.head.Len > 0 {
			c.setPhase(asking)
			return r
		}
		if until.IsZero() {
			until = time.Now().Add(c.cfg.Times.Head)
		}
		_ = c.SetReadDeadline(until)
		c.enterRoom()
		if c.More(0) != nil {
			return nil // half a head is worth no answer
		}
	}
}

var errLongHead = &head.Error{Status: http.StatusRequestHeaderFieldsTooLarge, Why: "it is longer than 65536 bytes"}

// idleBuffers is the memory for heads that a connection keeps while nothing is asked.
const idleBuffers = 8 << 10

// wait waits for the first byte of a request. Empty lines before it are dropped
// (RFC 9112, section 2.2). It reports false if none comes.
func (c *conn) wait() bool {
	for {
		u := c.Unread()
		if c.Use(len(u) - len(bytes.TrimLeft(u, "\r\n"))); len(c.Unread()) > 0 {
			break
		}
		c.Free()
		if cap(c.head)+cap(c.out) > idleBuffers {
			c.head, c.out = nil, nil
		}
		if !c.waitMore() {
			return false
		}
	}
	if !c.served && c.session == nil && !c.Secure() && c.Unread()[0] == 22 {
		c.leaveRoom()
		c.cfg.RefuseTLS(c.Conn.Conn)
		return false
	}
	return true
}

func (c *conn) waitMore() bool {
	c.mu.Lock()
	closing := c.cfg.Conns.Stage() >= conns.Closing
	limit := c.cfg.Times.KeepAlive
	switch {
	case closing && c.served:
		c.mu.Unlock()
		return false
	case closing:
		limit = askGrace
	case c.served:
		c.phase = idle
	default:
		limit = c.cfg.Times.Head
	}
	_ = c.SetReadDeadline(time.Now().Add(limit))
	c.mu.Unlock()
	c.enterRoom()
	if c.More(0) != nil {
		c.leaveRoom()
		return false
	}
	return true
}

// enterRoom notes that nothing is asked. A session is counted as a tunnel.
func (c *conn) enterRoom() {
	if c.session == nil {
		c.cfg.Room.Enter(&c.place)
	}
}

func (c *conn) leaveRoom() {
	if c.session == nil {
		c.cfg.Room.Leave(&c.place)
	}
}

func (c *conn) setPhase(p phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase = p
}

// A request is what was asked, and how far its answer is.
type request struct {
	head  head.Request
	err   error // what is wrong with the head
	noise bool  // it is not HTTP at all, on a new connection
	ask   exchange.Request
	// Set by the answer.
	up     upstream.Request
	read   int64 // bytes of the body
	broken bool  // it is not known where the body ends
}

func (r *request) is(method string) bool { return string(r.head.Method) == method }

// answer answers a request, once.
func (c *conn) answer(r *request) outcome {
	x := c.handed
	if c.handed = nil; x == nil {
		x = c.cfg.Pipeline.Begin(c.client, string(r.head.Method), string(r.head.Agent))
	}
	c.x = x
	r.ask.Header, r.ask.Session = &r.head.Fields, c.session
	switch {
	case c.session != nil:
		r.ask.Door = &policy.Doors.InsideTLS
		c.session.Accepted()
	case r.is(http.MethodConnect):
		r.ask.Door = &policy.Doors.Connect
	default:
		r.ask.Door = &policy.Doors.Plain
	}
	own := c.question(r)
	switch {
	case r.err != nil:
		return c.malformed(r)
	case own:
		return c.answerItself(r)
	}
	if err := x.Admit(c.alive(), &r.ask); err != nil {
		return c.refuse(r, err)
	}
	switch {
	case c.handedErr != nil:
		return c.fail(r, c.handedErr)
	case r.is(http.MethodConnect) && (x.Decision.Action == policy.Inspect || x.Decision.Page):
		return c.inspect(r)
	case r.is(http.MethodConnect):
		return c.connect(r)
	case r.is(http.MethodOptions) && isZero(r.head.Fields.Get("max-forwards")):
		c.x.Finish(http.StatusOK)
		return c.empty(r, http.StatusOK)
	}
	return c.forward(r)
}

// isZero reports whether s is a number without a digit but 0.
func isZero(s string) bool { return s != "" && strings.Trim(s, "0") == "" }

// answerItself answers requests to the proxy itself. They have no record.
func (c *conn) answerItself(r *request) outcome {
	c.x.Drop()
	if string(r.head.Target) == "*" && r.is(http.MethodOptions) {
		// So other proxies, and this one, learn to name it last (pac/health).
		status := http.StatusOK
		if c.cfg.Pipeline.Limits.Overloaded() != "" {
			status = http.StatusServiceUnavailable
		}
		return c.empty(r, status)
	}
	// A browser that was pointed here, or a scanner.
	const text = "This is a proxy. Devices use it by its PAC file.\n"
	h := http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"}}
	return c.send(r, http.StatusNotFound, h, text, false)
}

// connect opens a tunnel.
func (c *conn) connect(r *request) outcome {
	x := c.x
	began := time.Now()
	var via []string
	if v := r.head.Fields.Get("via"); v != "" {
		via = []string{v}
	}
	upstream, err := x.State.Dialer.Dial(egress.WithVia(c.alive(), via), x.Decision.Dial)
	x.Record.Connect = time.Since(began)
	if err != nil {
		return c.fail(r, err)
	}
	x.Record.Upstream = wire.AddrPort(upstream)
	if err := c.Send(established, c.cfg.Times.Stall); err != nil {
		upstream.Close()
		x.Fail(exchange.ErrClientClosed)
		x.Finish(http.StatusOK)
		return closing
	}
	c.handOn(upstream)
	return gone
}

var established = []byte("HTTP/1.1 200 Connection established\r\n\r\n")

// inspect hands a CONNECT on that is to be intercepted.
func (c *conn) inspect(r *request) outcome {
	x := c.x
	if x.Target.Addr.IsValid() && !x.Decision.Page { // where a name leads is asked for the requests inside
		if _, err := x.State.Dialer.Lookup(c.alive(), x.Target); err != nil {
			return c.fail(r, err)
		}
	}
	_ = c.SetDeadline(time.Time{})
	c.cfg.Inspect(x, tunnel.Replay(c.Conn.Conn, bytes.Clone(c.Unread())))
	return gone
}

// handOn gives both connections, and the rest of the account, to the tunnel engine.
func (c *conn) handOn(upstream net.Conn) {
	t := tunnel.Tunnel{Client: c.Conn.Conn, Upstream: upstream, Head: bytes.Clone(c.Unread()), Service: c.x.Service(), Owner: c.x}
	if c.session != nil {
		t.Owner = inSession{c.x, c.Conn.Conn}
	}
	_ = t.Client.SetDeadline(time.Time{})
	_ = t.Upstream.SetDeadline(time.Time{})
	c.cfg.Tunnels.Start(t)
}

// inSession owns a tunnel inside a session, which ends with it. The engine may close only
// the connection that carries the session.
type inSession struct {
	*exchange.Exchange
	session net.Conn
}

func (o inSession) TunnelDone(s tunnel.Stats) {
	o.Exchange.TunnelDone(s)
	o.session.Close()
}

// isTimeout reports whether err is that of a deadline.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
