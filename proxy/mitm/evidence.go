package mitm

import (
	"crypto/tls"
	"net"
	"time"

	"go.uber.org/zap"

	"espalier/policy"
	"espalier/proxy/inspect"
)

// pair is what the client connects to.
func (ses *session) pair() inspect.Pair { return inspect.Pair{Host: ses.Target.Host, Name: ses.Host()} }

// accepted notes that the client accepts the certificate: it has asked for something
// inside.
func (ses *session) accepted() {
	if ses.cert != nil && ses.in(serving) {
		ses.move(serving, asked, func() { ses.State.Exceptions.Succeeded(ses.pair(), ses.Client()) })
	}
}

// doubt looks at a session that has ended without a request: the client has
// accepted the certificate in the handshake and left then, or what it speaks inside
// TLS is not HTTP. Browsers close connections that they have opened in advance,
// too, but not at once.
func (ses *session) doubt() {
	if ses.Page || ses.cut || ses.since.IsZero() || ses.i.cfg.Conns.Draining() {
		return
	}
	reason, ground := "", inspect.ByClosing
	if ses.ending != nil {
		reason, ground = inspect.Refusal(ses.ending, 0)
	}
	switch soon := time.Since(ses.since) < certificateDoubt; {
	case ground == inspect.ByAlert:
	case soon:
		reason = "the client closed without a request after it had seen the certificate"
	case len(ses.hello.Protocols) == 0:
		reason = "no HTTP request within TLS"
	default:
		return
	}
	ses.Record.Error = reason
	ses.refused(reason, ground)
}

// refused notes that the client does not accept the certificate, and reports whether it is
// denied for that: it has accepted one nowhere.
func (ses *session) refused(reason string, ground inspect.Ground) (denied bool) {
	if ses.Page || !ses.learn { // nothing is tunnelled that is denied
		return false
	}
	v := ses.State.Exceptions.Refused(ses.pair(), ses.Client(), ground, reason)
	ses.tell("client refuses interception of a host", v, reason)
	return v.WithoutCA && !v.Exempt && ground == inspect.ByAlert
}

// presented notes that the client has presented a certificate of its own.
func (ses *session) presented(state tls.ConnectionState) {
	if ses.Page || !ses.learn || !ses.State.Exceptions.Acceptable(ses.Host(), state.PeerCertificates) {
		return
	}
	v := ses.State.Exceptions.Presented(ses.pair(), ses.Client())
	ses.tell("client has a certificate for a host", v, state.PeerCertificates[0].Subject.String())
}

// tell logs that the client is exempt from now on.
func (ses *session) tell(event string, v inspect.Verdict, reason string) {
	if v.Exempt {
		event += ": it is tunnelled for that client (see `espalier inspect exceptions`)"
		ses.i.cfg.Ops.Warn(event, zap.String("host", ses.Target.Host), zap.String("name", ses.Host()),
			zap.Stringer("client", ses.Client()), zap.String("reason", reason), zap.Time("until", v.Until))
	}
}

// asking returns what the client of ses is answered by, if the origin asks for client
// certificates; nil: what others are.
func (ses *session) asking(base *tls.Config) *tls.Config {
	if ses.Page || !ses.learn {
		return nil
	}
	return ses.State.Exceptions.Asking(ses.Host(), base)
}

// excepted returns the decision to tunnel the session, if the client is exempt.
func (ses *session) excepted() (policy.Decision, bool) {
	d := ses.Decision
	d.Learn = ses.learn
	d = ses.State.Policy.Excepted(d, ses.Ask(ses.Target), ses.Host())
	return d, d.Action == policy.Tunnel
}

// heard is the TLS connection of a session. It notes how the client ends it before a
// request.
type heard struct {
	*tls.Conn
	ses *session
}

// NetConn returns the TLS connection.
func (c *heard) NetConn() net.Conn { return c.Conn }

func (c *heard) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.ses.move(serving, serving, func() { c.ses.ending = err })
	}
	return n, err
}
