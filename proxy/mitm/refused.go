package mitm

import (
	"time"

	"go.uber.org/zap"
)

// accepted notes that the client takes the certificate: it has asked for
// something inside.
func (ses *session) accepted() {
	if ses.asked.Swap(true) || ses.cert == nil {
		return
	}
	ses.State.Exceptions.Succeeded(ses.Host(), ses.Client())
}

// doubt looks at a session that has ended without a request: the client has
// taken the certificate in the handshake and left then, or what it speaks inside
// TLS is not HTTP. Browsers close connections that they have opened in advance,
// too, but not at once.
func (ses *session) doubt() {
	if ses.Page || ses.since.IsZero() || ses.asked.Load() || ses.i.cfg.Conns.Draining() {
		return
	}
	switch soon := time.Since(ses.since) < certificateDoubt; {
	case soon:
		ses.Record.Error = "the client closed without a request after it had seen the certificate"
	case len(ses.hello.Protocols) == 0:
		ses.Record.Error = "no HTTP request within TLS"
	default:
		return
	}
	ses.refused(ses.Record.Error, false)
}

// refused notes that the client does not take the certificate.
func (ses *session) refused(reason string, sure bool) {
	if ses.Page {
		return // nothing is tunnelled that is denied
	}
	v := ses.State.Exceptions.Refused(ses.Host(), ses.Client(), reason, sure)
	if !v.Exempt {
		return
	}
	fields := []zap.Field{zap.String("host", ses.Host()), zap.String("reason", reason), zap.Time("until", v.Until)}
	if v.Everybody {
		ses.i.cfg.Ops.Warn("several clients refuse interception of a host: it is tunnelled for everybody (see `espalier inspect exceptions`)", fields...)
		return
	}
	ses.i.cfg.Ops.Warn("a client refuses interception of a host: it is tunnelled for that client (see `espalier inspect exceptions`)",
		append(fields, zap.Stringer("client", ses.Client()))...)
}
