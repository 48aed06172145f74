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
	var guard *Guard
	if before != nil {
		guard = before.Guard
	}
	a, err := Open(cfg, guard, zap.NewNop())
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
	m := newMemory(time.Now)
	for i := range maxRemembered + 100 {
		m.confirm(m.digest("good", fmt.Sprint(i)), User{Name: "ann"})
		m.refuse(m.digest("bad", fmt.Sprint(i)))
	}
	last := fmt.Sprint(maxRemembered + 99)
	if _, _, ok := m.confirmed(m.digest("good", last)); !ok || m.good.Len() > maxRemembered || m.good.Len() < maxRemembered*4/5 {
		t.Errorf("%d confirmed, the last among them: %v", m.good.Len(), ok)
	}
	if ok, _ := m.refused(m.digest("bad", last)); !ok || m.bad.Len() > maxRemembered || m.bad.Len() < maxRemembered*4/5 {
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
	if s := a.throttle.names.few.Get(a.Guard.attempt(Proxy, here, "ann").name); s == nil || s.N > 1.5 {
		t.Errorf("one wrong password counts %+v", s)
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
		a := &Auth{source: Proxy, users: a.users, Guard: NewGuard(time.Now)}
		for range cap(a.hashing) {
			a.hashing <- struct{}{}
		}
		_, err := a.SignIn(t.Context(), here, "ann", "a")
		if !isA[*UnavailableError](err) || a.counted("error") != 1 {
			t.Errorf("error %v", err)
		}
	})
}

// counted is how many sign-ins by the source have had a result.
func (a *Auth) counted(result string) float64 {
	var m dto.Metric
	if a.outcomes.WithLabelValues(string(a.source), result).(prometheus.Metric).Write(&m) != nil {
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
	if !isA[*ThrottledError](err) {
		t.Errorf("error %v", err)
	}
	for outcome, want := range map[string]float64{"ok": 3, "wrong": 6, "throttled": 1, "error": 0} {
		if got := a.counted(outcome); got != want {
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
	for range cap(a.hashing) {
		a.hashing <- struct{}{}
	}
	if !signsIn(t, a, "ann", "a") {
		t.Error("ann's password was hashed again")
	}
}

// A clock is set by tests.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// openAt is mustOpen with a new guard that has the clock.
func openAt(t testing.TB, cfg Config, c *clock) *Auth {
	t.Helper()
	return mustOpen(t, cfg, &Auth{Guard: NewGuard(c.now)})
}

// Confirmed passwords are checked again after hours; wrong ones are a guess again after an
// hour.
func TestRememberingEnds(t *testing.T) {
	now := newClock()
	a := openAt(t, Config{HTPasswd: write(t, "ann:"+bcryptOf(t, "$2y$", "a"))}, now)
	for _, tt := range []struct {
		after      time.Duration
		remembered bool
	}{{0, false}, {trustFile - 1, true}, {1, false}, {rememberGood, false}} {
		now.pass(tt.after)
		if _, _, ok := a.check(here, "ann", "a").remembered(); ok != tt.remembered || !signsIn(t, a, "ann", "a") {
			t.Errorf("after %s more: remembered: %v", tt.after, ok)
		}
	}
	c := a.check(here, "ann", "x")
	if signsIn(t, a, "ann", "x") {
		t.Fatal("a wrong password")
	}
	now.pass(rememberBad - 1)
	if _, err, ok := c.remembered(); !ok || !errors.Is(err, ErrWrong) || c.isGuess() {
		t.Error("a wrong password is checked again for the same hash")
	}
	now.pass(1)
	if !c.isGuess() {
		t.Error("a wrong password of old is no guess")
	}
}

var elsewhere = netip.MustParseAddr("10.9.9.9")

// Guesses of a user's password are throttled also at the client where the user has signed in,
// and the right one is not told from the others. The user goes on elsewhere, and so do
// neighbours behind the address.
func TestGuessing(t *testing.T) {
	now := newClock()
	a := openAt(t, Config{HTPasswd: write(t, "ann:"+bcryptOf(t, "$2y$", "a")+"\nbob:"+bcryptOf(t, "$2y$", "b"))}, now)
	try := func(from netip.Addr, name, password string) error {
		_, err := a.SignIn(t.Context(), from, name, password)
		return err
	}
	for _, u := range []struct{ name, password string }{{"ann", "a"}, {"bob", "b"}} {
		if err := try(here, u.name, u.password); err != nil {
			t.Fatal(err)
		}
	}
	compared := 0
	for i := range 20_000 {
		now.pass(time.Second / 100)
		if err := try(here, "ann", fmt.Sprint("guess ", i)); errors.Is(err, ErrWrong) {
			compared++
		} else if !isA[*ThrottledError](err) {
			t.Fatal(err)
		}
		if i%1000 != 999 {
			continue
		}
		if err := try(here, "ann", "a"); !isA[*ThrottledError](err) {
			t.Fatalf("the right password among guesses: %v", err)
		}
		if err := try(elsewhere, "ann", "a"); err != nil {
			t.Fatalf("ann elsewhere: %v", err)
		}
		if err := try(here, "bob", "b"); err != nil {
			t.Fatalf("bob, at the address of guesses: %v", err)
		}
	}
	if compared < 6 || compared > 20 {
		t.Errorf("%d guesses were compared", compared)
	}
	now.pass(ofPair.longest)
	if err := try(here, "ann", "a"); err != nil {
		t.Errorf("ann, after the wait: %v", err)
	}
}

// Guesses at the same time count before the next is compared.
func TestGuessingAtOnce(t *testing.T) {
	a := ofFile(t, "ann:"+bcryptOf(t, "$2y$", "a"))
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() { _, _ = a.SignIn(t.Context(), here, "ann", fmt.Sprint(i)) })
	}
	wg.Wait()
	if wrong := a.counted("wrong"); wrong != 6 {
		t.Errorf("%v guesses were compared", wrong)
	}
}

// A device with an old password is one failure, however often it tries.
func TestOldPassword(t *testing.T) {
	now := newClock()
	a := openAt(t, Config{HTPasswd: write(t, "ann:"+bcryptOf(t, "$2y$", "a"))}, now)
	for range 100 {
		now.pass(time.Second)
		if _, err := a.SignIn(t.Context(), here, "ann", "old"); !errors.Is(err, ErrWrong) {
			t.Fatalf("the old password: %v", err)
		}
	}
	if !signsIn(t, a, "ann", "a") {
		t.Error("the new password")
	}
}

// An address that tries one password for many names is throttled; who is known there goes on,
// also with a new guard that has read what the one before kept.
func TestSpraying(t *testing.T) {
	dir := t.TempDir()
	users := write(t, "ann:"+bcryptOf(t, "$2y$", "a")+"\nbob:"+bcryptOf(t, "$2y$", "b"))
	guard := OpenGuard(dir, zap.NewNop())
	a := mustOpen(t, Config{HTPasswd: users}, &Auth{Guard: guard})
	if !signsIn(t, a, "ann", "a") {
		t.Fatal("ann cannot sign in")
	}
	compared := 0
	for i := range 100 {
		if _, err := a.SignIn(t.Context(), here, fmt.Sprint("user", i), "123456"); errors.Is(err, ErrWrong) {
			compared++
		}
	}
	if compared != 21 {
		t.Errorf("%d guesses from one address at a moment", compared)
	}
	for _, when := range []string{"at once", "after a restart"} {
		if _, err := a.SignIn(t.Context(), here, "bob", "b"); !isA[*ThrottledError](err) {
			t.Errorf("bob, whom the address does not know, %s: %v", when, err)
		}
		if !signsIn(t, a, "ann", "a") {
			t.Errorf("ann, who is known at the address, %s", when)
		}
		if err := guard.Close(); err != nil {
			t.Fatal(err)
		}
		guard = OpenGuard(dir, zap.NewNop())
		a = mustOpen(t, Config{HTPasswd: users}, &Auth{Guard: guard})
	}
}

// Guesses from very many addresses do not keep users out where they are known, also after a
// restart; with another password they are not known.
func TestManyAddressesGuess(t *testing.T) {
	dir := t.TempDir()
	line := "ann:" + bcryptOf(t, "$2y$", "a")
	guard := OpenGuard(dir, zap.NewNop())
	a := mustOpen(t, Config{HTPasswd: write(t, line)}, &Auth{Guard: guard})
	if !signsIn(t, a, "ann", "a") {
		t.Fatal("ann cannot sign in")
	}
	stranger := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}) }
	var last error
	n := 0
	for ; n < 1000 && !isA[*ThrottledError](last); n++ {
		_, last = a.SignIn(t.Context(), stranger(n), "ann", fmt.Sprint(n))
	}
	if n < 200 || n > 210 {
		t.Errorf("%d addresses guessed before the name was throttled", n)
	}
	if _, err := a.SignIn(t.Context(), elsewhere, "ann", "a"); !isA[*ThrottledError](err) {
		t.Errorf("the right password is told from the others: %v", err)
	}
	if !signsIn(t, a, "ann", "a") {
		t.Error("ann cannot sign in where she is known")
	}
	if err := guard.Close(); err != nil {
		t.Fatal(err)
	}
	a = mustOpen(t, Config{HTPasswd: write(t, line)}, &Auth{Guard: OpenGuard(dir, zap.NewNop())})
	if _, err := a.SignIn(t.Context(), elsewhere, "ann", "a"); !isA[*ThrottledError](err) {
		t.Errorf("after a restart: %v", err)
	}
	if !signsIn(t, a, "ann", "a") {
		t.Error("ann cannot sign in where she is known, after a restart")
	}
	a = mustOpen(t, Config{HTPasswd: write(t, "ann:"+bcryptOf(t, "$2y$", "new"))}, a)
	if _, err := a.SignIn(t.Context(), here, "ann", "new"); !isA[*ThrottledError](err) {
		t.Errorf("a client that signed in with the password before is known: %v", err)
	}
}

// The file is for its owner only, and holds no name, address, hash or password. Broken ones
// are replaced.
func TestGuardFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, guardName)
	hash := bcryptOf(t, "$2y$", "a")
	for _, before := range []string{"", "{", "{}", `{"key":"AAAA"}`, "\x00"} {
		if before != "" {
			if err := os.WriteFile(file, []byte(before), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		guard := OpenGuard(dir, nil)
		a := mustOpen(t, Config{HTPasswd: write(t, "annika:"+hash)}, &Auth{Guard: guard})
		if !signsIn(t, a, "annika", "a") || signsIn(t, a, "annika", "secret guess") {
			t.Fatal("sign-in")
		}
		if err := guard.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
			t.Errorf("%q: mode %v", before, info.Mode())
		}
		for _, secret := range []string{"annika", here.String(), hash, "guess"} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%q: the file holds %s", before, secret)
			}
		}
		if g := OpenGuard(dir, nil); g.known.pairs.Len() != 1 || g.throttle.pairs.few.Len() != 1 {
			t.Errorf("%q: read again: %d known, %d failures", before, g.known.pairs.Len(), g.throttle.pairs.few.Len())
		}
	}
}

func TestGuardFileIsWrittenInTime(t *testing.T) {
	dir := t.TempDir()
	users := ofFile(t, "ann:"+bcryptOf(t, "$2y$", "a")).users
	synctest.Test(t, func(t *testing.T) {
		a := &Auth{source: Proxy, users: users, Guard: OpenGuard(dir, nil)}
		if !signsIn(t, a, "ann", "a") {
			t.Fatal("ann cannot sign in")
		}
		time.Sleep(soonSave)
		synctest.Wait()
		if g := OpenGuard(dir, nil); g.known.pairs.Len() != 1 {
			t.Error("what is known is not written")
		}
		if err := a.Guard.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestThrottleWaits(t *testing.T) {
	now := newClock()
	table, x := newStrikeTable(ofPair, now.now), digest{1}
	var waits []time.Duration
	for range 16 {
		table.strike(x, 0)
		if wait := table.wait(x); wait > 0 {
			waits = append(waits, wait)
			now.pass(wait)
		}
		if wait := table.wait(x); wait != 0 {
			t.Fatalf("after the wait: %s more", wait)
		}
	}
	if !slices.IsSorted(waits) || len(waits) != 11 || waits[0] != 2*time.Second || waits[10] < ofPair.longest*4/5 {
		t.Errorf("waits %v", waits)
	}
	// Quiet forgives.
	now.pass(20 * ofPair.leak)
	table.strike(x, 0)
	if wait := table.wait(x); wait != 0 {
		t.Errorf("one failure after hours: %v", wait)
	}
}

// Two addresses of a device count as one, two of neighbours do not.
func TestThrottledAddresses(t *testing.T) {
	g := NewGuard(time.Now)
	for i := range 40 {
		g.throttle.failed(g.attempt(Proxy, netip.MustParseAddr(fmt.Sprintf("2001:db8:0:1::%x", i+1)), fmt.Sprint(i)))
		g.throttle.failed(g.attempt(Proxy, netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", i)), fmt.Sprint(i)))
	}
	for addr, want := range map[string]bool{"2001:db8:0:1:ffff::1": false, "2001:db8:0:2::1": true, "10.0.0.1": true, "::ffff:10.0.0.1": true} {
		err := g.throttle.allow(g.attempt(Proxy, netip.MustParseAddr(addr), "x"), func() bool { return false })
		if (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// However many names fail, those that have to wait go on waiting, and memory is bounded.
func TestThrottleWhenFull(t *testing.T) {
	now := newClock()
	g := NewGuard(now.now)
	ann := g.attempt(Proxy, here, "ann")
	for range 12 {
		g.throttle.failed(ann)
	}
	for i := range maxStrikes * 2 {
		g.throttle.failed(g.attempt(Proxy, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), fmt.Sprint(i)))
	}
	if g.throttle.pairs.wait(ann.pair) == 0 {
		t.Error("other names reset the throttle of one")
	}
	for _, table := range []*strikeTable{g.throttle.pairs, g.throttle.names, g.throttle.addresses} {
		if table.few.Len() > maxStrikes || table.many.Len() > maxStrikes {
			t.Errorf("%d and %d are kept", table.few.Len(), table.many.Len())
		}
	}
}

func TestRespelled(t *testing.T) {
	a := ofFile(t, "ann:"+bcryptOf(t, "$2y$", "a")+"\nBob:"+bcryptOf(t, "$2y$", "b"))
	for name, want := range map[string]string{"ann": "", "Ann": "ann", "bob": "Bob", " bob ": "Bob", "eve": ""} {
		if as, ok := a.Respelled(name); as != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", name, as, ok)
		}
	}
	if _, ok := a.FoldUser("Ann"); ok {
		t.Error("users of a file are compared in any case")
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

// Of every request of a user who is signed in.
func BenchmarkRemembered(b *testing.B) {
	a := ofFile(b, "ann:"+bcryptOf(b, "$2y$", "a"))
	for b.Loop() {
		if _, err := a.SignIn(b.Context(), here, "ann", "a"); err != nil {
			b.Fatal(err)
		}
	}
}
