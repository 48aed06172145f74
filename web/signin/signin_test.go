package signin

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"espalier/policy/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var here = netip.MustParseAddr("127.0.0.1")

const password = "correct horse battery"

// line is a line of the users' file.
func line(t *testing.T, name, role string) string {
	t.Helper()
	text, err := auth.Line(name, password, false)
	if err != nil {
		t.Fatal(err)
	}
	if role != "" {
		text += ":" + role
	}
	return text + "\n"
}

// desk returns one with the users of these lines, and its data directory.
func desk(t *testing.T, lines ...string) (*Desk, string) {
	t.Helper()
	dir := t.TempDir()
	d := NewDesk(dir, time.Now, auth.NewGuard(time.Now))
	use(t, d, dir, lines...)
	return d, dir
}

// use gives a desk other users.
func use(t *testing.T, d *Desk, dir string, lines ...string) {
	t.Helper()
	file := filepath.Join(dir, "users")
	if len(lines) > 0 {
		if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	users, err := OpenUsers(file, d.Guard())
	if err != nil {
		t.Fatal(err)
	}
	d.SetUsers(file, users)
}

// token returns whose token a secret is; nil for nobody's.
func token(d *Desk, secret string) (*Identity, error) {
	w, err := d.Token(here, secret)
	if errors.Is(err, auth.ErrWrong) {
		return nil, nil
	}
	return w, err
}

func signIn(t *testing.T, d *Desk, name string) string {
	t.Helper()
	id, who, err := d.SignIn(t.Context(), here, name, password)
	if err != nil || who.Name != name || len(id) < 43 || who.CSRF == "" || who.CSRF == id {
		t.Fatalf("%q, %+v, %v", id, who, err)
	}
	return id
}

func TestSessions(t *testing.T) {
	d, _ := desk(t, line(t, "ann", "admin"), line(t, "bob", ""))
	if _, _, err := d.SignIn(t.Context(), here, "ann", "wrong"); !errors.Is(err, auth.ErrWrong) {
		t.Error(err)
	}
	ann, again, bob := signIn(t, d, "ann"), signIn(t, d, "ann"), signIn(t, d, "bob")
	if ann == again {
		t.Error("a session is given twice")
	}
	if w := d.Continue(ann); w == nil || w.Role != Admin || !w.Valid() || !w.Confirms(w.CSRF) || w.Confirms("") || w.Confirms(d.Continue(again).CSRF) {
		t.Errorf("%+v", w)
	}
	if w := d.Continue(bob); w == nil || w.Role != Viewer || w.Role.May(Admin) || !w.Role.May(Viewer) {
		t.Errorf("%+v", w)
	}
	w := d.Continue(ann)
	d.SignOut(ann)
	if d.Continue(ann) != nil || w.Valid() || d.Continue(again) == nil {
		t.Error("signing out ends that session alone")
	}
	for _, id := range []string{"", "x", bob + "x", strings.ToUpper(bob)} {
		if d.Continue(id) != nil {
			t.Errorf("%q continues a session", id)
		}
	}
}

func TestSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := desk(t, line(t, "ann", "admin"))
		id := signIn(t, d, "ann")
		watcher := d.Continue(id)
		time.Sleep(idle - time.Second)
		if d.Continue(id) == nil {
			t.Fatal("ended before it was idle for long")
		}
		time.Sleep(idle)
		if watcher.Valid() || d.Continue(id) != nil {
			t.Error("an idle session goes on")
		}
		id = signIn(t, d, "ann")
		for range int(lifetime/idle)*2 - 1 {
			time.Sleep(idle / 2)
			if d.Continue(id) == nil {
				t.Fatal("ended in use")
			}
		}
		time.Sleep(idle / 2)
		if d.Continue(id) != nil {
			t.Error("a session never ends")
		}
	})
}

func TestSessionsFollowTheFile(t *testing.T) {
	ann, bob, cid := line(t, "ann", "admin"), line(t, "bob", "admin"), line(t, "cid", "admin")
	d, dir := desk(t, ann, bob, cid)
	idAnn, idBob, idCid := signIn(t, d, "ann"), signIn(t, d, "bob"), signIn(t, d, "cid")
	demoted := strings.Replace(bob, ":admin", ":viewer", 1)
	use(t, d, dir, ann, demoted, line(t, "cid", "admin"))
	if d.Continue(idAnn) == nil {
		t.Error("whoever is unchanged is signed out")
	}
	if d.Continue(idBob) != nil || d.Continue(idCid) != nil {
		t.Error("another role or another password leaves a session")
	}
	use(t, d, dir, demoted)
	if d.Continue(idAnn) != nil {
		t.Error("who is gone goes on")
	}
}

func TestSessionsAreBounded(t *testing.T) {
	d, _ := desk(t, line(t, "ann", "admin"), line(t, "bob", ""))
	bob := signIn(t, d, "bob")
	first := signIn(t, d, "ann")
	for range maxOwnSessions {
		signIn(t, d, "ann")
	}
	if d.Continue(first) != nil || d.Continue(bob) == nil || len(d.sessions) != maxOwnSessions+1 {
		t.Errorf("%d sessions", len(d.sessions))
	}
}

func TestSetup(t *testing.T) {
	d, dir := desk(t)
	old, _, err := d.NewLink()
	if err != nil {
		t.Fatal(err)
	}
	link, _, err := d.NewLink()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ link, user, password, err string }{
		"no link":         {"", "ann", password, "this setup link is not valid any more"},
		"a link before":   {old, "ann", password, "this setup link is not valid any more"},
		"a short word":    {link, "ann", "short", "the password is too short: 12 characters at least"},
		"no name":         {link, "", password, `"" cannot be a user's name`},
		"a name and more": {link, "a:b\nc", password, `"a:b\nc" cannot be a user's name`},
	} {
		if _, _, err := d.SetUp(tt.link, tt.user, tt.password); err == nil || !strings.HasPrefix(err.Error(), tt.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if d.HasUsers() || d.CheckLink(link) != nil {
		t.Fatal("a mistake uses the link up")
	}
	// Of several that use it at once, one succeeds.
	var wg sync.WaitGroup
	ids := make([]string, 4)
	for i := range ids {
		wg.Go(func() { ids[i], _, _ = d.SetUp(link, "ann", password) })
	}
	wg.Wait()
	made := strings.Join(ids, "")
	if w := d.Continue(made); w == nil || w.Name != "ann" || w.Role != Admin {
		t.Errorf("%q: %+v", ids, w)
	}
	if _, _, err := d.NewLink(); !errors.Is(err, ErrUsers) || d.CheckLink(link) == nil || !d.HasUsers() {
		t.Errorf("afterwards: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, "users"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	use(t, d, dir) // as the next start reads it
	signIn(t, d, "ann")
}

func TestSetupLinkExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := desk(t)
		link, until, err := d.NewLink()
		if err != nil || time.Until(until) != linkLifetime {
			t.Fatal(until, err)
		}
		time.Sleep(linkLifetime)
		if _, _, err := d.SetUp(link, "ann", password); !errors.Is(err, ErrLink) {
			t.Error(err)
		}
	})
}

// What stands in the file stays, and the link of a file elsewhere is kept.
func TestSetupKeepsTheFile(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "real")
	if err := os.WriteFile(real, []byte("# ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "users")
	if err := os.Symlink(real, file); err != nil {
		t.Fatal(err)
	}
	d := NewDesk(dir, time.Now, auth.NewGuard(time.Now))
	users, err := OpenUsers(file, d.Guard())
	if err != nil {
		t.Fatal(err)
	}
	d.SetUsers(file, users)
	link, _, _ := d.NewLink()
	if _, _, err := d.SetUp(link, "ann", password); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(real)
	if err != nil || !strings.HasPrefix(string(text), "# ours\nann:$argon2id$") || !strings.HasSuffix(string(text), ":admin\n") {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Lstat(file); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestTokens(t *testing.T) {
	d, dir := desk(t)
	if w, err := token(d, "espalier_x"); w != nil || err != nil {
		t.Errorf("%+v, %v", w, err)
	}
	viewer, err := CreateToken(dir, "prometheus", Viewer, 0)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := CreateToken(dir, "deploy", Admin, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	w, err := token(d, viewer)
	if err != nil || w == nil || w.Name != "prometheus" || w.Role != Viewer || !w.Valid() || !w.Confirms("") {
		t.Fatalf("%+v, %v", w, err)
	}
	if a, err := token(d, admin); err != nil || a == nil || a.Role != Admin {
		t.Errorf("%+v, %v", a, err)
	}
	for _, bad := range []string{"espalier_", viewer + "x", strings.TrimPrefix(viewer, tokenPrefix), strings.ToUpper(viewer)} {
		if w, err := token(d, bad); w != nil || err != nil {
			t.Errorf("%q: %+v, %v", bad, w, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, tokensName))
	if err != nil || strings.Contains(string(text), viewer) || strings.Contains(string(text), strings.TrimPrefix(viewer, tokenPrefix)) {
		t.Errorf("the file tells the token (%v)", err)
	}
	if info, _ := os.Stat(filepath.Join(dir, tokensName)); info.Mode().Perm() != 0o600 {
		t.Error(info.Mode())
	}

	if err := RevokeToken(dir, "prometheus"); err != nil {
		t.Fatal(err)
	}
	if again, err := token(d, viewer); again != nil || err != nil || w.Valid() {
		t.Errorf("revoked: %+v, %v", again, err)
	}
	if err := RevokeToken(dir, "prometheus"); !errors.Is(err, ErrNoToken) {
		t.Error(err)
	}
	d.now = func() time.Time { return time.Now().Add(time.Hour + time.Second) }
	if _, err := d.Token(netip.MustParseAddr("127.0.0.2"), admin); !errors.Is(err, auth.ErrWrong) {
		t.Errorf("expired, from elsewhere: %v", err)
	}
	d.guard = auth.NewGuard(time.Now)
	if w, err := token(d, admin); w != nil || err != nil {
		t.Errorf("expired: %+v, %v", w, err)
	}
}

func TestTokenErrors(t *testing.T) {
	d, dir := desk(t)
	if _, err := CreateToken(dir, "deploy", Viewer, 0); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		name string
		role Role
		life time.Duration
		err  string
	}{
		"twice":   {"deploy", Viewer, 0, `there is a token "deploy" already`},
		"no name": {"", Viewer, 0, `"" cannot be a token's name`},
		"escape":  {"a\x1b[31m", Viewer, 0, `"a\x1b[31m" cannot be a token's name`},
		"no role": {"a", "root", 0, `"root" is no role (allowed: viewer, admin)`},
		"past":    {"a", Viewer, -1, "a token cannot have expired"},
	} {
		if _, err := CreateToken(dir, tt.name, tt.role, tt.life); err == nil || !strings.HasPrefix(err.Error(), tt.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// While the file is broken nobody has a token, and none is lost by another.
	for _, text := range []string{"{", `[{"name":"a","role":"root","sha256":""}]`, `[{"name":"a","role":"admin","sha256":"00"}]`} {
		if err := os.WriteFile(filepath.Join(dir, tokensName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if w, err := token(d, "espalier_x"); w != nil || err == nil {
			t.Errorf("%s: %+v, %v", text, w, err)
		}
		if _, err := CreateToken(dir, "other", Viewer, 0); err == nil {
			t.Errorf("%s: a token was made", text)
		}
	}
}

func TestTokensAtOnce(t *testing.T) {
	_, dir := desk(t)
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		wg.Go(func() {
			if _, err := CreateToken(dir, name, Viewer, 0); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := ReadTokens(dir); err != nil || len(list) != 6 {
		t.Errorf("%d tokens, %v", len(list), err)
	}
}

// Guesses at passwords and at tokens are throttled by client, and the right one is not told from
// the others. Elsewhere users and scripts go on, also after a restart.
func TestGuessing(t *testing.T) {
	dir, elsewhere := t.TempDir(), netip.MustParseAddr("127.0.0.2")
	secret, err := CreateToken(dir, "prometheus", Viewer, 0)
	if err != nil {
		t.Fatal(err)
	}
	lines := line(t, "ann", "admin")
	for _, when := range []string{"at first", "after a restart"} {
		guard := auth.OpenGuard(dir, nil)
		d := NewDesk(dir, time.Now, guard)
		use(t, d, dir, lines)
		for way, try := range map[string]func(from netip.Addr, secret string) error{
			password: func(from netip.Addr, secret string) error {
				_, _, err := d.SignIn(t.Context(), from, "ann", secret)
				return err
			},
			secret: func(from netip.Addr, secret string) error {
				_, err := d.Token(from, secret)
				return err
			},
		} {
			if err := try(here, way); err != nil && when == "at first" {
				t.Fatal(err)
			}
			compared := 0
			for i := range 20_000 {
				if err := try(here, fmt.Sprint(tokenPrefix, i)); errors.Is(err, auth.ErrWrong) {
					compared++
				} else if _, ok := errors.AsType[*auth.ThrottledError](err); !ok {
					t.Fatal(err)
				}
			}
			if compared > 20 || compared == 0 && when == "at first" {
				t.Errorf("%s: %d guesses were compared", when, compared)
			}
			if err := try(here, way); err == nil || errors.Is(err, auth.ErrWrong) {
				t.Errorf("%s: the right one among guesses: %v", when, err)
			}
			if err := try(elsewhere, way); err != nil {
				t.Errorf("%s: elsewhere: %v", when, err)
			}
		}
		if err := guard.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
