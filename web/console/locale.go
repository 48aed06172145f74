package console

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
	"golang.org/x/text/number"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/doctor"
	"espalier/proxy/page"
	"espalier/proxy/traffic"
	"espalier/web/api"
)

// Languages are those that pages are to be had in. The texts in the templates are
// those of the first.
var Languages = []string{"en", "sv"}

// A Locale writes texts, numbers and times in one of Languages.
type Locale string

// The cookies of how a reader wants pages.
const (
	LangCookie  = "espalier-lang"
	ThemeCookie = "espalier-theme"
)

// LookOf is how the reader wants pages: as chosen, or else as the browser asks.
func LookOf(r *http.Request) Look {
	var look Look
	if c, err := r.Cookie(ThemeCookie); err == nil && (c.Value == "light" || c.Value == "dark") {
		look.Theme = c.Value
	}
	if c, err := r.Cookie(LangCookie); err == nil && slices.Contains(Languages, c.Value) {
		look.Lang = c.Value
	} else {
		look.Lang = page.Language(r.Header.Get("Accept-Language"))
	}
	return look
}

//go:embed swedish.yaml
var swedishYAML []byte

// swedish are the texts in Swedish, by the English ones.
var swedish = sync.OnceValue(func() map[string]string {
	texts := map[string]string{}
	if err := yaml.Unmarshal(swedishYAML, &texts); err != nil {
		panic(err) // a mistake in the file, which the tests read
	}
	return texts
})

// T returns the text in the locale. Args stand for its verbs.
func (l Locale) T(text string, args ...any) string {
	if l == "sv" {
		if s, ok := swedish()[text]; ok {
			text = s
		}
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// number is T of one text for 1 and another for all other numbers, which stand for
// its verb.
func (l Locale) number(n int64, one, many string) string {
	if n == 1 {
		many = one
	}
	return l.T(many, l.Count(n))
}

var codePattern = regexp.MustCompile("`([^`]+)`")

// rich is T with what stands between backquotes as code.
func (l Locale) rich(text string) template.HTML {
	return template.HTML(codePattern.ReplaceAllString(template.HTMLEscapeString(l.T(text)), "<code>$1</code>"))
}

// Size writes bytes in decimal units, three digits of them.
func (l Locale) Size(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, units := float64(n)/1000, "kMGTPE"
	for f >= 999.5 {
		f, units = f/1000, units[1:]
	}
	digits := 0
	if f < 9.995 {
		digits = 2
	} else if f < 99.95 {
		digits = 1
	}
	return l.float(f, digits) + " " + units[:1] + "B"
}

func (l Locale) float(f float64, digits int) string {
	return l.printer().Sprint(number.Decimal(f, number.Scale(digits)))
}

// Count writes n in groups of three digits.
func (l Locale) Count(n int64) string { return l.printer().Sprint(n) }

func (l Locale) printer() *message.Printer { return message.NewPrinter(language.Make(string(l))) }

// Percent never rounds something to nothing, nor a part to the whole.
func (l Locale) Percent(part, whole int64) string {
	switch p := width(part, whole); {
	case part == 0 || part == whole && whole > 0:
		return strconv.FormatFloat(p, 'f', 0, 64) + " %"
	case p < 0.1:
		return "< " + l.float(0.1, 1) + " %"
	case p > 99.9:
		return "> " + l.float(99.9, 1) + " %"
	default:
		return l.float(p, 1) + " %"
	}
}

// width is part of whole in hundredths.
func width(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * float64(part) / float64(whole)
}

// bar is the width of a bar, which something never leaves invisible.
func bar(part, whole int64) float64 {
	if part == 0 {
		return 0
	}
	return max(width(part, whole), 0.8)
}

// Span writes a duration in its two largest units.
func (l Locale) Span(d time.Duration) string {
	s := int64(max(d, 0) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 60*60:
		return fmt.Sprintf("%d min %d s", s/60, s%60)
	case s < 24*60*60:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	default:
		return fmt.Sprintf("%d %s %d h", s/86400, l.T("d"), s/3600%24)
	}
}

// Took writes how long an exchange took.
func (l Locale) Took(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "< 1 ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return l.float(d.Seconds(), 1) + " s"
	}
	return l.Span(d)
}

func (l Locale) funcs() template.FuncMap {
	return template.FuncMap{
		"t": l.T, "rich": l.rich, "size": l.Size, "percent": l.Percent, "span": l.Span, "took": l.Took, "bar": bar,
		"count": func(n any) string { return l.Count(asInt(n)) },
		"n":     func(n any, one, many string) string { return l.number(asInt(n), one, many) },
		"sum":   func(a, b int64) int64 { return a + b },
		"ago":   func(at, now time.Time) string { return l.T("%s ago", l.Span(now.Sub(at))) },
		"when":  func(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") },
		"zone":  func(t time.Time) string { return t.Local().Format("MST") },
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"offset": func(t time.Time) int { // seconds east of UTC
			_, seconds := t.Local().Zone()
			return seconds
		},
		// A rule's reason says all but which address the guard means.
		"said":     func(rule string) bool { return ruleMeanings[rule] != "" && rule != "address-guard" },
		"reason":   func(rule string) template.HTML { return l.rich(cmp.Or(ruleMeanings[rule], ruleOfYours)) },
		"problem":  func(p doctor.Problem) string { return l.T(p.Title()) },
		"service":  func(id string) string { return l.T(api.ServiceName(id)) },
		"services": func() []catalog.Service { return catalog.Services },
		// Actions are strings of several types.
		"meaning":    func(action any) string { return l.T(actionMeanings[policy.Action(fmt.Sprint(action))]) },
		"actions":    func() []policy.Action { return traffic.Actions },
		"conditions": conditions,
		"systems":    systems,
		"join":       strings.Join,
		"areas":      func() []Area { return Areas },
		"windows":    func() []window { return windows },
		"languages":  func() map[string]string { return map[string]string{"en": "English", "sv": "Svenska"} },
		"dict":       dict,
	}
}

// asInt is a number of any integer type.
func asInt(n any) int64 {
	v := reflect.ValueOf(n)
	if v.CanUint() {
		return int64(v.Uint())
	}
	return v.Int()
}

// systemNames are Apple's names of the catalogue's systems.
var systemNames = map[string]string{
	"ios": "iOS", "ipados": "iPadOS", "tvos": "tvOS", "macos": "macOS", "watchos": "watchOS", "visionos": "visionOS",
}

func systems(ids []string) string {
	var names []string
	for _, id := range ids {
		names = append(names, cmp.Or(systemNames[id], id))
	}
	return strings.Join(names, ", ")
}

// dict makes a map of names and values, for templates that need several.
func dict(pairs ...any) map[string]any {
	m := map[string]any{}
	for i := 0; i+1 < len(pairs); i += 2 {
		m[pairs[i].(string)] = pairs[i+1]
	}
	return m
}

// actionMeanings explain actions to readers who have not read the manual.
var actionMeanings = map[policy.Action]string{
	policy.Tunnel:    "carried untouched",
	policy.Forward:   "plain HTTP",
	policy.Inspect:   "TLS opened",
	policy.Deny:      "refused by policy",
	policy.Challenge: "asked to sign in",
	policy.Error:     "permitted, but failed",
}

// ruleOfYours explains every other rule than those of ruleMeanings.
const ruleOfYours = "The first rule of yours that matches."

// ruleMeanings explain the rules that are no administrator's.
var ruleMeanings = map[string]string{
	policy.RuleApple:     "The destination is one of Apple’s. Its bytes pass untouched, and nobody is asked to sign in.",
	policy.RuleClients:   "The client’s address is outside `proxy.clients`.",
	policy.RuleRelay:     "Private Relay is blocked by `apple.private_relay`.",
	policy.RulePorts:     "The destination’s port is not in `proxy.ports`, and no rule allows it.",
	policy.RuleAuth:      "The request was to sign in first.",
	policy.RulePresets:   "A header is set there by `presets`.",
	policy.RuleInspect:   "Everything that is not Apple’s or exempt is inspected: `inspect.mode` is all.",
	policy.RuleException: "The client refuses interception of the host, or an administrator has accepted that clients do.",
	policy.RuleWithoutCA: "The client does not trust the CA; `inspect.without_ca` says what happens then.",

	policy.RuleKnownExempt:       "The host is on the list of hosts that cannot be inspected: `inspect.known_exempt`.",
	policy.RuleClientCertificate: "The client has a certificate of its own for the host.",
	policy.RuleDefault:           "No rule matched, and nothing else stood against it.",
	policy.RuleUnknown:           "What cannot be inspected is treated as `inspect.unknown` says.",
	policy.RuleConstraints:       "The CA’s certificate excludes the host, so it is not intercepted.",
	policy.RuleName:              "TLS names a host that the CONNECT does not lead to.",
	"invalid-tls":                "The tunnel begins with TLS that the proxy cannot read.",
	"misdirected":                "The request inside the connection was for another host than the connection.",
	"invalid-target":             "The destination was no valid name with a port.",
	"malformed-request":          "The request was no valid HTTP, or too large.",
	"method":                     "The proxy does not pass on that method.",
	"address-guard":              "The destination’s address is one that the proxy must not be led to.",
}

// Texts that the handlers of pages say.
const (
	NoStore       = "Nothing is kept: log.store.path is empty."
	StoreFails    = "The store cannot be searched now; the log of the process says why."
	NoSuchThing   = "There is no such thing, or it is no longer kept."
	RequestFor    = "Request for %s"
	NotNow        = "You cannot be signed in now. Try again in a moment."
	WrongPassword = "The user or the password is wrong."
	Throttled     = "Too many sign-ins have failed. Try again in %s."
	LinkIsOver    = "This setup link is not valid any more: it is good once, for an hour, and on this machine only."
	PasswordsVary = "The two passwords differ."
	TrafficOfAll  = "Traffic by service"
	Traffic       = "Traffic"
	ToDevices     = "To devices"
	FromDevices   = "From devices"
	AllOthers     = "all others"
)
