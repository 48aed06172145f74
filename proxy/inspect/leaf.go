package inspect

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sync/singleflight"

	"espalier/policy"
	"espalier/policy/cache"
)

const (
	// leafLife is the whole span of a leaf. Public CAs may issue for 200 days in
	// 2026 and for 100 from March 2027; a leaf that is made on demand needs less.
	leafLife = 90 * day
	// leafRenewal is how long before its end a leaf is replaced.
	leafRenewal = 7 * day
	// maxLeaves bounds the cache: names are the clients' choice. At 2 KB each it
	// stays below 20 MB.
	maxLeaves = 8192
	// maxCommonName is the longest that a subject may have (RFC 5280, appendix A).
	maxCommonName = 64
)

// ErrApple says that a host is one that the CA must not speak for: it is
// Apple's, or the CA's certificate excludes it. Such a host is tunnelled.
var ErrApple = errors.New("is Apple's, or excluded from the CA, and never intercepted")

// Leaves makes the certificates that clients of intercepted hosts see, one for
// each name, and keeps those that are used most. It is safe for concurrent use.
//
// All leaves share one key, made at the start: a key for each would cost an
// eighth more time and protect nothing, since all live in this process.
type Leaves struct {
	ca     *CA
	apple  func(host string, addr netip.Addr) bool
	key    *ecdsa.PrivateKey
	now    func() time.Time
	flight singleflight.Group
	kept   *cache.Cache[string, leaf] // by host
}

type leaf struct {
	cert        *tls.Certificate
	from, renew time.Time
}

// NewLeaves returns an empty cache. apple reports whether a normalised name, or
// addr where that is valid, is Apple's; a leaf is good for every port, so it must
// say so where any is. It is called for each Get, and may change its mind.
func NewLeaves(ca *CA, apple func(host string, addr netip.Addr) bool) (*Leaves, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return &Leaves{ca: ca, apple: apple, key: key, now: time.Now, kept: cache.New[string, leaf](maxLeaves, nil, nil)}, nil
}

// Get returns the certificate for a host name or IP literal, with the chain that
// a client needs. It is shared and must not be modified. Get does not allocate
// where the host is normalised and was asked for before.
//
// The error wraps ErrApple where the host must be tunnelled; others are hosts
// that are no names, and a CA that has expired.
func (l *Leaves) Get(host string) (*tls.Certificate, error) {
	host, addr, err := policy.ParseHost(host)
	if err != nil {
		return nil, err
	}
	if l.ca.Excludes(host, addr) || l.apple(host, addr) {
		return nil, fmt.Errorf("%s %w", host, ErrApple)
	}
	now := l.now()
	if cert := l.cached(host, now); cert != nil {
		return cert, nil
	}
	made, err, _ := l.flight.Do(host, func() (any, error) {
		if cert := l.cached(host, now); cert != nil { // made since
			return cert, nil
		}
		cert, until, err := l.mint(host, addr, now)
		if err != nil {
			return nil, fmt.Errorf("certificate for %s: %w", host, err)
		}
		l.kept.Set(host, &leaf{cert: cert, from: now.Add(-clockSkew), renew: until})
		return cert, nil
	})
	if err != nil {
		return nil, err
	}
	return made.(*tls.Certificate), nil
}

// cached returns the kept certificate for a host if it is good now, by the wall clock as
// certificates are; else nil.
func (l *Leaves) cached(host string, now time.Time) *tls.Certificate {
	have := l.kept.Get(host)
	if have == nil || !now.Before(have.renew) || now.Before(have.from) { // the latter if the clock was put back
		return nil
	}
	return have.cert
}

// mint makes a certificate, and says from when on it wants another.
func (l *Leaves) mint(host string, addr netip.Addr, now time.Time) (*tls.Certificate, time.Time, error) {
	end := l.ca.NotAfter()
	if !now.Before(end) {
		return nil, time.Time{}, fmt.Errorf("the CA expired on %s", end.Format(time.DateOnly))
	}
	from := now.Add(-clockSkew)
	if from.Before(l.ca.issuer.NotBefore) {
		from = l.ca.issuer.NotBefore
	}
	until := from.Add(leafLife)
	renew := until.Add(-leafRenewal)
	if until.After(end) {
		until, renew = end, end // another would last no longer
	}
	t := &x509.Certificate{ // without a serial number, so that x509 makes a random one
		NotBefore:             from,
		NotAfter:              until,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if addr.IsValid() {
		t.IPAddresses = []net.IP{addr.AsSlice()}
	} else {
		t.DNSNames = []string{host}
	}
	if len(host) <= maxCommonName { // what old tools show
		t.Subject = pkix.Name{CommonName: host}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, l.ca.issuer, &l.key.PublicKey, l.ca.key)
	if err != nil {
		return nil, time.Time{}, err
	}
	cert := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: l.key}
	if l.ca.Offline() {
		cert.Certificate = append(cert.Certificate, l.ca.issuer.Raw)
	}
	return cert, renew, nil
}
