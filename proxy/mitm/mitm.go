// Package mitm takes over the CONNECTs that policy wants to inspect. It finds out
// what the client speaks, answers TLS with a certificate of the CA, and has the
// requests inside served. A CONNECT that holds neither TLS nor HTTP is tunnelled or
// ended, as the policy says.
package mitm

import (
	"crypto/tls"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"espalier/proxy/conns"
	"espalier/proxy/exchange"
	"espalier/proxy/inspect"
	"espalier/proxy/tunnel"
	"espalier/proxy/wire"
)

// Deadlines of a connection that is to be intercepted.
const (
	// firstByteTimeout is how long a client may be silent behind its CONNECT before it
	// may be one that waits for the server to speak first.
	firstByteTimeout = time.Second
	// helloTimeout is for the rest of what the client begins with, and for the TLS
	// handshake.
	helloTimeout = 10 * time.Second
	// certificateDoubt is how soon after the handshake a client closes that does not
	// like the certificate.
	certificateDoubt = 5 * time.Second
)

// A Config has what an Interceptor works with. All fields must be set.
type Config struct {
	Pipeline *exchange.Pipeline
	// Conns has the sessions until their record is written or they are tunnels.
	Conns   *conns.Group
	Tunnels tunnel.Engine
	// HTTP1 and HTTP2 serve the requests inside a session until c ends, and close it.
	HTTP1, HTTP2 func(c net.Conn, ses *exchange.Session)
	// Idle is how long a tunnel may be silent.
	Idle time.Duration
	// Stall is how long a client may take nothing of an answer.
	Stall time.Duration
	Ops   *zap.Logger
}

// An Interceptor has the sessions. It is safe for concurrent use.
type Interceptor struct {
	cfg Config

	mu    sync.Mutex
	tls   *tls.Config // towards clients
	tlsOf *exchange.State
}

// New returns an Interceptor.
func New(cfg Config) *Interceptor { return &Interceptor{cfg: cfg} }

// tlsFor returns what clients are answered by. Sessions resume within a State. Small
// records spare a client that is far away a round trip, and cost a dozen times the
// system calls; clients of this proxy are near.
func (i *Interceptor) tlsFor(st *exchange.State) *tls.Config {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.tls == nil || i.tlsOf != st {
		of := func(h *tls.ClientHelloInfo) *session { return h.Conn.(*wire.Steady).Conn.(*session) }
		cfg := &tls.Config{
			MinVersion:                  tls.VersionTLS12,
			NextProtos:                  inspect.HTTPProtocols,
			DynamicRecordSizingDisabled: true,
			GetCertificate:              func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return of(h).cert, nil },
		}
		cfg.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) { return of(h).asking(cfg), nil }
		i.tlsOf, i.tls = st, cfg
	}
	return i.tls
}

// Take answers a CONNECT that was admitted, x, and sees to what comes of it. It does
// not block. established is set if the client was told already.
func (i *Interceptor) Take(x *exchange.Exchange, client net.Conn, established bool) {
	ses := &session{Conn: client, i: i, established: established, Session: exchange.Session{Exchange: x, Page: x.Decision.Page}}
	ses.Accepted = ses.accepted
	if !i.cfg.Conns.Enter(ses) {
		ses.Fail(tunnel.ErrShutdown)
		ses.Close()
		return
	}
	go i.run(ses)
}

func (i *Interceptor) run(ses *session) {
	defer func() {
		if fault := recover(); fault != nil {
			i.cfg.Pipeline.Panicked(ses.Exchange, fault)
			ses.Close()
		}
	}()
	serve, err := ses.begin()
	if err != nil {
		if ses.Page {
			ses.Change(func() { ses.Record.Error = err.Error() }) // it is denied all the same
		} else {
			ses.Fail(err)
		}
		ses.Close()
		return
	}
	if serve != nil {
		serve()
	}
}

// End implements conns.Conn: it cuts a session that is opening. The requests inside are
// HTTP1's and HTTP2's to end.
func (ses *session) End(stage conns.Stage) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if stage == conns.Cut && ses.in(opening) {
		ses.Conn.Close()
	}
}

// CutBy cuts a session that serves requests where ends says why. The record has that. Others
// are opening, and may be cut later.
func (ses *session) CutBy(ends func(x any) error) {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.Page || !ses.in(serving) && !ses.in(asked) {
		return
	}
	if err := ends(ses.Exchange); err != nil {
		ses.cut = true
		ses.Change(func() { ses.Record.Error = err.Error() })
		ses.Conn.Close()
	}
}
