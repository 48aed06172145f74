package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"espalier/proxy/doctor/doctortest"
)

// An answer is the host's own unless it leads away, or asks for a sign-in.
func TestJudgeHTTP(t *testing.T) {
	tests := []struct {
		name, host string
		status     int
		header     string // name: value
		body       string
		want       string
	}{
		{"not found", "gs.apple.com", 404, "", "", "ok"},
		{"fails", "gs.apple.com", 500, "", "", "ok"},
		{"to TLS", "gs.apple.com", 301, "Location: https://gs.apple.com/", "", "ok"},
		{"to a page of its own", "gs.apple.com", 302, "Location: /x", "", "ok"},
		{"to another of Apple's", "itunes.com", 301, "Location: https://www.apple.com/itunes/", "", "ok"},
		{"to a kin", "crl3.digicert.com", 301, "Location: https://www.digicert.com/", "", "ok"},
		{"elsewhere", "gs.apple.com", 302, "Location: http://portal.example/", "", "captive-portal portal.example"},
		{"to an address", "gs.apple.com", 302, "Location: http://10.0.0.1/", "", "captive-portal 10.0.0.1"},
		{"to one that ends alike", "gs.apple.com", 302, "Location: http://notapple.com/", "", "captive-portal notapple.com"},
		{"network authentication required", "gs.apple.com", 511, "", "", "captive-portal "},
		{"asks for a password", "gs.apple.com", 407, "Via: 1.1 cache", "", "sign-in a proxy on the way (1.1 cache)"},
		{"captive, Apple's page", captiveHost, 200, "", "<TITLE>Success</TITLE>", "ok"},
		{"captive, another page", captiveHost, 200, "", "<TITLE>Please sign in</TITLE>", "captive-portal "},
		{"captive, none", captiveHost, 404, "", "Success", "captive-portal "},
	}
	for _, tt := range tests {
		resp := &http.Response{StatusCode: tt.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(tt.body))}
		if name, value, ok := strings.Cut(tt.header, ": "); ok {
			resp.Header.Set(name, value)
		}
		f := judgeHTTP(tt.host, resp)
		got := string(f.State)
		if f.State == Broken {
			got = string(f.Problem) + " " + f.By
		}
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// People are not told of contexts.
func TestDetailOfATimeout(t *testing.T) {
	f := failed(StepNTP, fmt.Errorf("read: %w", context.DeadlineExceeded))
	if f.Problem != NotNTP || f.Detail != "read: no answer in time" {
		t.Errorf("%+v", f)
	}
}

func TestProxyError(t *testing.T) {
	for value, want := range map[string]string{
		"":                               "",
		"espalier":                       "",
		"espalier; error=dns_error":      "dns_error",
		"espalier;error=dns_error;x=y":   "dns_error",
		"far; error=dns_error, espalier": "",
		"far, near; error=dns_timeout":   "dns_timeout",
		"far; x=\"error=dns_error\"":     "",
		`p; error=dns_error; rcode="A"`:  "dns_error A",
		`p; rcode="A";error=dns_error`:   "dns_error A",
	} {
		resp := &http.Response{Header: http.Header{}}
		resp.Header.Set("Proxy-Status", value)
		kind, rcode := proxyError(resp)
		if got := strings.TrimSpace(kind + " " + rcode); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// issue makes a certificate by a CA, or by itself where parent is nil.
func issue(t *testing.T, template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent, signer = template, key
	}
	template.SerialNumber, template.BasicConstraintsValid = big.NewInt(1), true
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// Who has issued a certificate comes before what else is wrong with it.
func TestJudge(t *testing.T) {
	now := time.Now()
	year := func(n int) time.Time { return now.AddDate(n, 0, 0) }
	ca := func(name, org string) (*x509.Certificate, *ecdsa.PrivateKey) {
		subject := pkix.Name{CommonName: name}
		if org != "" {
			subject.Organization = []string{org}
		}
		return issue(t, &x509.Certificate{Subject: subject, IsCA: true, NotBefore: year(-5), NotAfter: year(5)}, nil, nil)
	}
	public, publicKey := ca("Public CA", "")
	corp, corpKey := ca("", "Corp")
	apple, appleKey := ca("Apple CA", "Apple Inc.")
	nameless, namelessKey := ca("", "")
	inspector, inspectorKey := issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "Apple CA", Organization: []string{"Apple Inc."}}, IsCA: true, NotBefore: year(-1), NotAfter: year(1),
	}, corp, corpKey)
	old, oldKey := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Old"}, IsCA: true, NotBefore: year(-2), NotAfter: year(-1)}, public, publicKey)

	leaf := func(name string, from, to time.Time, by *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
		c, _ := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: from, NotAfter: to}, by, key)
		return c
	}
	pool := func(certs ...*x509.Certificate) *x509.CertPool {
		p := x509.NewCertPool()
		for _, c := range certs {
			p.AddCert(c)
		}
		return p
	}
	store := &trust{public: pool(public), machine: pool(public, corp)}
	appleStore := &trust{public: pool(public), machine: pool(apple)}
	const host = "gs.apple.com"
	chain := func(c ...*x509.Certificate) []*x509.Certificate { return c }
	tests := []struct {
		name  string
		trust *trust
		chain []*x509.Certificate
		want  string
	}{
		{"public", store, chain(leaf(host, year(-1), year(1), public, publicKey)), "ok"},
		{"wildcard", store, chain(leaf("*.apple.com", year(-1), year(1), public, publicKey)), "ok"},
		{"another name", store, chain(leaf("x.example", year(-1), year(1), public, publicKey)), "wrong-name: for x.example, issued by Public CA"},
		{"expired", store, chain(leaf(host, year(-2), year(-1), public, publicKey)), "expired: valid from"},
		{"not valid yet", store, chain(leaf(host, year(1), year(2), public, publicKey)), "expired: valid from"},
		{"expired above", store, chain(leaf(host, year(-1), year(1), old, oldKey), old), "expired: x509"},
		{"the machine's CA", store, chain(leaf(host, year(-1), year(1), corp, corpKey)), "intercepted by Corp: the issuer is trusted by this machine, but is no public CA"},
		{"nobody's CA", store, chain(leaf(host, year(-1), year(1), nameless, namelessKey)), "intercepted by a CA without a name: the issuer is no public CA"},
		{"nobody's CA, expired, for another name", store, chain(leaf("x.example", year(-2), year(-1), nameless, namelessKey)), "intercepted by a CA without a name: the issuer is no public CA"},
		{"Apple's own", store, chain(leaf(host, year(-1), year(1), apple, appleKey)), "ok, Apple's own CA, as it says of itself (Apple CA (Apple Inc.)), not in this machine's roots"},
		{"Apple's own, with its root", store, chain(leaf(host, year(-1), year(1), apple, appleKey), apple), "ok, Apple's own CA, as it says of itself (Apple CA (Apple Inc.)), not in this machine's roots"},
		{"Apple's own, in the machine's store", appleStore, chain(leaf(host, year(-1), year(1), apple, appleKey)), "ok"},
		{"Apple's own, for another name", store, chain(leaf("x.example", year(-1), year(1), apple, appleKey)), "wrong-name: for x.example, issued by Apple CA (Apple Inc.)"},
		{"Apple's own, expired", store, chain(leaf(host, year(-2), year(-1), apple, appleKey)), "expired: valid from"},
		{"an inspector that calls itself Apple's", store, chain(leaf(host, year(-1), year(1), inspector, inspectorKey), inspector), "intercepted by Apple CA (Apple Inc.): the issuer is trusted by this machine, but is no public CA"},
	}
	for _, tt := range tests {
		f := tt.trust.judge(tt.chain, host, now)
		got := string(f.State)
		if f.State == Broken {
			got = string(f.Problem)
			if f.By != "" {
				got += " by " + f.By
			}
			got += ": " + f.Detail
		} else if f.Note != "" {
			got += ", " + f.Note
		}
		if tt.want == "ok" && got != "ok" || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// The public CAs came with the build.
func TestPublicRoots(t *testing.T) {
	if publicRoots().Equal(x509.NewCertPool()) {
		t.Error("there are none")
	}
}

// An answer is believed where it is one to the question.
func TestAskTime(t *testing.T) {
	ahead := func(a []byte) []byte {
		binary.BigEndian.PutUint32(a[40:], binary.BigEndian.Uint32(a[40:])+1024)
		return a
	}
	tests := []struct {
		name   string
		change func([]byte) []byte
		want   string
	}{
		{"right", nil, "0s"},
		{"ahead", ahead, "17m4s"},
		{"short", func(a []byte) []byte { return a[:40] }, errNotNTP.Error()},
		{"to another question", func(a []byte) []byte { a[24]++; return a }, errNotNTP.Error()},
		{"a question", func(a []byte) []byte { a[0] = 4<<3 | 3; return a }, errNotNTP.Error()},
		{"kiss of death", func(a []byte) []byte { a[1] = 0; copy(a[12:], "RATE"); return a }, `the server refuses with "RATE"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { defer close(done); doctortest.TellTime(conn, tt.change) }()
			t.Cleanup(func() { conn.Close(); <-done })
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			offset, err := askTime(ctx, netip.MustParseAddrPort(conn.LocalAddr().String()))
			got := fmt.Sprint(offset.Round(4 * time.Second))
			if err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
