package auth

import (
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
	demoted, err := OpenRoles(write(t, "ann:"+hash+":viewer\n"), roles, a)
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
