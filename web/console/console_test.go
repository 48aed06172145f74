package console

import (
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"espalier/policy/catalog"
	"espalier/proxy/doctor"
)

var (
	literal = regexp.MustCompile("\\b(?:t|rich) \"((?:[^\"\\\\]|\\\\.)*)\"")
	numbers = regexp.MustCompile(`\bn [^"]* "([^"]*)" "([^"]*)"`)
	verb    = regexp.MustCompile(`%[sd]`)
)

// texts are all that the pages say, in English.
func texts(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{ruleOfYours: true, "d": true, "%s ago": true}
	err := fs.WalkDir(templateFiles, "templates", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := templateFiles.ReadFile(path)
		for _, m := range literal.FindAllSubmatch(text, -1) {
			all[string(m[1])] = true
		}
		for _, m := range numbers.FindAllSubmatch(text, -1) {
			all[string(m[1])], all[string(m[2])] = true, true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range actionMeanings {
		all[text] = true
	}
	for _, text := range ruleMeanings {
		all[text] = true
	}
	for _, p := range problems {
		all[p.Title()] = true
	}
	for _, a := range Areas {
		all[a.Name] = true
	}
	for _, s := range catalog.Services {
		all[s.Section] = true
	}
	for _, text := range spoken {
		all[text] = true
	}
	return all
}

// problems are all that the doctor finds.
var problems = []doctor.Problem{
	doctor.NoSuchName, doctor.NoAddress, doctor.DNSTimeout, doctor.DNSFailed, doctor.AddressGuard, doctor.Refused,
	doctor.Reset, doctor.TimedOut, doctor.Unroutable, doctor.Intercepted, doctor.Expired, doctor.WrongName,
	doctor.BadCertificate, doctor.TLSAlert, doctor.NotTLS, doctor.NoHTTP2, doctor.NotHTTP, doctor.CaptivePortal,
	doctor.NotNTP, doctor.SignIn, doctor.Denied, doctor.ProxyDown, doctor.ProxyFailed,
}

// spoken are the texts of locale.go that handlers say.
var spoken = []string{
	NoStore, StoreFails, NoSuchThing, RequestFor, NotNow, WrongPassword, Throttled, LinkIsOver, PasswordsVary,
	TrafficOfAll, Traffic, ToDevices, FromDevices, AllOthers,
}

func TestSwedishIsComplete(t *testing.T) {
	english := texts(t)
	for _, text := range slices.Sorted(maps.Keys(english)) {
		translated, ok := swedish()[text]
		if !ok {
			t.Errorf("no Swedish for %q", text)
		} else if !slices.Equal(verb.FindAllString(text, -1), verb.FindAllString(translated, -1)) || strings.Count(text, "`") != strings.Count(translated, "`") {
			t.Errorf("%q and %q have other verbs or codes", text, translated)
		}
	}
	for text := range swedish() {
		if !english[text] {
			t.Errorf("nothing says %q", text)
		}
	}
}

func TestLookOf(t *testing.T) {
	for _, tt := range []struct {
		name, accept string
		cookies      []string
		want         Look
	}{
		{"nothing", "", nil, Look{"en", ""}},
		{"Swedish browser", "sv-SE,sv;q=0.9,en;q=0.8", nil, Look{"sv", ""}},
		{"Swedish of Finland", "sv-FI", nil, Look{"sv", ""}},
		{"another language", "fr, de;q=0.5", nil, Look{"en", ""}},
		{"broken", ";;;q=", nil, Look{"en", ""}},
		{"chosen", "sv", []string{LangCookie + "=en", ThemeCookie + "=dark"}, Look{"en", "dark"}},
		{"as the system has it", "sv", []string{ThemeCookie + "=system"}, Look{"sv", ""}},
		{"nonsense", "", []string{LangCookie + "=<b>", ThemeCookie + "=<b>"}, Look{"en", ""}},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Accept-Language", tt.accept)
		for _, c := range tt.cookies {
			r.Header.Add("Cookie", c)
		}
		if got := LookOf(r); got != tt.want {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

func TestRichEscapes(t *testing.T) {
	if got := Locale("en").rich("`a.b` is <i>`x`</i>"); got != "<code>a.b</code> is &lt;i&gt;<code>x</code>&lt;/i&gt;" {
		t.Error(got)
	}
}

func TestServicesTellTheirHealth(t *testing.T) {
	for health, want := range map[string]string{"ok": "reachable", "broken": "broken", "skipped": "", "": ""} {
		var page strings.Builder
		list := []Service{{ID: "push", Rows: 3, Health: health}}
		if err := Render(&page, "services", Page{Look: Look{Lang: "en"}, Area: "services", Data: Services{List: list}}); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"reachable", "broken"} {
			if strings.Contains(page.String(), ">"+text+"<") != (text == want) {
				t.Errorf("health %q: %q is not what the page says of it", health, text)
			}
		}
		if !strings.Contains(page.String(), "push · 3 rows") {
			t.Errorf("health %q: no rows", health)
		}
	}
}

func TestFormats(t *testing.T) {
	en, sv := Locale("en"), Locale("sv")
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 9994: "9.99 kB", 9996: "10.0 kB", 99_960: "100 kB", 999_499: "999 kB", 999_500: "1.00 MB",
		1_284_345_678_901: "1.28 TB", 1<<63 - 1: "9.22 EB",
	} {
		if got := en.Size(n); got != want {
			t.Errorf("size(%d) is %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1: "-1", -100: "-100", -1000: "-1,000"} {
		if got := en.Count(n); got != want {
			t.Errorf("count(%d) is %q, want %q", n, got, want)
		}
	}
	for _, tt := range []struct {
		part, whole int64
		want        string
	}{
		{0, 0, "0 %"}, {0, 5, "0 %"}, {5, 5, "100 %"}, {1, 3, "33.3 %"}, {1, 1e6, "< 0.1 %"}, {1e6 - 1, 1e6, "> 99.9 %"},
	} {
		if got := en.Percent(tt.part, tt.whole); got != tt.want {
			t.Errorf("percent(%d, %d) is %q, want %q", tt.part, tt.whole, got, tt.want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 59 * time.Second: "59 s", 61 * time.Second: "1 min 1 s", 90 * time.Minute: "1 h 30 min", 50 * time.Hour: "2 d 2 h",
	} {
		if got := en.Span(d); got != want {
			t.Errorf("span(%s) is %q, want %q", d, got, want)
		}
	}
	for got, want := range map[string]string{
		sv.Size(1_280_000): "1,28 MB", sv.Count(1234567): "1\u00a0234\u00a0567", sv.Percent(1, 3): "33,3 %", sv.Percent(1, 1e6): "< 0,1 %",
		en.Took(400 * time.Microsecond): "< 1 ms", en.Took(1500 * time.Millisecond): "1.5 s", sv.Took(1500 * time.Millisecond): "1,5 s", en.Took(time.Hour): "1 h 0 min",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
