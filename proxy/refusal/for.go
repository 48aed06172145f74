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
	"slices"
	"strings"
	"syscall"

	"espalier/proxy/egress"
	"espalier/proxy/egress/lookup"
	"espalier/proxy/limits"
	"espalier/proxy/trust"
)

// A Refuser is an error that knows how the client is told of it.
type Refuser interface {
	error
	Refusal() Refusal
}

// Tables of what clients are told: of limits, the rest being Busy; of statuses of a parent,
// 0 if it did not answer in time; of errors of the system.
var (
	byLimit  = map[limits.Reason]Refusal{limits.Tunnels: Full, limits.Client: ClientFull}
	byParent = map[int]Refusal{
		0:                             Parent504,
		http.StatusForbidden:          ByParent,
		http.StatusBadGateway:         Parent502,
		http.StatusServiceUnavailable: Parent503,
		http.StatusGatewayTimeout:     Parent504,
	}
	byErrno = map[syscall.Errno]Refusal{
		syscall.ECONNREFUSED: Refused, syscall.ECONNRESET: Reset, syscall.EPIPE: Reset,
		syscall.ENETUNREACH: NoRoute, syscall.EHOSTUNREACH: NoRoute, syscall.EADDRNOTAVAIL: NoRoute,
	}
)

// For says how a client is told of err: a Refusal, or an error on the way to the origin.
func For(err error) Refusal {
	if r, ok := errors.AsType[Refusal](err); ok {
		return r
	}
	if e := limits.AsError(err); e != nil {
		return or(byLimit, e.Reason, Busy)
	}
	if r, ok := errors.AsType[Refuser](err); ok {
		return r.Refusal()
	}
	timeout := IsTimeout(err)
	unresolved, isLookup := errors.AsType[*lookup.Error](err)
	parent, isParent := errors.AsType[*egress.ParentError](err)
	errno, _ := errors.AsType[syscall.Errno](err)
	switch {
	case is[*egress.ForbiddenError](err):
		return Address
	case errors.Is(err, egress.ErrLoop):
		return Loop
	case isParent && parent.Status == 0 && !timeout:
		return NoParent
	case isParent: // also a 407: the client does not have the password
		return or(byParent, parent.Status, Parent)
	case isLookup && unresolved.NoAddress():
		return NoAddress
	case isLookup && unresolved.NotFound():
		return NotFound
	case isLookup && timeout:
		return SlowDNS
	case isLookup:
		return Lookup
	}
	if r, ok := ofTLS(err); ok {
		return r
	}
	switch {
	case timeout:
		return Slow
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Reset
	}
	return or(byErrno, errno, BadReply)
}

// certificateRequired is the alert of an origin that requires a client certificate (RFC
// 8446, 6.2). Over HTTP/2 it is all that comes.
var certificateRequired = tls.AlertError(116).Error()

// oldTLS are the errors of crypto/tls, which does not export them, with origins that speak
// nothing that it does: alerts for the version and the cipher suites, and a choice of either
// that was not offered. An origin that wants a client certificate may send handshake_failure
// too, but it has asked for one before.
var oldTLS = []string{
	"tls: protocol version not supported", "tls: handshake failure", "tls: insufficient security level",
	"tls: server selected unsupported protocol version", "tls: server chose an unconfigured cipher suite",
}

func isOldTLS(err error) bool {
	text := err.Error()
	return slices.ContainsFunc(oldTLS, func(s string) bool { return strings.Contains(text, s) })
}

// ofTLS is what a client is told of a failed handshake with the origin.
func ofTLS(err error) (r Refusal, ok bool) {
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	op, isOp := errors.AsType[*net.OpError](err)
	switch {
	case is[*egress.ClientCertificateError](err), isOp && op.Op == "remote error" && op.Err.Error() == certificateRequired:
		return ClientCertificate, true
	case is[*trust.RevokedError](err):
		return Revoked, true
	case errors.Is(err, trust.ErrStaple):
		return NoStatus, true
	case is[*trust.MissingError](err):
		return NoIntermediate, true
	case isInvalid && invalid.Reason == x509.Expired:
		return Expired, true
	case is[x509.HostnameError](err):
		return OtherName, true
	case is[x509.UnknownAuthorityError](err):
		return UnknownCA, true
	case is[*tls.CertificateVerificationError](err):
		return Certificate, true
	case isOldTLS(err):
		return OldTLS, true
	case isOp && op.Op == "remote error":
		return TLSAlert, true
	case isOp && op.Op == "local error", is[tls.RecordHeaderError](err):
		return TLS, true
	}
	return r, false
}

// IsTimeout reports whether err says that something took too long.
func IsTimeout(err error) bool {
	t, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || ok && t.Timeout()
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// or returns the value of key in table, or another.
func or[K comparable](table map[K]Refusal, key K, other Refusal) Refusal {
	if r, ok := table[key]; ok {
		return r
	}
	return other
}
