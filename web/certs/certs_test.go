package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"espalier/web/certs/pebbletest"
)

// certmagic keeps a limiter for each account until the process ends, and looks
// after a lock for some seconds after it was released.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.(*RingBufferRateLimiter).loop"),
		goleak.IgnoreAnyFunction("github.com/caddyserver/certmagic.keepLockfileFresh"),
		goleak.IgnoreAnyFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"))
}

// limit bounds every wait.
const limit = 60 * time.Second

// A server is a listener that shows certificates, and one of plain HTTP that
// answers challenges.
type server struct {
	current   atomic.Pointer[Certs]
	t         *testing.T
	tls, http net.Listener
	data      string
	log       *zap.Logger
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, data: t.TempDir(), log: zap.NewNop()}
	s.open()
	var err error
	if s.tls, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if s.http, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	plain := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.current.Load().Challenge(http.NotFoundHandler()).ServeHTTP(w, r)
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = plain.Serve(s.http) })
	serving.Go(func() {
		for {
			c, err := s.tls.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_ = c.SetDeadline(time.Now().Add(limit))
				_ = tls.Server(c, s.current.Load().TLS("http/1.1")).Handshake()
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		plain.Close()
		s.tls.Close()
		serving.Wait()
	})
	return s
}

// open begins anew, as a restart does.
func (s *server) open() {
	c := New(s.data, s.log)
	s.t.Cleanup(c.Close)
	if before := s.current.Swap(c); before != nil {
		before.Close()
	}
}

func port(l net.Listener) uint16 { return l.Addr().(*net.TCPAddr).AddrPort().Port() }

// shown is the certificate that a client which asks for name is shown.
func (s *server) shown(name string) *x509.Certificate {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.tls.Addr().String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

// await waits for a certificate of the authority.
func (s *server) await(p *pebbletest.Server, name string) *x509.Certificate {
	s.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if c := s.shown(name); strings.HasPrefix(c.Issuer.CommonName, "Pebble") && c.VerifyHostname(name) == nil {
			s.verify(p, name)
			return c
		}
		if time.Now().After(end) {
			s.t.Fatalf("no certificate for %s: %+v", name, s.current.Load().Status())
		}
	}
}

// verify does a handshake that trusts the authority alone.
func (s *server) verify(p *pebbletest.Server, name string) {
	s.t.Helper()
	c, err := tls.Dial("tcp", s.tls.Addr().String(), &tls.Config{ServerName: name, RootCAs: p.IssuedBy()})
	if err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	c.Close()
}

// ownNames are what a certificate that is signed here is for.
var ownNames = []string{"proxy.test", "192.0.2.1"}

func (s *server) apply(cfg Config) {
	s.t.Helper()
	if err := cfg.Validate(); err != nil {
		s.t.Fatal(err)
	}
	if err := s.current.Load().Apply(cfg, ownNames); err != nil {
		s.t.Fatal(err)
	}
}

// from is an authority's configuration.
func from(p *pebbletest.Server, o pebbletest.Options, domains ...string) ACME {
	return ACME{
		Domains: domains, Directory: p.Directory, Roots: p.Roots, Email: "admin@school.example",
		HTTPPort: o.HTTPPort, TLSPort: o.TLSPort,
	}
}

// Every way to prove a name brings a certificate that clients of the authority
// trust, public or not.
func TestObtain(t *testing.T) {
	for _, x := range []struct {
		name   string
		eab    bool
		domain string
		change func(*ACME, *pebbletest.Server)
		asks   string // a name that the certificate is for
	}{
		{name: "http-01", domain: "proxy.school.example", change: func(a *ACME, _ *pebbletest.Server) { a.Challenges = []string{HTTP01} }},
		{name: "tls-alpn-01", domain: "proxy.school.example", change: func(a *ACME, _ *pebbletest.Server) { a.Challenges = []string{TLSALPN01} }},
		{name: "an address", domain: "127.0.0.1", change: func(a *ACME, _ *pebbletest.Server) { a.Challenges = []string{HTTP01} }},
		{name: "external account binding", eab: true, domain: "proxy.school.example", change: func(a *ACME, _ *pebbletest.Server) {
			a.EAB = EAB{KeyID: pebbletest.EABKeyID, MACKey: pebbletest.EABKey}
		}},
		{name: "dns-01, a wildcard", domain: "*.school.example", asks: "any.school.example", change: func(a *ACME, p *pebbletest.Server) {
			a.HTTPPort, a.TLSPort = 0, 0
			a.DNS = DNS{Provider: "rfc2136", Resolvers: []string{p.DNS}, Settings: map[string]string{
				"server": p.DNS, "key_name": pebbletest.KeyName, "key": pebbletest.KeySecret, "key_alg": "hmac-sha256",
			}}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := newServer(t)
			o := pebbletest.Options{HTTPPort: port(s.http), TLSPort: port(s.tls), EAB: x.eab}
			p := pebbletest.Start(t, o)
			cfg := from(p, o, x.domain)
			x.change(&cfg, p)
			s.apply(Config{ACME: cfg})
			asks := x.domain
			if x.asks != "" {
				asks = x.asks
			}
			s.await(p, asks)
			list := s.current.Load().Status()
			if len(list) != 1 || list[0].Source != SourceACME || !slices.Equal(list[0].Names, []string{x.domain}) ||
				list[0].Error != "" || len(list[0].Warnings) > 0 || time.Until(list[0].NotAfter) < 24*time.Hour {
				t.Errorf("%+v", list)
			}
			if c := s.shown(""); len(c.DNSNames)+len(c.IPAddresses) != 1 || c.VerifyHostname(asks) != nil {
				t.Errorf("who names nobody is shown %v %v", c.DNSNames, c.IPAddresses)
			}
			if err := filepath.WalkDir(s.data, func(path string, d os.DirEntry, err error) error {
				if info, ierr := d.Info(); err == nil && ierr == nil && strings.HasSuffix(path, ".key") && info.Mode().Perm() != 0o600 {
					t.Errorf("%s has mode %v", path, info.Mode())
				}
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
}

// A certificate is renewed, and revoked and replaced, while clients connect, and
// none of them notices.
func TestRenewUnderLoad(t *testing.T) {
	s := newServer(t)
	o := pebbletest.Options{HTTPPort: port(s.http), TLSPort: port(s.tls)}
	p := pebbletest.Start(t, o)
	const name = "proxy.school.example"
	s.apply(Config{ACME: from(p, o, name)})
	serials := []string{s.await(p, name).SerialNumber.String()}
	trust := &tls.Config{ServerName: name, RootCAs: p.IssuedBy()}

	var load sync.WaitGroup
	var handshakes, failed atomic.Int64
	ctx, end := context.WithCancel(t.Context())
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				c, err := tls.Dial("tcp", s.tls.Addr().String(), trust)
				if err != nil {
					failed.Add(1)
					t.Error(err)
					return
				}
				c.Close()
				handshakes.Add(1)
			}
		})
	}
	for _, revoke := range []bool{false, true, false} {
		before := s.shown(name)
		if err := s.current.Load().Renew(ctx, revoke); err != nil {
			t.Errorf("revoke %v: %v", revoke, err)
		}
		now := s.shown(name)
		if slices.Contains(serials, now.SerialNumber.String()) || now.PublicKey.(*ecdsa.PublicKey).Equal(before.PublicKey) {
			t.Error("the certificate before is still shown, or its key")
		}
		serials = append(serials, now.SerialNumber.String())
		if got := p.Revoked(before.SerialNumber); got != revoke {
			t.Errorf("the certificate before is revoked: %v, want %v", got, revoke)
		}
		if p.Revoked(now.SerialNumber) {
			t.Error("the certificate is revoked")
		}
	}
	end()
	load.Wait()
	t.Logf("%d handshakes, %d failed", handshakes.Load(), failed.Load())
	if handshakes.Load() == 0 {
		t.Error("there was no load")
	}
}

// While the authority is away what there is serves on, from the first moment after
// a restart; what is new serves with Espalier's own, and the status says why.
func TestAuthorityIsDown(t *testing.T) {
	s := newServer(t)
	o := pebbletest.Options{HTTPPort: port(s.http), TLSPort: port(s.tls)}
	p := pebbletest.Start(t, o)
	const name = "proxy.school.example"
	s.apply(Config{ACME: from(p, o, name)})
	before := s.await(p, name)
	p.Stop()

	s.open()
	s.apply(Config{ACME: from(p, o, name, "new.school.example")})
	if got := s.shown(name); !got.Equal(before) {
		t.Errorf("after a restart %s is shown, want the one before", got.Issuer)
	}
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		list := s.current.Load().Status()
		if len(list) == 2 && list[0].Error == "" && list[1].Error != "" && len(list[1].Warnings) == 1 &&
			strings.HasPrefix(list[1].Warnings[0], "There is no certificate for new.school.example yet") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v", list)
		}
	}
	if err := s.current.Load().Renew(t.Context(), false); err == nil || !strings.Contains(err.Error(), name+": ") {
		t.Errorf("renewed: %v", err)
	}
	if got := s.shown(name); !got.Equal(before) {
		t.Errorf("after a renewal that failed %s is shown, want the one before", got.Issuer)
	}
}

// Names may be written in any way: what is kept for them serves at once, also
// while a reload changes the authority's configuration.
func TestNames(t *testing.T) {
	cfg := ACME{Domains: []string{"Proxy.School.Example.", "proxy.school.example", "*.School.Example", "[FD00::1]", "skola-å.example"}}
	if got, want := cfg.Names(), []string{"proxy.school.example", "*.school.example", "fd00::1", "xn--skola--nua.example"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	s := newServer(t)
	o := pebbletest.Options{HTTPPort: port(s.http), TLSPort: port(s.tls)}
	p := pebbletest.Start(t, o)
	s.apply(Config{ACME: from(p, o, "Proxy.School.Example")})
	first := s.await(p, "proxy.school.example")
	if list := s.current.Load().Status(); len(list) != 1 || list[0].NotAfter.IsZero() || len(list[0].Warnings) > 0 {
		t.Errorf("%+v", list)
	}
	var reload sync.WaitGroup
	var done atomic.Bool
	reload.Go(func() {
		defer done.Store(true)
		for i := range 5 {
			cfg := from(p, o, "PROXY.school.example")
			cfg.Email = strings.Repeat("a", i) + "@school.example"
			if err := s.current.Load().Apply(Config{ACME: cfg}, ownNames); err != nil {
				t.Error(err)
			}
		}
	})
	for !done.Load() {
		if got := s.shown("proxy.school.example"); !got.Equal(first) {
			t.Errorf("while the configuration is reloaded %s is shown", got.Issuer)
			break
		}
	}
	reload.Wait()
}

// After the end what is in force stays.
func TestClosed(t *testing.T) {
	s := newServer(t)
	s.apply(Config{SelfSigned: true})
	c := s.current.Load()
	c.Close()
	if err := errors.Join(c.Apply(Config{}, nil), c.again()); err != nil || !c.current.Load().cfg.SelfSigned {
		t.Errorf("%v, %+v", err, c.current.Load().cfg)
	}
}

// Files are read again by Apply; wrong ones change nothing.
func TestFiles(t *testing.T) {
	s := newServer(t)
	f := Files{Cert: filepath.Join(s.data, "cert.pem"), Key: filepath.Join(s.data, "key.pem")}
	writeFiles := func(name string, rest time.Duration) {
		t.Helper()
		text, err := newOwn([]string{name}, time.Now().Add(rest-ownValidity))
		if err != nil {
			t.Fatal(err)
		}
		block, key := pem.Decode(text)
		for file, text := range map[string][]byte{f.Cert: pem.EncodeToMemory(block), f.Key: key} {
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	writeFiles("one.test", 100*24*time.Hour)
	s.apply(Config{Files: f})
	if got := s.shown("other.test").DNSNames; !slices.Equal(got, []string{"one.test"}) {
		t.Errorf("%v is shown", got)
	}
	if list := s.current.Load().Status(); len(list) != 1 || list[0].Source != SourceFiles || len(list[0].Warnings) > 0 {
		t.Errorf("%+v", list)
	}
	writeFiles("two.test", 5*24*time.Hour)
	s.apply(Config{Files: f})
	if got := s.shown("").DNSNames; !slices.Equal(got, []string{"two.test"}) {
		t.Errorf("%v is shown", got)
	}
	if list := s.current.Load().Status(); len(list[0].Warnings) != 1 || !strings.HasPrefix(list[0].Warnings[0], "The certificate for two.test expires on ") {
		t.Errorf("%+v", list)
	}
	if err := os.WriteFile(f.Key, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.current.Load().Apply(Config{Files: f}, ownNames); err == nil || !strings.HasPrefix(err.Error(), "files.cert: "+f.Cert+" and "+f.Key+": ") {
		t.Errorf("%v", err)
	}
	if got := s.shown("").DNSNames; !slices.Equal(got, []string{"two.test"}) {
		t.Errorf("%v is shown", got)
	}
	if err := s.current.Load().Renew(t.Context(), false); !errors.Is(err, ErrNotACME) {
		t.Errorf("%v", err)
	}
}

// What Espalier signs by itself stays the same over a restart, is for the names
// that are wanted, is no CA, and is replaced before its end.
func TestSelfSigned(t *testing.T) {
	s := newServer(t)
	s.apply(Config{SelfSigned: true})
	first := s.shown("proxy.test")
	for _, n := range ownNames {
		if err := first.VerifyHostname(n); err != nil {
			t.Error(err)
		}
	}
	if first.IsCA || time.Until(first.NotAfter) > 398*24*time.Hour {
		t.Errorf("CA %v, until %s", first.IsCA, first.NotAfter)
	}
	if info, err := os.Stat(ownFile(s.data)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	list := s.current.Load().Status()
	if len(list) != 1 || list[0].Source != SourceSelfSigned || len(list[0].Warnings) != 1 || len(list[0].Fingerprint) != 95 {
		t.Errorf("%+v", list)
	}
	s.open()
	s.apply(Config{SelfSigned: true})
	if !s.shown("").Equal(first) {
		t.Error("another one after a restart")
	}
	late := first.NotAfter.Add(-ownRest + time.Minute)
	renewed, err := ownCertificate(s.data, ownNames, late)
	if err != nil || renewed.Leaf.Equal(first) || !renewed.Leaf.NotAfter.After(late.Add(ownRest)) {
		t.Errorf("near its end: %v", err)
	}
	if err := os.WriteFile(ownFile(s.data), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := ownCertificate(s.data, []string{"other.test"}, time.Now())
	if err != nil || other.Leaf.VerifyHostname("other.test") != nil {
		t.Errorf("%v", err)
	}
}

// Without anything there is no certificate, and nothing is written.
func TestNone(t *testing.T) {
	s := newServer(t)
	if err := s.current.Load().Apply(Config{}, nil); err != nil {
		t.Fatal(err)
	}
	if c, err := tls.Dial("tcp", s.tls.Addr().String(), &tls.Config{InsecureSkipVerify: true}); err == nil {
		c.Close()
		t.Error("there is a certificate")
	}
	if list, err := os.ReadDir(s.data); err != nil || len(list) > 0 || len(s.current.Load().Status()) > 0 {
		t.Errorf("%v %v %+v", list, err, s.current.Load().Status())
	}
}

// Only an authority is shown the answer to its challenge, and only while it
// looks.
func TestNoChallenge(t *testing.T) {
	s := newServer(t)
	s.apply(Config{SelfSigned: true})
	if c, err := tls.Dial("tcp", s.tls.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"acme-tls/1"}}); err == nil {
		c.Close()
		t.Error("a challenge is answered")
	}
	resp, err := http.Get("http://" + s.http.Addr().String() + "/.well-known/acme-challenge/token")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != 404 {
		t.Error(resp.Status)
	}
}

// A certificate is renewed by another account than the one that it was obtained by.
func TestRenewByAnotherAccount(t *testing.T) {
	s := newServer(t)
	o := pebbletest.Options{HTTPPort: port(s.http), TLSPort: port(s.tls)}
	p := pebbletest.Start(t, o)
	const name = "proxy.school.example"
	cfg := from(p, o, name)
	s.apply(Config{ACME: cfg})
	before := s.await(p, name)
	cfg.Email = "it@school.example"
	s.apply(Config{ACME: cfg})
	if err := s.current.Load().Renew(t.Context(), false); err != nil {
		t.Error(err)
	}
	if got := s.shown(name); got.Equal(before) {
		t.Error("the certificate before is shown")
	}
}
