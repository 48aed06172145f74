package inspect

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"espalier/policy/catalog"
)

// apple are the rows that every CA of these tests excludes.
func apple() []catalog.Row { return slices.Concat(catalog.Embedded(), catalog.Wide()) }

func nothing(string, netip.Addr) bool { return false }

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// testCA makes a CA and loads it again.
func testCA(t testing.TB, o InitOptions) *CA {
	t.Helper()
	if o.Exclude == nil {
		o.Exclude = apple()
	}
	dir := filepath.Join(t.TempDir(), "ca")
	if _, _, err := Init(dir, o); err != nil {
		t.Fatal(err)
	}
	return must(LoadCA(dir))(t)
}

// kinds are the CAs that a test is run with.
func kinds(t *testing.T, f func(t *testing.T, ca *CA)) {
	t.Run("root signs", func(t *testing.T) { f(t, testCA(t, InitOptions{})) })
	t.Run("offline root", func(t *testing.T) {
		f(t, testCA(t, InitOptions{OfflineRoot: filepath.Join(t.TempDir(), "away")}))
	})
}

// forge makes a leaf with the CA's own key and without any of Leaves' refusals.
func forge(t *testing.T, ca *CA, host string) *x509.Certificate {
	t.Helper()
	l := must(NewLeaves(ca, nothing))(t)
	addr, _ := netip.ParseAddr(host)
	cert, _, err := l.mint(host, addr, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return must(x509.ParseCertificate(cert.Certificate[0]))(t)
}

// The CA cannot speak for Apple, even with its own key.
func TestNameConstraints(t *testing.T) {
	kinds(t, func(t *testing.T, ca *CA) {
		dir := t.TempDir()
		save := func(name string, certs ...*x509.Certificate) string {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, pemCerts(certs...), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		root, issuer := save("root", ca.Root()), save("issuer", ca.Issuer())
		for _, c := range []struct {
			host string
			ok   bool
		}{
			{"gs.apple.com", false},
			{"apple.com", false},
			{"x.push.apple.com", false},
			{"1-courier.push.apple.com", false},
			{"www.icloud.com", false},
			{"x.mzstatic.com", false},
			{"ocsp.digicert.com", false},
			{"17.1.2.3", false},
			{"2620:149:a::1", false},
			{"proxy.safebrowsing.apple", false},
			{"icloud.com", false},
			{"itunes.com", false},
			{"notapple", true},
			{"safebrowsing.apple.example", true},
			{"example.org", true},
			{"notapple.com", true},
			{"apple.com.evil.example", true},
			{"digicert.com", true},
			{"192.0.2.1", true},
			{"2001:db8::1", true},
			{"under_score.example.org", true},
		} {
			t.Run(c.host, func(t *testing.T) {
				leaf := forge(t, ca, c.host)
				opts := x509.VerifyOptions{
					DNSName: c.host, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
				}
				opts.Roots.AddCert(ca.Root())
				opts.Intermediates.AddCert(ca.Issuer())
				_, err := leaf.Verify(opts)
				if (err == nil) != c.ok {
					t.Errorf("Go: %v, want accepted: %t", err, c.ok)
				}
				if invalid := (x509.CertificateInvalidError{}); !c.ok &&
					(!errors.As(err, &invalid) || invalid.Reason != x509.CANotAuthorizedForThisName) {
					t.Errorf("Go: refused by something else: %v", err)
				}
				name := "-verify_hostname"
				if net.ParseIP(c.host) != nil {
					name = "-verify_ip"
				}
				out, err := exec.Command("openssl", "verify", "-x509_strict", "-purpose", "sslserver", name, c.host,
					"-CAfile", root, "-untrusted", issuer, save("leaf", leaf)).CombinedOutput()
				if (err == nil) != c.ok {
					t.Errorf("openssl: %v, want accepted: %t\n%s", err, c.ok, out)
				}
				if !c.ok && !strings.Contains(string(out), "excluded subtree violation") {
					t.Errorf("openssl: refused by something else:\n%s", out)
				}
			})
		}
	})
}

// Verifiers that look at intermediates only (RFC 5280 does not ask more) refuse
// Apple's hosts too where the root is offline.
func TestIntermediateConstrainsAlone(t *testing.T) {
	ca := testCA(t, InitOptions{OfflineRoot: t.TempDir()})
	root, key, err := makeRoot(&InitOptions{OfflineRoot: "x"}, time.Now()) // excludes nothing
	if err != nil {
		t.Fatal(err)
	}
	der := must(x509.CreateCertificate(rand.Reader, ca.issuer, root, ca.issuer.PublicKey, key))(t)
	issuer := must(x509.ParseCertificate(der))(t)
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	opts.Roots.AddCert(root)
	opts.Intermediates.AddCert(issuer)
	ca = newCA(root, issuer, ca.key)
	if _, err := forge(t, ca, "gs.apple.com").Verify(opts); err == nil {
		t.Error("gs.apple.com is accepted")
	}
	if _, err := forge(t, ca, "example.org").Verify(opts); err != nil {
		t.Error(err)
	}
}
