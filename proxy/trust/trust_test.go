package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smallstep/pkcs7"
	"golang.org/x/crypto/ocsp"
)

// A signed certificate and its key.
type signed struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

var serial atomic.Int64

// sign makes a certificate of template; by nil makes one that is self-signed.
func sign(t *testing.T, name string, by *signed, change func(*x509.Certificate)) *signed {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if change != nil {
		change(c)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &signed{c, key}
}

// leaf makes an origin's certificate for origin.example whose issuer is found at the URLs.
func leaf(t *testing.T, by *signed, urls ...string) *signed {
	return sign(t, "origin.example", by, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature
		c.DNSNames, c.IPAddresses, c.IssuingCertificateURL = []string{"origin.example"}, []net.IP{net.IPv4(127, 0, 0, 7)}, urls
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
}

// shake does a handshake of v with an origin that shows certs and staple.
func shake(t *testing.T, v *Verifier, name string, staple []byte, certs ...*signed) error {
	t.Helper()
	show := tls.Certificate{PrivateKey: certs[0].key, OCSPStaple: staple}
	for _, c := range certs {
		show.Certificate = append(show.Certificate, c.Raw)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{show}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_ = c.(*tls.Conn).Handshake()
			_, _ = c.Read(make([]byte, 1))
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return tls.Client(c, v.Config(name)).Handshake()
}

func pool(certs ...*signed) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c.Certificate)
	}
	return p
}

// matches reports whether err is what want begins with; "" is none. Every error of a
// certificate is a *tls.CertificateVerificationError.
func matches(t *testing.T, err error, want string) {
	t.Helper()
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); err != nil && !ok {
		t.Errorf("%T is no CertificateVerificationError", err)
	}
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestMissingIntermediate(t *testing.T) {
	root := sign(t, "Root", nil, nil)
	files := http.NewServeMux()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		files.ServeHTTP(w, r)
	}))
	defer server.Close()
	serve := func(path string, b []byte) string {
		files.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) })
		return server.URL + path
	}
	first := sign(t, "First", root, nil)
	second := sign(t, "Second", first, func(c *x509.Certificate) {
		c.IssuingCertificateURL = []string{server.URL + "/first.der"}
	})
	serve("/first.der", first.Raw)
	p7, err := pkcs7.DegenerateCertificate(first.Raw)
	if err != nil {
		t.Fatal(err)
	}
	stranger := sign(t, "First", nil, nil) // another by the same name
	files.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/first.der", http.StatusFound) })
	files.HandleFunc("/secure", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://"+r.Host+"/first.der", http.StatusFound)
	})
	for _, x := range []struct {
		name  string
		certs []*signed
		want  string
		asked int64
	}{
		{"a whole chain", []*signed{leaf(t, first, server.URL+"/first.der"), first}, "", 0},
		{"missing, in DER", []*signed{leaf(t, first, server.URL+"/first.der")}, "", 1},
		{"missing, in PEM", []*signed{leaf(t, first, serve("/first.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: first.Raw})))}, "", 1},
		{"missing, in PKCS #7", []*signed{leaf(t, first, serve("/first.p7c", p7))}, "", 1},
		{"missing, at the second URL", []*signed{leaf(t, first, server.URL+"/none", server.URL+"/first.der")}, "", 2},
		{"missing, redirected", []*signed{leaf(t, first, server.URL+"/moved")}, "", 2},
		{"two missing", []*signed{leaf(t, second, serve("/second.der", second.Raw))}, "", 2},
		{"the upper one missing", []*signed{leaf(t, second, server.URL+"/second.der"), second}, "", 1},
		{"the root sent too", []*signed{leaf(t, first), first, root}, "", 0},
		{"no URL", []*signed{leaf(t, first)}, "signed by unknown authority", 0},
		{"not found", []*signed{leaf(t, first, server.URL+"/none")}, `did not send the certificate of "CN=First", its issuer: GET ` + server.URL + "/none: status 404", 1},
		{"by HTTPS", []*signed{leaf(t, first, strings.Replace(server.URL, "http", "https", 1)+"/first.der")}, `scheme "https" is not http`, 0},
		{"redirected to HTTPS", []*signed{leaf(t, first, server.URL+"/secure")}, `scheme "https" is not http`, 1},
		{"from a file", []*signed{leaf(t, first, "file:///etc/passwd")}, `scheme "file" is not http`, 0},
		{"not a certificate", []*signed{leaf(t, first, serve("/text", []byte("hello")))}, "holds no certificate", 1},
		{"too long", []*signed{leaf(t, first, serve("/long", make([]byte, 1<<20)))}, "longer than 65536 bytes", 1},
		{"another's certificate", []*signed{leaf(t, first, serve("/stranger", stranger.Raw))}, "signed by unknown authority", 1},
		{"self-signed", []*signed{leaf(t, nil, server.URL+"/first.der")}, "signed by unknown authority", 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			v := New(pool(root), http.DefaultTransport)
			before := asked.Load()
			for range 2 { // what was fetched, or could not be, is known then
				matches(t, shake(t, v, "origin.example", nil, x.certs...), x.want)
			}
			if got := asked.Load() - before; got != x.asked {
				t.Errorf("asked %d times, want %d", got, x.asked)
			}
			if x.asked > 0 && x.want == "" {
				matches(t, shake(t, New(pool(root), nil), "origin.example", nil, x.certs...), "signed by unknown authority")
			}
		})
	}
}

// An origin whose issuer's certificate is slow to come, and names another origin's, does not
// keep that one from its own.
func TestSlowIssuerSpoilsNoOther(t *testing.T) {
	root := sign(t, "Root", nil, nil)
	first := sign(t, "First", root, nil)
	good := leaf(t, first, "http://ca.example/first")
	between := sign(t, "Between", first, func(c *x509.Certificate) {
		c.IssuingCertificateURL = []string{"http://ca.example/first"}
	})
	slow := leaf(t, between, "http://slow.example/between")
	late := leaf(t, between, "http://slow.example/none", "http://ca.example/between")
	inTime := leaf(t, between, "http://ca.example/between")
	now := time.Now()
	synctest.Test(t, func(t *testing.T) {
		v := New(pool(root), roundTripper(func(r *http.Request) (*http.Response, error) {
			file, takes := first.Raw, time.Second
			switch r.URL.String() {
			case "http://slow.example/between":
				file, takes = between.Raw, fetchTimeout-time.Millisecond
			case "http://slow.example/none":
				takes = time.Hour
			case "http://ca.example/between":
				file = between.Raw
			}
			select {
			case <-r.Context().Done():
				return nil, r.Context().Err()
			case <-time.After(takes):
			}
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(file)), Request: r}, nil
		}))
		v.now = func() time.Time { return now }
		for _, x := range []struct {
			name string
			cert *signed
			want string
		}{
			{"slow", slow, ""},
			{"good", good, ""},
			{"out of time", late, "not asked"},
			{"the other URL is still asked", inTime, ""},
		} {
			if _, err := v.chains("origin.example", []*x509.Certificate{x.cert.Certificate}); (err == nil) != (x.want == "") ||
				err != nil && !strings.Contains(err.Error(), x.want) {
				t.Errorf("%s: got %v, want %q", x.name, err, x.want)
			}
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestNames(t *testing.T) {
	root := sign(t, "Root", nil, nil)
	for _, x := range []struct{ name, want string }{
		{"origin.example", ""},
		{"127.0.0.7", ""},
		{"other.example", "valid for origin.example, not other.example"},
		{"127.0.0.8", "valid for 127.0.0.7, not 127.0.0.8"},
	} {
		t.Run(x.name, func(t *testing.T) {
			matches(t, shake(t, New(pool(root), nil), x.name, nil, leaf(t, root)), x.want)
		})
	}
	expired := sign(t, "origin.example", root, func(c *x509.Certificate) {
		c.DNSNames, c.NotAfter = []string{"origin.example"}, time.Now().Add(-time.Minute)
	})
	matches(t, shake(t, New(pool(root), nil), "origin.example", nil, expired), "expired")
}

func TestStaple(t *testing.T) {
	root := sign(t, "Root", nil, nil)
	feature, err := asn1.Marshal([]int{5})
	if err != nil {
		t.Fatal(err)
	}
	plain := leaf(t, root)
	must := sign(t, "origin.example", root, func(c *x509.Certificate) {
		c.IsCA, c.DNSNames = false, []string{"origin.example"}
		c.ExtraExtensions = []pkix.Extension{{Id: oidTLSFeature, Value: feature}}
	})
	other := sign(t, "Other", nil, nil)
	staple := func(of *signed, by *signed, status int, from, until time.Duration) []byte {
		r := ocsp.Response{
			Status: status, SerialNumber: of.SerialNumber, ThisUpdate: time.Now().Add(from), NextUpdate: time.Now().Add(until),
			RevokedAt: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), IssuerHash: crypto.SHA1,
		}
		b, err := ocsp.CreateResponse(by.Certificate, by.Certificate, r, by.key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	const hour = time.Hour
	for _, x := range []struct {
		name   string
		origin *signed
		staple []byte
		want   string
	}{
		{"none", plain, nil, ""},
		{"good", plain, staple(plain, root, ocsp.Good, -hour, hour), ""},
		{"revoked", plain, staple(plain, root, ocsp.Revoked, -hour, hour), "revoked on 2026-03-01"},
		{"revoked, long known", plain, staple(plain, root, ocsp.Revoked, -48*hour, -24*hour), "revoked on 2026-03-01"},
		{"noise", plain, []byte("hello"), ""},
		{"of another authority", plain, staple(plain, other, ocsp.Revoked, -hour, hour), ""},
		{"of another certificate", plain, staple(must, root, ocsp.Revoked, -hour, hour), ""},
		{"demanded, none", must, nil, "demands a stapled OCSP response"},
		{"demanded, good", must, staple(must, root, ocsp.Good, -hour, hour), ""},
		{"demanded, expired", must, staple(must, root, ocsp.Good, -48*hour, -24*hour), "demands a stapled OCSP response"},
		{"demanded, to come", must, staple(must, root, ocsp.Good, 24*hour, 48*hour), "demands a stapled OCSP response"},
		{"demanded, unknown", must, staple(must, root, ocsp.Unknown, -hour, hour), "demands a stapled OCSP response"},
		{"demanded, noise", must, []byte{0x30, 0x80}, "demands a stapled OCSP response"},
		{"demanded, revoked", must, staple(must, root, ocsp.Revoked, -hour, hour), "revoked on 2026-03-01"},
	} {
		t.Run(x.name, func(t *testing.T) {
			err := shake(t, New(pool(root), nil), "origin.example", x.staple, x.origin)
			matches(t, err, x.want)
		})
	}
}

// A session that is resumed was verified when it began; for the same name alone.
func TestResumption(t *testing.T) {
	root := sign(t, "Root", nil, nil)
	origin := leaf(t, root)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{origin.Raw}, PrivateKey: origin.key}}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = c.Write([]byte("x")) }()
		}
	}()
	v := New(pool(root), nil)
	connect := func(name string) (tls.ConnectionState, error) {
		c, err := tls.Dial("tcp", l.Addr().String(), v.Config(name))
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, err = c.Read(make([]byte, 1)) // and the ticket before it
		return c.ConnectionState(), err
	}
	for i, resumed := range []bool{false, true} {
		if cs, err := connect("origin.example"); err != nil || cs.DidResume != resumed {
			t.Errorf("connection %d: resumed %v, %v; want %v", i, cs.DidResume, err, resumed)
		}
	}
	v.now = func() time.Time { return time.Now().Add(48 * time.Hour) }
	if _, err := connect("origin.example"); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("resumed with an expired certificate: %v", err)
	}
	v.now = time.Now
	if _, err := connect("other.example"); err == nil {
		t.Error("another name is accepted")
	}
}

// Whatever a server of intermediates sends, parse does not panic.
func FuzzParse(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte{0x30, 0x03, 0x02, 0x01, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		if list := parse(b); len(list) > 8 {
			t.Error(fmt.Sprint(len(list), " certificates"))
		}
	})
}
