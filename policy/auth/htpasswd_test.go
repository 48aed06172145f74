package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// hash is a cheap bcrypt hash with the prefix that a tool would write.
func hash(t testing.TB, prefix, password string) string {
	t.Helper()
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return prefix + strings.TrimPrefix(string(b), "$2a$")
}

func open(t testing.TB, content string) (*Users, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := Open(Config{HTPasswd: file})
	if err != nil {
		err = errors.New(strings.ReplaceAll(err.Error(), file, "FILE"))
	}
	return u, err
}

func mustOpen(t testing.TB, content string) *Users {
	t.Helper()
	u, err := open(t, content)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestVerify(t *testing.T) {
	long := strings.Repeat("0123456789", 8) // bcrypt looks at 72 bytes
	u := mustOpen(t, "\uFEFF# made by hand\r\n\r\n"+
		"ann:"+hash(t, "$2a$", "pass a")+"\r\n"+
		"bob:"+hash(t, "$2b$", "pass b")+"\n"+
		"  eve:"+hash(t, "$2y$", "pass y")+"  \n"+
		"  # indented\n"+
		"Åsa:"+hash(t, "$2y$", "smörgås")+"\n"+
		"empty:"+hash(t, "$2y$", "")+"\n"+
		"long:"+hash(t, "$2y$", long[:72])+"\n"+
		"p:"+hash(t, "$2y$", "p"))
	tests := []struct {
		what, name, password string
		want                 bool
	}{
		{"2a", "ann", "pass a", true},
		{"2b", "bob", "pass b", true},
		{"2y", "eve", "pass y", true},
		{"UTF-8", "Åsa", "smörgås", true},
		{"empty password", "empty", "", true},
		{"wrong password", "ann", "pass b", false},
		{"no password", "ann", "", false},
		{"password in another case", "ann", "Pass A", false},
		{"a prefix", "ann", "pass ", false},
		{"something behind", "ann", "pass a ", false},
		{"the hash itself", "ann", string(u.hashes["ann"]), false},
		{"a password for the empty one", "empty", "x", false},
		{"name in another case", "Ann", "pass a", false},
		{"unknown user", "mallory", "pass a", false},
		{"no user", "", "", false},
		{"comment", "# made by hand", "", false},
		{"72 bytes", "long", long[:72], true},
		{"more than 72 bytes, as htpasswd cuts them", "long", long, true},
		{"71 bytes", "long", long[:71], false},
		{"more than 72 bytes, another beginning", "long", "x" + long, false},
	}
	for _, tt := range tests {
		for _, round := range []string{"first", "second"} { // the second may be remembered
			if got := u.Verify(tt.name, tt.password); got != tt.want {
				t.Errorf("%s, %s time: Verify(%q, %q) = %v", tt.what, round, tt.name, tt.password, got)
			}
		}
	}
}

// What is remembered of one user says nothing of another, however the bytes of
// name and password are divided.
func TestVerifyRemembersPairs(t *testing.T) {
	u := mustOpen(t, "p:"+hash(t, "$2y$", "p")+"\np\x00p:"+hash(t, "$2y$", "q")+"\npp:"+hash(t, "$2y$", "r"))
	// bcrypt repeats a password, with a NUL behind it, so this one is p's too.
	if !u.Verify("p", "p\x00p") || !u.Verify("p", "p") {
		t.Fatal("p cannot sign in")
	}
	for _, pair := range [][2]string{{"p\x00p", "p"}, {"pp", ""}, {"pp", "p"}, {"p\x00", "p"}, {"", "p\x00p"}, {"p", "\x00p"}} {
		if u.Verify(pair[0], pair[1]) {
			t.Errorf("%q signs in with %q", pair[0], pair[1])
		}
	}
}

func TestVerifyMemoryIsBounded(t *testing.T) {
	u := mustOpen(t, "ann:"+hash(t, "$2y$", "x"))
	for i := range maxKnown {
		u.known[u.digest("ann", fmt.Sprint(i))] = struct{}{}
	}
	for range 2 {
		if !u.Verify("ann", "x") {
			t.Error("ann cannot sign in")
		}
	}
	if len(u.known) > maxKnown {
		t.Errorf("%d passwords are remembered, more than %d", len(u.known), maxKnown)
	}
	if u.Verify("ann", "y") || len(u.known) > maxKnown {
		t.Error("a wrong password is remembered")
	}
}

func TestVerifyConcurrently(t *testing.T) {
	u := mustOpen(t, "ann:"+hash(t, "$2y$", "a")+"\nbob:"+hash(t, "$2y$", "b"))
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			switch i % 4 {
			case 0:
				if !u.Verify("ann", "a") {
					t.Error("ann cannot sign in")
				}
			case 1:
				if !u.Verify("bob", "b") {
					t.Error("bob cannot sign in")
				}
			case 2:
				if u.Verify("ann", fmt.Sprint("b", i)) {
					t.Error("ann signs in with a wrong password")
				}
			case 3:
				if u.Verify("eve", "a") {
					t.Error("eve signs in")
				}
			}
		})
	}
	wg.Wait()
	if len(u.known) != 2 {
		t.Errorf("%d pairs are remembered, want 2", len(u.known))
	}
}

func TestNobody(t *testing.T) {
	u, err := Open(Config{})
	if u != nil || err != nil {
		t.Fatalf("Open of nothing: %v, %v", u, err)
	}
	if u.Verify("ann", "a") {
		t.Error("somebody signs in where nobody can")
	}
	for _, content := range []string{"", "# nobody\n"} {
		if mustOpen(t, content).Verify("ann", "a") {
			t.Errorf("somebody signs in with %q", content)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	good := hash(t, "$2y$", "x")
	tests := []struct{ name, content, want string }{
		{"no colon", "ann\n", `auth.htpasswd: FILE:1: is no "name:hash" line`},
		{"no name", ":" + good, `auth.htpasswd: FILE:1: is no "name:hash" line`},
		{"no hash", "ann:", "auth.htpasswd: FILE:1: user \"ann\" has no bcrypt hash (`htpasswd -B` makes one)"},
		{"plain text", "ann:secret", "auth.htpasswd: FILE:1: user \"ann\" has no bcrypt hash (`htpasswd -B` makes one)"},
		{"MD5", "ann:$apr1$mEV6CoN6$9yGcpVSTsd7MH8rSfTkHQ1", "auth.htpasswd: FILE:1: user \"ann\" has no bcrypt hash (`htpasswd -B` makes one)"},
		{"SHA-1", "ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "auth.htpasswd: FILE:1: user \"ann\" has no bcrypt hash (`htpasswd -B` makes one)"},
		{"cut short", "ann:" + good[:59], "auth.htpasswd: FILE:1: user \"ann\" has no bcrypt hash (`htpasswd -B` makes one)"},
		{"something behind", "ann:" + good + ":x", "auth.htpasswd: FILE:1: user \"ann\" has no bcrypt hash (`htpasswd -B` makes one)"},
		{"the broken 2x", "ann:$2x" + good[3:], "auth.htpasswd: FILE:1: user \"ann\" has no bcrypt hash (`htpasswd -B` makes one)"},
		{"not its alphabet", "ann:" + good[:20] + "!" + good[21:], "auth.htpasswd: FILE:1: user \"ann\" has no bcrypt hash (`htpasswd -B` makes one)"},
		{"cost 3", "ann:$2y$03" + good[6:], "auth.htpasswd: FILE:1: user \"ann\" has no bcrypt hash (`htpasswd -B` makes one)"},
		{"cost 18", "ann:$2y$18" + good[6:], `auth.htpasswd: FILE:1: user "ann" has a hash of cost 18, too slow to check (allowed: 17 at most)`},
		{"twice", "ann:" + good + "\nbob:" + good + "\nann:" + good, `auth.htpasswd: FILE:3: user "ann" stands twice`},
		{"control characters in the name", "a\x1b[31m:x", "auth.htpasswd: FILE:1: user \"a\\x1b[31m\" has no bcrypt hash (`htpasswd -B` makes one)"},
		{"all of them", "# users\nann\n\nbob:x\neve:" + good, "auth.htpasswd: FILE:2: is no \"name:hash\" line\nauth.htpasswd: FILE:4: user \"bob\" has no bcrypt hash (`htpasswd -B` makes one)"},
		{"endless line", "ann:" + good + "\n" + strings.Repeat("x", 1<<17), "auth.htpasswd: read FILE: bufio.Scanner: token too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, err := open(t, tt.content)
			if u != nil || err == nil || err.Error() != tt.want {
				t.Errorf("Open = %v and\n%v\nwant\n%s", u, err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Error("the error repeats a password")
			}
		})
	}
	missing := filepath.Join(t.TempDir(), "none")
	if _, err := Open(Config{HTPasswd: missing}); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "auth.htpasswd: open "+missing) {
		t.Errorf("Open of a missing file: %v", err)
	}
}
