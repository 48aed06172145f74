package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var here = netip.MustParseAddr("10.1.2.3")

// bcryptOf is a cheap bcrypt hash with the prefix that a tool would write.
func bcryptOf(t testing.TB, prefix, password string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return prefix + strings.TrimPrefix(string(b), "$2a$")
}

func write(t testing.TB, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func mustOpen(t testing.TB, cfg Config, before *Auth) *Auth {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	a, err := Open(cfg, before, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// ofFile opens a file of users with that content.
func ofFile(t testing.TB, content string) *Auth {
	t.Helper()
	return mustOpen(t, Config{HTPasswd: write(t, content)}, nil)
}

// signsIn reports whether name signs in, and fails where it is neither that nor
// a wrong password.
func signsIn(t testing.TB, a *Auth, name, password string) bool {
	t.Helper()
	u, err := a.SignIn(t.Context(), here, name, password)
	if err != nil && !errors.Is(err, ErrWrong) || err == nil && u.Name != name || err != nil && u.Name != "" {
		t.Errorf("SignIn of %q: %+v, %v", name, u, err)
	}
	return err == nil
}

func TestSignIn(t *testing.T) {
	long := strings.Repeat("0123456789", 8) // bcrypt looks at 72 bytes
	argon, err := Line("ivy", "pass i", false)
	if err != nil {
		t.Fatal(err)
	}
	ann := bcryptOf(t, "$2a$", "pass a")
	content := "\uFEFF# made by hand\r\n\r\n" +
		"ann:" + ann + "\r\n" +
		"bob:" + bcryptOf(t, "$2b$", "pass b") + "\n" +
		"  eve:" + bcryptOf(t, "$2y$", "pass y") + "  \n" +
		"  # indented\n" +
		argon + "\n" +
		"Åsa:" + bcryptOf(t, "$2y$", "smörgås") + "\n" +
		"empty:" + bcryptOf(t, "$2y$", "") + "\n" +
		"long:" + bcryptOf(t, "$2y$", long[:72]) + "\n" +
		"p:" + bcryptOf(t, "$2y$", "p")
	for _, tt := range []struct {
		what, name, password string
		want                 bool
	}{
		{"2a", "ann", "pass a", true},
		{"2b", "bob", "pass b", true},
		{"2y", "eve", "pass y", true},
		{"argon2id", "ivy", "pass i", true},
		{"argon2id, wrong", "ivy", "pass I", false},
		{"UTF-8", "Åsa", "smörgås", true},
		{"empty password", "empty", "", true},
		{"wrong password", "ann", "pass b", false},
		{"no password", "ann", "", false},
		{"password in another case", "ann", "Pass A", false},
		{"a prefix", "ann", "pass ", false},
		{"something behind", "ann", "pass a ", false},
		{"the hash itself", "ann", ann, false},
		{"a password for the empty one", "empty", "x", false},
		{"name in another case", "Ann", "pass a", false},
		{"unknown user", "mallory", "pass a", false},
		{"no user", "", "", false},
		{"comment", "# made by hand", "", false},
		{"72 bytes", "long", long[:72], true},
		{"more than 72 bytes, as htpasswd cuts them", "long", long, true},
		{"71 bytes", "long", long[:71], false},
		{"more than 72 bytes, another beginning", "long", "x" + long, false},
		{"a name without end", strings.Repeat("a", 1<<20), "x", false},
		{"a password without end", "ann", "pass a" + strings.Repeat("\x00", 1<<20), false},
	} {
		a := ofFile(t, content)
		for _, round := range []string{"first", "second"} { // the second is remembered
			if got := signsIn(t, a, tt.name, tt.password); got != tt.want {
				t.Errorf("%s, %s time: SignIn(%.40q, %.40q) = %v", tt.what, round, tt.name, tt.password, got)
			}
		}
	}
}

// What is remembered of one user says nothing of another, however the bytes of
// name and password are divided.
func TestRemembersPairs(t *testing.T) {
	a := ofFile(t, "p:"+bcryptOf(t, "$2y$", "p")+"\np\x00p:"+bcryptOf(t, "$2y$", "q")+"\npp:"+bcryptOf(t, "$2y$", "r"))
	// bcrypt repeats a password, with a NUL behind it, so this one is p's too.
	if !signsIn(t, a, "p", "p\x00p") || !signsIn(t, a, "p", "p") {
		t.Fatal("p cannot sign in")
	}
	for _, pair := range [][2]string{{"p\x00p", "p"}, {"pp", ""}, {"pp", "p"}, {"p\x00", "p"}, {"", "p\x00p"}, {"p", "\x00p"}} {
		if signsIn(t, a, pair[0], pair[1]) {
			t.Errorf("%q signs in with %q", pair[0], pair[1])
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory()
	for i := range maxRemembered + 100 {
		m.confirm(m.digest("good", fmt.Sprint(i)), User{Name: "ann"})
		m.refuse(m.digest("bad", fmt.Sprint(i)))
	}
	last := fmt.Sprint(maxRemembered + 99)
	if _, _, ok := m.confirmed(m.digest("good", last)); !ok || m.good.Len() > maxRemembered || m.good.Len() < maxRemembered*4/5 {
		t.Errorf("%d confirmed, the last among them: %v", m.good.Len(), ok)
	}
	if _, ok := m.refused(m.digest("bad", last)); !ok || m.bad.Len() > maxRemembered || m.bad.Len() < maxRemembered*4/5 {
		t.Errorf("%d refused, the last among them: %v", m.bad.Len(), ok)
	}
}

// The same credentials on many connections cost one hash.
func TestSignInConcurrently(t *testing.T) {
	a := ofFile(t, "ann:"+bcryptOf(t, "$2y$", "a")+"\nbob:"+bcryptOf(t, "$2y$", "b"))
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			switch i % 4 {
			case 0:
				if !signsIn(t, a, "ann", "a") {
					t.Error("ann cannot sign in")
				}
			case 1:
				if !signsIn(t, a, "bob", "b") {
					t.Error("bob cannot sign in")
				}
			case 2:
				if signsIn(t, a, "ann", "b") {
					t.Error("ann signs in with a wrong password")
				}
			case 3:
				if signsIn(t, a, "eve", "a") {
					t.Error("eve signs in")
				}
			}
		})
	}
	wg.Wait()
	if a.memory.good.Len() != 2 || a.memory.bad.Len() != 2 {
		t.Errorf("%d and %d pairs are remembered, want 2 and 2", a.memory.good.Len(), a.memory.bad.Len())
	}
	if n := a.damper.names.Get("ann"); n != nil && n.n > 1.5 {
		t.Errorf("one wrong password counts %v times", n.n)
	}
}

// A client that goes away while its password is checked is not waited for, and
// what was found serves the others.
func TestSignInGivesUp(t *testing.T) {
	a := ofFile(t, "ann:"+bcryptOf(t, "$2y$", "a"))
	for range cap(a.hashing) {
		a.hashing <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.SignIn(ctx, here, "ann", "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	for range cap(a.hashing) {
		<-a.hashing
	}
	if !signsIn(t, a, "ann", "a") {
		t.Error("ann cannot sign in")
	}
}

func TestBusy(t *testing.T) {
	a := ofFile(t, "ann:"+bcryptOf(t, "$2y$", "a"))
	synctest.Test(t, func(t *testing.T) {
		a := &Auth{users: a.users, shared: newShared()}
		for range cap(a.hashing) {
			a.hashing <- struct{}{}
		}
		_, err := a.SignIn(t.Context(), here, "ann", "a")
		if !isA[*UnavailableError](err) || a.count("unavailable") != 1 {
			t.Errorf("error %v", err)
		}
	})
}

// count is the value of the counter of an outcome.
func (s *shared) count(outcome string) float64 {
	var m dto.Metric
	if s.outcomes.WithLabelValues(outcome).(prometheus.Metric).Write(&m) != nil {
		return -1
	}
	return m.GetCounter().GetValue()
}

func TestOutcomesAreCounted(t *testing.T) {
	a := ofFile(t, "ann:"+bcryptOf(t, "$2y$", "a"))
	for range 3 {
		signsIn(t, a, "ann", "a")
	}
	for i := range 6 {
		_, _ = a.SignIn(t.Context(), here, "eve", fmt.Sprint(i))
	}
	_, err := a.SignIn(t.Context(), here, "eve", "another")
	if !isA[*DampedError](err) {
		t.Errorf("error %v", err)
	}
	for outcome, want := range map[string]float64{"ok": 1, "remembered": 2, "wrong": 6, "damped": 1, "unavailable": 0} {
		if got := a.count(outcome); got != want {
			t.Errorf("%s: %v, want %v", outcome, got, want)
		}
	}
}

// A new file decides at once: nothing of the one before is taken for true that
// it contradicts, and what it leaves as it was costs nothing again.
func TestNewFile(t *testing.T) {
	ann, bob, eve := bcryptOf(t, "$2y$", "a"), bcryptOf(t, "$2y$", "b"), bcryptOf(t, "$2y$", "e")
	a := ofFile(t, "ann:"+ann+"\nbob:"+bob+"\neve:"+eve)
	if !signsIn(t, a, "ann", "a") || !signsIn(t, a, "bob", "b") || !signsIn(t, a, "eve", "e") || signsIn(t, a, "bob", "new") || signsIn(t, a, "zoe", "z") {
		t.Fatal("the first file")
	}
	a = mustOpen(t, Config{HTPasswd: write(t, "ann:"+ann+"\nbob:"+bcryptOf(t, "$2y$", "new")+"\nzoe:"+bcryptOf(t, "$2y$", "z"))}, a)
	if signsIn(t, a, "eve", "e") {
		t.Error("eve is gone, and signs in")
	}
	if signsIn(t, a, "bob", "b") || !signsIn(t, a, "bob", "new") {
		t.Error("bob has another password")
	}
	if !signsIn(t, a, "zoe", "z") {
		t.Error("zoe is new")
	}
	before := a.count("ok")
	if !signsIn(t, a, "ann", "a") || a.count("ok") != before {
		t.Error("ann's password was hashed again")
	}
}

// Confirmed passwords are checked again after hours, wrong ones after seconds.
func TestRememberingEnds(t *testing.T) {
	a := ofFile(t, "ann:"+bcryptOf(t, "$2y$", "a"))
	now := time.Now()
	a.memory.now = func() time.Time { return now }
	a.damper.now = a.memory.now
	for _, tt := range []struct {
		after       time.Duration
		ok, checked float64
	}{{0, 1, 0}, {trustFile - 1, 1, 1}, {1, 2, 1}, {rememberGood, 3, 1}} {
		now = now.Add(tt.after)
		if !signsIn(t, a, "ann", "a") || a.count("ok") != tt.ok {
			t.Errorf("after %s more: %v checks, want %v", tt.after, a.count("ok"), tt.ok)
		}
	}
	c := a.check(here, "ann", "x")
	if signsIn(t, a, "ann", "x") {
		t.Fatal("a wrong password")
	}
	if _, err, ok := c.remembered(); !ok || !errors.Is(err, ErrWrong) {
		t.Error("a wrong password is checked again at once")
	}
	now = now.Add(trustBad)
	if _, _, ok := c.remembered(); ok || c.isGuess() {
		t.Error("a wrong password is taken for wrong without a check, or again for a guess")
	}
	now = now.Add(rememberBad)
	if !c.isGuess() {
		t.Error("a wrong password of old is no guess")
	}
}

// A device with an old password is one failure, however often it tries, and
// neither it nor a neighbour who guesses stops whoever has signed in.
func TestDamping(t *testing.T) {
	a := ofFile(t, "ann:"+bcryptOf(t, "$2y$", "a")+"\nbob:"+bcryptOf(t, "$2y$", "b"))
	now := time.Now()
	a.memory.now = func() time.Time { return now }
	a.damper.now = a.memory.now
	try := func(from netip.Addr, name, password string) error {
		_, err := a.SignIn(t.Context(), from, name, password)
		return err
	}
	for range 100 {
		now = now.Add(time.Second)
		if err := try(here, "ann", "old"); !errors.Is(err, ErrWrong) {
			t.Fatalf("the old password: %v", err)
		}
	}
	if err := try(here, "ann", "a"); err != nil {
		t.Fatalf("the new password: %v", err)
	}
	// A neighbour behind the same address guesses bob's.
	guesses := 0
	for i := range 100 {
		if err := try(here, "bob", fmt.Sprint(i)); errors.Is(err, ErrWrong) {
			guesses++
		} else if !isA[*DampedError](err) {
			t.Fatal(err)
		}
	}
	if guesses != 6 {
		t.Errorf("%d guesses by one name at a moment", guesses)
	}
	if err := try(netip.MustParseAddr("10.9.9.9"), "BOB ", "b"); !isA[*DampedError](err) {
		t.Errorf("the name in another way, from another address: %v", err)
	}
	for i := range 100 {
		if err := try(here, fmt.Sprint("user", i), "123456"); errors.Is(err, ErrWrong) {
			guesses++
		}
	}
	if guesses != 21 {
		t.Errorf("%d guesses from one address at a moment", guesses)
	}
	now = now.Add(time.Second) // the wait after those is 2 s
	if err := try(here, "bob", "b"); !isA[*DampedError](err) {
		t.Errorf("bob, while the address is damped: %v", err)
	}
	if err := try(here, "ann", "a"); err != nil {
		t.Errorf("ann, who has signed in: %v", err)
	}
	now = now.Add(ofAddress.longest)
	if err := try(here, "bob", "b"); err != nil {
		t.Errorf("bob, at the latest after %s: %v", ofAddress.longest, err)
	}
	if a.damper.names.Get("bob") != nil {
		t.Error("a success does not clear the name")
	}
}

func TestDamper(t *testing.T) {
	d := newDamper()
	now := time.Now()
	d.now = func() time.Time { return now }
	var waits []time.Duration
	for range 16 {
		d.failed(here, "ann", "ann")
		d.addresses.Delete(foldAddress(here))
		if damped := (*DampedError)(nil); errors.As(d.allow(here, "ann"), &damped) && damped.ByName {
			waits = append(waits, damped.Wait)
			now = now.Add(damped.Wait)
		}
		if err := d.allow(here, "ann"); err != nil {
			t.Fatalf("after the wait: %v", err)
		}
	}
	if !slices.IsSorted(waits) || len(waits) != 11 || waits[0] != 2*time.Second || waits[10] < ofName.longest*4/5 {
		t.Errorf("waits %v", waits)
	}
	// Quiet forgives.
	now = now.Add(20 * ofName.leak)
	d.failed(here, "ann")
	if err := d.allow(here, "ann"); err != nil {
		t.Errorf("one failure after hours: %v", err)
	}
}

// Two addresses of a device count as one, two of neighbours do not.
func TestDamperAddresses(t *testing.T) {
	d := newDamper()
	for i := range 40 {
		d.failed(netip.MustParseAddr(fmt.Sprintf("2001:db8:0:1::%x", i+1)), fmt.Sprint(i))
		d.failed(netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", i)), fmt.Sprint(i))
	}
	for addr, want := range map[string]bool{"2001:db8:0:1:ffff::1": false, "2001:db8:0:2::1": true, "10.0.0.1": true, "::ffff:10.0.0.1": true} {
		if err := d.allow(netip.MustParseAddr(addr), "x"); (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestDamperIsBounded(t *testing.T) {
	d := newDamper()
	now := time.Now()
	d.now = func() time.Time { return now }
	for i := range maxDamped * 2 {
		d.failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), fmt.Sprint(i))
	}
	if d.names.Len() > maxDamped || d.addresses.Len() > maxDamped {
		t.Errorf("%d names, %d addresses", d.names.Len(), d.addresses.Len())
	}
}

func TestGroupFile(t *testing.T) {
	users := write(t, "ann:"+bcryptOf(t, "$2y$", "a")+"\nbob:"+bcryptOf(t, "$2y$", "b"))
	a := mustOpen(t, Config{HTPasswd: users, Groups: write(t, "# groups\nstaff: ann ann carl\n\nboard:ann\nempty:\n")}, nil)
	groupsOf := func(name, password string) string {
		t.Helper()
		u, err := a.SignIn(t.Context(), here, name, password)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(u.Groups, ",")
	}
	if got := groupsOf("ann", "a"); got != "staff,board" {
		t.Errorf("ann is in %s", got)
	}
	if got := groupsOf("bob", "b"); got != "" {
		t.Errorf("bob is in %s", got)
	}
	// The next file counts at once.
	a = mustOpen(t, Config{HTPasswd: users, Groups: write(t, "pupils: bob")}, a)
	if ann, bob := groupsOf("ann", "a"), groupsOf("bob", "b"); ann != "" || bob != "pupils" {
		t.Errorf("then ann is in %q, bob in %q", ann, bob)
	}
}

func TestNobody(t *testing.T) {
	a := mustOpen(t, Config{}, nil)
	if a.Enabled() || signsIn(t, a, "ann", "a") {
		t.Error("somebody signs in where nobody can")
	}
	for _, content := range []string{"", "# nobody\n"} {
		a := ofFile(t, content)
		if !a.Enabled() || signsIn(t, a, "ann", "a") {
			t.Errorf("somebody signs in with %q", content)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	good := bcryptOf(t, "$2y$", "x")
	const none = "no bcrypt or argon2id hash (`espalier passwd` makes one)"
	for _, tt := range []struct{ name, users, groups, want string }{
		{"no colon", "ann\n", "", `auth.htpasswd: FILE:1: is no "name:hash" line`},
		{"no name", ":" + good, "", `auth.htpasswd: FILE:1: is no "name:hash" line`},
		{"no hash", "ann:", "", `auth.htpasswd: FILE:1: user "ann" has ` + none},
		{"plain text", "ann:secret", "", `auth.htpasswd: FILE:1: user "ann" has ` + none},
		{"too much work", "ann:$argon2id$v=19$m=999999,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b2dWRWJTmaaJObG", "",
			`auth.htpasswd: FILE:1: user "ann" has an argon2id hash that takes 999999 KiB of memory (allowed: m=65536 at most)`},
		{"twice", "ann:" + good + "\nbob:" + good + "\nann:" + good, "", `auth.htpasswd: FILE:3: user "ann" stands twice`},
		{"control characters in the name", "a\x1b[31m:x", "", `auth.htpasswd: FILE:1: user "a\x1b[31m" has ` + none},
		{"all of them", "# users\nann\n\nbob:x\neve:" + good, "", "auth.htpasswd: FILE:2: is no \"name:hash\" line\nauth.htpasswd: FILE:4: user \"bob\" has " + none},
		{"endless line", "ann:" + good + "\n" + strings.Repeat("x", 1<<17), "", "auth.htpasswd: read FILE: bufio.Scanner: token too long"},
		{"endless file", strings.Repeat(strings.Repeat("#", 999)+"\n", maxFile/1000+2), "", "auth.htpasswd: FILE is larger than 16 MiB"},
		{"group without colon", "", "staff ann", `auth.groups: FILE:1: is no "group: user user" line`},
		{"group without name", "", ": ann", `auth.groups: FILE:1: is no "group: user user" line`},
		{"group twice", "", "staff: ann\nstaff: bob", `auth.groups: FILE:2: group "staff" stands twice`},
		{"control characters in a group", "", "st\x1baff: ann", `auth.groups: FILE:1: group "st\x1baff" has characters that cannot be printed`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{HTPasswd: write(t, tt.users)}
			if tt.groups != "" {
				cfg.Groups = write(t, tt.groups)
			}
			a, err := Open(cfg, nil, zap.NewNop())
			got := ""
			if err != nil {
				got = strings.ReplaceAll(err.Error(), cfg.HTPasswd, "FILE")
				if cfg.Groups != "" {
					got = strings.ReplaceAll(got, cfg.Groups, "FILE")
				}
			}
			if a != nil || got != tt.want {
				t.Errorf("Open = %v and\n%s\nwant\n%s", a, got, tt.want)
			}
			if strings.Contains(got, "secret") {
				t.Error("the error repeats a password")
			}
		})
	}
	missing := filepath.Join(t.TempDir(), "none")
	if _, err := Open(Config{HTPasswd: missing}, nil, zap.NewNop()); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "auth.htpasswd: open "+missing) {
		t.Errorf("Open of a missing file: %v", err)
	}
}

func TestChallenge(t *testing.T) {
	for realm, want := range map[string]string{
		"":              `Basic realm="Espalier", charset="UTF-8"`,
		"North School":  `Basic realm="North School", charset="UTF-8"`,
		`say "hi", a\b`: `Basic realm="say \"hi\", a\\b", charset="UTF-8"`,
	} {
		if got := mustOpen(t, Config{Realm: realm}, nil).Challenge(); got != want {
			t.Errorf("%q: %s", realm, got)
		}
	}
}

func FuzzGroups(f *testing.F) {
	f.Add("staff: ann bob\n# c\nboard:\n")
	f.Fuzz(func(t *testing.T, content string) {
		g, err := openGroups(write(t, content))
		if err != nil && g != nil {
			t.Fatal("groups beside an error")
		}
		for user, list := range g {
			if user == "" || len(list) == 0 || slices.Contains(list, "") {
				t.Fatalf("%q is in %q", user, list)
			}
		}
	})
}
