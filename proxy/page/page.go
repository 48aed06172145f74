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

// words are what a page says beside its Text.
type words struct {
	Titles                              map[int]string // by status
	Site, Rule, Reference, Contact, Ask string
}

var texts = map[string]words{
	"en": {map[int]string{
		http.StatusBadRequest:         "Not understood",
		http.StatusForbidden:          "Not allowed here",
		http.StatusMethodNotAllowed:   "Not supported",
		http.StatusRequestTimeout:     "It took too long",
		http.StatusProxyAuthRequired:  "Please sign in",
		http.StatusMisdirectedRequest: "Not understood",
		http.StatusTooManyRequests:    "Please wait",
		http.StatusNotImplemented:     "Not supported",
		http.StatusBadGateway:         "The site cannot be reached",
		http.StatusServiceUnavailable: "Not available just now",
		http.StatusGatewayTimeout:     "The site does not answer",
	}, "Site", "Rule", "Reference", "Contact", "Whoever helps you will want to know the reference."},
	"sv": {map[int]string{
		http.StatusBadRequest:         "Gick inte att förstå",
		http.StatusForbidden:          "Inte tillåtet här",
		http.StatusMethodNotAllowed:   "Stöds inte",
		http.StatusRequestTimeout:     "Det tog för lång tid",
		http.StatusProxyAuthRequired:  "Logga in",
		http.StatusMisdirectedRequest: "Gick inte att förstå",
		http.StatusTooManyRequests:    "Vänta lite",
		http.StatusNotImplemented:     "Stöds inte",
		http.StatusBadGateway:         "Webbplatsen kan inte nås",
		http.StatusServiceUnavailable: "Inte tillgängligt just nu",
		http.StatusGatewayTimeout:     "Webbplatsen svarar inte",
	}, "Webbplats", "Regel", "Referens", "Kontakt", "Ange gärna referensen när du ber om hjälp."},
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
	w := texts[p.Language]
	title := w.Titles[p.Status]
	if title == "" {
		title = http.StatusText(p.Status)
	}
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
	}{p, w, title, kind, template.CSS(style)})
	return b.Bytes()
}
