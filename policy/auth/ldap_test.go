package auth

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
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
		Timeout: 5 * time.Second, Cache: 5 * time.Minute, Outage: time.Hour, MaxFailures: 3,
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
				a.throttle, a.binds = newThrottle(a.now), newBinds(a.now)
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
			if a.throttle.names.few.Len() > 0 || a.memory.bad.Len() > 0 || a.binds.users.Len() > 0 {
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
	now := newClock()
	a := openAt(t, Config{LDAP: cfg}, now)
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
	now.pass(cfg.Cache)
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
	now.pass(cfg.Outage - cfg.Cache)
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
	now := newClock()
	a := openAt(t, Config{LDAP: cfg}, now)
	if !signsIn(t, a, "bob", "bob secret") {
		t.Fatal("bob cannot sign in")
	}
	s.Password("bob", "new secret")
	if !signsIn(t, a, "bob", "bob secret") {
		t.Error("the answer was not kept")
	}
	now.pass(cfg.Cache)
	if signsIn(t, a, "bob", "bob secret") || !signsIn(t, a, "bob", "new secret") {
		t.Error("the new password does not count")
	}
	if a.throttle.names.few.Len() != 0 || a.memory.good.Len() != 1 {
		t.Errorf("what was right counts as a guess, or stays: %d, %d", a.throttle.names.few.Len(), a.memory.good.Len())
	}
	// What one directory says is not taken for another's word.
	cfg.Filter = "(cn=%s)"
	a = mustOpen(t, Config{LDAP: cfg}, a)
	if _, _, ok := a.check(here, "bob", "new secret").remembered(); ok || !signsIn(t, a, "bob", "new secret") {
		t.Error("a new configuration takes the answers of the one before")
	}
}

// Binds are counted together for names that a directory takes for the same.
func TestDirectoryNamesAreOne(t *testing.T) {
	s := slapdtest.Start(t)
	cfg := ldapConfig(s)
	a := mustOpen(t, Config{LDAP: cfg}, nil)
	for i, name := range []string{"bob", "BOB", " bob"} {
		if _, err := a.SignIn(t.Context(), here, name, fmt.Sprint(i)); !errors.Is(err, ErrWrong) {
			t.Fatalf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"Bob", "bob"} {
		if _, err := a.SignIn(t.Context(), here, name, "bob secret"); !isA[*ThrottledError](err) {
			t.Errorf("%s, with no bind left: %v", name, err)
		}
	}
	if !signsIn(t, a, "alice", "alice secret") {
		t.Error("alice cannot sign in")
	}
}

// failures is how many failed binds a directory with a lockout has counted for a user.
func failures(t *testing.T, s *slapdtest.Server, uid string) int {
	t.Helper()
	c := s.Admin()
	defer c.Close()
	r, err := c.Search(ldap.NewSearchRequest("uid="+uid+",ou=people,"+slapdtest.Base, ldap.ScopeBaseObject, ldap.NeverDerefAliases,
		1, 0, false, "(objectClass=*)", []string{"pwdFailureTime", "pwdAccountLockedTime"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	if at := r.Entries[0].GetAttributeValue("pwdAccountLockedTime"); at != "" {
		t.Errorf("%s is locked", uid)
	}
	return len(r.Entries[0].GetAttributeValues("pwdFailureTime"))
}

// The directory locks users at five failed binds. Whatever clients send, it does not come to
// that, and the right password works at a client that is new.
func TestLockout(t *testing.T) {
	s := slapdtest.Start(t)
	s.LockAfter(5)
	device := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 2, 0, byte(i)}) }
	for name, tt := range map[string]struct {
		known    int // devices that have signed in with the password before
		password func(device, try int) string
		devices  int
	}{
		"an old password on two devices":       {0, func(int, int) string { return "old" }, 2},
		"an old password on two known devices": {2, func(int, int) string { return "old" }, 2},
		"each device has another old password": {0, func(d, _ int) string { return fmt.Sprint("old ", d) }, 2},
		"each known device has another one":    {2, func(d, _ int) string { return fmt.Sprint("old ", d) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			now := newClock()
			a := openAt(t, Config{LDAP: ldapConfig(s)}, now)
			s.Password("bob", "old")
			for d := range tt.known {
				if _, err := a.SignIn(t.Context(), device(d), "bob", "old"); err != nil {
					t.Fatal(err)
				}
			}
			s.Password("bob", "right")
			now.pass(ldapConfig(s).Cache)
			for try := range 60 {
				for d := range tt.devices {
					if _, err := a.SignIn(t.Context(), device(d), "bob", tt.password(d, try)); !errors.Is(err, ErrWrong) {
						t.Fatalf("device %d: %v", d, err)
					}
				}
				now.pass(10 * time.Second)
			}
			if n := failures(t, s, "bob"); n == 0 || n > 2 {
				t.Errorf("%d binds have failed", n)
			}
			if _, err := a.SignIn(t.Context(), elsewhere, "bob", "right"); err != nil {
				t.Errorf("the right password: %v", err)
			}
			if n := failures(t, s, "bob"); n != 0 {
				t.Errorf("then %d", n)
			}
		})
	}
}

// Guesses from many clients stop at max_failures binds, over a restart too. A client that is
// known has a bind in reserve.
func TestMaxFailures(t *testing.T) {
	s := slapdtest.Start(t)
	s.LockAfter(5)
	dir := t.TempDir()
	guard := OpenGuard(dir, nil)
	a := mustOpen(t, Config{LDAP: ldapConfig(s)}, &Auth{Guard: guard})
	if !signsIn(t, a, "bob", "bob secret") {
		t.Fatal("bob cannot sign in")
	}
	for _, when := range []string{"at once", "after a restart"} {
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				from := netip.AddrFrom4([4]byte{172, 16, 0, byte(i)})
				if _, err := a.SignIn(t.Context(), from, "bob", fmt.Sprint(when, i)); err == nil {
					t.Error("a wrong password")
				}
			})
		}
		wg.Wait()
		if n := failures(t, s, "bob"); n != 3 {
			t.Errorf("%s: %d binds have failed", when, n)
		}
		if err := guard.Close(); err != nil {
			t.Fatal(err)
		}
		guard = OpenGuard(dir, nil)
		a = mustOpen(t, Config{LDAP: ldapConfig(s)}, &Auth{Guard: guard})
	}
	if _, err := a.SignIn(t.Context(), elsewhere, "bob", "bob secret"); !isA[*ThrottledError](err) {
		t.Errorf("bob, where he is not known: %v", err)
	}
	if !signsIn(t, a, "bob", "bob secret") {
		t.Error("bob, where he is known, cannot sign in")
	}
	if _, err := a.SignIn(t.Context(), elsewhere, "bob", "bob secret"); !isA[*ThrottledError](err) {
		t.Errorf("the client that was refused: %v", err)
	}
	if _, err := a.SignIn(t.Context(), netip.MustParseAddr("10.8.8.8"), "bob", "bob secret"); err != nil {
		t.Errorf("bob, after the directory has forgotten the failures: %v", err)
	}
}

// Guesses at the client where a user of the directory has signed in do not lock the user, who
// goes on elsewhere, also after a restart; the right password is not told from the others.
func TestGuessingInADirectory(t *testing.T) {
	s := slapdtest.Start(t)
	s.LockAfter(5)
	dir := t.TempDir()
	guard := OpenGuard(dir, nil)
	a := mustOpen(t, Config{LDAP: ldapConfig(s)}, &Auth{Guard: guard})
	for _, from := range []netip.Addr{here, elsewhere} {
		if _, err := a.SignIn(t.Context(), from, "bob", "bob secret"); err != nil {
			t.Fatal(err)
		}
	}
	compared := 0
	for i := range 20_000 {
		if _, err := a.SignIn(t.Context(), here, "bob", fmt.Sprint(i)); errors.Is(err, ErrWrong) {
			compared++
		}
	}
	if n := failures(t, s, "bob"); n != compared || n > 4 {
		t.Errorf("%d binds for %d guesses", n, compared)
	}
	for _, when := range []string{"at once", "after a restart"} {
		if _, err := a.SignIn(t.Context(), here, "bob", "bob secret"); !isA[*ThrottledError](err) {
			t.Errorf("the right password among guesses, %s: %v", when, err)
		}
		if _, err := a.SignIn(t.Context(), elsewhere, "bob", "bob secret"); err != nil {
			t.Errorf("bob elsewhere, %s: %v", when, err)
		}
		if err := guard.Close(); err != nil {
			t.Fatal(err)
		}
		guard = OpenGuard(dir, nil)
		a = mustOpen(t, Config{LDAP: ldapConfig(s)}, &Auth{Guard: guard})
	}
}

// A stale password binds at most twice an hour, for as long as it is tried.
func TestStalePassword(t *testing.T) {
	s := slapdtest.Start(t)
	s.LockAfter(1000)
	now := newClock()
	a := openAt(t, Config{LDAP: ldapConfig(s)}, now)
	var binds []int // in each minute
	for range 300 {
		before := failures(t, s, "bob")
		if _, err := a.SignIn(t.Context(), here, "bob", "old"); !errors.Is(err, ErrWrong) {
			t.Fatal(err)
		}
		binds = append(binds, failures(t, s, "bob")-before)
		now.pass(time.Minute)
	}
	for i := range len(binds) - 60 {
		n := 0
		for _, b := range binds[i : i+60] {
			n += b
		}
		if n < 1 || n > 2 {
			t.Fatalf("%d binds in the hour after %d minutes", n, i)
		}
	}
}

// A known client is one of the password that the user has; with another it is not.
func TestKnownOfDirectory(t *testing.T) {
	s := slapdtest.Start(t)
	dir := t.TempDir()
	open := func() (*Auth, func() bool) {
		a := mustOpen(t, Config{LDAP: ldapConfig(s)}, &Auth{Guard: OpenGuard(dir, nil)})
		return a, func() bool {
			c := a.check(here, "BOB", "")
			return c.isKnown(c.attempt)
		}
	}
	a, known := open()
	if known() || !signsIn(t, a, "bob", "bob secret") || !known() {
		t.Error("a sign-in does not make the client known")
	}
	if err := a.Guard.Close(); err != nil {
		t.Fatal(err)
	}
	a, known = open()
	if _, err := a.SignIn(t.Context(), elsewhere, "bob", "bob secret"); err != nil || !known() {
		t.Errorf("after a restart: %v", err)
	}
	s.Password("bob", "new secret")
	if err := a.Guard.Close(); err != nil {
		t.Fatal(err)
	}
	a, known = open()
	if _, err := a.SignIn(t.Context(), elsewhere, "bob", "new secret"); err != nil || known() {
		t.Errorf("with another password: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, guardName))
	if err != nil || strings.Contains(string(text), "bob") {
		t.Errorf("the file: %s, %v", text, err)
	}
}

// While no server answers, guesses at what is remembered are throttled.
func TestGuessingInAnOutage(t *testing.T) {
	s := slapdtest.Start(t)
	now := newClock()
	a := openAt(t, Config{LDAP: ldapConfig(s)}, now)
	if !signsIn(t, a, "alice", "alice secret") {
		t.Fatal("alice cannot sign in")
	}
	s.Stop()
	now.pass(ldapConfig(s).Cache)
	unavailable := 0
	for i := range 100 {
		if _, err := a.SignIn(t.Context(), elsewhere, "Alice", fmt.Sprint(i)); isA[*UnavailableError](err) {
			unavailable++
		} else if !isA[*ThrottledError](err) {
			t.Fatal(err)
		}
	}
	if unavailable != 6 {
		t.Errorf("%d guesses were compared", unavailable)
	}
	if !signsIn(t, a, "alice", "alice secret") {
		t.Error("alice cannot go on where she is")
	}
}

// Groups and keys of names are the same however a directory's user is written.
func TestDirectoryFoldsNames(t *testing.T) {
	s := slapdtest.Start(t)
	a := mustOpen(t, Config{
		HTPasswd: write(t, "Ivy:"+bcryptOf(t, "$2y$", "i")), LDAP: ldapConfig(s), Groups: write(t, "first: Alice ivy\nsecond: ALICE Ivy"),
	}, nil)
	u, err := a.SignIn(t.Context(), here, "alice", "alice secret")
	if slices.Sort(u.Groups); err != nil || strings.Join(u.Groups, ",") != "board,first,second,staff" {
		t.Errorf("alice is in %v, %v", u.Groups, err)
	}
	if got := strings.Join(a.FileGroups("Ivy"), ","); got != "second" {
		t.Errorf("Ivy is in %s", got)
	}
	for name, want := range map[string]string{"Alice": "alice", " ALICE  x": "alice x", "Ivy": "", "ivy": "ivy"} {
		if key, ok := a.FoldUser(name); key != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", name, key, ok)
		}
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
