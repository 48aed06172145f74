package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The tests that docs/faults.md and docs/security.md name are there, and each of
// their claims names one.
func TestDocumentedTestsExist(t *testing.T) {
	var all strings.Builder
	walkTests(t, func(_, text string) { all.WriteString(text) })
	tests := all.String()
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)(?:/([^`]+))?`")
	for _, page := range []string{"faults.md", "security.md"} {
		text, err := os.ReadFile(filepath.Join("../../docs", page))
		if err != nil {
			t.Fatal(err)
		}
		found := named.FindAllStringSubmatch(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s names no test", page)
		}
		for _, claim := range claims(string(text)) {
			if !named.MatchString(claim) {
				t.Errorf("%s has a claim without a test: %s", page, claim)
			}
		}
		for _, m := range found {
			if !strings.Contains(tests, "\nfunc "+m[1]+"(") || m[2] != "" && !strings.Contains(tests, strconv.Quote(m[2])) {
				t.Errorf("%s names %s, which does not exist", page, m[0])
			}
		}
	}
}

// claims are the rows of the tables whose last column is "Test".
func claims(page string) (rows []string) {
	inside := false
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		switch {
		case !strings.HasPrefix(line, "|"):
			inside = false
		case strings.HasSuffix(line, "| Test |"):
			inside = true
		case inside && !strings.HasPrefix(line, "|---"):
			rows = append(rows, line)
		}
	}
	return rows
}

// Every fuzz target has seeds that each test run tries.
func TestFuzzTargetsHaveSeeds(t *testing.T) {
	target := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	walkTests(t, func(path, text string) {
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			seeds, err := os.ReadDir(filepath.Join(filepath.Dir(path), "testdata/fuzz", m[1]))
			if len(seeds) == 0 {
				t.Errorf("%s: %s has no seeds, see `make corpus`: %v", path, m[1], err)
			}
		}
	})
}

// walkTests calls f for every file of tests.
func walkTests(t *testing.T, f func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "node_modules":
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil {
			f(path, string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The figures that docs/sizing.md calculates with are those that were measured last, as
// docs/bench.md has them, but for what one run differs from the next.
func TestSizingIsMeasured(t *testing.T) {
	read := func(page string) string {
		text, err := os.ReadFile(filepath.Join("../../docs", page))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	sizing, bench := read("sizing.md"), read("bench.md")
	figure := func(page, text, row string) float64 {
		m := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(row) + ` \| ([0-9.]+)`).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("%s has no row %q", page, row)
		}
		f, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for said, measured := range map[string]string{
		"idle tunnel, memory of the process": "idle tunnel: user memory KB",
		"idle tunnel, memory of the kernel":  "idle tunnel: kernel slab KB",
		"idle tunnel, descriptors":           "idle tunnel: descriptors",
		"open, use and close a tunnel, CPU":  "open, use, close a tunnel: CPU µs",
		"bulk, CPU":                          "bulk down: CPU s/GB",
		"5,000 idle tunnels, CPU":            "idle tunnels: CPU ms/s, all together",
	} {
		got, want := figure("sizing.md", sizing, said), figure("bench.md", bench, measured)
		if got < want*0.7-0.1 || got > want*1.3+0.1 {
			t.Errorf("sizing.md: %s is %v, but bench.md has %v", said, got, want)
		}
	}
}
