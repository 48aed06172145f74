// Package page renders the pages that people see on devices: Page in place of a site
// that the proxy refuses or cannot reach, Welcome at the proxy's own address. Each
// is one HTML document that needs nothing from elsewhere, in the reader's language.
package page

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
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
	Setup     string // where to set the device up
}

// titles are those of pages by status, in English.
var titles = map[int]string{
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
}

//go:embed swedish.yaml
var swedishYAML []byte

// swedish are the texts in Swedish, by the English ones.
var swedish = func() (texts map[string]string) {
	if err := yaml.Unmarshal(swedishYAML, &texts); err != nil {
		panic(err) // the file is part of the program
	}
	return texts
}()

func translate(lang, text string) string {
	if lang == "sv" {
		return cmp.Or(swedish[text], text)
	}
	return text
}

// T returns an English text of the page in its Language.
func (p Page) T(text string) string { return translate(p.Language, text) }

// T returns an English text of the page in its Language.
func (p Welcome) T(text string) string { return translate(p.Language, text) }

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
		Title, Kind string
		Style       template.CSS
	}{p, cmp.Or(titles[p.Status], http.StatusText(p.Status)), kind, template.CSS(style)})
	return b.Bytes()
}

// A Welcome tells people who open the address of the proxy in a browser what it is,
// and how a device is set up by hand. Fields but Language may be empty, and are left
// out then.
type Welcome struct {
	Language     string // as Language returns
	Organization string
	PACURL       string
	// Fingerprint is that of the certificate that devices must trust, SHA-256 in
	// hexadecimal octets with colons, and CAName its name. The page links to /ca.mobileconfig and
	// /ca.crt.
	Fingerprint, CAName string
	Contact             string // whom to ask, in the administrator's words
}

//go:embed welcome.html
var welcomeDocument string

var parsedWelcome = template.Must(template.New("welcome").Parse(welcomeDocument))

// HTML renders the page, for a header by SetHeader.
func (p Welcome) HTML() []byte {
	var b bytes.Buffer
	// A bytes.Buffer takes everything, and the template has no call that fails.
	_ = parsedWelcome.Execute(&b, struct {
		Welcome
		Octets []string // of the fingerprint, between which lines may break
		Style  template.CSS
	}{p, strings.Split(p.Fingerprint, ":"), template.CSS(style)})
	return b.Bytes()
}
