package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
	"go.uber.org/zap"
)

const (
	// leaveAlone is how long a server that has failed is not asked. Then one
	// sign-in tries it, and the others go on without.
	leaveAlone = 5 * time.Second
	// maxIdle is how long a connection waits for the next sign-in.
	maxIdle = time.Minute
	// maxMessage bounds what a server can make us hold.
	maxMessage = 16 << 20
)

func init() { ber.MaxPacketLengthBytes = maxMessage }

// A serverError says that a server, and not the user, is at fault.
type serverError struct {
	server *server
	err    error
}

func (e *serverError) Error() string { return e.server.url + ": " + e.err.Error() }
func (e *serverError) Unwrap() error { return e.err }

// A server is one of a directory's. It is safe for concurrent use.
type server struct {
	url, address string
	secure       bool // TLS from the start
	startTLS     bool
	tls          *tls.Config
	timeout      time.Duration
	log          *zap.Logger

	mu     sync.Mutex
	idle   []*conn
	closed bool
	fault  error     // why it is left alone
	until  time.Time // and how long
}

func newServer(u *url.URL, startTLS bool, conf *tls.Config, timeout time.Duration, log *zap.Logger) *server {
	port := u.Port()
	if port == "" {
		port = map[string]string{"ldap": ldap.DefaultLdapPort, "ldaps": ldap.DefaultLdapsPort}[u.Scheme]
	}
	conf = conf.Clone()
	conf.ServerName = u.Hostname()
	return &server{
		url: u.String(), address: net.JoinHostPort(u.Hostname(), port),
		secure: u.Scheme == "ldaps", startTLS: startTLS, tls: conf, timeout: timeout, log: log,
	}
}

// down is why the server is left alone; nil where it is to be asked.
func (s *server) down() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.fault != nil && now.Before(s.until) {
		return s.fault
	}
	s.until = now.Add(s.timeout) // meanwhile this sign-in tries it
	return nil
}

func (s *server) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		s.log.Error("a directory cannot be asked who signs in", zap.String("server", s.url), zap.Error(err))
	}
	s.fault, s.until = err, time.Now().Add(leaveAlone)
}

func (s *server) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		s.log.Info("a directory answers again", zap.String("server", s.url))
	}
	s.fault = nil
}

// A conn is a connection to a server. One sign-in uses it at a time.
type conn struct {
	server *server
	raw    net.Conn
	ldap   *ldap.Conn
	at     time.Time // when it was last used
}

// take returns a connection that ends at the deadline; kept tells that it waited.
func (s *server) take(deadline time.Time) (c *conn, kept bool, err error) {
	s.mu.Lock()
	for len(s.idle) > 0 && c == nil {
		c = s.idle[len(s.idle)-1]
		s.idle = s.idle[:len(s.idle)-1]
		if time.Since(c.at) > maxIdle || c.broken() {
			defer c.close()
			c = nil
		}
	}
	s.mu.Unlock()
	if c != nil {
		_ = c.raw.SetDeadline(deadline) // else the next step fails
		return c, true, nil
	}
	c, err = s.dial(deadline)
	if err != nil {
		return nil, false, &serverError{s, err}
	}
	return c, false, nil
}

// keep lets a connection wait for the next sign-in.
func (s *server) keep(c *conn) {
	_ = c.raw.SetDeadline(time.Time{}) // else it is closed when it is taken
	c.at = time.Now()
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.idle = append(s.idle, c) // at most maxAsking, for no more are in use
	}
	s.mu.Unlock()
	if closed {
		c.close()
	}
}

func (s *server) close() {
	s.mu.Lock()
	idle := s.idle
	s.idle, s.closed = nil, true
	s.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
}

// dial connects. A deadline on the socket bounds every step that is taken over
// it, the handshake of StartTLS too.
func (s *server) dial(deadline time.Time) (*conn, error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(deadline) // else the next step fails
	c := &conn{server: s, raw: raw}
	over := raw
	if s.secure {
		secure := tls.Client(raw, s.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("TLS: %w", err)
		}
		over = secure
	}
	c.ldap = ldap.NewConn(over, s.secure)
	c.ldap.SetTimeout(s.timeout)
	c.ldap.Start()
	if s.startTLS {
		if err := c.ldap.StartTLS(s.tls); err != nil {
			c.close()
			return nil, fmt.Errorf("StartTLS: %w", err)
		}
	}
	return c, nil
}

// bind makes the connection somebody's; of nobody it makes it anonymous.
func (c *conn) bind(dn, password string) error {
	if dn == "" {
		return c.ldap.UnauthenticatedBind("")
	}
	if password == "" { // nobody is to be mistaken for somebody
		return errors.New("no password")
	}
	return c.ldap.Bind(dn, password)
}

// broken reports whether the connection has come to its end.
func (c *conn) broken() bool { return c.ldap.IsClosing() || c.ldap.GetLastError() != nil }

// close ends the connection, also one that does not move any more.
func (c *conn) close() {
	c.raw.Close()
	c.ldap.Close()
}
