package configs

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzLoad: whatever the file holds, the answer is a configuration or problems
// whose places are in the file; and what Dump writes is a configuration again.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(Default))
	// The bad files have a test of their own, and would take a short run's whole time.
	for _, name := range glob(f, "testdata/good/*.yaml") {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := load(Options{File: "f.yaml"}, text)
		if err == nil {
			if l == nil || l.Config == nil {
				t.Fatal("neither configuration nor error")
			}
			var b bytes.Buffer
			if err := l.Dump(&b); err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b.Bytes(), []byte("xxxxx")) {
				return
			}
			again, err := load(Options{File: "g.yaml"}, b.Bytes())
			if err != nil {
				t.Fatalf("%v\n%s", err, b.String())
			}
			if keys := differences(l.Config, again.Config); len(keys) > 0 {
				t.Fatalf("%v differ\n%s", keys, b.String())
			}
			return
		}
		problems, ok := errors.AsType[Problems](err)
		if !ok || len(problems) == 0 || l != nil {
			t.Fatalf("got %v, %v", l, err)
		}
		if n := strings.Count(err.Error(), "\n") + 1; n != len(problems) {
			t.Fatalf("%d problems in %d lines:\n%v", len(problems), n, err)
		}
		lines := bytes.Split(text, []byte("\n"))
		for _, p := range problems {
			if p.File != "f.yaml" || p.Line < 0 || p.Line > len(lines) || p.Line > 0 && (p.Column < 1 || p.Column > utf8.RuneCount(lines[p.Line-1])+1) {
				t.Fatalf("%v is not in the file", p)
			}
		}
	})
}

// FuzzEnvironment: the same for variables and flags.
func FuzzEnvironment(f *testing.F) {
	for _, key := range []string{"proxy.listen", "egress.hosts", "rules", "log.access.rotate", "pac.sites.gym.clients", "x"} {
		for _, text := range []string{"", ":1,:2", "[a, b]", "{a: b}", "1", "true", "- a"} {
			f.Add(key, text)
		}
	}
	f.Fuzz(func(t *testing.T, key, text string) {
		name := envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		for _, o := range []Options{{Environ: []string{name + "=" + text}}, {Set: []string{key + "=" + text}}} {
			l, err := load(o, nil)
			problems, ok := errors.AsType[Problems](err)
			if (l == nil) != (ok && len(problems) > 0) {
				t.Fatalf("got %v, %v", l, err)
			}
		}
	})
}
