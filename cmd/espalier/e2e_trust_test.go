package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// An origin that forgets its intermediate is reached all the same: the proxy fetches it, as
// browsers do, through the address guard.
func TestMissingIntermediateIsFetched(t *testing.T) {
	need(t, "curl")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial := int64(0)
	sign := func(name string, parent *x509.Certificate, change func(*x509.Certificate)) *x509.Certificate {
		serial++
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		}
		change(c)
		if parent == nil {
			parent = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, key)
		if err == nil {
			c, err = x509.ParseCertificate(der)
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	root := sign("Root", nil, func(*x509.Certificate) {})
	issuer := sign("Issuer", root, func(*x509.Certificate) {})
	var fetched atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skipf("this system has the one loopback address only: %v", err)
	}
	files := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetched.Add(1)
		_, _ = w.Write(issuer.Raw)
	}))
	files.Listener.Close()
	files.Listener = l
	files.Start()
	defer files.Close()
	leaf := sign("origin.example", issuer, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.DNSNames = false, x509.KeyUsageDigitalSignature, []string{"origin.example"}
		c.IssuingCertificateURL = []string{files.URL + "/issuer.der"}
	})
	origin := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	origin.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: key}}}
	origin.Config.ErrorLog = log.New(io.Discard, "", 0)
	origin.StartTLS()
	defer origin.Close()
	roots := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name, allow, want string
		fetched           int64
	}{
		{"fetched", "127.0.0.0/8", "hello", 1},
		{"at an address that the guard refuses", "127.0.0.1/32", "The destination did not send the certificate that its own was issued by", 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			before := fetched.Load()
			p := prepare(t, "egress: {allow: ["+x.allow+"], hosts: {origin.example: 127.0.0.1}}\ninspect: {mode: all, roots: ["+roots+"]}\n")
			ca := p.initCA()
			p.start()
			for range 2 {
				stdout, stderr, _ := outputOf(t, exec.Command("curl", "--silent", "--show-error", "--proxy", "http://"+p.proxy, "--cacert", ca,
					fmt.Sprintf("https://origin.example:%d/", origin.Listener.Addr().(*net.TCPAddr).Port)))
				if !strings.Contains(stdout, x.want) {
					t.Errorf("%q, %s", stdout, stderr)
				}
			}
			if n := fetched.Load() - before; n != x.fetched {
				t.Errorf("fetched %d times, want %d", n, x.fetched)
			}
		})
	}
}
