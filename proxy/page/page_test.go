package page

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestWanted(t *testing.T) {
	for accept, want := range map[string]bool{
		"": false, "*/*": false, "text/*": false, "text/plain": false, "application/json": false, "image/avif,image/webp,*/*;q=0.8": false,
		"text/html": true, "TEXT/HTML": true, "text/html;q=0.1": true, "text/html; charset=utf-8": true,
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": true, "application/json, text/html": true,
		"text/html;q=0": false, "text/html;q=0.000, */*": false, "text/htmlx": false, ";;,,text/html": true, "text/html;q=x": true,
	} {
		if got := Wanted(accept); got != want {
			t.Errorf("%q: %v, want %v", accept, got, want)
		}
	}
}

func TestLanguage(t *testing.T) {
	for accept, want := range map[string]string{
		"": "en", "*": "en", "en": "en", "sv": "sv", "sv-SE": "sv", "sv-FI,sv;q=0.9,en;q=0.8": "sv", "en-GB,sv;q=0.5": "en", "sv;q=0.2,en;q=0.9": "en",
		"de": "en", "de,sv;q=0.5": "sv", "ja-JP": "en", "sv;q=0": "en", "!!": "en", strings.Repeat("sv,", 10000): "en",
	} {
		if got := Language(accept); got != want {
			t.Errorf("%.30q: %s, want %s", accept, got, want)
		}
	}
}

// Each has what it is given, and nothing of what it is not.
func TestHTML(t *testing.T) {
	p := Page{Language: "en", Status: 403, Text: "No games.", Host: "games.example", Rule: "no games", Reference: "abc", Contact: "Help desk\nroom 12"}
	html := string(p.HTML())
	for _, want := range []string{
		`<html lang="en">`, "<title>Not allowed here – games.example</title>", "<h1>Not allowed here</h1>", "<p>No games.</p>",
		"<dt>Rule</dt><dd>no games</dd>", "<code>abc</code>", "<dd>Help desk\nroom 12</dd>", `<main class="stop">`,
	} {
		if !strings.Contains(html, want) {
			t.Errorf("no %s in\n%s", want, html)
		}
	}
	p = Page{Language: "sv", Status: 504, Text: "Inget svar."}
	html = string(p.HTML())
	for _, want := range []string{`<html lang="sv">`, "<title>Webbplatsen svarar inte</title>", `<main class="gap">`} {
		if !strings.Contains(html, want) {
			t.Errorf("no %s in\n%s", want, html)
		}
	}
	for _, bad := range []string{"<dt>", "ask\">"} {
		if strings.Contains(html, bad) {
			t.Errorf("%s in\n%s", bad, html)
		}
	}
	if html := string(Page{Language: "en", Status: 407}.HTML()); !strings.Contains(html, `<main class="key">`) {
		t.Error(html)
	}
}

// Every text is there in Swedish, and no other.
func TestSwedish(t *testing.T) {
	used := map[string]bool{}
	for _, title := range titles {
		used[title] = true
	}
	for _, m := range regexp.MustCompile(`\.T "([^"]+)"`).FindAllStringSubmatch(document+welcomeDocument, -1) {
		used[m[1]] = true
	}
	for text := range used {
		if swedish[text] == "" {
			t.Errorf("%q is not there in Swedish", text)
		}
	}
	for text := range swedish {
		if !used[text] {
			t.Errorf("%q is not used", text)
		}
	}
}

func TestEscaped(t *testing.T) {
	const evil = `</title></style><script>alert(1)</script>"'<img src=x onerror=alert(1)>`
	html := string(Page{Language: "en", Status: 403, Text: evil, Host: evil, Rule: evil, Reference: evil, Contact: evil}.HTML())
	for _, bad := range []string{"<script", "<img"} {
		if strings.Contains(html, bad) {
			t.Errorf("%s in\n%s", bad, html)
		}
	}
}

// The styles are the ones that the policy lets in, and nothing points elsewhere.
func TestPolicy(t *testing.T) {
	h := http.Header{}
	SetHeader(h)
	html := string(Page{Language: "en", Status: 403, Contact: "x"}.HTML())
	_, rest, _ := strings.Cut(html, "<style>")
	css, _, ok := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(css))
	if want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri"; !ok || !strings.HasPrefix(h.Get("Content-Security-Policy"), want) {
		t.Errorf("policy %s\nwant   %s…", h.Get("Content-Security-Policy"), want)
	}
	for _, bad := range []string{"http:", "https:", "//", "url(", "@import", "style=", "<script", "<form", "<link"} {
		if strings.Contains(html, bad) {
			t.Errorf("%s in\n%s", bad, html)
		}
	}
}

func TestWelcome(t *testing.T) {
	const evil = `</title></style><script>alert(1)</script>"'<img src=x onerror=alert(1)>`
	html := string(Welcome{Language: "en", Organization: evil, PACURL: evil, Fingerprint: evil, CAName: evil, Contact: evil}.HTML())
	for _, bad := range []string{"<script", "<img", "http:", "https:", "//", "url(", "@import", "style=", "<form", "<link"} {
		if strings.Contains(html, bad) {
			t.Errorf("%s in\n%s", bad, html)
		}
	}
	html = string(Welcome{Language: "sv"}.HTML())
	if !strings.Contains(html, "<h1>Webbproxy</h1>") || strings.Contains(html, "<section") {
		t.Errorf("an empty page:\n%s", html)
	}
	_, rest, _ := strings.Cut(html, "<style>")
	if css, _, _ := strings.Cut(rest, "</style>"); css != style {
		t.Error("the styles are not those that the policy lets in")
	}
}
