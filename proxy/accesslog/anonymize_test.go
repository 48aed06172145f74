package accesslog

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hidden returns what a log with cfg makes of a client and a user at a time.
func hidden(t *testing.T, cfg Config, dir string, client, user string, at time.Time) (netip.Addr, string) {
	t.Helper()
	cfg.Format = "json"
	hide, err := newAnonymizer(cfg, dir, nop)
	if err != nil {
		t.Fatal(err)
	}
	r := Record{Client: netip.MustParseAddr(client), User: user, Time: at}
	hide(&r)
	return r.Client, r.User
}

func TestPseudonyms(t *testing.T) {
	dir, cfg, now := t.TempDir(), Config{Anonymize: Pseudonym}, time.Now()
	client, user := hidden(t, cfg, dir, "10.1.2.3", "anna", now)
	if !pseudonymNetwork.Contains(client) || !strings.HasPrefix(user, "u-") || len(user) != 15 {
		t.Errorf("pseudonyms %v and %q", client, user)
	}
	for _, c := range []struct {
		name, client, user string
		same               bool
	}{
		{"the same, after a restart", "10.1.2.3", "anna", true},
		{"IPv4 in IPv6", "::ffff:10.1.2.3", "anna", true},
		{"others", "10.1.2.4", "Anna", false},
	} {
		if x, u := hidden(t, cfg, dir, c.client, c.user, now); (x == client) != c.same || (u == user) != c.same {
			t.Errorf("%s: %v and %v", c.name, x, u)
		}
	}
	if _, user := hidden(t, cfg, dir, "10.1.2.3", "", now); user != "" {
		t.Errorf("nobody is %q", user)
	}
	if x, u := hidden(t, cfg, t.TempDir(), "10.1.2.3", "anna", now); x == client || u == user {
		t.Error("another key makes the same pseudonyms")
	}
	if info, err := os.Stat(filepath.Join(dir, keyFile)); err != nil || info.Mode() != 0o600 {
		t.Errorf("key: %v, %v", info, err)
	}
	for name, text := range map[string]string{"short": "00ff", "long": strings.Repeat("00", 100), "no digits": strings.Repeat("xy", 32)} {
		if err := os.WriteFile(filepath.Join(dir, keyFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Config{Format: "json", Anonymize: Pseudonym}, dir, "n", nop); err == nil {
			t.Errorf("a key that is %s is taken", name)
		}
	}
}

func TestRekey(t *testing.T) {
	dir, cfg := t.TempDir(), Config{Anonymize: Pseudonym, Rekey: time.Hour}
	now := time.Now()
	first, _ := hidden(t, cfg, dir, "10.1.2.3", "", now)
	if again, _ := hidden(t, cfg, dir, "10.1.2.3", "", now.Add(30*time.Minute)); again != first {
		t.Error("the key was replaced too soon")
	}
	before, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		t.Fatal(err)
	}
	second, _ := hidden(t, cfg, dir, "10.1.2.3", "", now.Add(2*time.Hour))
	if second == first {
		t.Error("the key was not replaced")
	}
	if after, err := os.ReadFile(filepath.Join(dir, keyFile)); err != nil || string(after) == string(before) {
		t.Errorf("the old key is still there: %v", err)
	}
}

// What an administrator asks for is found, though records have something else.
func TestFiltersForWhoIsHidden(t *testing.T) {
	for _, c := range []struct {
		name   string
		cfg    Config
		f      Filter
		client string // of the record that is found; empty: the filter is refused
		user   string
	}{
		{"plain", Config{}, Filter{Client: netip.MustParsePrefix("10.1.2.3/32"), User: "anna"}, "10.1.2.3", "anna"},
		{"truncated", Config{Anonymize: Truncate}, Filter{Client: netip.MustParsePrefix("10.1.2.3/32")}, "10.1.2.3", "anna"},
		{"truncated, a network", Config{Anonymize: Truncate}, Filter{Client: netip.MustParsePrefix("10.1.0.0/16")}, "10.1.2.3", "anna"},
		{"truncated, a user", Config{Anonymize: Truncate}, Filter{User: "anna"}, "", ""},
		{"pseudonyms", Config{Anonymize: Pseudonym}, Filter{Client: netip.MustParsePrefix("10.1.2.3/32"), User: "anna"}, "10.1.2.3", "anna"},
		{"pseudonyms, a network", Config{Anonymize: Pseudonym}, Filter{Client: netip.MustParsePrefix("10.1.0.0/16")}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			hide, err := newAnonymizer(c.cfg, dir, nop)
			if err != nil {
				t.Fatal(err)
			}
			f, err := c.cfg.Anonymous(c.f, dir)
			if c.client == "" {
				if err == nil {
					t.Errorf("taken: %+v", f)
				}
				return
			}
			r := Record{Client: netip.MustParseAddr(c.client), User: c.user}
			if hide != nil {
				hide(&r)
			}
			if err != nil || !f.Match(&r) {
				t.Errorf("%v; %+v does not match %+v", err, f, r)
			}
			if again, err := c.cfg.Anonymous(f, dir); err != nil || again != f {
				t.Errorf("what is a pseudonym already becomes %+v, %v", again, err)
			}
		})
	}
}
