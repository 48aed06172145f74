package policy

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Values of presets.youtube.
const (
	YouTubeModerate = "moderate"
	YouTubeStrict   = "strict"
)

// Presets are policies that the operators of large sites have made ways for.
// The zero value means none. apple.private_relay is one more.
//
// Safe search needs no interception: the operator publishes a host that only
// answers safely, and requests for its ordinary hosts are connected to that
// host's address. The names that the client uses in TLS and HTTP stay. The other
// presets set a header, so their hosts are intercepted, unless a rule says
// tunnel.
//
// None of them reaches a client that connects to an address in place of a name,
// or to another name for the same site.
type Presets struct {
	// SafeSearch are search engines, by the names that engines has.
	SafeSearch []string `koanf:"safe_search"`
	// YouTube is YouTube's restricted mode, moderate or strict; empty means off.
	YouTube string `koanf:"youtube"`
	// GoogleDomains are the Google Workspace domains whose accounts may sign in
	// at Google; none means all accounts.
	GoogleDomains []string `koanf:"google_domains"`
	// Microsoft says which accounts may sign in at Microsoft.
	Microsoft Microsoft `koanf:"microsoft"`
}

// Microsoft are tenant restrictions, of version 1 (Tenants, Context,
// BlockPersonal) or version 2 (Policy).
type Microsoft struct {
	// Tenants are the domains or ids of the tenants whose accounts may sign in.
	Tenants []string `koanf:"tenants"`
	// Context is the id of the directory that sets the restriction; it must
	// stand beside Tenants.
	Context string `koanf:"context"`
	// BlockPersonal keeps personal accounts from signing in to applications.
	BlockPersonal bool `koanf:"block_personal"`
	// Policy is "tenant:guid" of a policy of version 2.
	Policy string `koanf:"policy"`
}

// engines are the search engines with an address that answers safely only: the
// hosts that people use, and the one to connect to. Google's are isGoogle's.
var engines = map[string]struct {
	hosts []string
	safe  string
}{
	"google": {nil, "forcesafesearch.google.com"},
	// edgeservices answers the sidebar of Edge.
	"bing": {[]string{"bing.com", "www.bing.com", "edgeservices.bing.com"}, "strict.bing.com"},
	// html and lite are DuckDuckGo's pages without scripts.
	"duckduckgo": {[]string{
		"duckduckgo.com", "www.duckduckgo.com", "start.duckduckgo.com", "html.duckduckgo.com", "lite.duckduckgo.com",
	}, "safe.duckduckgo.com"},
	// By https://safe.search.brave.com/help/safesearch, which quotes a CNAME to this name;
	// safesearch.brave.com is older.
	"brave":   {[]string{"search.brave.com"}, "forcesafe.search.brave.com"},
	"ecosia":  {[]string{"www.ecosia.org"}, "strict-safe-search.ecosia.org"},
	"pixabay": {[]string{"pixabay.com"}, "safesearch.pixabay.com"},
	"yandex":  {below("yandex", "ya.ru", "ru", "com", "com.tr", "az", "by", "co.il", "ee", "eu", "fr", "kz", "lt", "lv", "md", "net", "pl", "tj", "tm", "ua", "uz"), "familysearch.yandex.ru"},
}

// below returns also, name under every suffix, and www below each.
func below(name, also string, suffixes ...string) []string {
	hosts := []string{also, "www." + also}
	for _, s := range suffixes {
		hosts = append(hosts, name+"."+s, "www."+name+"."+s)
	}
	return hosts
}

// isGoogle reports whether host is Google's search in any country: www.google,
// and .com, .cat, a country, or com or co of a country. Google has one for nearly
// each, and adds some.
func isGoogle(host string) bool {
	suffix, ok := strings.CutPrefix(host, "www.google.")
	if !ok {
		return false
	}
	if country, ok := strings.CutPrefix(suffix, "com."); ok {
		suffix = country
	} else if country, ok := strings.CutPrefix(suffix, "co."); ok {
		suffix = country
	}
	return suffix == "com" || suffix == "cat" || len(suffix) == 2 && suffix[0] != '.' && suffix[1] != '.'
}

var (
	youtubeHosts = []string{"www.youtube.com", "m.youtube.com", "youtubei.googleapis.com", "youtube.googleapis.com", "www.youtube-nocookie.com"}
	youtubeSafe  = map[string]string{YouTubeModerate: "restrictmoderate.youtube.com", YouTubeStrict: "restrict.youtube.com"}

	microsoftHosts = []string{"login.microsoftonline.com", "login.microsoft.com", "login.windows.net"}
)

const microsoftPersonal = "login.live.com"

// Validate checks the values. Errors begin with the key, joined.
func (p Presets) Validate() error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for i, name := range p.SafeSearch {
		if _, ok := engines[name]; !ok {
			fail("safe_search[%d]: %q is unknown (allowed: %s)", i, name, strings.Join(slices.Sorted(maps.Keys(engines)), ", "))
		}
	}
	if _, ok := youtubeSafe[p.YouTube]; !ok && p.YouTube != "" {
		fail("youtube: %q is unknown (allowed: moderate, strict)", p.YouTube)
	}
	for i, d := range p.GoogleDomains {
		if host, addr, err := ParseHost(d); err != nil || addr.IsValid() || !strings.Contains(host, ".") {
			fail("google_domains[%d]: %q is no domain", i, d)
		}
	}
	m := p.Microsoft
	word := func(key, value string) {
		if strings.ContainsAny(value, ", ") || value == "" || !httpguts.ValidHeaderFieldValue(value) {
			fail("microsoft.%s: %q is no domain or id", key, value)
		}
	}
	for i, t := range m.Tenants {
		word(fmt.Sprintf("tenants[%d]", i), t)
	}
	if m.Context != "" {
		word("context", m.Context)
	}
	switch tenant, guid, ok := strings.Cut(m.Policy, ":"); {
	case len(m.Tenants) > 0 && m.Context == "":
		fail("microsoft.context: missing (tenants need the id of the directory that restricts)")
	case len(m.Tenants) == 0 && m.Context != "":
		fail("microsoft.tenants: missing (context is the directory of these)")
	case m.Policy == "":
	case len(m.Tenants) > 0 || m.BlockPersonal:
		fail("microsoft.policy: stands beside tenants or block_personal (version 2 takes the place of version 1)")
	case !ok || tenant == "" || guid == "" || strings.ContainsAny(m.Policy, ", ") || !httpguts.ValidHeaderFieldValue(m.Policy):
		fail("microsoft.policy: %q is no policy (allowed: \"tenant-id:policy-id\")", m.Policy)
	}
	return errors.Join(errs...)
}

// ValidatePresets checks presets as New does: by Validate, and that what sets a
// header can be intercepted. Errors begin with "presets.".
func ValidatePresets(p Presets, inspectMode string) error {
	errs := []error{under("presets", p.Validate())}
	if inspectMode == "" || inspectMode == InspectNone {
		m := p.Microsoft
		for _, needs := range []struct {
			key string
			set bool
		}{
			{"google_domains", len(p.GoogleDomains) > 0},
			{"microsoft.tenants", len(m.Tenants) > 0},
			{"microsoft.block_personal", m.BlockPersonal},
			{"microsoft.policy", m.Policy != ""},
		} {
			if needs.set {
				errs = append(errs, fmt.Errorf("presets.%s: needs inspect.mode listed or all, not none: it sets a header inside TLS", needs.key))
			}
		}
	}
	return errors.Join(errs...)
}

// A header is set on requests, in place of those that the client sent by the
// same name.
type header struct{ name, value string }

// presets is Presets compiled.
type presets struct {
	google  bool              // safe search for every www.google
	dial    map[string]string // the host to connect to, by the host that is asked for
	headers []presetHeaders
}

type presetHeaders struct {
	hosts hosts
	set   []header
}

func compilePresets(p Presets) presets {
	c := presets{dial: map[string]string{}}
	for _, name := range p.SafeSearch {
		c.google = c.google || name == "google"
		for _, h := range engines[name].hosts {
			c.dial[h] = engines[name].safe
		}
	}
	if p.YouTube != "" {
		for _, h := range youtubeHosts {
			c.dial[h] = youtubeSafe[p.YouTube]
		}
	}
	set := func(patterns []string, headers ...header) {
		h, _ := compileHosts(patterns) // they are ours
		c.headers = append(c.headers, presetHeaders{h, headers})
	}
	if len(p.GoogleDomains) > 0 {
		set([]string{"google.com", "*.google.com"}, header{"X-GoogApps-Allowed-Domains", strings.Join(p.GoogleDomains, ",")})
	}
	const policy = "Sec-Restrict-Tenant-Access-Policy"
	m := p.Microsoft
	if len(m.Tenants) > 0 {
		set(microsoftHosts, header{"Restrict-Access-To-Tenants", strings.Join(m.Tenants, ",")}, header{"Restrict-Access-Context", m.Context})
	}
	if m.BlockPersonal {
		set([]string{microsoftPersonal}, header{policy, "restrict-msa"})
	}
	if m.Policy != "" {
		set(append([]string{microsoftPersonal}, microsoftHosts...), header{policy, m.Policy})
	}
	return c
}

// address returns the target to connect to for t: t, where no preset names
// another host.
func (p *presets) address(t Target) Target {
	if safe, ok := p.dial[t.Host]; ok {
		return Target{Host: safe, Port: t.Port}
	}
	if p.google && isGoogle(t.Host) {
		return Target{Host: engines["google"].safe, Port: t.Port}
	}
	return t
}

// headersFor are what requests to t must carry; nil: nothing.
func (p *presets) headersFor(t Target) []header {
	for i := range p.headers {
		if p.headers[i].hosts.match(t) {
			return p.headers[i].set
		}
	}
	return nil
}

// HasHeaders reports whether Headers has any.
func (d *Decision) HasHeaders() bool { return len(d.ruleHeaders)+len(d.presetHeaders) > 0 }

// Headers are the names and values to set on a request that is forwarded or
// intercepted, in place of all that the client sent by the same names: those of
// rules[].headers, then those of presets, which must hold. There are none for
// what is tunnelled, and for what is Apple's.
func (d *Decision) Headers() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for _, list := range [2][]header{d.ruleHeaders, d.presetHeaders} {
			for _, h := range list {
				if !yield(h.name, h.value) {
					return
				}
			}
		}
	}
}
