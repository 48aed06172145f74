// Package page renders the pages that people see on devices: Page in place of a site
// that the proxy refuses or cannot reach, Welcome at the proxy's own address. Each
// is one HTML document that needs nothing from elsewhere, in the reader's language.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/language"
)

// A Page is what to tell. Fields but Language, Status and Text may be empty, and
// are left out then.
type Page struct {
	Language  string // as Language returns
	Status    int
	Text      string // what is wrong, in Language
	Host      string // that was asked for
	Rule      string // that decided
	Reference string // of the record
	Contact   string // whom to ask, in the administrator's words
}

// words are what a page says beside its title and Text.
type words struct{ Site, Rule, Reference, Contact, Ask string }

var texts = map[string]words{
	"en": {"Site", "Rule", "Reference", "Contact", "Whoever helps you will want to know the reference."},
	"sv": {"Webbplats", "Regel", "Referens", "Kontakt", "Ange gärna referensen när du ber om hjälp."},
}

// titles are those of pages, by status.
var titles = []struct {
	statuses []int
	byLang   map[string]string
}{
	{[]int{http.StatusBadRequest, http.StatusMisdirectedRequest}, map[string]string{"en": "Not understood", "sv": "Gick inte att förstå"}},
	{[]int{http.StatusForbidden}, map[string]string{"en": "Not allowed here", "sv": "Inte tillåtet här"}},
	{[]int{http.StatusMethodNotAllowed, http.StatusNotImplemented}, map[string]string{"en": "Not supported", "sv": "Stöds inte"}},
	{[]int{http.StatusRequestTimeout}, map[string]string{"en": "It took too long", "sv": "Det tog för lång tid"}},
	{[]int{http.StatusProxyAuthRequired}, map[string]string{"en": "Please sign in", "sv": "Logga in"}},
	{[]int{http.StatusTooManyRequests}, map[string]string{"en": "Please wait", "sv": "Vänta lite"}},
	{[]int{http.StatusBadGateway}, map[string]string{"en": "The site cannot be reached", "sv": "Webbplatsen kan inte nås"}},
	{[]int{http.StatusServiceUnavailable}, map[string]string{"en": "Not available just now", "sv": "Inte tillgängligt just nu"}},
	{[]int{http.StatusGatewayTimeout}, map[string]string{"en": "The site does not answer", "sv": "Webbplatsen svarar inte"}},
}

func title(lang string, status int) string {
	for _, t := range titles {
		if slices.Contains(t.statuses, status) {
			return t.byLang[lang]
		}
	}
	return http.StatusText(status)
}

// Language returns the language of a page, en or sv, for an Accept-Language
// header (RFC 9110, 12.5.4).
func Language(accept string) string {
	if len(accept) > 256 { // no browser's
		accept = ""
	}
	_, i := language.MatchStrings(languages, accept)
	return [...]string{"en", "sv"}[i]
}

var languages = language.NewMatcher([]language.Tag{language.English, language.Swedish})

// Wanted reports whether an Accept header names HTML (RFC 9110, 12.5.1), as
// browsers do for what they show as a page. Who accepts just anything is given
// text.
func Wanted(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil || media != "text/html" {
			continue
		}
		q, err := strconv.ParseFloat(params["q"], 64)
		return err != nil || q > 0
	}
	return false
}

//go:embed page.html
var document string

//go:embed page.css
var style string

var parsed = template.Must(template.New("page").Parse(document))

// policy forbids everything but the page's own styles.
var policy = func() string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// SetHeader sets what the header of a page has to say.
func SetHeader(h http.Header) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", "no-referrer")
}

// HTML renders the page.
func (p Page) HTML() []byte {
	var b bytes.Buffer
	kind := "stop"
	switch {
	case p.Status == http.StatusProxyAuthRequired, p.Status == http.StatusTooManyRequests:
		kind = "key"
	case p.Status >= 500:
		kind = "gap"
	}
	// A bytes.Buffer takes everything, and the template has no call that fails.
	_ = parsed.Execute(&b, struct {
		Page
		Words       words
		Title, Kind string
		Style       template.CSS
	}{p, texts[p.Language], title(p.Language, p.Status), kind, template.CSS(style)})
	return b.Bytes()
}
