package refusal

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"

	"espalier/proxy/egress"
	"espalier/proxy/limits"
)

// A Refuser is an error that knows how the client is told of it.
type Refuser interface {
	error
	Refusal() Refusal
}

// For says how a client is told of err: a Refusal, or an error on the way to the origin.
func For(err error) Refusal {
	if r, ok := errors.AsType[Refusal](err); ok {
		return r
	}
	if e := limits.AsError(err); e != nil {
		return ofLimit(e)
	}
	if r, ok := errors.AsType[Refuser](err); ok {
		return r.Refusal()
	}
	var forbidden *egress.ForbiddenError
	var lookup *egress.LookupError
	var parent *egress.ParentError
	timeout := IsTimeout(err)
	switch {
	case errors.As(err, &forbidden):
		return Address
	case errors.Is(err, egress.ErrLoop):
		return Loop
	case errors.As(err, &parent):
		return ofParent(parent.Status, timeout)
	case errors.As(err, &lookup) && lookup.NoAddress():
		return NoAddress
	case errors.As(err, &lookup) && lookup.NotFound():
		return NotFound
	case errors.As(err, &lookup) && timeout:
		return SlowDNS
	case errors.As(err, &lookup):
		return Lookup
	case isTLS(err):
		return ofTLS(err)
	case timeout:
		return Slow
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return NoRoute
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Reset
	}
	return BadReply
}

// IsTimeout reports whether err says that something took too long.
func IsTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && t.Timeout()
}

func ofLimit(e *limits.Error) Refusal {
	switch e.Reason {
	case limits.Tunnels:
		return Full
	case limits.Client:
		return ClientFull
	}
	return Busy
}

// ofParent is what a client is told if a parent answered with status, 0 if it
// did not answer. A parent's 407 never reaches the client, which would be asked
// for a password that it does not have.
func ofParent(status int, timeout bool) Refusal {
	switch {
	case status == 0 && !timeout:
		return NoParent
	case status == http.StatusForbidden:
		return ByParent
	case status == http.StatusBadGateway:
		return Parent502
	case status == http.StatusServiceUnavailable:
		return Parent503
	case status == http.StatusGatewayTimeout, status == 0:
		return Parent504
	}
	return Parent
}

// isTLS reports whether err is of TLS with the origin.
func isTLS(err error) bool {
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	op, ok := errors.AsType[*net.OpError](err)
	return certificate || record || ok && (op.Op == "remote error" || op.Op == "local error")
}

// ofTLS is what a client is told of a failed handshake with the origin.
func ofTLS(err error) Refusal {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return Expired
		}
		return Certificate
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return OtherName
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return UnknownCA
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return Certificate
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return TLSAlert
	}
	return TLS
}
