package lists

import (
	"archive/tar"
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"espalier/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns Lists of a configuration, in force until the end of the test.
func open(t *testing.T, dir string, config map[string]policy.List, transport Transport) *Lists {
	t.Helper()
	ls := New(dir, zap.NewNop())
	ls.Use(ls.Prepare(config), transport)
	t.Cleanup(ls.Close)
	return ls
}

// has reports whether the list in force of that name has host.
func has(ls *Lists, name, host string) bool {
	_, ok := ls.now().HostLists()[name].Match(host)
	return ok
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func noTransport(policy.Target) http.RoundTripper { panic("nothing is to be fetched") }

// A file is read again when it changes; what is no list leaves the one before in
// force, and the status says why.
func TestFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ads.txt")
	write(t, file, "a.example\nhello\n##.ad\n")
	ls := open(t, t.TempDir(), map[string]policy.List{"ads": {File: file}}, noTransport)
	st := ls.Status()[0]
	if !has(ls, "ads", "www.a.example") || st.Name != "ads" || st.Source != file || st.Entries != 1 || st.BadLines != 1 || st.SkippedLines != 1 ||
		len(st.Bad) != 1 || st.Loaded.IsZero() || !st.LastSuccess.Equal(st.Loaded) || st.Error != "" || st.Stale {
		t.Fatalf("%+v", st)
	}
	ls.Reread()
	if again := ls.Status()[0]; !again.Loaded.Equal(st.Loaded) {
		t.Error("a file that has not changed was read again")
	}
	for _, tt := range []struct {
		name   string
		change func()
		host   string // that the list has then
		err    string // that the status has
	}{
		{"written", func() { write(t, file, "b.example\n") }, "b.example", ""},
		{"replaced", func() {
			write(t, file+".new", "c.example\n")
			if err := os.Rename(file+".new", file); err != nil {
				t.Fatal(err)
			}
		}, "c.example", ""},
		{"removed", func() { os.Remove(file) }, "c.example", "no such file"},
		{"back again", func() { write(t, file, "d.example\n") }, "d.example", ""},
		{"a web page", func() { write(t, file, "<html>Sign in\nx.example\n") }, "d.example", "is a web page, no list"},
		{"emptied", func() { write(t, file, "") }, "d.example", "is empty and had 1 entries before (write a comment into it if it should be)"},
		{"nonsense", func() { write(t, file, "404 not found\n") }, "d.example", `names no host; line 1: "404 not found": has several words`},
		{"broken gzip", func() { write(t, file, "\x1f\x8b\x08") }, "d.example", "cannot be unpacked"},
		{"a pipe", func() {
			os.Remove(file)
			if err := syscall.Mkfifo(file, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "d.example", "is no file"},
		{"empty on purpose", func() { os.Remove(file); write(t, file, "# nothing today\n") }, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.change()
			ls.Reread()
			st := ls.Status()[0]
			if tt.host != "" && !has(ls, "ads", tt.host) || tt.host == "" && st.Entries != 0 {
				t.Errorf("%s is not in force: %+v", tt.host, st)
			}
			if (tt.err == "") != (st.Error == "") || !strings.Contains(st.Error, tt.err) || st.Stale != (tt.err != "") {
				t.Errorf("%+v", st)
			}
		})
	}
}

// A file that is damaged from the start keeps nothing else from working.
func TestFileBadAtStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ads.txt")
	ls := open(t, t.TempDir(), map[string]policy.List{"ads": {File: file}}, noTransport)
	st := ls.Status()[0]
	if has(ls, "ads", "a.example") || st.Error == "" || st.Stale || !st.Loaded.IsZero() {
		t.Errorf("%+v", st)
	}
	if err := ls.Refresh(t.Context(), ""); err == nil || !strings.HasPrefix(err.Error(), "list ads: ") {
		t.Error(err)
	}
	write(t, file, "a.example\n")
	if err := ls.Refresh(t.Context(), "ads"); err != nil || !has(ls, "ads", "a.example") {
		t.Error(err)
	}
	if err := ls.Refresh(t.Context(), "adds"); err == nil || err.Error() != `there is no list "adds"` {
		t.Error(err)
	}
}

// A reload keeps what has the same source, and prepares the rest before any of
// it is in force.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	write(t, one, "one.example\n")
	write(t, two, "two.example\n")
	ls := open(t, dir, map[string]policy.List{"kept": {File: one}, "moved": {File: one}, "gone": {File: one}}, noTransport)
	before := ls.now().lists["kept"]
	v := ls.Prepare(map[string]policy.List{"kept": {File: one}, "moved": {File: two}, "new": {File: two}})
	if !has(ls, "moved", "one.example") || has(ls, "moved", "two.example") {
		t.Error("what is prepared is in force")
	}
	if names := v.HostLists(); len(names) != 3 {
		t.Errorf("%d lists are prepared", len(names))
	}
	ls.Use(v, noTransport)
	if ls.now().lists["kept"] != before {
		t.Error("a list with the same source was made anew")
	}
	if !has(ls, "moved", "two.example") || has(ls, "moved", "one.example") || !has(ls, "new", "two.example") || len(ls.Status()) != 3 {
		t.Errorf("%+v", ls.Status())
	}
}

func TestCollector(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ads.txt")
	write(t, file, "a.example\nb.example\nhello\n")
	ls := open(t, t.TempDir(), map[string]policy.List{"ads": {File: file}, "none": {File: file + ".missing"}}, noTransport)
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(ls)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			got[f.GetName()+" "+m.Label[0].GetValue()] = m.GetGauge().GetValue()
		}
	}
	if at := got["espalier_list_last_success_timestamp_seconds ads"]; time.Since(time.UnixMilli(int64(at*1000))) > time.Minute {
		t.Errorf("loaded at %v", at)
	}
	delete(got, "espalier_list_last_success_timestamp_seconds ads")
	for name, want := range map[string]float64{
		"espalier_list_entries ads": 2, "espalier_list_entries none": 0,
		"espalier_list_bad_lines ads": 1, "espalier_list_bad_lines none": 0,
		"espalier_list_overdue ads": 0, "espalier_list_overdue none": 1,
		"espalier_list_last_success_timestamp_seconds none": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s: %v, %v", name, v, ok)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("also %v", got)
	}
}

// A list in an archive is read by its member, from a file and over a restart from the copy of
// what was fetched; another member is another list.
func TestMember(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range map[string]string{"lists/bank/domains": "bank.example\n", "lists/gambling/domains": "casino.example\n"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text)), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	archive := gzipped(t, b.String())
	file := filepath.Join(t.TempDir(), "lists.tar.gz")
	write(t, file, archive)
	src := newSource(t, archive)
	src.header.Set("ETag", `"one"`)
	dir := filepath.Join(t.TempDir(), "copies")
	check := func(ls *Lists, want, not string) {
		t.Helper()
		_ = ls.Refresh(t.Context(), "games") // fails when the server is gone
		if !has(ls, "games", want) || has(ls, "games", not) {
			t.Errorf("%s is missing, or %s is in the list: %+v", want, not, ls.Status()[0])
		}
	}
	check(open(t, dir, map[string]policy.List{"games": {File: file, Member: "*/gambling/domains"}}, noTransport), "casino.example", "bank.example")
	byURL := func(member string) map[string]policy.List {
		return map[string]policy.List{"games": {URL: src.URL + "/lists.tar.gz", Member: member}}
	}
	ls := open(t, dir, byURL("*/gambling/domains"), plainTransport)
	check(ls, "casino.example", "bank.example")
	ls.Use(ls.Prepare(byURL("*/bank/domains")), plainTransport)
	check(ls, "bank.example", "casino.example")
	src.Close()
	check(open(t, dir, byURL("*/gambling/domains"), plainTransport), "casino.example", "bank.example")

	st := open(t, dir, map[string]policy.List{"games": {File: file}}, noTransport).Status()[0]
	if st.Entries != 0 || !strings.Contains(st.Error, "is an archive of several files: name one by member (lists/") {
		t.Errorf("without a member: %+v", st)
	}
}

// A source none of whose lines can be read is an error, with an example; one that is empty or
// has comments alone is not.
func TestNothing(t *testing.T) {
	for _, x := range []struct{ name, text, err string }{
		{"empty", "", ""},
		{"comments", "# none\n! none\n; none\n\n", ""},
		{"URLs with queries", "||x.example/ad?\n", `names no host; line 1: "||x.example/ad?": is not a rule about whole hosts`},
		{"nonsense", "hello world\n", `names no host; line 1: "hello world": has several words`},
	} {
		t.Run(x.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "list")
			write(t, file, x.text)
			st := open(t, t.TempDir(), map[string]policy.List{"ads": {File: file}}, noTransport).Status()[0]
			if (st.Error == "") != (x.err == "") || !strings.Contains(st.Error, x.err) {
				t.Errorf("%q, want %q", st.Error, x.err)
			}
		})
	}
}

// A required list is missing until it is loaded; a reload may require one.
func TestRequired(t *testing.T) {
	file := filepath.Join(t.TempDir(), "list")
	core, logs := observer.New(zap.WarnLevel)
	ls := New(t.TempDir(), zap.New(core))
	ls.Use(ls.Prepare(map[string]policy.List{"ads": {File: file}}), noTransport)
	defer ls.Close()
	missing := func() bool { return ls.now().HostLists()["ads"].Missing() }
	if missing() {
		t.Error("missing though it is not required")
	}
	ls.Use(ls.Prepare(map[string]policy.List{"ads": {File: file, Required: true}}), noTransport)
	if !missing() {
		t.Error("not missing")
	}
	if err := ls.Refresh(t.Context(), "ads"); err == nil || logs.FilterMessageSnippet("deny until it is loaded").Len() != 1 {
		t.Errorf("%v, the log does not say that rules deny: %v", err, logs.All())
	}
	write(t, file, "# nothing today\n")
	ls.Reread()
	if missing() {
		t.Error("missing though it was loaded")
	}
}
