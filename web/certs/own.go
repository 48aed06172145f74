package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
)

// Of what Espalier signs by itself: as long as browsers take one for a server,
// and how long before its end it is replaced.
const (
	ownValidity = 397 * 24 * time.Hour
	ownRest     = 30 * 24 * time.Hour
)

// ownFile is where Espalier's own certificate is kept, with its key, so that
// whoever trusts it need do so once.
func ownFile(data string) string { return filepath.Join(data, "tls", "self-signed.pem") }

// ownCertificate returns the certificate that Espalier signs by itself: the one
// that is kept, or a new one where that is for other names, near its end or not
// to be read.
func ownCertificate(data string, names []string, now time.Time) (*tls.Certificate, error) {
	name := ownFile(data)
	text, err := os.ReadFile(name)
	if err == nil {
		if cert, err := tls.X509KeyPair(text, text); err == nil && lasts(cert.Leaf, names, now) {
			return &cert, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if text, err = newOwn(names, now); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, err
	}
	if err := renameio.WriteFile(name, text, 0o600, renameio.WithTempDir(filepath.Dir(name))); err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(text, text)
	return &cert, err
}

// lasts reports whether c is good for names, and not near its end.
func lasts(c *x509.Certificate, names []string, now time.Time) bool {
	return now.Before(c.NotAfter.Add(-ownRest)) && now.After(c.NotBefore) &&
		!slices.ContainsFunc(names, func(n string) bool { return c.VerifyHostname(n) != nil })
}

// newOwn makes a certificate and its key, in PEM.
func newOwn(names []string, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "Espalier self-signed"},
		NotBefore:   now.Add(-time.Hour), // clients' clocks differ
		NotAfter:    now.Add(ownValidity - time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		// It signs nothing else, whoever trusts it.
		BasicConstraintsValid: true,
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...), nil
}
