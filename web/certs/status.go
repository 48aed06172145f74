package certs

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"espalier/proxy/inspect"

	"github.com/prometheus/client_golang/prometheus"
)

// Sources of certificates.
const (
	SourceACME       = "acme"
	SourceFiles      = "files"
	SourceSelfSigned = "self-signed"
)

// Status says how it stands with a certificate.
type Status struct {
	// Source is where it is from.
	Source string `json:"source"`
	// Names are what it is for, or is to be for.
	Names []string `json:"names"`
	// Issuer is who has signed it; empty where there is none yet.
	Issuer string `json:"issuer"`
	// NotBefore and NotAfter are zero, and not in JSON, where there is none yet.
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	// Fingerprint is the SHA-256 of the certificate in upper-case hexadecimal with
	// colons, as browsers show it.
	Fingerprint string `json:"fingerprint"`
	// Error is why the authority's last answer was none; empty where it was.
	Error string `json:"error"`
	// Warnings are sentences that say what to do; never null in JSON.
	Warnings []string `json:"warnings"`
}

// Status returns the certificates in force, and those that are wanted.
func (c *Certs) Status() []Status { return c.current.Load().status(time.Now()) }

func (f *inForce) status(now time.Time) []Status {
	switch {
	case f.files != nil:
		s := describe(SourceFiles, f.files.Leaf)
		s.warn(now, "put a newer one into tls.files.cert, which is read when it changes")
		return []Status{s}
	case f.acme == nil && f.own == nil:
		return nil
	case f.acme == nil:
		s := describe(SourceSelfSigned, f.own.Leaf)
		s.Warnings = append(s.Warnings, "The listeners' certificate is signed by Espalier itself: clients trust it only once they are told to. Configure tls.acme or tls.files.")
		return []Status{s}
	}
	var list []Status
	problems := f.acme.problems()
	for _, name := range f.acme.domains {
		list = append(list, f.acme.status(now, name, problems[name]))
	}
	return list
}

// status describes the certificate of a name; problem is why it has no new one.
func (a *authority) status(now time.Time, name string, problem error) Status {
	s := Status{Source: SourceACME, Names: []string{name}, Warnings: []string{}}
	if certs := a.cache.AllMatchingCertificates(name); len(certs) > 0 {
		cert, _ := newest{}.SelectCertificate(nil, certs) // there are some
		s = describe(SourceACME, cert.Leaf)
	}
	because := "it is overdue for renewal"
	if problem != nil {
		s.Error = problem.Error()
		because = "it could not be renewed: " + s.Error
	}
	if !s.NotAfter.IsZero() {
		s.warn(now, because)
		return s
	}
	why := "."
	if problem != nil {
		why = ": " + s.Error
	}
	s.Warnings = append(s.Warnings, fmt.Sprintf("There is no certificate for %s yet, and Espalier's own serves%s", name, why))
	return s
}

// expiryWarning is how long before its end a certificate is warned of. By then an
// authority's has long been renewed.
const expiryWarning = 10 * 24 * time.Hour

// warn adds a warning where the end is near. A certificate that was made for a
// shorter time is warned of in the last fifth of it.
func (s *Status) warn(now time.Time, because string) {
	rest, state := s.NotAfter.Sub(now), "expires"
	if rest <= 0 {
		state = "has expired"
	} else if rest >= min(expiryWarning, s.NotAfter.Sub(s.NotBefore)/5) {
		return
	}
	s.Warnings = append(s.Warnings, fmt.Sprintf("The certificate for %s %s on %s: %s.",
		strings.Join(s.Names, ", "), state, s.NotAfter.Format(time.DateOnly), because))
}

func describe(source string, c *x509.Certificate) Status {
	s := Status{
		Source: source, Names: slices.Clone(c.DNSNames), Issuer: c.Issuer.String(), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		Fingerprint: inspect.Fingerprint(c), Warnings: []string{},
	}
	for _, ip := range c.IPAddresses {
		s.Names = append(s.Names, ip.String())
	}
	if len(s.Names) == 0 {
		s.Names = []string{c.Subject.String()}
	}
	return s
}

var expiryDesc = prometheus.NewDesc("espalier_tls_certificate_expiry_timestamp_seconds",
	"When the listeners' certificate that expires first does, by where it is from.", []string{"source"}, nil)

// Describe implements prometheus.Collector.
func (c *Certs) Describe(ch chan<- *prometheus.Desc) {
	ch <- expiryDesc
	c.obtained.Describe(ch)
}

// Collect implements prometheus.Collector.
func (c *Certs) Collect(ch chan<- prometheus.Metric) {
	c.obtained.Collect(ch)
	var first time.Time
	source := ""
	for _, s := range c.Status() {
		if !s.NotAfter.IsZero() && (first.IsZero() || s.NotAfter.Before(first)) {
			first, source = s.NotAfter, s.Source
		}
	}
	if source != "" {
		ch <- prometheus.MustNewConstMetric(expiryDesc, prometheus.GaugeValue, float64(first.Unix()), source)
	}
}
