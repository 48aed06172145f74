package lists

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"espalier/policy"
)

func plainTransport(policy.Target) http.RoundTripper {
	return &http.Transport{DisableKeepAlives: true}
}

// source is a server of one list, which tests change.
type source struct {
	*httptest.Server

	mu      sync.Mutex
	text    string
	header  http.Header // of answers
	status  int         // in place of the list
	asked   []http.Header
	answers []int
}

func newSource(t *testing.T, text string) *source {
	s := &source{text: text, header: http.Header{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Header)
	for name, values := range s.header {
		w.Header()[name] = values
	}
	status := s.status
	if tag := s.header.Get("ETag"); status == 0 && tag != "" && r.Header.Get("If-None-Match") == tag {
		status = http.StatusNotModified
	}
	if status == 0 {
		status = http.StatusOK
	}
	s.answers = append(s.answers, status)
	w.WriteHeader(status)
	if status == http.StatusOK {
		io.WriteString(w, s.text)
	}
}

// set changes what the server has.
func (s *source) set(status int, text, etag string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.text = status, text
	s.header.Set("ETag", etag)
}

func (s *source) last() (asked http.Header, answer, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[len(s.asked)-1], s.answers[len(s.answers)-1], len(s.answers)
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The life of a list with a URL: fetched, asked again with its ETag, kept
// whatever its server does, and there after a restart without it.
func TestFetch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lists")
	src := newSource(t, "a.example\nhello\n")
	src.header.Set("ETag", `"one"`)
	src.header.Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
	config := map[string]policy.List{"ads": {URL: strings.Replace(src.URL, "//", "//user:geheim@", 1) + "/ads?token=geheim"}}
	ls := open(t, dir, config, plainTransport)
	refresh := func() error { return ls.Refresh(t.Context(), "ads") }
	if err := refresh(); err != nil {
		t.Fatal(err)
	}
	st := ls.Status()[0]
	if !has(ls, "ads", "a.example") || st.Entries != 1 || st.BadLines != 1 || st.Loaded.IsZero() || st.Error != "" || st.Source != src.URL+"/ads" {
		t.Fatalf("%+v", st)
	}
	info, err := os.Stat(filepath.Join(dir, "ads"))
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("the copy: %v, %v", info, err)
	}
	if d, err := os.Stat(dir); err != nil || d.Mode().Perm() != 0o700 {
		t.Errorf("its directory: %v, %v", d, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "ads")); err != nil || strings.Contains(string(text), "geheim") || !strings.HasSuffix(string(text), "\na.example\nhello\n") {
		t.Errorf("the copy: %v\n%s", err, text)
	}

	t.Run("not changed", func(t *testing.T) {
		if err := refresh(); err != nil {
			t.Fatal(err)
		}
		asked, answer, _ := src.last()
		if answer != 304 || asked.Get("If-None-Match") != `"one"` || asked.Get("If-Modified-Since") != "Mon, 02 Jan 2006 15:04:05 GMT" {
			t.Errorf("%d to %v", answer, asked)
		}
		if asked.Get("Authorization") != "Basic dXNlcjpnZWhlaW0=" || asked.Get("User-Agent") != "Espalier" {
			t.Errorf("asked with %v", asked)
		}
		now := ls.Status()[0]
		if !now.Loaded.Equal(st.Loaded) || !now.LastSuccess.After(st.LastSuccess) || !has(ls, "ads", "a.example") {
			t.Errorf("%+v", now)
		}
		if info, err := os.Stat(filepath.Join(dir, "ads")); err != nil || info.ModTime().Before(now.LastSuccess.Truncate(time.Second)) {
			t.Errorf("the copy's time: %v, %v", info.ModTime(), err)
		}
	})
	for _, tt := range []struct {
		name, text string
		status     int
		err        string
	}{
		{"error", "", 503, "the server answers 503 Service Unavailable"},
		{"gone", "", 404, "the server answers 404 Not Found"},
		{"web page", "<!doctype html>\n<title>Sign in</title>", 0, "what the server sends is a web page, no list"},
		{"empty", "", 0, "what the server sends is empty"},
		{"nonsense", "Sorry\n", 0, `what the server sends names no host; line 1: "Sorry": is one word, no domain`},
		{"cut", gzipped(t, "b.example\n")[:20], 0, "what the server sends cannot be read: unexpected EOF"},
		{"redirects for ever", "", 302, "the server redirects again and again"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src.set(tt.status, tt.text, "")
			src.header.Set("Location", src.URL)
			if err := refresh(); err == nil || !strings.Contains(err.Error(), "list ads: "+tt.err) || strings.Contains(err.Error(), "geheim") {
				t.Error(err)
			}
			if st := ls.Status()[0]; !has(ls, "ads", "a.example") || !strings.HasPrefix(st.Error, tt.err) || st.Entries != 1 || st.BadLines != 1 {
				t.Errorf("%+v", st)
			}
		})
	}
	t.Run("packed", func(t *testing.T) {
		src.set(0, gzipped(t, "b.example\n"), `"two"`)
		if err := refresh(); err != nil || !has(ls, "ads", "b.example") || has(ls, "ads", "a.example") {
			t.Errorf("%v, %+v", err, ls.Status()[0])
		}
		if st := ls.Status()[0]; st.Error != "" || st.BadLines != 0 {
			t.Errorf("%+v", st)
		}
	})
	t.Run("restart, not due", func(t *testing.T) {
		_, _, n := src.last()
		again := open(t, dir, config, plainTransport)
		st, before := again.Status()[0], ls.Status()[0]
		if !has(again, "ads", "b.example") || !st.Loaded.Equal(before.Loaded) || before.LastSuccess.Sub(st.LastSuccess).Abs() > time.Second {
			t.Errorf("%+v, before %+v", st, before)
		}
		if err := again.Refresh(t.Context(), "ads"); err != nil {
			t.Error(err)
		}
		if asked, answer, now := src.last(); now != n+1 || answer != 304 || asked.Get("If-None-Match") != `"two"` {
			t.Errorf("%d requests, the last %v answered %d", now-n, asked, answer)
		}
	})
	t.Run("restart, the server is down", func(t *testing.T) {
		src.Close()
		again := open(t, dir, config, plainTransport)
		if !has(again, "ads", "b.example") {
			t.Errorf("%+v", again.Status()[0])
		}
		if err := again.Refresh(t.Context(), ""); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Error(err)
		}
		if st := again.Status()[0]; !has(again, "ads", "b.example") || st.Error == "" || st.Stale {
			t.Errorf("%+v", st)
		}
	})
	t.Run("restart, the copy is damaged", func(t *testing.T) {
		for _, text := range []string{"", "b.example\n", headerMark + "{\n", headerMark + "{}\n<html>", headerMark + "{}\n\x1f\x8b"} {
			write(t, filepath.Join(dir, "ads"), text)
			st := New(dir, zap.NewNop()).Prepare(config).Status()[0]
			if st.Entries != 0 || !strings.HasPrefix(st.Error, "the copy of what was fetched cannot be used: ") {
				t.Errorf("%q: %+v", text, st)
			}
		}
	})
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("in the directory: %v, %v", left, err)
	}
}

// A redirect must not take away what TLS gives.
func TestRedirectToHTTP(t *testing.T) {
	plain := newSource(t, "a.example\n")
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer secure.Close()
	ls := open(t, t.TempDir(), map[string]policy.List{"ads": {URL: secure.URL}},
		func(policy.Target) http.RoundTripper { return secure.Client().Transport })
	if err := ls.Refresh(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "redirects from https to http") || has(ls, "ads", "a.example") {
		t.Error(err)
	}
	secure.Client().CloseIdleConnections()
}

// What a server says is not repeated as it is.
func TestErrorsArePrintable(t *testing.T) {
	ls := open(t, t.TempDir(), map[string]policy.List{"ads": {URL: "https://lists.example"}},
		(&fake{err: errors.New("valid for \x1b[2J\u202eevil\xff\n" + strings.Repeat("x", 1000))}).transport)
	err := ls.Refresh(t.Context(), "ads")
	if want := "list ads: valid for ?[2J?evil??xxx"; err == nil || !strings.HasPrefix(err.Error(), want) || len(err.Error()) > 600 {
		t.Errorf("%q", err)
	}
	if text := ls.Status()[0].Error; "list ads: "+text != err.Error() {
		t.Errorf("%q", text)
	}
}

// A list is of use where no copy can be written.
func TestNoCopy(t *testing.T) {
	src := newSource(t, "a.example\n")
	dir := filepath.Join(t.TempDir(), "lists")
	write(t, dir, "in the way")
	ls := open(t, dir, map[string]policy.List{"ads": {URL: src.URL}}, plainTransport)
	if err := ls.Refresh(t.Context(), ""); err != nil || !has(ls, "ads", "a.example") {
		t.Error(err)
	}
}

// fake is a source without a network, so that time can pass at once.
type fake struct {
	mu    sync.Mutex
	err   error
	times []time.Time
}

func (f *fake) transport(policy.Target) http.RoundTripper { return f }

func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.times = append(f.times, time.Now())
	if f.err != nil {
		return nil, f.err
	}
	return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader("a.example\n")), Request: r}, nil
}

// take returns when the source was asked since the last call.
func (f *fake) take() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	times := f.times
	f.times = nil
	return times
}

func (f *fake) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// When a URL is asked, in a time that a test makes pass.
func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, src := t.TempDir(), &fake{}
		config := map[string]policy.List{"ads": {URL: "https://lists.example/ads", Refresh: 10 * time.Hour}}
		ls := New(dir, zap.NewNop())
		ls.Use(ls.Prepare(config), src.transport)
		defer func() { ls.Close() }()
		synctest.Wait()
		if n := len(src.take()); n != 1 || !has(ls, "ads", "a.example") {
			t.Fatalf("asked %d times at the start", n)
		}
		// Every refresh, a tenth more or less.
		last := time.Now()
		var early, late time.Duration = 100 * time.Hour, 0
		for range 50 {
			time.Sleep(11 * time.Hour)
			synctest.Wait()
			times := src.take()
			if len(times) == 0 {
				t.Fatalf("not asked for 11 hours")
			}
			for _, at := range times {
				early, late = min(early, at.Sub(last)), max(late, at.Sub(last))
				last = at
			}
		}
		if early < 9*time.Hour || late > 11*time.Hour || late-early < 30*time.Minute {
			t.Errorf("asked every %s to %s", early, late)
		}

		// A restart asks when it is due, not before.
		if err := ls.Refresh(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		src.take()
		ls.Close()
		ls = New(dir, zap.NewNop())
		ls.Use(ls.Prepare(config), src.transport)
		synctest.Wait()
		if n := len(src.take()); n != 0 {
			t.Errorf("asked %d times at a restart", n)
		}
		// So does a reload; another refresh is heeded.
		ls.Use(ls.Prepare(config), src.transport)
		synctest.Wait()
		if n := len(src.take()); n != 0 {
			t.Errorf("asked %d times at a reload", n)
		}
		hourly := map[string]policy.List{"ads": {URL: config["ads"].URL, Refresh: time.Hour}}
		ls.Use(ls.Prepare(hourly), src.transport)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := len(src.take()); n < 21 || n > 28 {
			t.Errorf("asked %d times in a day, hourly", n)
		}

		// A source that fails is asked ever later, and the list stays in force; it
		// is stale after two refreshes.
		if err := ls.Refresh(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		src.fail(errors.New("the network is down"))
		time.Sleep(66 * time.Minute)
		synctest.Wait()
		if st := ls.Status()[0]; st.Error != "the network is down" || st.Stale {
			t.Errorf("%+v", st)
		}
		src.take()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		times := src.take()
		if n := len(times); n < 21 || n > 36 {
			t.Errorf("asked %d times in a day while it fails", n)
		}
		if st := ls.Status()[0]; !st.Stale || !has(ls, "ads", "a.example") {
			t.Errorf("%+v", st)
		}
		src.fail(nil)
		time.Sleep(66 * time.Minute)
		synctest.Wait()
		if st := ls.Status()[0]; st.Error != "" || st.Stale {
			t.Errorf("%+v", st)
		}
	})
}

// A list that has never been loaded is tried again soon, then later, and says
// that it matches nothing.
func TestFirstFetchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		src := &fake{err: errors.New("the network is down")}
		ls := New(t.TempDir(), zap.New(core))
		ls.Use(ls.Prepare(map[string]policy.List{"ads": {URL: "https://lists.example/ads"}}), src.transport)
		defer ls.Close()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		times := src.take()
		for i := 1; i < len(times); i++ {
			want := firstRetry << (i - 1)
			if got := times[i].Sub(times[i-1]); got < want*9/10 || got > want*11/10 {
				t.Errorf("pause %d: %s", i, got)
			}
		}
		if len(times) < 6 || len(times) > 7 {
			t.Errorf("asked %d times", len(times))
		}
		if st := ls.Status()[0]; st.Error == "" || st.Stale || has(ls, "ads", "a.example") {
			t.Errorf("%+v", st)
		}
		if n := logs.FilterMessageSnippet("match nothing").Len(); n != len(times)+1 {
			t.Errorf("said %d times that rules match nothing", n)
		}
		src.fail(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		if !has(ls, "ads", "a.example") {
			t.Errorf("%+v", ls.Status())
		}
	})
}

// Another URL is asked at once, and the list stays what it was until there is an
// answer, also over a restart.
func TestURLChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, src := t.TempDir(), &fake{}
		ls := New(dir, zap.NewNop())
		ls.Use(ls.Prepare(map[string]policy.List{"ads": {URL: "https://lists.example/ads"}}), src.transport)
		synctest.Wait()
		src.take()
		src.fail(errors.New("no such server"))
		other := map[string]policy.List{"ads": {URL: "https://other.example/ads"}}
		ls.Use(ls.Prepare(other), src.transport)
		synctest.Wait()
		if n := len(src.take()); n != 1 || !has(ls, "ads", "a.example") || ls.Status()[0].Error != "no such server" {
			t.Errorf("asked %d times, %+v", n, ls.Status())
		}
		ls.Close()
		ls = New(dir, zap.NewNop())
		defer ls.Close()
		ls.Use(ls.Prepare(other), src.transport)
		synctest.Wait()
		if n := len(src.take()); n != 1 || !has(ls, "ads", "a.example") {
			t.Errorf("asked %d times, %+v", n, ls.Status())
		}
	})
}

// A fetch that hangs ends with its list, and by itself.
func TestFetchHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := map[string]policy.List{"ads": {URL: "https://lists.example/ads"}}
		ls := New(t.TempDir(), zap.NewNop())
		ls.Use(ls.Prepare(config), func(policy.Target) http.RoundTripper { return hanging{} })
		began := time.Now()
		if err := ls.Refresh(t.Context(), "ads"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if took := time.Since(began); took < fetchTime || took > 3*fetchTime {
			t.Errorf("it took %s", took)
		}
		asked := make(chan error, 1)
		go func() { asked <- ls.Refresh(t.Context(), "ads") }()
		synctest.Wait()
		ls.Use(ls.Prepare(nil), nil)
		if err := <-asked; !errors.Is(err, errReplaced) {
			t.Error(err)
		}
	})
}

type hanging struct{}

func (hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// What a killed process has left of a copy goes away; what another is writing
// does not.
func TestLeftOvers(t *testing.T) {
	dir := t.TempDir()
	old, young := filepath.Join(dir, ".ads.1.part"), filepath.Join(dir, ".ads.2.part")
	write(t, old, "x")
	write(t, young, "x")
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	src := newSource(t, "a.example\n")
	ls := open(t, dir, map[string]policy.List{"ads": {URL: src.URL}}, plainTransport)
	if err := ls.Refresh(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old one: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("the young one: %v", err)
	}
}

// A copy from the future, of a clock that was ahead, is as old as the start.
func TestClockPutBack(t *testing.T) {
	dir := t.TempDir()
	src := newSource(t, "a.example\n")
	config := map[string]policy.List{"ads": {URL: src.URL}}
	if err := open(t, dir, config, plainTransport).Refresh(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	future := time.Now().AddDate(10, 0, 0)
	if err := os.Chtimes(filepath.Join(dir, "ads"), future, future); err != nil {
		t.Fatal(err)
	}
	if st := open(t, dir, config, plainTransport).Status()[0]; st.Entries != 1 || st.LastSuccess.After(time.Now()) {
		t.Errorf("%+v", st)
	}
}
