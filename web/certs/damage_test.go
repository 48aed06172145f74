package certs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"espalier/web/certs/pebbletest"
)

// Whatever is damaged of what is kept, it is moved aside, and another certificate is
// obtained; the log names the file. Other names do not notice.
func TestDamage(t *testing.T) {
	core, log := observer.New(zap.ErrorLevel)
	s := newServer(t)
	s.log = zap.New(core)
	s.open()
	o := pebbletest.Options{HTTPPort: port(s.http), TLSPort: port(s.tls)}
	p := pebbletest.Start(t, o)
	const name, other = "proxy.school.example", "other.school.example"
	cfg := Config{ACME: from(p, o, name, other)}
	s.apply(cfg)
	s.await(p, name)
	whole := s.await(p, other)
	key := s.kept(t, other, ".key")
	restart := func() {
		s.open()
		s.apply(cfg)
		if got := s.shown(other); !got.Equal(whole) {
			t.Errorf("for the other name %s is shown", got.Issuer)
		}
	}
	for _, x := range []struct {
		name, suffix string
		text         []byte
		again        func() // what finds it out
	}{
		{"empty certificate", ".crt", nil, restart},
		{"certificate cut short", ".crt", []byte("-----BEGIN CERTIFICATE-----\nMIIB"), restart},
		{"another key", ".key", key, restart},
		{"damaged key", ".key", []byte("\x00\x00\x00"), restart},
		{"damaged description", ".json", []byte("{"), restart},
		{"found out by a renewal", ".json", nil, func() {
			if err := s.current.Load().Renew(t.Context(), false); err != nil {
				t.Error(err)
			}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			before := s.await(p, name)
			file := s.keptFile(name, x.suffix)
			if err := os.WriteFile(file, x.text, 0o600); err != nil {
				t.Fatal(err)
			}
			x.again()
			if got := s.await(p, name); got.Equal(before) {
				t.Error("the certificate before is shown")
			}
			said := log.TakeAll()
			if len(said) != 1 || said[0].Message != "a certificate that is kept is damaged; it was moved aside, and another is obtained" {
				t.Fatalf("the log: %+v", said)
			}
			fields := said[0].ContextMap()
			aside, _ := fields["kept"].(string)
			why, _ := fields["error"].(string)
			named := file
			if x.name == "another key" { // either may be the wrong one
				named = strings.TrimSuffix(file, ".key") + ".crt"
			}
			if fields["name"] != name || !strings.HasPrefix(why, named+": ") {
				t.Errorf("the log: %v", fields)
			}
			if text, err := os.ReadFile(filepath.Join(aside, filepath.Base(file))); err != nil || string(text) != string(x.text) {
				t.Errorf("kept aside: %q %v", text, err)
			}
			if err := os.RemoveAll(aside); err != nil { // another may follow within the second
				t.Error(err)
			}
		})
	}
}

// Who holds the lock may be about to write what then is no damage.
func TestDamageWaitsForTheLock(t *testing.T) {
	c := New(t.TempDir(), zap.NewNop())
	a, err := c.newAuthority(ACME{Domains: []string{"proxy.school.example"}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	const dir = "certificates/acme-v02.api.letsencrypt.org-directory/proxy.school.example/proxy.school.example"
	for _, suffix := range []string{".crt", ".key", ".json"} {
		if err := a.storage.Store(t.Context(), dir+suffix, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if a.damage(t.Context(), "proxy.school.example") == nil {
		t.Fatal("not found out")
	}
	if err := a.storage.Lock(t.Context(), "issue_cert_proxy.school.example"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.mend(ctx, "proxy.school.example"); !errors.Is(err, context.Canceled) {
		t.Errorf("while somebody else has the lock: %v", err)
	}
	if !a.storage.Exists(t.Context(), dir+".crt") {
		t.Error("it was moved aside")
	}
	if err := a.storage.Unlock(t.Context(), "issue_cert_proxy.school.example"); err != nil {
		t.Fatal(err)
	}
	if err := a.mend(t.Context(), "proxy.school.example"); err != nil || a.storage.Exists(t.Context(), dir+".crt") {
		t.Errorf("after that: %v", err)
	}
}

// keptFile is the file in ACME's storage for name.
func (s *server) keptFile(name, suffix string) string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.data, "acme", "certificates", "*", name, name+suffix))
	if err != nil || len(found) != 1 {
		s.t.Fatalf("%s%s: %q %v", name, suffix, found, err)
	}
	return found[0]
}

func (s *server) kept(t *testing.T, name, suffix string) []byte {
	t.Helper()
	text, err := os.ReadFile(s.keptFile(name, suffix))
	if err != nil {
		t.Fatal(err)
	}
	return text
}
