// Package trust verifies the certificates of origins, as browsers do: against the roots,
// with intermediates that the origin forgot to send, and by the revocation status that it
// staples.
package trust

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
	"golang.org/x/sync/singleflight"

	"espalier/policy/cache"
)

// A Verifier verifies origins. It is safe for concurrent use.
type Verifier struct {
	roots    *x509.CertPool
	sessions tls.ClientSessionCache
	client   http.Client
	issuers  *cache.Cache[string, answer] // by URL; nil: nothing is fetched
	flight   singleflight.Group
	now      func() time.Time
}

// New returns a Verifier. roots are the CAs that it trusts; nil means the system's.
// Missing intermediates are fetched by transport; nil: they are not.
func New(roots *x509.CertPool, transport http.RoundTripper) *Verifier {
	v := &Verifier{roots: roots, sessions: tls.NewLRUClientSessionCache(1024), now: time.Now}
	if transport != nil {
		v.client = http.Client{Transport: transport, Timeout: fetchTimeout, CheckRedirect: onlyHTTP}
		v.issuers = cache.New[string](maxIssuers, (*answer).life, nil)
	}
	return v
}

// Config returns the configuration of TLS with the origin name, a host name or an address.
// It is the caller's to change.
func (v *Verifier) Config(name string) *tls.Config {
	return &tls.Config{
		ServerName: name, ClientSessionCache: v.sessions, DynamicRecordSizingDisabled: true,
		// crypto/tls cannot fetch intermediates; verify does all that it would, and more.
		InsecureSkipVerify: true,
		VerifyConnection:   func(cs tls.ConnectionState) error { return v.verify(name, cs) },
	}
}

// ErrStaple says that a certificate that demands a stapled revocation status (RFC 7633) came
// without a valid one.
var ErrStaple = errors.New("the certificate demands a stapled OCSP response, and the origin sent no valid one")

// A RevokedError says that an origin's certificate was revoked.
type RevokedError struct {
	At time.Time
}

func (e *RevokedError) Error() string {
	return "the certificate was revoked on " + e.At.UTC().Format(time.DateOnly)
}

// A MissingError says that an origin did not send an intermediate certificate.
type MissingError struct {
	Issuer string // the name of the CA whose certificate is missing
	Err    error  // why it could not be fetched
	cause  error  // of the verification
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("the origin did not send the certificate of %q, its issuer: %v", e.Issuer, e.Err)
}

// Unwrap returns the error of the verification. Err is about another connection.
func (e *MissingError) Unwrap() error { return e.cause }

// verify verifies what the origin name has shown in the handshake. Errors are
// *tls.CertificateVerificationError. cs has no ServerName if name is an address.
func (v *Verifier) verify(name string, cs tls.ConnectionState) error {
	certs := cs.PeerCertificates
	if len(certs) == 0 {
		return errors.New("the origin sent no certificate")
	}
	if err := v.check(name, cs, certs); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: certs, Err: err}
	}
	return nil
}

func (v *Verifier) check(name string, cs tls.ConnectionState, certs []*x509.Certificate) error {
	leaf := certs[0]
	if cs.DidResume { // what the session began with was verified, for the same name
		if v.now().After(leaf.NotAfter) {
			return x509.CertificateInvalidError{Cert: leaf, Reason: x509.Expired}
		}
		return leaf.VerifyHostname(name)
	}
	chains, err := v.chains(name, certs)
	if err != nil {
		return err
	}
	return v.status(cs.OCSPResponse, leaf, chains)
}

// chains builds the chains from certs[0] to the roots. An intermediate that is missing is
// fetched from where the certificate below it says (RFC 5280, 4.2.2.1).
func (v *Verifier) chains(name string, certs []*x509.Certificate) ([][]*x509.Certificate, error) {
	certs = slices.Clone(certs)
	opts := x509.VerifyOptions{DNSName: name, Roots: v.roots, Intermediates: x509.NewCertPool(), CurrentTime: v.now()}
	for _, c := range certs[1:] {
		opts.Intermediates.AddCert(c)
	}
	until := time.Now().Add(fetchTimeout)
	for range maxFetches {
		chains, err := certs[0].Verify(opts)
		if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown || v.issuers == nil {
			return chains, err
		}
		top := topOf(certs)
		if isSelfSigned(top) || len(top.IssuingCertificateURL) == 0 {
			return nil, err
		}
		found, ferr := v.issuersOf(top, until)
		if ferr != nil {
			return nil, &MissingError{Issuer: top.Issuer.String(), Err: ferr, cause: err}
		}
		for _, c := range found {
			certs = append(certs, c)
			opts.Intermediates.AddCert(c)
		}
	}
	return certs[0].Verify(opts)
}

// topOf returns the last certificate on the way from certs[0] up whose issuer is not among
// certs.
func topOf(certs []*x509.Certificate) *x509.Certificate {
	top := certs[0]
	for range certs {
		i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return c != top && isIssuer(c, top) })
		if i < 0 || isSelfSigned(top) {
			break
		}
		top = certs[i]
	}
	return top
}

func isIssuer(issuer, c *x509.Certificate) bool {
	return slices.Equal(issuer.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(issuer) == nil
}

func isSelfSigned(c *x509.Certificate) bool { return slices.Equal(c.RawSubject, c.RawIssuer) }

// status acts on a stapled OCSP response (RFC 6960). One that is missing or not valid
// counts only for certificates that demand it: a network may hold a good one back, and
// browsers go on too.
func (v *Verifier) status(staple []byte, leaf *x509.Certificate, chains [][]*x509.Certificate) error {
	must := mustStaple(leaf)
	if len(staple) == 0 && !must {
		return nil
	}
	for _, chain := range chains {
		if len(chain) < 2 {
			continue
		}
		r, err := ocsp.ParseResponseForCert(staple, leaf, chain[1])
		switch now := v.now(); {
		case err != nil:
		case r.Status == ocsp.Revoked:
			return &RevokedError{At: r.RevokedAt}
		case r.Status == ocsp.Good && !now.Before(r.ThisUpdate.Add(-clockSkew)) && (r.NextUpdate.IsZero() || now.Before(r.NextUpdate.Add(clockSkew))):
			return nil
		}
	}
	if must {
		return ErrStaple
	}
	return nil
}

// clockSkew is how wrong the clocks of this machine and of an authority may be.
const clockSkew = 10 * time.Minute

var oidTLSFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

// mustStaple reports whether a certificate demands a stapled status: the TLS feature
// status_request (RFC 7633).
func mustStaple(c *x509.Certificate) bool {
	const statusRequest = 5
	return slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool {
		var features []int
		if !e.Id.Equal(oidTLSFeature) {
			return false
		}
		_, err := asn1.Unmarshal(e.Value, &features)
		return err == nil && slices.Contains(features, statusRequest)
	})
}
