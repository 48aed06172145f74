//go:build linux

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// labDomain is what the names of the TLS origin are below.
const labDomain = "lab.example"

// labNames is how many there are.
const labNames = 100

func labName(i int) string { return fmt.Sprintf("host%d.%s", i%labNames, labDomain) }

// A lab is what interception is measured with: the origin's certificate for every
// name below labDomain, and the CAs of the origin and of proxies that bring none.
type lab struct {
	cert   tls.Certificate
	origin string // file: the CA of the origin, PEM
	proxy  string // file: certificate and key of a proxy's CA, RSA as most make it
	hosts  string // file: the names' addresses, as in /etc/hosts
}

// newLab makes a lab with its files in dir.
func newLab(dir string) (*lab, error) {
	l := &lab{
		origin: filepath.Join(dir, "origin-ca.pem"), proxy: filepath.Join(dir, "proxy-ca.pem"), hosts: filepath.Join(dir, "hosts"),
	}
	originKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	proxyKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root, err := issue("origin", nil, originKey, nil, originKey.Public())
	if err != nil {
		return nil, err
	}
	proxy, err := issue("proxy", nil, proxyKey, nil, proxyKey.Public())
	if err != nil {
		return nil, err
	}
	leaf, err := issue("leaf", root, originKey, []string{"*." + labDomain}, key.Public())
	if err != nil {
		return nil, err
	}
	l.cert = tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
	der, err := x509.MarshalPKCS8PrivateKey(proxyKey)
	if err != nil {
		return nil, err
	}
	var hosts strings.Builder
	for i := range labNames {
		fmt.Fprintf(&hosts, "127.0.0.1 %s\n", labName(i))
	}
	certificate := func(c *x509.Certificate) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	for file, text := range map[string][]byte{
		l.origin: certificate(root),
		l.proxy:  append(certificate(proxy), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...),
		l.hosts:  []byte(hosts.String()),
	} {
		if err := os.WriteFile(file, text, 0o644); err != nil { // of no use to anybody
			return nil, err
		}
	}
	return l, nil
}

// issue signs a certificate for key with by: of a CA where there are no names,
// signed by itself where there is no parent.
func issue(name string, parent *x509.Certificate, by crypto.Signer, names []string, key crypto.PublicKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "espalier-bench " + name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, IsCA: names == nil, DNSNames: names,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if parent == nil {
		parent = t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key, by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
