package inspect

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"espalier/policy/catalog"
)

func TestLoadCASaysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  string
	}{
		{"nothing there", func(t *testing.T, dir string) { os.RemoveAll(dir) }, "no such file"},
		{"no certificate", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, certFile)) }, "ca.crt: no such file"},
		{"no key", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, keyFile)) }, "ca.key: no such file"},
		{"key for the group", func(t *testing.T, dir string) { os.Chmod(filepath.Join(dir, keyFile), 0o640) }, "ca.key: others can use this key (mode 0640); `chmod 600"},
		{"key for all", func(t *testing.T, dir string) { os.Chmod(filepath.Join(dir, keyFile), 0o604) }, "(mode 0604)"},
		{"empty key", func(t *testing.T, dir string) { spoil(t, dir, keyFile, "") }, "ca.key: has no PRIVATE KEY in PEM"},
		{"broken key", func(t *testing.T, dir string) {
			spoil(t, dir, keyFile, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
		}, "ca.key: "},
		{"empty certificate", func(t *testing.T, dir string) { spoil(t, dir, certFile, "hello") }, "ca.crt: has no certificate in PEM"},
		{"key among certificates", func(t *testing.T, dir string) {
			spoil(t, dir, certFile, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
		}, "ca.crt: has a PRIVATE KEY among the certificates"},
		{"key of another CA", func(t *testing.T, dir string) {
			key := must(pemKey(testCA(t, InitOptions{}).key))(t)
			spoil(t, dir, keyFile, string(key))
		}, "ca.key: is not the key of "},
		{"certificate of another CA behind", func(t *testing.T, dir string) {
			text := must(os.ReadFile(filepath.Join(dir, certFile)))(t)
			spoil(t, dir, certFile, string(text)+string(pemCerts(testCA(t, InitOptions{}).root)))
		}, "ca.crt: the first certificate is not signed by the last"},
		{"intermediate without its root", func(t *testing.T, dir string) {
			ca := testCA(t, InitOptions{OfflineRoot: t.TempDir()})
			spoil(t, dir, certFile, string(pemCerts(ca.issuer)))
			spoil(t, dir, keyFile, string(must(pemKey(ca.key))(t)))
		}, "ca.crt: the last certificate is no root"},
		{"leaf", func(t *testing.T, dir string) {
			ca := testCA(t, InitOptions{})
			spoil(t, dir, certFile, string(pemCerts(forge(t, ca, "example.org"))))
		}, "is no CA certificate"},
		{"without constraints", func(t *testing.T, dir string) {
			root, key, err := makeRoot(&InitOptions{}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			spoil(t, dir, certFile, string(pemCerts(root)))
			spoil(t, dir, keyFile, string(must(pemKey(key))(t)))
		}, "has no critical name constraints, so it could speak for Apple"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "ca")
			if _, _, err := Init(dir, InitOptions{Exclude: apple()}); err != nil {
				t.Fatal(err)
			}
			c.spoil(t, dir)
			_, err := LoadCA(dir)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

func spoil(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	dir, away := filepath.Join(t.TempDir(), "ca"), t.TempDir()
	o := InitOptions{Exclude: apple(), OfflineRoot: away}
	first, _, err := Init(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Init(dir, o); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second CA: %v", err)
	}
	o.Force = true
	if _, _, err := Init(dir, o); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), rootKey) {
		t.Errorf("the root's key again: %v", err)
	}
	if !must(LoadCA(dir))(t).Root().Equal(first.Root()) {
		t.Error("the CA is another")
	}
	o.OfflineRoot = ""
	_, moved, err := Init(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if !must(LoadCA(moved))(t).Root().Equal(first.Root()) {
		t.Error("the CA before is not whole")
	}
	left := must(os.ReadDir(filepath.Dir(dir)))(t)
	if len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

// Root makes the CA for a proxy that runs as the owner of the data directory.
func TestInitForAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	data := t.TempDir()
	if err := os.Chown(data, 12345, 23456); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(data, "ca")
	if _, _, err := Init(dir, InitOptions{Exclude: apple()}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, filepath.Join(dir, keyFile), filepath.Join(dir, certFile)} {
		st := must(os.Stat(name))(t).Sys().(*syscall.Stat_t)
		if st.Uid != 12345 || st.Gid != 23456 {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
}

func TestRenew(t *testing.T) {
	dir, away := filepath.Join(t.TempDir(), "ca"), t.TempDir()
	before, _, err := Init(dir, InitOptions{Organization: "Example School", Exclude: apple(), OfflineRoot: away})
	if err != nil {
		t.Fatal(err)
	}
	more := append(apple(), catalog.Extra("*.new.example", nil))
	after, moved, err := Renew(dir, filepath.Join(away, rootKey), more)
	if err != nil {
		t.Fatal(err)
	}
	if !after.Root().Equal(before.Root()) || after.Issuer().Equal(before.Issuer()) || after.key.Equal(before.key) {
		t.Error("the root is another, or the intermediate or its key is not")
	}
	if got := after.Issuer().Subject.Organization; !slices.Equal(got, []string{"Example School"}) {
		t.Errorf("organization %q", got)
	}
	if !must(LoadCA(dir))(t).Issuer().Equal(after.Issuer()) || !must(LoadCA(moved))(t).Issuer().Equal(before.Issuer()) {
		t.Error("what is on the disk differs")
	}
	if list := before.Warnings(more, time.Now()); len(list) != 1 || !strings.Contains(list[0], "*.new.example") {
		t.Errorf("before: %q", list)
	}
	if list := after.Warnings(more, time.Now()); len(list) != 0 {
		t.Errorf("after: %q", list)
	}

	online := filepath.Join(t.TempDir(), "ca")
	if _, _, err := Init(online, InitOptions{Exclude: apple()}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Renew(online, filepath.Join(away, rootKey), nil); err == nil || !strings.Contains(err.Error(), "no intermediate") {
		t.Errorf("without intermediate: %v", err)
	}
}
