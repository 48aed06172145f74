package configs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// open is a directory that everybody can enter, as the tests' own are not.
func open(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	chmod(t, filepath.Dir(dir), 0o755)
	chmod(t, dir, 0o755)
	if !reached(filepath.Join(dir, "x"), -1) {
		t.Skip("not everybody can reach the directory for temporary files")
	}
	return dir
}

func chmod(t *testing.T, name string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

func TestSecretFilesOfOthers(t *testing.T) {
	dir := open(t)
	users := filepath.Join(dir, "users")
	write(t, users, "")
	write(t, filepath.Join(dir, "password"), "geheim\n")
	for _, name := range []string{"cert.pem", "key.pem"} {
		text, err := os.ReadFile(filepath.Join("testdata/good", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(text))
	}
	ldap := `ldap: {url: "ldaps://ldap.example.org", base: "dc=example", bind_dn: "cn=x", password`
	const can = "every user of this machine can "
	for _, test := range []struct {
		name, text, secret string
		mode               fs.FileMode
		want               string
	}{
		{"key of the listeners", "tls: {files: {cert: cert.pem, key: key.pem}}", "key.pem", 0o644, "1:36: tls.files.key: " + can + "read DIR/key.pem (mode 0644)"},
		{"key of profiles", "web: {profile: {cert: cert.pem, key: key.pem}}", "key.pem", 0o644, "1:38: web.profile.key: " + can + "read DIR/key.pem (mode 0644)"},
		{"htpasswd", "auth: {htpasswd: users}", "users", 0o644, "1:18: auth.htpasswd: " + can + "read DIR/users (mode 0644)"},
		{"console's users", "web: {users: users}", "users", 0o666, "1:14: web.users: " + can + "read and change DIR/users (mode 0666)"},
		{"console's users of the data directory", "data: .", "users", 0o622, "1:1: web.users: " + can + "change DIR/users (mode 0622)"},
		{"password file", "auth: {" + ldap + "_file: password}}", "password", 0o604, "1:100: auth.ldap.password_file: " + can + "read DIR/password (mode 0604)"},
		{"configuration with a password", "auth: {" + ldap + ": geheim}}", "espalier.yaml", 0o644, "1:95: auth.ldap.password: " + can + "read DIR/espalier.yaml (mode 0644)"},
		{"configuration with a secret among settings", `egress: {parent: "http://u:geheim@p.example:1"}`, "espalier.yaml", 0o644, "1:18: egress.parent: " + can + "read DIR/espalier.yaml (mode 0644)"},
		{"configuration without a secret", "log: {level: warn}", "espalier.yaml", 0o644, ""},
		{"for the owner", "web: {users: users}", "users", 0o600, ""},
		{"for the owner's group", "web: {users: users}", "users", 0o640, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(dir, "espalier.yaml")
			write(t, file, test.text)
			chmod(t, users, 0o600)
			chmod(t, filepath.Join(dir, "password"), 0o600)
			chmod(t, filepath.Join(dir, "key.pem"), 0o600)
			chmod(t, file, 0o600)
			chmod(t, filepath.Join(dir, test.secret), test.mode)
			l, err := Load(Options{File: file})
			if err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(l.Warnings.Error(), dir, "DIR")
			if want := test.want; want == "" && got != "" || !strings.HasPrefix(got, "DIR/espalier.yaml:"+want) && want != "" || len(l.Warnings) > 1 {
				t.Errorf("got %q, want %q", got, want)
			}
			if strings.Contains(got, "geheim") {
				t.Error("a secret is shown")
			}
		})
	}
}

// Who may use a file, by its owner, its mode and the directory above.
func TestExposed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("files of others take root")
	}
	const sslCert, service = 50103, 50991
	for _, test := range []struct {
		name     string
		uid, gid int
		mode     fs.FileMode
		dirGid   int
		dirMode  fs.FileMode
		me       identity
		want     string
	}{
		{"/etc/ssl/private, checked by root", 0, sslCert, 0o640, sslCert, 0o710, identity{0, []int{0}}, ""},
		{"/etc/ssl/private, by the service", 0, sslCert, 0o640, sslCert, 0o710, identity{service, []int{service, sslCert}}, ""},
		{"/etc/ssl/private, for everybody but for its directory", 0, 0, 0o644, sslCert, 0o710, identity{service, []int{service, sslCert}}, ""},
		{"its own, for its group", service, service, 0o640, 0, 0o755, identity{service, []int{service}}, ""},
		{"its own, checked by root", service, service, 0o640, 0, 0o755, identity{0, []int{0}}, ""},
		{"its own, for another group", service, sslCert, 0o640, 0, 0o755, identity{service, []int{service}}, "the group 50103 can read"},
		{"its own, for another group that does not come there", service, sslCert, 0o640, 0, 0o700, identity{service, []int{service}}, ""},
		{"its own, for another group by way of the directory", service, sslCert, 0o660, sslCert, 0o710, identity{service, []int{service}}, "the group 50103 can read and change"},
		{"for everybody", 0, 0, 0o644, 0, 0o755, identity{0, []int{0}}, "every user of this machine can read"},
		{"for everybody, as Kubernetes has it", 0, service, 0o444, service, 0o777, identity{service, []int{service}}, "every user of this machine can read"},
		{"for the group, as Kubernetes has it", 0, service, 0o440, service, 0o777, identity{service, []int{service}}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(open(t), "private")
			name := filepath.Join(dir, "key.pem")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, name, "")
			for _, err := range []error{os.Chown(name, test.uid, test.gid), os.Chown(dir, 0, test.dirGid)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			chmod(t, name, test.mode)
			chmod(t, dir, test.dirMode)
			link := filepath.Join(filepath.Dir(dir), "link.pem") // as certbot has them
			if err := os.Symlink(name, link); err != nil {
				t.Fatal(err)
			}
			err := test.me.exposed(link)
			want := ""
			if test.want != "" {
				want = fmt.Sprintf("%s %s (mode %04o): `chmod 600` it, or 640 with root as its owner and the group that espalier runs with", test.want, link, test.mode)
			}
			if got := fmt.Sprint(err); want == "" && err != nil || want != "" && got != want {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
	if err := self().exposed(filepath.Join(t.TempDir(), "missing")); err != nil {
		t.Errorf("of no file: %v", err)
	}
}
