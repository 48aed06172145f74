package egress

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
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
