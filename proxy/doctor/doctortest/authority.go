package doctortest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"
)

const (
	inspectorCN = "Example Inspection CA"
	appleCN     = "Apple Server Authentication CA"
)

var organisations = map[string]string{inspectorCN: "Example Security", appleCN: "Apple Inc."}

// An authority signs the certificates of hosts.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	subject := pkix.Name{CommonName: name}
	if org := organisations[name]; org != "" {
		subject.Organization = []string{org}
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: subject, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().AddDate(-3, 0, 0), NotAfter: time.Now().AddDate(10, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// certificate is what a host shows, made when it is asked for.
func (s *Stage) certificate(host string) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.certs[host]; c != nil {
		return c, nil
	}
	by, name, from, to := s.ca["Stage Root"], host, time.Now().Add(-time.Hour), time.Now().AddDate(0, 3, 0)
	switch s.faults[host] {
	case Intercepted:
		by = s.ca[inspectorCN]
	case ApplesCA, WantsDevice:
		by = s.ca[appleCN]
	case Misnamed:
		name = "portal.example"
	case Expired:
		from, to = time.Now().AddDate(-2, 0, 0), time.Now().AddDate(-1, 0, 0)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(s.certs) + 2)), Subject: pkix.Name{CommonName: strings.ToLower(name)}, DNSNames: []string{name},
		NotBefore: from, NotAfter: to, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, by.cert, key.Public(), by.key)
	if err != nil {
		return nil, err
	}
	s.certs[host] = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return s.certs[host], nil
}
