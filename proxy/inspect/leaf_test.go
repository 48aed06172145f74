package inspect

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"espalier/policy/cache"
	"espalier/policy/catalog"
)

func leaves(t testing.TB, ca *CA) *Leaves {
	return must(NewLeaves(ca, nothing))(t)
}

// At most 200 days, as Apple asks of public CAs, and all else that iOS wants of
// a server's certificate (https://support.apple.com/en-us/103769).
func TestLeafIsProper(t *testing.T) {
	kinds(t, func(t *testing.T, ca *CA) {
		l := leaves(t, ca)
		for host, want := range map[string]string{
			"example.org":                           "example.org",
			"WWW.Example.org.":                      "www.example.org",
			"bücher.example":                        "xn--bcher-kva.example",
			"192.0.2.7":                             "192.0.2.7",
			"[2001:db8::7]":                         "2001:db8::7",
			strings.Repeat("long.", 20) + "example": strings.Repeat("long.", 20) + "example",
		} {
			got := must(l.Get(host))(t)
			leaf := must(x509.ParseCertificate(got.Certificate[0]))(t)
			if span := leaf.NotAfter.Sub(leaf.NotBefore); span > 200*day || leaf.NotAfter.After(ca.NotAfter()) {
				t.Errorf("%s: valid %v until %v", host, span, leaf.NotAfter)
			}
			if time.Since(leaf.NotBefore) < clockSkew-time.Minute {
				t.Errorf("%s: not before %v", host, leaf.NotBefore)
			}
			var names []string
			names = append(names, leaf.DNSNames...)
			for _, ip := range leaf.IPAddresses {
				names = append(names, ip.String())
			}
			if !slices.Equal(names, []string{want}) {
				t.Errorf("%s: for %q, want %q", host, names, want)
			}
			if leaf.IsCA || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
				t.Errorf("%s: CA %t, usage %v %v", host, leaf.IsCA, leaf.KeyUsage, leaf.ExtKeyUsage)
			}
			if key, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve.Params().BitSize != 256 || key.Equal(&ca.key.PublicKey) {
				t.Errorf("%s: key %T", host, leaf.PublicKey)
			}
			if leaf.SerialNumber.BitLen() < 100 || leaf.SerialNumber.BitLen() > 159 || string(leaf.AuthorityKeyId) != string(ca.Issuer().SubjectKeyId) {
				t.Errorf("%s: serial %x, authority %x", host, leaf.SerialNumber, leaf.AuthorityKeyId)
			}
			// The chain is all that a client with the root needs.
			opts := x509.VerifyOptions{DNSName: "[" + want + "]", Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
			if len(leaf.DNSNames) > 0 {
				opts.DNSName = want
			}
			opts.Roots.AddCert(ca.Root())
			for _, der := range got.Certificate[1:] {
				opts.Intermediates.AddCert(must(x509.ParseCertificate(der))(t))
			}
			if _, err := leaf.Verify(opts); err != nil {
				t.Errorf("%s: %v", host, err)
			}
		}
	})
}

func TestLeavesRefuseApple(t *testing.T) {
	set := catalog.Compile(append(apple(), catalog.Extra("new.example", nil)))
	l := must(NewLeaves(testCA(t, InitOptions{}), func(host string, addr netip.Addr) bool { return set.Match(host, addr, 443).OK() }))(t)
	for _, host := range []string{
		"gs.apple.com", "GS.APPLE.COM.", "apple.com", "x.push.apple.com", "ocsp.digicert.com", "17.1.2.3", "[::ffff:17.1.2.3]", "[2620:149::1]",
		"new.example", // newer than the CA
	} {
		if cert, err := l.Get(host); !errors.Is(err, ErrApple) || cert != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for _, host := range []string{"", "a b", "*.example.org", "127.1", "example.org:443", "exa\x00mple.org"} {
		if cert, err := l.Get(host); err == nil || errors.Is(err, ErrApple) || cert != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
	if n := l.kept.Len(); n != 0 {
		t.Errorf("%d certificates were made", n)
	}
	must(l.Get("below.new.example"))(t)
}

func TestLeavesAreKept(t *testing.T) {
	l := leaves(t, testCA(t, InitOptions{}))
	var now time.Time
	l.now = func() time.Time { return now }
	now = time.Now()
	l.kept = cache.New[string, leaf](100, nil, nil)
	get := func(host string) *tls.Certificate { t.Helper(); return must(l.Get(host))(t) }

	a := get("a.example")
	now = now.Add(leafLife - leafRenewal - 2*clockSkew)
	if get("A.example.") != a {
		t.Error("a second certificate, though the first is good")
	}
	now = now.Add(clockSkew)
	renewed := get("a.example")
	if renewed == a {
		t.Error("the certificate is not renewed before it expires")
	}
	for i := range 300 {
		get(fmt.Sprintf("host-%d.example", i))
		if get("a.example") != renewed || l.kept.Len() > 100 {
			t.Fatalf("a certificate in use was dropped, or %d are kept", l.kept.Len())
		}
	}

	// No leaf outlives the CA, and none is made anew for nothing.
	now = l.ca.NotAfter().Add(-time.Hour)
	last := get("a.example")
	if leaf := must(x509.ParseCertificate(last.Certificate[0]))(t); !leaf.NotAfter.Equal(l.ca.NotAfter()) {
		t.Errorf("valid until %v, the CA until %v", leaf.NotAfter, l.ca.NotAfter())
	}
	if get("a.example") != last {
		t.Error("made anew, though it could last no longer")
	}

	// The clock was ahead, and is put right.
	now = time.Now()
	if leaf := must(x509.ParseCertificate(get("a.example").Certificate[0]))(t); leaf.NotBefore.After(now) {
		t.Errorf("not valid until %v", leaf.NotBefore)
	}
	now = l.ca.NotAfter()
	if _, err := l.Get("a.example"); err == nil || !strings.Contains(err.Error(), "the CA expired on ") {
		t.Errorf("after the CA's end: %v", err)
	}
}

func TestLeavesAreMadeOnce(t *testing.T) {
	l := leaves(t, testCA(t, InitOptions{}))
	got := make([]*tls.Certificate, 64)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() { got[i], _ = l.Get("example.org") })
	}
	wg.Wait()
	for _, c := range got {
		if c == nil || c != got[0] {
			t.Fatal("not all got the same certificate")
		}
	}
}

func TestCachedLeafDoesNotAllocate(t *testing.T) {
	set := catalog.Compile(apple())
	l := must(NewLeaves(testCA(t, InitOptions{}), func(host string, addr netip.Addr) bool { return set.Match(host, addr, 443).OK() }))(t)
	must(l.Get("www.example.org"))(t)
	if n := testing.AllocsPerRun(100, func() { l.Get("www.example.org") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkLeafMint(b *testing.B) {
	l := leaves(b, testCA(b, InitOptions{}))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := l.Get(fmt.Sprintf("host-%d.example.org", i)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeafCached(b *testing.B) {
	set := catalog.Compile(apple())
	l := must(NewLeaves(testCA(b, InitOptions{}), func(host string, addr netip.Addr) bool { return set.Match(host, addr, 443).OK() }))(b)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := l.Get("www.example.org"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A CA from before the catalogue grew stays in use: it names what it does not
// exclude, and such hosts are refused by the catalogue.
func TestOlderCA(t *testing.T) {
	old := slices.DeleteFunc(apple(), func(r catalog.Row) bool {
		return strings.HasSuffix(r.Host, ".apple") || !strings.Contains(r.Host, "*") && r.Service == catalog.AppleOther && !strings.Contains(r.Host, "/")
	})
	ca := testCA(t, InitOptions{Exclude: old})
	missing := ca.Missing(apple())
	if want := []string{"*.apple", "app-site-association.networking.apple", "appleschoolcontent.com", "axm-usercontent-apple.com", "token.safebrowsing.apple"}; !slices.Equal(missing, want) {
		t.Errorf("missing %q, want %q", missing, want)
	}
	if list := ca.Warnings(apple(), time.Now()); len(list) != 1 || !strings.Contains(list[0], "older than the catalogue") {
		t.Errorf("warnings %q", list)
	}
	set := catalog.Compile(apple())
	leaves := must(NewLeaves(ca, func(host string, addr netip.Addr) bool { return set.Match(host, addr, 443).OK() }))(t)
	for host, want := range map[string]error{
		"proxy.safebrowsing.apple": ErrApple, "tether.edge.apple": ErrApple, "itunes.com": ErrApple, "appleschoolcontent.com": ErrApple,
		"example.org": nil, "notapple": nil,
	} {
		if _, err := leaves.Get(host); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", host, err, want)
		}
	}
}
