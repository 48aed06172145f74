package auth

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"espalier/policy/auth/slapdtest"
)

// ldapConfig is the configuration for s, as default.yaml has the rest.
func ldapConfig(s *slapdtest.Server) LDAPConfig {
	return LDAPConfig{
		URL: s.URL, BindDN: slapdtest.SearchDN, Password: slapdtest.SearchPassword, Base: "ou=people," + slapdtest.Base,
		Filter: "(uid=%s)", NameAttribute: "uid", GroupAttribute: "memberOf",
		Timeout: 5 * time.Second, Cache: 5 * time.Minute, Outage: time.Hour,
	}
}

func TestDirectory(t *testing.T) {
	s := slapdtest.Start(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(slapdtest.SearchPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const odd = `Jörg Ö*(x)\`
	for way, change := range map[string]func(*LDAPConfig){
		"ldap":          func(*LDAPConfig) {},
		"StartTLS":      func(c *LDAPConfig) { c.StartTLS, c.Roots = true, s.Roots },
		"ldaps":         func(c *LDAPConfig) { c.URL, c.Roots = s.TLSURL, s.Roots },
		"password file": func(c *LDAPConfig) { c.Password, c.PasswordFile = "", secret },
		"group search": func(c *LDAPConfig) {
			c.GroupAttribute, c.GroupFilter, c.GroupBase = "", "(&(objectClass=groupOfNames)(member=%d))", slapdtest.Base
		},
	} {
		t.Run(way, func(t *testing.T) {
			cfg := ldapConfig(s)
			change(&cfg)
			a := mustOpen(t, Config{LDAP: cfg, Groups: write(t, "first: alice\nsecond: bob carol")}, nil)
			for _, tt := range []struct{ name, password, want, groups string }{
				{"alice", "alice secret", "alice", "board,first,staff"},
				{"ALICE", "alice secret", "alice", "board,first,staff"},
				{"bob", "bob secret", "bob", "pupils,second"},
				{"carol", "carol secret", "carol", "second,staff"},
				{odd, "jörg secret", odd, "staff"},
				{"search", "search secret", "", ""}, // is not below base
				{"alice", "bob secret", "", ""},
				{"alice", "", "", ""},
				{"alice", "\x00", "", ""},
				{"alice", "alice secret\x00", "", ""},
				{"alice", "alice secre\xff", "", ""},
				{"locked", "x", "", ""},
				{"nobody", "x", "", ""},
				{"*", "alice secret", "", ""},
				{"al*", "alice secret", "", ""},
				{"alice)(uid=*", "alice secret", "", ""},
				{"x)(|(uid=alice)", "alice secret", "", ""},
				{"alice\x00", "alice secret", "", ""},
				{"a\xe4", "alice secret", "", ""},
				{`alice\2a`, "alice secret", "", ""},
				{"uid=alice,ou=people," + slapdtest.Base, "alice secret", "", ""},
			} {
				a.damper = newDamper()
				for range 2 { // the second time it is remembered
					u, err := a.SignIn(t.Context(), here, tt.name, tt.password)
					slices.Sort(u.Groups)
					if tt.want == "" && (!errors.Is(err, ErrWrong) || u.Name != "") ||
						tt.want != "" && (err != nil || u.Name != tt.want || strings.Join(u.Groups, ",") != tt.groups) {
						t.Errorf("%q with %q: %+v, %v", tt.name, tt.password, u, err)
					}
				}
			}
			// Whoever may not be told from another cannot be checked.
			cfg.Base = slapdtest.Base
			a = mustOpen(t, Config{LDAP: cfg}, a)
			if _, err := a.SignIn(t.Context(), here, "twin", "twin secret"); !isA[*UnavailableError](err) || !strings.Contains(err.Error(), "auth.ldap.filter") {
				t.Errorf("twin: %v", err)
			}
			if _, err := a.SignIn(t.Context(), here, "alice", "alice secret"); err != nil {
				t.Errorf("alice, after twin: %v", err)
			}
		})
	}
}

// A group counts where group_base says that groups are.
func TestDirectoryGroupBase(t *testing.T) {
	s := slapdtest.Start(t)
	for way, change := range map[string]func(*LDAPConfig){
		"attribute": func(*LDAPConfig) {},
		"search":    func(c *LDAPConfig) { c.GroupAttribute, c.GroupFilter = "", "(member=%d)" },
	} {
		cfg := ldapConfig(s)
		change(&cfg)
		cfg.GroupBase = "OU=Groups, " + slapdtest.Base
		a := mustOpen(t, Config{LDAP: cfg}, nil)
		for name, want := range map[string]string{"carol": "[]", "bob": "[pupils]"} {
			if u, err := a.SignIn(t.Context(), here, name, name+" secret"); err != nil || fmt.Sprint(u.Groups) != want {
				t.Errorf("%s: %s is in %v, want %s; %v", way, name, u.Groups, want, err)
			}
		}
	}
}

// What is wrong with the directory, and not with the user, is no wrong password.
func TestDirectoryUnavailable(t *testing.T) {
	s := slapdtest.Start(t)
	silent := silentServer(t)
	for name, tt := range map[string]struct {
		change func(*LDAPConfig)
		want   string
	}{
		"refused":               {func(c *LDAPConfig) { c.URL = "ldap://127.0.0.1:1" }, "connection refused"},
		"silent":                {func(c *LDAPConfig) { c.URL, c.Timeout = "ldap://"+silent, 50*time.Millisecond }, "ldap://" + silent},
		"silent, StartTLS":      {func(c *LDAPConfig) { c.URL, c.Timeout, c.StartTLS = "ldap://"+silent, 50*time.Millisecond, true }, "StartTLS"},
		"silent, TLS":           {func(c *LDAPConfig) { c.URL, c.Timeout = "ldaps://"+silent, 50*time.Millisecond }, "TLS"},
		"unknown authority":     {func(c *LDAPConfig) { c.URL = s.TLSURL }, "certificate"},
		"unknown authority too": {func(c *LDAPConfig) { c.StartTLS = true }, "certificate"},
		"another name": {func(c *LDAPConfig) {
			c.URL, c.Roots = strings.Replace(s.TLSURL, "127.0.0.1", "localhost", 1), s.Roots
		}, "certificate"},
		"wrong bind password": {func(c *LDAPConfig) { c.Password = "wrong" }, "auth.ldap.bind_dn"},
		"anonymous may not":   {func(c *LDAPConfig) { c.BindDN, c.Password = "", "" }, "search below"},
		"no such base":        {func(c *LDAPConfig) { c.Base = "dc=elsewhere" }, "search below dc=elsewhere"},
		"no such attribute":   {func(c *LDAPConfig) { c.NameAttribute = "sAMAccountName" }, "auth.ldap.name_attribute"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := ldapConfig(s)
			tt.change(&cfg)
			a := mustOpen(t, Config{LDAP: cfg}, nil)
			_, err := a.SignIn(t.Context(), here, "alice", "alice secret")
			if !isA[*UnavailableError](err) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want an *UnavailableError with %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%v repeats a password", err)
			}
			if a.damper.names.Len() > 0 || a.memory.bad.Len() > 0 {
				t.Error("a directory's fault counts as the user's")
			}
		})
	}
}

// silentServer takes connections and says nothing.
func silentServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, _ = io.Copy(io.Discard, c)
				c.Close()
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// The first server that answers is asked; one that has failed is left alone for a
// while, and the log says so once.
func TestDirectoryFailover(t *testing.T) {
	s := slapdtest.Start(t)
	cfg := ldapConfig(s)
	cfg.URL = "ldap://127.0.0.1:1, " + s.URL
	core, logs := observer.New(zap.InfoLevel)
	a, err := Open(Config{LDAP: cfg}, nil, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, name := range []string{"alice", "bob", "carol"} {
		if _, err := a.SignIn(t.Context(), here, name, name+" secret"); err != nil {
			t.Fatal(err)
		}
	}
	if all := logs.All(); len(all) != 1 || all[0].Level != zap.ErrorLevel || all[0].ContextMap()["server"] != "ldap://127.0.0.1:1" {
		t.Errorf("the log: %v", all)
	}
	first, second := a.directory.servers[0], a.directory.servers[1]
	if first.down() == nil || second.down() != nil {
		t.Errorf("down: %v and %v", first.down(), second.down())
	}
	first.until = time.Now()
	if err := first.down(); err != nil {
		t.Errorf("after a while the first is not tried again: %v", err)
	}
	if first.down() == nil {
		t.Error("while it is tried, others wait for it too")
	}
	if len(second.idle) != 1 {
		t.Errorf("%d connections for one sign-in after the other", len(second.idle))
	}
}

// While the directory is down, whoever it has confirmed goes on; then it is asked
// again, over connections that the restart has cut.
func TestDirectoryOutage(t *testing.T) {
	s := slapdtest.Start(t)
	cfg := ldapConfig(s)
	a := mustOpen(t, Config{LDAP: cfg}, nil)
	now := time.Now()
	a.memory.now = func() time.Time { return now }
	signIn := func(name, password string) error {
		_, err := a.SignIn(t.Context(), here, name, password)
		return err
	}
	if err := signIn("alice", "alice secret"); err != nil {
		t.Fatal(err)
	}
	if err := signIn("bob", "wrong"); !errors.Is(err, ErrWrong) {
		t.Fatal(err)
	}
	s.Stop()
	now = now.Add(cfg.Cache)
	u, err := a.SignIn(t.Context(), here, "alice", "alice secret")
	slices.Sort(u.Groups)
	if err != nil || u.Name != "alice" || strings.Join(u.Groups, ",") != "board,staff" {
		t.Errorf("alice, while the directory is down: %+v, %v", u, err)
	}
	for name, password := range map[string]string{"alice": "another", "bob": "wrong", "carol": "carol secret"} {
		if err := signIn(name, password); !isA[*UnavailableError](err) {
			t.Errorf("%s, while the directory is down: %v", name, err)
		}
	}
	now = now.Add(cfg.Outage - cfg.Cache)
	if err := signIn("alice", "alice secret"); !isA[*UnavailableError](err) {
		t.Errorf("alice, down for too long: %v", err)
	}
	s.Run()
	a.directory.servers[0].until = time.Now()
	if err := signIn("alice", "alice secret"); err != nil {
		t.Errorf("alice, up again: %v", err)
	}
	s.Stop()
	s.Run()
	if err := signIn("carol", "carol secret"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// An answer is taken for as long as cache says; then the directory's new one
// counts, and is no guess.
func TestDirectoryCache(t *testing.T) {
	s := slapdtest.Start(t)
	cfg := ldapConfig(s)
	a := mustOpen(t, Config{LDAP: cfg}, nil)
	now := time.Now()
	a.memory.now = func() time.Time { return now }
	if !signsIn(t, a, "bob", "bob secret") {
		t.Fatal("bob cannot sign in")
	}
	s.Password("bob", "new secret")
	if !signsIn(t, a, "bob", "bob secret") {
		t.Error("the answer was not kept")
	}
	now = now.Add(cfg.Cache)
	if signsIn(t, a, "bob", "bob secret") || !signsIn(t, a, "bob", "new secret") {
		t.Error("the new password does not count")
	}
	if a.damper.names.Len() != 0 || a.memory.good.Len() != 1 {
		t.Errorf("what was right counts as a guess, or stays: %d, %d", a.damper.names.Len(), a.memory.good.Len())
	}
	// What one directory says is not taken for another's word.
	cfg.Filter = "(cn=%s)"
	a = mustOpen(t, Config{LDAP: cfg}, a)
	before := a.count("ok")
	if !signsIn(t, a, "bob", "new secret") || a.count("ok") != before+1 {
		t.Error("a new configuration takes the answers of the one before")
	}
}

// Names that a directory takes for the same are damped together.
func TestDirectoryDamping(t *testing.T) {
	s := slapdtest.Start(t)
	a := mustOpen(t, Config{LDAP: ldapConfig(s)}, nil)
	var last error
	for i, name := range []string{"bob", "BOB", " bob", "bob ", "Bob", "bOb"} {
		if _, last = a.SignIn(t.Context(), here, name, fmt.Sprint(i)); !errors.Is(last, ErrWrong) {
			t.Fatalf("%q: %v", name, last)
		}
	}
	if _, err := a.SignIn(t.Context(), here, "boB", "bob secret"); !isA[*DampedError](err) {
		t.Errorf("bob, damped: %v", err)
	}
	if !signsIn(t, a, "alice", "alice secret") {
		t.Error("alice cannot sign in")
	}
}

// A user of the file is not looked for in the directory, and nobody of the
// directory takes that name.
func TestFileBeforeDirectory(t *testing.T) {
	s := slapdtest.Start(t)
	a := mustOpen(t, Config{HTPasswd: write(t, "alice:"+bcryptOf(t, "$2y$", "file secret")), LDAP: ldapConfig(s)}, nil)
	if !signsIn(t, a, "alice", "file secret") || signsIn(t, a, "alice", "alice secret") {
		t.Error("alice is of the file")
	}
	if u, err := a.SignIn(t.Context(), here, "Alice", "alice secret"); !errors.Is(err, ErrWrong) {
		t.Errorf("another alice: %+v, %v", u, err)
	}
	if !signsIn(t, a, "bob", "bob secret") {
		t.Error("bob is of the directory")
	}
}

func TestReferralsAreNotFollowed(t *testing.T) {
	s := slapdtest.Start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			c.Close()
		}
	}()
	s.Refer("ldap://" + l.Addr().String() + "/ou=people," + slapdtest.Base)
	a := mustOpen(t, Config{LDAP: ldapConfig(s)}, nil)
	if !signsIn(t, a, "alice", "alice secret") || signsIn(t, a, "far", "x") {
		t.Error("a referral is in the way")
	}
	l.Close()
	<-ended
	if asked.Load() > 0 {
		t.Error("another server was asked")
	}
}

// Many at once share a few connections.
func TestDirectoryConnections(t *testing.T) {
	s := slapdtest.Start(t)
	cfg := ldapConfig(s)
	cfg.Cache = 0
	a := mustOpen(t, Config{LDAP: cfg}, nil)
	var wg sync.WaitGroup
	for range 10 {
		for _, name := range []string{"alice", "bob", "carol"} {
			wg.Go(func() {
				for range 3 {
					if !signsIn(t, a, name, name+" secret") {
						t.Errorf("%s cannot sign in", name)
					}
				}
			})
		}
	}
	wg.Wait()
	server := a.directory.servers[0]
	if n := len(server.idle); n == 0 || n > maxAsking {
		t.Errorf("%d connections wait", n)
	}
	a.Close()
	if !signsIn(t, a, "alice", "alice secret") || len(server.idle) != 0 {
		t.Error("a connection is kept after Close")
	}
}

// Whatever a name holds, the filter asks for that name and for nothing else.
func FuzzUserFilter(f *testing.F) {
	for _, name := range []string{"alice", "*", "a)(uid=*", `\2a`, "ä\x00", "%s", "%d"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		p, err := ldap.CompileFilter(userFilter("(&(objectClass=person)(uid=%s))", name))
		if err != nil {
			if name != "" {
				t.Fatalf("%q: %v", name, err)
			}
			return
		}
		if len(p.Children) != 2 || len(p.Children[1].Children) != 2 || p.Children[1].Tag != ldap.FilterEqualityMatch || p.Children[1].Children[1].Data.String() != name {
			text, _ := ldap.DecompileFilter(p)
			t.Fatalf("%q makes %s", name, text)
		}
		if _, err := ldap.CompileFilter(groupFilter("(|(member=%d)(memberUid=%s))", name, name)); err != nil && name != "" {
			t.Fatalf("%q in group_filter: %v", name, err)
		}
	})
}
