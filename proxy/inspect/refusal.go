package inspect

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
)

// certificateAlerts are the alerts (RFC 8446, 6.2) by which a client says that it
// does not take a certificate, by their texts: crypto/tls gives no more of a
// peer's alert.
var certificateAlerts = alerts(
	42,  // bad_certificate
	43,  // unsupported_certificate
	44,  // certificate_revoked
	45,  // certificate_expired
	46,  // certificate_unknown
	48,  // unknown_ca
	49,  // access_denied
	113, // bad_certificate_status_response
)

// otherAlerts say nothing about the certificate: a handshake that is given up
// before there is one, and clients that have taken the one for the name outside
// an encrypted hello, and will come again without it.
var otherAlerts = alerts(
	70,  // protocol_version
	71,  // insufficient_security
	86,  // inappropriate_fallback
	109, // missing_extension
	110, // unsupported_extension
	120, // no_application_protocol
	121, // ech_required
)

func alerts(codes ...tls.AlertError) map[string]bool {
	m := map[string]bool{}
	for _, a := range codes {
		m[a.Error()] = true
	}
	return m
}

// PlainAlert returns the alert that b ends with, in a record of its own that is
// not encrypted. OpenSSL sends it so in TLS 1.3, where it refuses a certificate
// before it has set its keys; crypto/tls can only tell that it cannot decrypt it.
func PlainAlert(b []byte) (tls.AlertError, bool) {
	const size = recordHeader + 2
	if len(b) < size {
		return 0, false
	}
	b = b[len(b)-size:]
	if b[0] != recordAlert || b[1] != 3 || b[3] != 0 || b[4] != 2 || b[5] != 1 && b[5] != 2 {
		return 0, false
	}
	return tls.AlertError(b[6]), true
}

// Refusal says how a client has refused a certificate, where err is what the
// handshake with it failed with, and plain the alert that PlainAlert saw in it, 0
// for none. It is empty if the failure is another. ByClosing, the client may
// have had another reason.
func Refusal(err error, plain tls.AlertError) (reason string, ground Ground) {
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "remote error" || plain != 0) {
		text := op.Err.Error()
		if plain != 0 {
			text = plain.Error()
		}
		switch {
		case otherAlerts[text]:
			return "", ByClosing
		case certificateAlerts[text]:
			return text, ByAlert
		}
		return text, ByClosing
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return "the client closed in the TLS handshake", ByClosing
	}
	return "", ByClosing
}
