package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"espalier/policy/lists"
)

// listServer serves one list, and remembers what it answered.
type listServer struct {
	mu      sync.Mutex
	text    []byte
	etag    string
	answers []int
}

func (s *listServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := http.StatusOK
	if r.Header.Get("If-None-Match") == s.etag {
		status = http.StatusNotModified
	}
	s.answers = append(s.answers, status)
	w.Header().Set("ETag", s.etag)
	w.WriteHeader(status)
	if status == http.StatusOK {
		_, _ = w.Write(s.text)
	}
}

func (s *listServer) set(etag string, text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.etag, s.text = etag, text
}

func (s *listServer) answered() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.answers)
}

// start serves at addr, port 0 for any, until the returned function is called.
func (s *listServer) start(t *testing.T, addr string) (at string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s}
	var served sync.WaitGroup
	served.Go(func() { _ = srv.Serve(l) })
	stop = sync.OnceFunc(func() { srv.Close(); served.Wait() })
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// list asks a running process for one of its lists.
func (p *process) list(name string) lists.Status {
	p.t.Helper()
	st, err := p.status()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, l := range st.Lists {
		if l.Name == name {
			return l
		}
	}
	p.t.Fatalf("there is no list %s: %+v", name, st.Lists)
	panic("unreachable")
}

// The way of a list through the program: fetched by a name that egress.hosts
// knows, denied by, asked again, kept over a restart without its server.
func TestListFromURL(t *testing.T) {
	srv := &listServer{}
	srv.set(`"one"`, []byte("||ads.example^\n@@||ok.ads.example^\n||apple.com^\nnonsense\n"))
	at, stop := srv.start(t, "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(at)
	config := func(more string) string {
		return fmt.Sprintf(`
egress: {hosts: {"*.example": 127.0.0.1, gs.apple.com: 127.0.0.1}}
lists:
  ads: {url: "http://lists.example:%s/ads.txt?token=geheim"}%s
rules:
  - {name: no-ads, when: {lists: [ads]}, then: deny}
`, port, more)
	}
	p := launch(t, config(""))
	p.await("the list", func() bool { return p.list("ads").Entries == 3 })
	must := func(ok bool, what string) {
		t.Helper()
		if !ok {
			t.Errorf("%s\n%+v", what, p.list("ads"))
		}
	}
	must(p.denies("www.ads.example"), "a host of the list is not denied")
	must(!p.denies("ok.ads.example") && !p.denies("other.example"), "others are denied")
	must(!p.denies("gs.apple.com"), "a list cuts Apple off")
	if r := p.record("www.ads.example"); r.Rule != "no-ads" || r.Action != "deny" || r.Status != 403 {
		t.Errorf("record %+v", r)
	}
	for series, want := range map[string]float64{
		`espalier_list_entries{list="ads"}`: 3, `espalier_list_bad_lines{list="ads"}`: 1,
	} {
		if v := p.metric(series); v != want {
			t.Errorf("%s: %v", series, v)
		}
	}
	if v := p.metric(`espalier_list_last_success_timestamp_seconds{list="ads"}`); v < 1e9 {
		t.Errorf("last success %v", v)
	}

	stdout, stderr, code := p.run("lists", "refresh", "ads")
	if code != 0 || !strings.Contains(stdout, "http://lists.example:"+port+"/ads.txt  ok") || strings.Contains(stdout, "geheim") {
		t.Errorf("lists refresh: exit status %d\n%s%s", code, stdout, stderr)
	}
	if got := srv.answered(); !slices.Equal(got, []int{200, 304}) {
		t.Errorf("the server answered %v", got)
	}
	if stdout, _, _ := p.run("status"); !strings.Contains(stdout, "ads, 3 entries, loaded ") {
		t.Errorf("status:\n%s", stdout)
	}
	if stdout, stderr, code := p.run("lists", "refresh", "adds"); code != 1 || !strings.Contains(stderr, `there is no list "adds"`) {
		t.Errorf("lists refresh adds: exit status %d\n%s%s", code, stdout, stderr)
	}

	// Packed, with other names.
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, "0.0.0.0 games.example\n")
	z.Close()
	srv.set(`"two"`, packed.Bytes())
	if stdout, stderr, code := p.run("lists", "refresh"); code != 0 {
		t.Errorf("lists refresh: exit status %d\n%s%s", code, stdout, stderr)
	}
	must(p.denies("games.example") && !p.denies("www.games.example") && !p.denies("www.ads.example"), "the new list is not in force")

	// A reload with another list leaves this one alone.
	file := filepath.Join(filepath.Dir(p.config), "local.txt")
	if err := os.WriteFile(file, []byte("local.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.write(config("\n  local: {file: local.txt}") + "  - {name: local, when: {lists: [local]}, then: deny}\n")
	if stdout, stderr, code := p.run("reload"); code != 0 {
		t.Fatalf("reload: exit status %d\n%s%s", code, stdout, stderr)
	}
	must(p.denies("games.example") && p.denies("www.local.example"), "a list is not in force after a reload")
	if got := srv.answered(); !slices.Equal(got, []int{200, 304, 200}) {
		t.Errorf("the server answered %v", got)
	}

	// What is no list is not taken.
	srv.set(`"three"`, []byte("<!DOCTYPE html>\n<title>Sign in</title>\n"))
	_, stderr, code = p.run("lists", "refresh")
	if code != 1 || !strings.Contains(stderr, "list ads: what the server sends is a web page, no list") {
		t.Errorf("lists refresh: exit status %d\n%s", code, stderr)
	}
	must(p.denies("games.example"), "a web page took the place of a list")
	if log := p.stderr.String(); !strings.Contains(log, "is a web page, no list") || strings.Contains(log, "geheim") {
		t.Errorf("log: %s", log)
	}

	// A restart without the server.
	stop()
	p.signal(syscall.SIGTERM)
	p.exits(0)
	p.start()
	must(p.denies("games.example") && p.denies("www.local.example"), "a list is not in force after a restart")
	if _, stderr, code = p.run("lists", "refresh"); code != 1 || !strings.Contains(stderr, "list ads: ") || strings.Contains(stderr, "list local: ") || strings.Contains(stderr, "geheim") {
		t.Errorf("lists refresh: exit status %d\n%s", code, stderr)
	}
	must(p.denies("games.example") && p.list("ads").Error != "", "a list is not in force without its server")
	stdout, _, code = p.run("lists", "--json")
	var all []lists.Status
	if err := json.Unmarshal([]byte(stdout), &all); code != 0 || err != nil || len(all) != 2 || all[0].Name != "ads" || all[0].Entries != 1 || all[0].Error == "" || all[1].Name != "local" {
		t.Errorf("lists --json: exit status %d, %v\n%s", code, err, stdout)
	}
	if stdout, _, _ := p.run("explain", "games.example"); !strings.Contains(stdout, "list ads has games.example") {
		t.Errorf("explain:\n%s", stdout)
	}
	if page := p.console("/"); !strings.Contains(page, "/ads.txt") || !strings.Contains(page, "1 entries") || strings.Contains(page, "geheim") {
		t.Errorf("the console shows\n%s", page)
	}
}

// A file is read again by itself when it changes; a start with a URL that does
// not answer does not wait for it, and the rule matches nothing.
func TestListFromFile(t *testing.T) {
	silent := listen(t, "127.0.0.1:0", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	p := prepare(t, `
egress: {hosts: {"*.example": 127.0.0.1}}
lists:
  local: {file: local.txt}
  silent: {url: "http://`+silent.String()+`/"}
rules:
  - {name: silent, when: {lists: [silent]}, then: deny}
  - {name: local, when: {lists: [local]}, then: deny}
`)
	file := filepath.Join(filepath.Dir(p.config), "local.txt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write("one.example\n")
	p.start()
	if !p.denies("one.example") || p.denies("two.example") {
		t.Errorf("%+v", p.list("local"))
	}
	if l := p.list("silent"); l.Entries != 0 || !l.Loaded.IsZero() {
		t.Errorf("%+v", l)
	}
	if log := p.stderr.String(); !strings.Contains(log, "the list is not loaded yet") {
		t.Errorf("log: %s", log)
	}
	if stdout, _, _ := p.run("lists"); !strings.Contains(stdout, "not loaded yet: rules that name it match nothing") {
		t.Errorf("lists:\n%s", stdout)
	}
	before, err := p.status()
	if err != nil {
		t.Fatal(err)
	}
	write("two.example\n")
	p.await("the file's new content", func() bool { return p.denies("two.example") })
	if p.denies("one.example") {
		t.Error("the old content is still in force")
	}
	if now, err := p.status(); err != nil || !now.Reload.Time.Equal(before.Reload.Time) {
		t.Errorf("the whole configuration was read again: %v", err)
	}
}
