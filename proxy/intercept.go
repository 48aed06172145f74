package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"espalier/policy"
	"espalier/proxy/head"
	"espalier/proxy/inspect"
	"espalier/proxy/tunnel"
)

// Deadlines of a connection that is to be intercepted.
const (
	// firstByteTimeout is how long a client may be silent behind its CONNECT
	// before it might be one that waits for the server to speak first.
	firstByteTimeout = time.Second
	// helloTimeout is for the rest of what the client begins with, and for the TLS
	// handshake.
	helloTimeout = 10 * time.Second
	// certificateDoubt is how soon after the handshake a client closes that does
	// not like the certificate.
	certificateDoubt = 5 * time.Second
)

// interceptor takes over the CONNECTs that policy wants to look into. It finds
// out what the client speaks, answers TLS with a certificate of the CA, and
// serves the requests inside by the short way, or by net/http and the forwarder,
// as if they had come in plain. CONNECTs that hold neither TLS nor HTTP are
// tunnelled or ended, as the policy says.
type interceptor struct {
	s       *Server
	http    *http.Server
	conns   *handedListener
	start   sync.Once
	serving sync.WaitGroup
	handed  sync.WaitGroup  // sessions, until http would not drop their first request any more
	opening handlers        // until the requests inside can be served
	open    sync.WaitGroup  // sessions whose record is not made, until they are tunnels
	alive   context.Context // until what is opening is cut
	cut     context.CancelFunc
}

func newInterceptor(s *Server) *interceptor {
	i := &interceptor{s: s, conns: newHandedListener(nil)}
	i.alive, i.cut = context.WithCancel(context.Background())
	i.http = &http.Server{
		Handler:           http.HandlerFunc(i.serve),
		ReadHeaderTimeout: s.times.Head,
		IdleTimeout:       s.times.KeepAlive,
		MaxHeaderBytes:    head.MaxBytes,
		// What is asked of the whole server is asked of the destination.
		DisableGeneralOptionsHandler: true,
		// Peers that are gone, and those that take nothing, do not stay for ever.
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 5 * time.Minute, PingTimeout: time.Minute, WriteByteTimeout: 5 * time.Minute,
		},
		ConnContext: keepSession,
		ConnState: func(c net.Conn, state http.ConnState) {
			nextRequest(c, state)
			if ses := sessionOf(c); state == http.StateActive && ses.h2 { // which takes its leave in order
				ses.arrive()
			}
		},
		ErrorLog: zap.NewStdLog(s.ops.WithOptions(zap.IncreaseLevel(zap.WarnLevel))),
	}
	return i
}

// newServerTLS returns what clients are answered by: sessions resume within a
// State. Small records spare a client who is far away a round trip, and cost a
// dozen times the system calls; clients of this proxy are near.
func newServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS12,
		NextProtos:                  inspect.HTTPProtocols,
		DynamicRecordSizingDisabled: true,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return h.Conn.(*session).cert, nil
		},
	}
}

// newOriginTLS returns what destinations are asked by: sessions resume within a
// State.
func newOriginTLS(roots *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(1024), DynamicRecordSizingDisabled: true}
}

// hand lets the requests on c, which belongs to a session, be served. Where that
// is too late it closes c and reports false.
func (i *interceptor) hand(c net.Conn) bool {
	i.start.Do(func() { i.serving.Go(func() { _ = i.http.Serve(i.conns) }) }) // until shutdown
	ses := sessionOf(c)
	i.handed.Add(1)
	ses.handed.Store(true)
	if !ses.h2 {
		c = &watchedConn{Conn: c, s: i.s, ses: ses}
	}
	return i.conns.hand(c)
}

// arrive notes that the first request on a session that was handed to net/http has
// reached the handler, or that none will.
func (ses *session) arrive() {
	if ses.handed.Swap(false) {
		ses.i.handed.Done()
	}
}

// shutdown waits until every intercepted connection has ended, or is idle, and
// closes the latter. What is left when ctx ends is cut.
func (i *interceptor) shutdown(ctx context.Context) {
	stop := context.AfterFunc(ctx, i.cut)
	i.opening.shutdown(ctx)
	stop()
	i.cut()
	arrived := make(chan struct{})
	go func() { i.handed.Wait(); close(arrived) }()
	select { // net/http drops the first request on a connection once Shutdown has begun
	case <-arrived:
	case <-time.After(askGrace):
	case <-ctx.Done():
	}
	i.conns.Close()
	if i.http.Shutdown(ctx) != nil {
		i.http.Close()
	}
	i.serving.Wait()
}

// A session is a CONNECT that is looked into, or denied by a page, and its
// connection to the client: what was read to find out what the client speaks is
// read again from it. The record of the CONNECT is made when it is closed; the
// requests inside have their own, and it is they that count bytes.
type session struct {
	net.Conn
	i      *interceptor
	x      *exchange // of the CONNECT
	st     *State    // that it began with
	d      policy.Decision
	unread []byte
	silent bool // the client was not told yet that the CONNECT is established

	own      dedicated
	upstream net.Conn // connected to while the client was silent; nil: nobody

	name   policy.Target    // what TLS named in place of x.target; zero: nothing else
	cert   *tls.Certificate // nil: not TLS
	hello  *inspect.Hello
	alert  tls.AlertError // that ended the handshake, if it was not encrypted
	since  time.Time      // the end of the handshake
	h2     bool           // TLS is for HTTP/2
	asked  atomic.Bool    // a request has come
	handed atomic.Bool    // to net/http, which has given the handler nothing yet

	once sync.Once
}

// intercept answers a CONNECT that d wants to look into.
func (s *Server) intercept(w http.ResponseWriter, r *http.Request, x *exchange, st *State, d policy.Decision) {
	client, unread, err := takeOver(w, r)
	if err != nil {
		x.failed(err)
		x.finish(http.StatusOK)
		return
	}
	ses := &session{Conn: client, x: x, st: st, d: d, unread: unread}
	inner, ok := client.(*stream)
	if ok {
		ses.Conn = inner.piped()
	}
	s.intercepted.opening.enter()
	s.intercepted.take(ses)
	if ok {
		s.await(inner)
	}
}

// take answers the CONNECT of a new session, and sees to what comes of it.
// opening.enter must have been called.
func (i *interceptor) take(ses *session) {
	ses.i = i
	i.open.Add(1)
	defer i.opening.leave()
	i.opening.take(ses.Conn)
	defer i.opening.release(ses.Conn)
	defer func() {
		if fault := recover(); fault != nil {
			i.s.panicked(ses.x, fault)
			ses.Close()
		}
	}()
	if err := ses.open(); err != nil {
		if ses.d.Page {
			ses.x.rec.Error = err.Error() // it is denied all the same
		} else {
			ses.x.failed(err)
		}
		ses.Close()
	}
}

// open finds out what the client speaks, and passes the session on to who deals
// with that. After an error it is the caller's to close.
func (ses *session) open() error {
	if ses.silent {
		if _, err := ses.Conn.Write([]byte(established)); err != nil {
			return fmt.Errorf("write to client: %w", err)
		}
	}
	kind, err := ses.sniff()
	if err != nil {
		return err
	}
	switch kind {
	case inspect.TLS:
		return ses.openTLS()
	case inspect.HTTP:
		ses.serve(ses)
		return nil
	}
	return ses.unknown("neither TLS nor HTTP")
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
		case isTimeout(err) && ses.unread[0] != 22: // TLS, which is not answered in part
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

// openTLS answers a ClientHello, unless what it names is not to be intercepted.
func (ses *session) openTLS() error {
	x, host := ses.x, ses.x.target
	if sni := ses.hello.ServerName; sni != "" {
		name, addr, err := policy.ParseHost(sni)
		if err != nil {
			return ses.unknown("TLS for a name that is none")
		}
		host = policy.Target{Host: name, Addr: addr, Port: x.target.Port}
	}
	if host != x.target && !ses.d.Page {
		ses.name = host
		// Where the name is denied the requests inside are, with a page that says so.
		if d := ses.st.Policy.Decide(ses.ask(host)); d.Action == policy.Tunnel {
			d.Dial = ses.d.Dial
			return ses.tunnel(d)
		}
	}
	if !ses.hello.HTTP() {
		return ses.unknown("TLS for another protocol than HTTP")
	}
	var err error
	if ses.cert, err = ses.st.Leaves.Get(host.Host); err != nil {
		if errors.Is(err, inspect.ErrApple) && !ses.d.Page {
			ses.d.Action, ses.d.Rule = policy.Tunnel, policy.RuleApple
			return ses.tunnel(ses.d)
		}
		return err
	}
	conn := tls.Server(ses, ses.st.tls)
	_ = ses.SetDeadline(time.Now().Add(helloTimeout))
	if err := conn.Handshake(); err != nil {
		if reason, sure := inspect.Refusal(err, ses.alert); reason != "" {
			ses.refused(reason, sure)
			return fmt.Errorf("TLS handshake with the client: %s", reason)
		}
		return fmt.Errorf("TLS handshake with the client: %w", err)
	}
	ses.since = time.Now()
	ses.serve(conn)
	return nil
}

// ask is the question whether the client may reach t.
func (ses *session) ask(t policy.Target) *policy.Request {
	return &policy.Request{Target: t, Client: ses.x.rec.Client, User: ses.x.rec.User, Groups: ses.x.groups, Connect: true}
}

// host is the host that the client believes to speak to.
func (ses *session) host() string {
	if ses.name != (policy.Target{}) {
		return ses.name.Host
	}
	return ses.x.target.Host
}

// unknown deals with what cannot be intercepted.
func (ses *session) unknown(what string) error {
	d := ses.st.Policy.Unknown(ses.d)
	if d.Action == policy.Tunnel {
		return ses.tunnel(d)
	}
	ses.x.decided(d)
	ses.x.rec.Error = what
	ses.Close()
	return nil
}

// tunnel gives the session up: the client's bytes, those that were read too, go
// to the CONNECT's target as they are.
func (ses *session) tunnel(d policy.Decision) error {
	x, s := ses.x, ses.i.s
	x.decided(d)
	if err := ses.dial(d.Dial); err != nil {
		return err
	}
	_ = ses.SetDeadline(time.Time{})
	ses.once.Do(ses.i.open.Done) // the record is the tunnel's
	s.tunnels.Start(tunnel.Tunnel{
		Client: ses.Conn, Upstream: ses.upstream, Head: ses.unread,
		Service: s.traffic.Service(d.Service()), Owner: x,
	})
	return nil
}

// dial connects to where the CONNECT is for, unless that has been done.
func (ses *session) dial(to policy.Target) error {
	if ses.upstream != nil {
		return nil
	}
	dialing := time.Now()
	upstream, err := ses.st.Dialer.Dial(ses.i.alive, to)
	ses.x.rec.Connect = time.Since(dialing)
	if err != nil {
		return err
	}
	ses.upstream, ses.x.rec.Upstream = upstream, addrPort(upstream)
	return nil
}

// serve lets the requests on conn, which is the session or TLS within it, be
// served.
func (ses *session) serve(conn net.Conn) {
	ses.hangUp()
	_ = ses.SetDeadline(time.Time{})
	if secure, ok := conn.(*tls.Conn); ok {
		ses.h2 = secure.ConnectionState().NegotiatedProtocol == "h2"
		if !ses.h2 && !ses.d.Page && ses.i.s.quick.takeSession(ses, secure) {
			return
		}
	}
	ses.i.hand(conn)
}

// hangUp ends the connection of dial.
func (ses *session) hangUp() {
	if ses.upstream != nil {
		ses.upstream.Close()
		ses.upstream = nil
	}
}

// Read reads what was read before, and then from the client.
func (ses *session) Read(p []byte) (int, error) {
	if len(ses.unread) == 0 {
		n, err := ses.Conn.Read(p)
		if ses.since.IsZero() { // in the handshake
			if alert, ok := inspect.PlainAlert(p[:n]); ok {
				ses.alert = alert
			}
		}
		return n, err
	}
	n := copy(p, ses.unread)
	if ses.unread = ses.unread[n:]; len(ses.unread) == 0 {
		ses.unread = nil
	}
	return n, nil
}

// CloseWrite ends the sending direction.
func (ses *session) CloseWrite() error {
	if w, ok := ses.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return net.ErrClosed
}

// Close ends the session and makes the record of the CONNECT.
func (ses *session) Close() error {
	err := ses.Conn.Close()
	ses.arrive()
	ses.once.Do(func() {
		defer ses.i.open.Done()
		ses.hangUp()
		ses.own.close()
		ses.doubt()
		if !ses.x.finished {
			ses.x.finish(http.StatusOK)
		}
	})
	return err
}
