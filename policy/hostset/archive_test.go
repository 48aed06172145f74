package hostset

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// A packed file: name and text.
type file struct{ name, text string }

func tarOf(t testing.TB, files ...file) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.text)), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag, h.Size = tar.TypeDir, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// oldTarOf is tarOf as in a version before POSIX: without "ustar" in the headers.
func oldTarOf(t testing.TB, files ...file) string {
	t.Helper()
	b := []byte(tarOf(t, files...))
	for at, f := 0, files; len(f) > 0; f = f[1:] {
		h := b[at : at+tarBlock]
		clear(h[257:]) // the magic and all behind it
		copy(h[148:156], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		at += tarBlock + (len(f[0].text)+tarBlock-1)/tarBlock*tarBlock
	}
	return string(b)
}

func zipOf(t testing.TB, files ...file) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, f := range files {
		in, err := w.Create(f.name)
		if err == nil {
			_, err = io.WriteString(in, f.text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// categories are files as archives of several lists have them.
var categories = []file{
	{"blacklists/", ""},
	{"blacklists/README", "bank.example is in a category of its own\n"},
	{"blacklists/bank/", ""},
	{"blacklists/bank/domains", "bank.example\n"},
	{"blacklists/gambling/", ""},
	{"blacklists/gambling/domains", "casino.example\nbets.example\n"},
	{"blacklists/gambling/urls", "news.example/bets\n"},
}

// Of an archive one file counts, never all together.
func TestArchive(t *testing.T) {
	one := []file{{"gambling/", ""}, {"gambling/domains", "casino.example\n"}}
	for _, x := range []struct {
		name, member string
		files        []file
		want         string // the error
	}{
		{"by its name", "blacklists/gambling/domains", categories, ""},
		{"by a pattern", "*/gambling/domains", categories, ""},
		{"by its last elements", "gambling/domains", categories, ""},
		{"with ./ before it", "*/gambling/domains", []file{{"./blacklists/bank/domains", "bank.example\n"}, {"./blacklists/gambling/domains", "casino.example\n"}}, ""},
		{"the only one", "", one, ""},
		{"the only one, by name", "gambling/domains", one, ""},
		{"several, none named", "", categories, "is an archive of several files: name one by member (blacklists/README, blacklists/bank/domains, blacklists/gambling/domains, blacklists/gambling/urls)"},
		{"several of a name", "*/domains", categories, `is an archive in which member "*/domains" means several files: blacklists/bank/domains, blacklists/gambling/domains`},
		{"no such file", "*/games/domains", categories, `is an archive without a file "*/games/domains" (it has blacklists/README, blacklists/bank/domains, blacklists/gambling/domains, blacklists/gambling/urls)`},
		{"no files", "", []file{{"gambling/", ""}}, "is an archive without files"},
	} {
		t.Run(x.name, func(t *testing.T) {
			for kind, text := range map[string]string{"tar": tarOf(t, x.files...), "old tar": oldTarOf(t, x.files...), "tar.gz": string(packed(t, tarOf(t, x.files...))), "zip": zipOf(t, x.files...)} {
				s, _, err := Parse(strings.NewReader(text), x.member)
				got := ""
				if err != nil {
					got = err.Error()
				}
				if got != x.want || (s == nil) != (err != nil) {
					t.Errorf("%s: got %q, want %q", kind, got, x.want)
				}
				if err != nil {
					continue
				}
				if _, ok := s.Match("casino.example"); !ok {
					t.Errorf("%s: casino.example is missing", kind)
				}
				for _, other := range []string{"bank.example", "news.example"} {
					if _, ok := s.Match(other); ok {
						t.Errorf("%s: %s of another file is in the list", kind, other)
					}
				}
			}
		})
	}
	if s, _, err := Parse(strings.NewReader("x.example\n"), "*/domains"); err == nil || s != nil || err.Error() != "is not an archive: leave member out" {
		t.Errorf("a text with a member: %v", err)
	}
	for name, text := range map[string]string{"bzip2": "BZh91AY&SY\x00\x01", "UTF-16 without a mark": "x\x00.\x00e\x00\n\x00"} {
		for _, member := range []string{"", "*/domains"} {
			if s, _, err := Parse(strings.NewReader(text), member); !errors.Is(err, errBinary) || s != nil {
				t.Errorf("%s, member %q: %v", name, member, err)
			}
		}
	}
}

// Damaged archives are errors, and no file is unpacked beyond the bound.
func TestArchiveBounds(t *testing.T) {
	whole := tarOf(t, categories...)
	for name, text := range map[string]string{
		"cut tar": whole[:len(whole)/2], "cut zip": zipOf(t, categories...)[:200],
		"large file": tarOf(t, file{"a", "x.example\n"}, file{"big/domains", strings.Repeat("\n", 2<<20)}),
	} {
		t.Run(name, func(t *testing.T) {
			if s, _, err := parse(strings.NewReader(text), "*/domains", 1<<20, 100); err == nil || s != nil {
				t.Errorf("%v, %v", s, err)
			}
		})
	}
	var many []file
	for i := range 1000 {
		many = append(many, file{fmt.Sprintf("%d/domains", i), "x.example\n"})
	}
	_, _, err := Parse(strings.NewReader(tarOf(t, many...)), "")
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("1000 files: %v", err)
	}
}

func TestMatchMember(t *testing.T) {
	for _, x := range []struct {
		pattern, name string
		want          bool
	}{
		{"domains", "a/b/domains", true},
		{"b/domains", "a/b/domains", true},
		{"*/domains", "a/b/domains", true},
		{"a/*/domains", "a/b/domains", true},
		{"*/b/*", "./a/b/domains", true},
		{"a/b/c/domains", "b/c/domains", false},
		{"domains", "a/subdomains", false},
		{"[", "a", false},
		{"passwd", "../../etc/passwd", true}, // nothing is written anywhere
	} {
		if got := MatchMember(x.pattern, x.name); got != x.want {
			t.Errorf("%q for %q: %v", x.pattern, x.name, got)
		}
	}
}
