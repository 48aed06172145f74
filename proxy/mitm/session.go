package mitm

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
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
	learn bool           // the client may turn out to be exempt
	alert tls.AlertError // that ended the handshake, if it was not encrypted
	since time.Time      // the end of the handshake; zero: there was none

	mu     sync.Mutex   // of what follows, and of closing Conn while it is replaced
	phase  atomic.Int32 // of type phase; set with mu
	ending error        // how reading has failed before a request
	cut    bool         // by CutBy
}

// A phase is how far a session is. It only moves on.
type phase int32

const (
	opening phase = iota // until TLS is answered, or it is HTTP
	serving              // requests may come
	asked                // one has come, inside TLS
	over                 // it is a tunnel, or its record is written
)

// in reports whether the session is in a phase.
func (ses *session) in(p phase) bool { return phase(ses.phase.Load()) == p }

// move moves the session from a phase on to another, does what then says, and reports
// whether it was there.
func (ses *session) move(from, to phase, then func()) bool {
	if !ses.in(from) {
		return false
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	moved := ses.phase.CompareAndSwap(int32(from), int32(to))
	if moved && then != nil {
		then()
	}
	return moved
}

// end ends the account of the session, and returns the phase before.
func (ses *session) end() (was phase) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	return phase(ses.phase.Swap(int32(over)))
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
	case inspect.BadTLS:
		return nil, ses.deny(exchange.RuleTLS, errors.New("TLS that does not begin with a whole ClientHello"))
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
	ses.move(opening, serving, nil)
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
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, fmt.Errorf("read what the client begins with: %w", err)
		case inspect.Begun(ses.unread):
			return inspect.BadTLS, nil
		default:
			return inspect.Other, nil
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

// answerTLS answers a ClientHello, in which the client may name another host than in its
// CONNECT. The stricter of what the policy says of both holds: if the name is denied, the
// requests inside are, with a page that says so; if it is Apple's, the connection does not
// lead to Apple.
func (ses *session) answerTLS() (serve func(), err error) {
	x, host := ses.Exchange, ses.Target
	if sni := ses.hello.ServerName; sni != "" {
		if host, err = x.Named(sni); err != nil {
			return nil, ses.deny(exchange.RuleTLS, err)
		}
	}
	ses.learn = x.Decision.Learn
	if host != x.Target && !ses.Page {
		ses.Name = host
		d := x.Agree(policy.Doors.InsideTLS.SNI, host)
		if d.Rule == policy.RuleName {
			return nil, ses.deny(policy.RuleName, exchange.NameError(host))
		}
		// An encrypted hello has the name of many sites outside. Clients that take the
		// certificate for it leave (RFC 9849, 6.1.6), which says nothing about any of them.
		ses.learn = d.Learn && !ses.hello.Encrypted
	}
	if d, ok := ses.excepted(); ok {
		return nil, ses.tunnel(d)
	}
	if !ses.hello.HTTP() {
		return nil, ses.deny(exchange.RuleTLS, errors.New("TLS for another protocol than HTTP"))
	}
	if ses.cert, err = x.State.Leaves.Get(host.Host); err != nil {
		if errors.Is(err, inspect.ErrApple) && !ses.Page {
			return nil, ses.deny(policy.RuleName, exchange.NameError(host))
		}
		return nil, err
	}
	return ses.shake()
}

// deny ends a session that is not answered.
func (ses *session) deny(rule string, err error) error {
	ses.Deny(rule, err.Error())
	ses.Close()
	return nil
}

// shake does the handshake with the client.
func (ses *session) shake() (serve func(), err error) {
	ses.replay()
	conn := tls.Server(wire.NewSteady(ses, ses.i.cfg.Stall), ses.i.tlsFor(ses.State))
	_ = ses.SetDeadline(time.Now().Add(helloTimeout))
	if err := conn.Handshake(); err != nil {
		reason, ground := inspect.Refusal(err, ses.alert)
		if reason == "" {
			return nil, fmt.Errorf("TLS handshake with the client: %w", err)
		}
		if ses.refused(reason, ground) {
			ses.Deny(policy.RuleWithoutCA, "the client has not accepted the CA's certificate for any host: "+reason)
			ses.Close()
			return nil, nil
		}
		return nil, fmt.Errorf("TLS handshake with the client: %s", reason)
	}
	ses.since, ses.Secure = time.Now(), true
	state := conn.ConnectionState()
	if len(state.PeerCertificates) > 0 {
		ses.presented(state)
	}
	ses.ready()
	serveBy := ses.i.cfg.HTTP1
	if state.NegotiatedProtocol == "h2" {
		serveBy = ses.i.cfg.HTTP2
	}
	return func() { serveBy(&heard{conn, ses}, &ses.Session) }, nil
}

// unknown deals with what cannot be intercepted.
func (ses *session) unknown(what string) error {
	d := ses.State.Policy.Unknown(ses.Decision)
	if d.Action == policy.Tunnel {
		return ses.tunnel(d)
	}
	ses.SetDecision(d)
	ses.Change(func() { ses.Record.Error = what })
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
	if ses.end() != over { // the record is the tunnel's
		ses.i.cfg.Conns.Leave(ses)
	}
	ses.Judged()
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
	took := time.Since(dialing)
	ses.Change(func() { ses.Record.Connect = took })
	if err != nil {
		return err
	}
	ses.upstream = upstream
	ses.Change(func() { ses.Record.Upstream = wire.AddrPort(upstream) })
	return nil
}

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
	if ses.in(opening) { // in the handshake
		if alert, ok := inspect.PlainAlert(p[:n]); ok {
			ses.alert = alert
		}
	}
	return n, err
}

// NetConn returns the wrapped connection.
func (ses *session) NetConn() net.Conn { return ses.Conn }

// CloseWrite ends the sending direction.
func (ses *session) CloseWrite() error { return wire.CloseWrite(ses.Conn) }

// Close ends the session, in order if nothing has cut its connection, and writes the
// record of the CONNECT.
func (ses *session) Close() error {
	_ = ses.CloseWrite() // a stream of HTTP/2 would be reset
	err := ses.Conn.Close()
	was := ses.end()
	if was == over {
		return err
	}
	defer ses.i.cfg.Conns.Leave(ses)
	ses.hangUp()
	ses.Settle()
	switch was {
	case serving:
		ses.doubt()
	case asked:
		ses.State.Exceptions.Ended(ses.pair(), ses.Client())
	}
	ses.Finish(http.StatusOK)
	return err
}
