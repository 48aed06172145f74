package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
)

var (
	refuseExpired     = refusal{502, "tls_certificate_error", "The destination's certificate has expired, or is not valid yet."}
	refuseOtherName   = refusal{502, "tls_certificate_error", "The destination's certificate is for another name."}
	refuseUnknownCA   = refusal{502, "tls_certificate_error", "The destination's certificate is from an authority that this network does not know."}
	refuseCertificate = refusal{502, "tls_certificate_error", "The destination's certificate is not valid."}
	refuseTLSAlert    = refusal{502, "tls_alert_received", "The destination refused the TLS connection. It may want a certificate of the client, which cannot be passed on: then this network's administrator has to exempt it from inspection."}
	refuseTLS         = refusal{502, "tls_protocol_error", "The destination does not speak valid TLS."}
)

// isTLS reports whether err is of TLS with the destination.
func isTLS(err error) bool {
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	op, ok := errors.AsType[*net.OpError](err)
	return certificate || record || ok && (op.Op == "remote error" || op.Op == "local error")
}

// refusalOfTLS is what a client is told of a failed handshake with the
// destination.
func refusalOfTLS(err error) refusal {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if invalid.Reason == x509.Expired {
			return refuseExpired
		}
		return refuseCertificate
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return refuseOtherName
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return refuseUnknownCA
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return refuseCertificate
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return refuseTLSAlert
	}
	return refuseTLS
}
