package mitm

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"espalier/policy"
	"espalier/proxy/exchange"
	"espalier/proxy/inspect"
	"espalier/proxy/tunnel"
	"espalier/proxy/wire"
)

// A session is an intercepted CONNECT, or one that is denied by a page, and its
// connection to the client: what was read to find out what the client speaks is read
// again from it. The record of the CONNECT is written when it is closed; the requests
// inside have their own, and count the bytes.
//
//	begin → sniff ─┬→ TLS: handshake → HTTP1 or HTTP2 → Close
//	               ├→ HTTP: HTTP1 → Close
//	               └→ anything else, or a name that is not to be intercepted: tunnel
//
// An error on the way leads to Close.
type session struct {
	exchange.Session
	net.Conn
	i           *Interceptor
	established bool // the client was told
	unread      []byte
	upstream    net.Conn // connected to while the client was silent; nil: not

	cert  *tls.Certificate
	hello *inspect.Hello
	alert tls.AlertError // that ended the handshake, if it was not encrypted
	since time.Time      // the end of the handshake; zero: there was none
	asked atomic.Bool    // a request has come

	once sync.Once

	mu      sync.Mutex
	opening bool // until begin has returned
}

const established = "HTTP/1.1 200 Connection established\r\n\r\n"

// begin finds out what the client speaks. serve serves the requests inside; nil: the
// session is a tunnel, or has ended. After an error the session is to be closed.
func (ses *session) begin() (serve func(), err error) {
	if !ses.established {
		if _, err := ses.Conn.Write([]byte(established)); err != nil {
			return nil, exchange.ErrClientClosed
		}
	}
	kind, err := ses.sniff()
	if err != nil {
		return nil, err
	}
	switch kind {
	case inspect.TLS:
		return ses.answerTLS()
	case inspect.HTTP:
		ses.ready()
		ses.replay()
		return func() { ses.i.cfg.HTTP1(ses, &ses.Session) }, nil
	}
	return nil, ses.unknown("neither TLS nor HTTP")
}

// ready lets requests be served.
func (ses *session) ready() {
	ses.hangUp()
	_ = ses.SetDeadline(time.Time{})
	ses.Opened()
}

// replay lets Read hand out again what was read.
func (ses *session) replay() {
	ses.mu.Lock() // End may be closing it
	defer ses.mu.Unlock()
	ses.Conn, ses.unread = tunnel.Replay(ses.Conn, ses.unread), nil
}

// sniff reads until it is known what the client speaks.
func (ses *session) sniff() (inspect.Kind, error) {
	if len(ses.unread) == 0 {
		if spoke, err := ses.first(); err != nil || !spoke {
			return inspect.Other, err
		}
	}
	_ = ses.SetDeadline(time.Now().Add(helloTimeout))
	for {
		kind, hello := inspect.Sniff(ses.unread)
		if kind != inspect.More {
			ses.hello = hello
			return kind, nil
		}
		switch n, err := ses.more(); {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded) && ses.unread[0] != 22: // TLS, which is not answered in part
			return inspect.Other, nil
		default:
			return 0, fmt.Errorf("read what the client begins with: %w", err)
		}
	}
}

// more reads once from the client, behind what is unread.
func (ses *session) more() (int, error) {
	if len(ses.unread) == cap(ses.unread) {
		ses.unread = append(make([]byte, 0, max(2<<10, 2*cap(ses.unread))), ses.unread...)
	}
	n, err := ses.Conn.Read(ses.unread[len(ses.unread):cap(ses.unread)])
	ses.unread = ses.unread[:len(ses.unread)+n]
	return n, err
}

// answerTLS answers a ClientHello, unless the name in it is not to be intercepted.
func (ses *session) answerTLS() (serve func(), err error) {
	x, host := ses.Exchange, ses.Target
	if sni := ses.hello.ServerName; sni != "" {
		name, addr, err := policy.ParseHost(sni)
		if err != nil {
			return nil, ses.unknown("TLS for a name that is not valid")
		}
		host = policy.Target{Host: name, Addr: addr, Port: x.Target.Port}
	}
	if host != x.Target && !ses.Page {
		ses.Name = host
		// If the name is denied the requests inside are, with a page that says so.
		if d := x.State.Policy.Decide(ses.Ask(host)); d.Action == policy.Tunnel {
			d.Dial = x.Decision.Dial
			return nil, ses.tunnel(d)
		}
	}
	if !ses.hello.HTTP() {
		return nil, ses.unknown("TLS for another protocol than HTTP")
	}
	if ses.cert, err = x.State.Leaves.Get(host.Host); err != nil {
		if errors.Is(err, inspect.ErrApple) && !ses.Page {
			d := x.Decision
			d.Action, d.Rule = policy.Tunnel, policy.RuleApple
			return nil, ses.tunnel(d)
		}
		return nil, err
	}
	ses.replay()
	conn := tls.Server(wire.NewSteady(ses, ses.i.cfg.Stall), ses.i.tlsFor(x.State))
	_ = ses.SetDeadline(time.Now().Add(helloTimeout))
	if err := conn.Handshake(); err != nil {
		if reason, sure := inspect.Refusal(err, ses.alert); reason != "" {
			ses.refused(reason, sure)
			return nil, fmt.Errorf("TLS handshake with the client: %s", reason)
		}
		return nil, fmt.Errorf("TLS handshake with the client: %w", err)
	}
	ses.since, ses.Secure = time.Now(), true
	ses.ready()
	if conn.ConnectionState().NegotiatedProtocol == "h2" {
		return func() { ses.i.cfg.HTTP2(conn, &ses.Session) }, nil
	}
	return func() { ses.i.cfg.HTTP1(conn, &ses.Session) }, nil
}

// unknown deals with what cannot be intercepted.
func (ses *session) unknown(what string) error {
	d := ses.State.Policy.Unknown(ses.Decision)
	if d.Action == policy.Tunnel {
		return ses.tunnel(d)
	}
	ses.SetDecision(d)
	ses.Record.Error = what
	ses.Close()
	return nil
}

// tunnel gives the session up: the client's bytes, those that were read too, go to the
// CONNECT's target as they are.
func (ses *session) tunnel(d policy.Decision) error {
	ses.SetDecision(d)
	if err := ses.dial(d.Dial); err != nil {
		return err
	}
	_ = ses.SetDeadline(time.Time{})
	ses.once.Do(ses.leave) // the record is the tunnel's
	ses.i.cfg.Tunnels.Start(tunnel.Tunnel{
		Client: ses.Conn, Upstream: ses.upstream, Head: ses.unread, Service: ses.Service(), Owner: ses.Exchange,
	})
	return nil
}

// dial connects to where the CONNECT is for, unless that has been done.
func (ses *session) dial(to policy.Target) error {
	if ses.upstream != nil {
		return nil
	}
	dialing := time.Now()
	upstream, err := ses.State.Dialer.Dial(ses.i.cfg.Conns.Context(), to)
	ses.Record.Connect = time.Since(dialing)
	if err != nil {
		return err
	}
	ses.upstream = upstream
	if a, ok := upstream.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		ses.Record.Upstream = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return nil
}

// leave tells that the record of the session is written, or a tunnel's.
func (ses *session) leave() { ses.i.cfg.Conns.Leave(ses) }

// hangUp ends the connection of dial.
func (ses *session) hangUp() {
	if ses.upstream != nil {
		ses.upstream.Close()
		ses.upstream = nil
	}
}

// Read reads from the client, after replay.
func (ses *session) Read(p []byte) (int, error) {
	n, err := ses.Conn.Read(p)
	if ses.since.IsZero() { // in the handshake
		if alert, ok := inspect.PlainAlert(p[:n]); ok {
			ses.alert = alert
		}
	}
	return n, err
}

// NetConn returns the wrapped connection.
func (ses *session) NetConn() net.Conn { return ses.Conn }

// CloseWrite ends the sending direction.
func (ses *session) CloseWrite() error {
	if w, ok := ses.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return net.ErrClosed
}

// Close ends the session, in order if nothing has cut its connection, and writes the
// record of the CONNECT.
func (ses *session) Close() error {
	_ = ses.CloseWrite() // a stream of HTTP/2 would be reset
	err := ses.Conn.Close()
	ses.once.Do(func() {
		defer ses.leave()
		ses.hangUp()
		ses.Settle()
		ses.doubt()
		ses.Finish(http.StatusOK)
	})
	return err
}
