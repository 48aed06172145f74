package auth

import (
	"strconv"
	"strings"
	"testing"
)

func TestRoles(t *testing.T) {
	hash := bcryptOf(t, "$2y$", "secret")
	roles := []string{"viewer", "admin"}
	file := write(t, "ann:"+hash+":admin\nbob:"+hash+"\ncid:"+hash+":viewer\n")
	a, err := OpenRoles(file, roles, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Users() != 3 || !a.Enabled() {
		t.Errorf("%d users", a.Users())
	}
	for name, want := range map[string]string{"ann": "admin", "bob": "viewer", "cid": "viewer"} {
		if u, err := a.SignIn(t.Context(), here, name, "secret"); err != nil || u.Role != want {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
	if e, ok := a.Entry("ann"); !ok || e != hash+":admin" {
		t.Errorf("entry %q, %v", e, ok)
	}
	if _, ok := a.Entry("eve"); ok {
		t.Error("an entry of nobody")
	}

	// Another role counts at once, although the password is remembered.
	demoted, err := OpenRoles(write(t, "ann:"+hash+":viewer\n"), roles, a.Guard)
	if err != nil {
		t.Fatal(err)
	}
	if u, err := demoted.SignIn(t.Context(), here, "ann", "secret"); err != nil || u.Role != "viewer" {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestRoleErrors(t *testing.T) {
	hash := bcryptOf(t, "$2y$", "secret")
	_, err := OpenRoles(write(t, "ann:"+hash+":root\n"), []string{"viewer", "admin"}, nil)
	if err == nil || !strings.HasSuffix(err.Error(), `:1: user "ann" has the role "root" (allowed: viewer, admin)`) {
		t.Error(err)
	}
	if _, err := Open(Config{HTPasswd: write(t, "ann:"+hash+":admin\n")}, nil, nil); err == nil || !strings.Contains(err.Error(), "no bcrypt or argon2id hash") {
		t.Errorf("a role among the proxy's own users: %v", err)
	}
}

// The console's users and the proxy's are not the same, even with the same hash.
func TestSourcesAreApart(t *testing.T) {
	line := "ann:" + bcryptOf(t, "$2y$", "secret")
	proxy := ofFile(t, line)
	if !signsIn(t, proxy, "ann", "secret") {
		t.Fatal("ann cannot sign in to the proxy")
	}
	console, err := OpenRoles(write(t, line), []string{"viewer"}, proxy.Guard)
	if err != nil {
		t.Fatal(err)
	}
	if u, err := console.SignIn(t.Context(), here, "ann", "secret"); err != nil || u.Role != "viewer" {
		t.Errorf("%+v, %v", u, err)
	}
	for i := range 10 {
		_, err = proxy.SignIn(t.Context(), here, "ann", strconv.Itoa(i))
	}
	if !isA[*ThrottledError](err) || !signsIn(t, console, "ann", "secret") {
		t.Errorf("guesses at the proxy: %v", err)
	}
	if proxy.counted("ok") != 1 || console.counted("ok") != 2 {
		t.Errorf("%v and %v sign-ins are counted", proxy.counted("ok"), console.counted("ok"))
	}
}
