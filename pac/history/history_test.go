package history

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const config = "c0ffee0123456789"

// keep keeps scripts an hour apart.
func keep(t *testing.T, s Store, scripts ...string) {
	t.Helper()
	for i, script := range scripts {
		site, text, _ := strings.Cut(script, ":")
		if _, err := s.Keep(day.Add(time.Duration(i)*time.Hour), site, config, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKeepsWhatChanges(t *testing.T) {
	s := New(t.TempDir())
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("before the first: %v, %v", list, err)
	}
	keep(t, s, "default:a", "default:a", "north:a", "default:b", "default:b", "default:a")
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, e := range list {
		got += fmt.Sprintln(e.Time.Format(time.RFC3339), e.Site, e.Config, e.ID, e.Size)
	}
	const a, b = "ca978112ca1b", "3e23e8160039"
	want := "2026-03-01T12:00:00Z default c0ffee012345 " + a + " 1\n" +
		"2026-03-01T14:00:00Z north c0ffee012345 " + a + " 1\n" +
		"2026-03-01T15:00:00Z default c0ffee012345 " + b + " 1\n" +
		"2026-03-01T17:00:00Z default c0ffee012345 " + a + " 1\n"
	if got != want {
		t.Errorf("List:\n%swant:\n%s", got, want)
	}
	if info, err := os.Stat(filepath.Join(s.dir, list[0].name)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for id, want := range map[string]string{a: "a", "3e23": "b"} {
		if script, err := s.Find(id); err != nil || string(script) != want {
			t.Errorf("Find(%s) = %q, %v", id, script, err)
		}
	}
	for _, id := range []string{"", "ca9", "ffff", "../" + a} {
		if script, err := s.Find(id); !errors.Is(err, ErrNone) {
			t.Errorf("Find(%q) = %q, %v", id, script, err)
		}
	}
}

func TestOldestGo(t *testing.T) {
	s := New(t.TempDir())
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range maxEntries {
		name := fmt.Sprintf("%s_s%d_c_%012x.pac", day.Add(time.Duration(i)*time.Minute).Format(timeLayout), i, i)
		if err := os.WriteFile(filepath.Join(s.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, other := range []string{"notes.txt", "a_b_c_d.pac", ".pac"} {
		if err := os.WriteFile(filepath.Join(s.dir, other), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Keep(day.Add(24*time.Hour), "new", config, []byte("x")); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) != maxEntries || list[0].Site != "s1" || list[maxEntries-1].Site != "new" {
		t.Errorf("%d entries from %s to %s, %v", len(list), list[0].Site, list[len(list)-1].Site, err)
	}
}

func TestFindRefusesDoubtfulOnes(t *testing.T) {
	s := New(t.TempDir())
	keep(t, s, "default:a")
	list, _ := s.List()
	name := filepath.Join(s.dir, list[0].name)
	if err := os.WriteFile(name, []byte("b"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(list[0].ID); err == nil || !strings.Contains(err.Error(), "is not what was written") {
		t.Errorf("a file that was changed: %v", err)
	}
	other := strings.Replace(name, "ca978112ca1b", "ca97ffffffff", 1)
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find("ca97"); err == nil || !strings.Contains(err.Error(), "begin so; write more of it") {
		t.Errorf("two that fit: %v", err)
	}
}
