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
	42, // bad_certificate
	43, // unsupported_certificate
	44, // certificate_revoked
	45, // certificate_expired
	46, // certificate_unknown
	48, // unknown_ca
	49, // access_denied
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

// Refusal says how a client has refused a certificate, where err is what the
// handshake with it failed with; it is empty where the failure is another. Unless
// sure the client may have had another reason.
func Refusal(err error) (reason string, sure bool) {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		text := op.Err.Error()
		if otherAlerts[text] {
			return "", false
		}
		return text, certificateAlerts[text]
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return "the client closed in the TLS handshake", false
	}
	return "", false
}
