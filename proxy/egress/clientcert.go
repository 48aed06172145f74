package egress

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
)

// A ClientCertificateError says that an origin has asked for a client certificate, and
// ended the connection that had none.
type ClientCertificateError struct{ Err error }

// Error implements error.
func (e *ClientCertificateError) Error() string {
	return "the destination asks for a client certificate, which the proxy does not have: " + e.Err.Error()
}

// Unwrap returns how the connection has ended.
func (e *ClientCertificateError) Unwrap() error { return e.Err }

// wantsCertificate is err as a ClientCertificateError, if it may be: the origin ended TLS by
// an alert, or closed.
func wantsCertificate(err error) error {
	op, ok := errors.AsType[*net.OpError](err)
	if ok && op.Op == "remote error" || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return &ClientCertificateError{err}
	}
	return err
}

// A certificateless is a TLS connection to an origin that has asked for a client
// certificate. In TLS 1.3 it refuses to go without one only after the handshake (RFC 8446,
// 4.4.2.4), so that the first Read fails.
type certificateless struct {
	*tls.Conn
	answered bool
}

// RoundTrip asks an origin that speaks HTTP/2.
func (o *Origin) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := o.HTTP2.RoundTrip(r)
	return resp, o.ended(err)
}

// ended names the cause of err, of a connection by HTTP/2, if it has ended before any
// answer because the origin wants a client certificate. net/http says more than one thing
// then.
func (o *Origin) ended(err error) error {
	_, asked := o.Conn.Conn.(*certificateless)
	if asked && err != nil && !o.Reused && o.HTTP2.Err() != nil {
		return &ClientCertificateError{err}
	}
	return err
}

// NetConn returns the TLS connection.
func (c *certificateless) NetConn() net.Conn { return c.Conn }

func (c *certificateless) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && !c.answered {
		err = wantsCertificate(err)
	}
	c.answered = c.answered || n > 0
	return n, err
}
