package trust

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/smallstep/pkcs7"
)

// Bounds on fetching intermediates. An origin chooses the URL.
const (
	fetchTimeout = 5 * time.Second
	maxFetches   = 3 // for a chain
	maxSize      = 64 << 10
	maxIssuers   = 256 // answers that are kept
	maxURLs      = 2   // of a certificate
	maxRedirects = 3
	keepFound    = 24 * time.Hour
	keepMissing  = 5 * time.Minute
)

// An answer is what fetching a URL came to.
type answer struct {
	certs []*x509.Certificate
	err   error
}

// life is how long an answer is kept.
func (a *answer) life() time.Duration {
	if a.err != nil {
		return keepMissing
	}
	return keepFound
}

// issuersOf fetches the certificates that c names as its issuer's, each URL before until.
// However many handshakes wait, each is asked once. A fetch has its whole time whichever
// chain needs it first: a slow origin must not spoil the answer for others.
func (v *Verifier) issuersOf(c *x509.Certificate, until time.Time) ([]*x509.Certificate, error) {
	var errs []error
	for _, url := range c.IssuingCertificateURL[:min(maxURLs, len(c.IssuingCertificateURL))] {
		a := v.issuers.Get(url)
		switch {
		case a != nil:
		case !time.Now().Before(until):
			return nil, errors.Join(append(errs, fmt.Errorf("GET %s: not asked: the time for the chain is over", url))...)
		default:
			fetched, _, _ := v.flight.Do(url, func() (any, error) {
				a := new(answer)
				a.certs, a.err = v.fetch(url)
				v.issuers.Set(url, a)
				return a, nil
			})
			a = fetched.(*answer)
		}
		if a.err == nil {
			return a.certs, nil
		}
		errs = append(errs, a.err)
	}
	return nil, errors.Join(errs...)
}

// fetch reads the certificates at url: one in DER (RFC 5280), several in PKCS #7, or PEM,
// which some servers send.
func (v *Verifier) fetch(url string) ([]*x509.Certificate, error) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if err := onlyHTTP(r, nil); err != nil {
		return nil, err
	}
	answer, err := v.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: status %s", url, answer.Status)
	}
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxSize+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("GET %s: %w", url, err)
	case len(b) > maxSize:
		return nil, fmt.Errorf("GET %s: longer than %d bytes", url, maxSize)
	}
	list := parse(b)
	if len(list) == 0 {
		return nil, fmt.Errorf("GET %s: the answer holds no certificate", url)
	}
	return list, nil
}

// onlyHTTP refuses what is not plain HTTP: TLS would need a certificate again.
func onlyHTTP(r *http.Request, via []*http.Request) error {
	switch {
	case r.URL.Scheme != "http":
		return fmt.Errorf("GET %s: scheme %q is not http", r.URL, r.URL.Scheme)
	case len(via) > maxRedirects:
		return errors.New("too many redirects")
	}
	return nil
}

// parse returns the certificates in b, a few at most.
func parse(b []byte) []*x509.Certificate {
	const few = 8
	if c, err := x509.ParseCertificate(b); err == nil {
		return []*x509.Certificate{c}
	}
	if p, err := pkcs7.Parse(b); err == nil {
		return p.Certificates[:min(few, len(p.Certificates))]
	}
	var list []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil && len(list) < few; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			list = append(list, c)
		}
	}
	return list
}
