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
	proxy  string // file: certificate and key of a proxy's CA, RSA 2048
	hosts  string // file: the names' addresses, as in /etc/hosts

	proxy4096 string // file: the same with RSA 4096
}

// newLab makes a lab with its files in dir.
func newLab(dir string) (*lab, error) {
	l := &lab{
		origin: filepath.Join(dir, "origin-ca.pem"), hosts: filepath.Join(dir, "hosts"),
		proxy: filepath.Join(dir, "proxy-ca.pem"), proxy4096: filepath.Join(dir, "proxy-ca-4096.pem"),
	}
	originKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
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
	leaf, err := issue("leaf", root, originKey, []string{"*." + labDomain}, key.Public())
	if err != nil {
		return nil, err
	}
	l.cert = tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}
	var hosts strings.Builder
	for i := range labNames {
		fmt.Fprintf(&hosts, "127.0.0.1 %s\n", labName(i))
	}
	proxy, err := rsaCA(2048)
	if err != nil {
		return nil, err
	}
	proxy4096, err := rsaCA(4096)
	if err != nil {
		return nil, err
	}
	for file, text := range map[string][]byte{
		l.origin: inPEM("CERTIFICATE", root.Raw), l.proxy: proxy, l.proxy4096: proxy4096, l.hosts: []byte(hosts.String()),
	} {
		if err := os.WriteFile(file, text, 0o644); err != nil { // of no use to anybody
			return nil, err
		}
	}
	return l, nil
}

// rsaCA makes a CA, certificate and key.
func rsaCA(bits int) ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	cert, err := issue("proxy", nil, key, nil, key.Public())
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(inPEM("CERTIFICATE", cert.Raw), inPEM("PRIVATE KEY", der)...), nil
}

func inPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
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
