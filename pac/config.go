// Package pac makes the proxy auto-configuration script that devices fetch, from
// the same catalogue that the proxy decides by.
package pac

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/policy/hostclass"
)

// Config is the configuration of the PAC script, `pac`.
type Config struct {
	// Proxies are host:port, in order; empty means the address that the script
	// was fetched from, with the proxy's port.
	Proxies []string `koanf:"proxies"`
	// Spread gives each client an order of its own of the proxies; see PAC.Order.
	Spread bool `koanf:"spread"`
	// Probe watches whether the proxies are well, and names last those that are
	// not; see health.Prober.
	Probe bool `koanf:"probe"`
	// Routes say where each kind of destination goes.
	Routes Routes `koanf:"routes"`
	// Local is "direct" or "proxy": where hosts go that hostclass.Class calls local.
	// Empty means direct.
	Local string `koanf:"local"`
	// Internal are domains (themselves and the names below), CIDR blocks, and the
	// words of hostclass.Words, which stay inside. They come before everything else,
	// also before what the policy denies: the administrator's own word decides.
	Internal []string `koanf:"internal"`
	// WPAD serves the script at /wpad.dat and /wpad.da too. That excludes Token.
	WPAD bool `koanf:"wpad"`
	// Token makes the paths of scripts unguessable: /proxy-TOKEN.pac in place of
	// /proxy.pac, /pac/NAME-TOKEN.pac in place of /pac/NAME.pac. It is a secret.
	Token string `koanf:"token"`
	// Sites differ from the rest, by name.
	Sites map[string]Site `koanf:"sites"`
}

// Routes are lists of "proxy" and "direct", tried in order.
type Routes struct {
	// Apple is for hosts and ports that Apple marks for proxy support.
	Apple []string `koanf:"apple"`
	// AppleUnmarked is for the rest of Apple's.
	AppleUnmarked []string `koanf:"apple_unmarked"`
	// Internal is for what stays inside.
	Internal []string `koanf:"internal"`
	// Default is for everything else.
	Default []string `koanf:"default"`
	// Services are for Apple's services, by id. They come before Apple and
	// AppleUnmarked.
	Services map[string][]string `koanf:"services"`
	// Hosts are for patterns (policy.ParsePattern) and the words of hostclass.Words.
	// The most specific pattern decides. They come before all but Internal.
	Hosts map[string][]string `koanf:"hosts"`
}

// A Site overrides the configuration for some clients, or for who fetches
// /pac/NAME.pac. An empty field takes the general value; so does a service or a
// pattern that the site's routes leave out.
type Site struct {
	// Clients are CIDR blocks, addresses, loopback, private. The longest prefix
	// decides between sites. Empty means that only /pac/NAME.pac leads here.
	Clients  []string `koanf:"clients"`
	Proxies  []string `koanf:"proxies"`
	Routes   Routes   `koanf:"routes"`
	Local    string   `koanf:"local"`
	Internal []string `koanf:"internal"`
	// Token makes the path unguessable: /pac/NAME-TOKEN.pac.
	Token string `koanf:"token"`
}

// General is the name under which the values outside sites are counted and
// shown. No site may have it.
const General = "default"

const (
	viaProxy  = "proxy"
	viaDirect = "direct"
)

// Validate checks the values. Errors begin with the key, joined.
func (c Config) Validate() error {
	errs := checkProxies("proxies", c.Proxies)
	errs = append(errs, c.Routes.check("routes", true)...)
	errs = append(errs, checkLocal("local", c.Local)...)
	errs = append(errs, checkInternal("internal", c.Internal)...)
	if err := checkToken("token", c.Token); err != nil {
		errs = append(errs, err)
	} else if c.Token != "" && c.WPAD {
		errs = append(errs, errors.New("token: wpad serves the script to whoever asks all the same; set pac.wpad to false"))
	}
	owners := map[netip.Prefix]string{} // prefix: key of the site that has it
	paths := map[string]string{}        // path: site
	for _, name := range slices.Sorted(maps.Keys(c.Sites)) {
		site, key := c.Sites[name], "sites."+name
		if name == General {
			errs = append(errs, fmt.Errorf("%s: %q means the values outside sites; choose another name", key, name))
		} else if !isSiteName(name) {
			errs = append(errs, fmt.Errorf("%s: %q is no site name (allowed: a-z, 0-9 and -, 63 at most)", key, name))
		}
		errs = append(errs, checkClients(key, site.Clients, owners)...)
		errs = append(errs, checkProxies(key+".proxies", site.Proxies)...)
		errs = append(errs, site.Routes.check(key+".routes", false)...)
		errs = append(errs, checkLocal(key+".local", site.Local)...)
		errs = append(errs, checkInternal(key+".internal", site.Internal)...)
		if err := checkToken(key+".token", site.Token); err != nil {
			errs = append(errs, err)
		}
		path := sitePath(name, cmp.Or(site.Token, c.Token))
		if other, taken := paths[path]; taken {
			errs = append(errs, fmt.Errorf("%s.token: makes the same path of it that sites.%s has; choose another", key, other))
		}
		paths[path] = name
	}
	return errors.Join(errs...)
}

func isSiteName(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// A token has at least minToken characters, which is 80 bits where they are
// random hexadecimal digits.
const minToken, maxToken = 20, 128

// checkToken never shows the token.
func checkToken(key, token string) error {
	if token == "" {
		return nil
	}
	for i := 0; i < len(token); i++ {
		if c := token[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return fmt.Errorf("%s: has a character that is not allowed (allowed: a-z, A-Z, 0-9, - and _)", key)
		}
	}
	if len(token) < minToken || len(token) > maxToken {
		return fmt.Errorf("%s: has %d characters (allowed: %d to %d; `openssl rand -hex 16` makes a good one)", key, len(token), minToken, maxToken)
	}
	return nil
}

// generalPath and sitePath are where scripts are served.
func generalPath(token string) string { return "/" + withToken("proxy", token) + ".pac" }

func sitePath(site, token string) string { return "/pac/" + withToken(site, token) + ".pac" }

func withToken(name, token string) string {
	if token == "" {
		return name
	}
	return name + "-" + token
}

// check checks every list; complete makes an empty one an error.
func (r Routes) check(key string, complete bool) []error {
	var errs []error
	add := func(at string, hops []string, complete bool) {
		if len(hops) == 0 && complete {
			errs = append(errs, fmt.Errorf("%s: is empty (allowed: a list of proxy, direct)", at))
		}
		for i, hop := range hops {
			if hop != viaProxy && hop != viaDirect {
				errs = append(errs, fmt.Errorf("%s[%d]: %q is unknown (allowed: proxy, direct)", at, i, hop))
			} else if j := slices.Index(hops, hop); j < i {
				errs = append(errs, fmt.Errorf("%s[%d]: %q stands at %s[%d] too", at, i, hop, at, j))
			}
		}
	}
	add(key+".apple", r.Apple, complete)
	add(key+".apple_unmarked", r.AppleUnmarked, complete)
	add(key+".internal", r.Internal, complete)
	add(key+".default", r.Default, complete)
	for _, id := range slices.Sorted(maps.Keys(r.Services)) {
		at := key + ".services." + id
		if id == catalog.Other {
			errs = append(errs, fmt.Errorf("%s: covers everything that is not Apple's; set %s.default", at, key))
		} else if !catalog.IsService(id) {
			errs = append(errs, fmt.Errorf("%s: unknown service %q (`espalier catalog list` shows them)", at, id))
		}
		add(at, r.Services[id], true)
	}
	seen := map[string]string{}
	for _, pattern := range slices.Sorted(maps.Keys(r.Hosts)) {
		at := key + ".hosts." + pattern
		normal, err := normalPattern(pattern)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s.hosts: %w", key, err))
		} else if other, dup := seen[normal]; dup {
			errs = append(errs, fmt.Errorf("%s: %s means the same hosts", at, other))
		}
		seen[normal] = at
		add(at, r.Hosts[pattern], true)
	}
	return errs
}

// normalPattern returns the normal form of a key of routes.hosts.
func normalPattern(s string) (string, error) {
	if _, ok := hostclass.Word(s); ok {
		return strings.ToLower(s), nil
	}
	return policy.ParsePattern(s)
}

// or returns r with what it leaves out taken from general.
func (r Routes) or(general Routes) Routes {
	return Routes{
		Apple:         or(r.Apple, general.Apple),
		AppleUnmarked: or(r.AppleUnmarked, general.AppleUnmarked),
		Internal:      or(r.Internal, general.Internal),
		Default:       or(r.Default, general.Default),
		Services:      merged(general.Services, r.Services),
		Hosts:         merged(normalKeys(general.Hosts), normalKeys(r.Hosts)),
	}
}

// normalKeys returns hosts by normal patterns. Validate has seen them.
func normalKeys(hosts map[string][]string) map[string][]string {
	normal := map[string][]string{}
	for pattern, hops := range hosts {
		p, _ := normalPattern(pattern)
		normal[p] = hops
	}
	return normal
}

// merged returns general with the entries of own in place of its own.
func merged(general, own map[string][]string) map[string][]string {
	all := map[string][]string{}
	maps.Copy(all, general)
	maps.Copy(all, own)
	return all
}

func or(list, general []string) []string {
	if len(list) == 0 {
		return general
	}
	return list
}

func checkProxies(key string, proxies []string) []error {
	var errs []error
	seen := map[string]int{}
	for i, s := range proxies {
		p, err := parseProxy(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s[%d]: %w", key, i, err))
		} else if j, dup := seen[p]; dup {
			errs = append(errs, fmt.Errorf("%s[%d]: %q stands at %s[%d] too", key, i, s, key, j))
		} else {
			seen[p] = i
		}
	}
	return errs
}

// parseProxy normalises host:port as it stands in a PAC answer, where neither
// an IPv6 literal nor a scheme is understood.
func parseProxy(s string) (string, error) {
	const allowed = `(allowed: "name:port" or "192.0.2.1:3128")`
	if strings.Contains(s, "://") {
		return "", fmt.Errorf("%q has a scheme, which a PAC answer has no room for %s", s, allowed)
	}
	// Colons are counted first, since ParseTarget would take the last group of
	// a bare IPv6 address for a port.
	if strings.Count(s, ":") > 1 || strings.HasPrefix(s, "[") {
		return "", fmt.Errorf("%q: devices do not understand an IPv6 literal in a PAC answer; use a name %s", s, allowed)
	}
	t, err := policy.ParseTarget(s, 0)
	if err != nil {
		return "", fmt.Errorf("%q is no proxy address: %w %s", s, err, allowed)
	}
	return t.String(), nil
}

func checkLocal(key, local string) []error {
	if !slices.Contains([]string{"", viaDirect, viaProxy}, local) {
		return []error{fmt.Errorf("%s: %q is unknown (allowed: direct, proxy)", key, local)}
	}
	return nil
}

func checkInternal(key string, internal []string) []error {
	var errs []error
	for i, s := range internal {
		if _, err := internalPatterns(s); err != nil {
			errs = append(errs, fmt.Errorf("%s[%d]: %w", key, i, err))
		}
	}
	return errs
}

// internalPatterns returns the patterns that an element of internal means: those
// of a word, an address block, or a domain and the names below.
func internalPatterns(s string) ([]string, error) {
	if _, ok := hostclass.Word(s); ok {
		return []string{s}, nil
	}
	for _, wild := range []string{"*.", "."} {
		if name, ok := strings.CutPrefix(s, wild); ok {
			return nil, fmt.Errorf("%q: write %q, which covers itself and the names below", s, name)
		}
	}
	pattern, err := policy.ParsePattern(s)
	if cause := errors.Unwrap(err); cause != nil {
		return nil, fmt.Errorf("%q is neither a domain nor an address block: %w", s, cause)
	} else if err != nil {
		return nil, err
	}
	if isAddressBlock(pattern) {
		return []string{pattern}, nil
	}
	return []string{pattern, "*." + pattern}, nil
}

// isAddressBlock tells an address or a CIDR block from a name, by the normal form.
func isAddressBlock(pattern string) bool {
	_, err := netip.ParseAddr(pattern)
	return err == nil || strings.Contains(pattern, "/")
}

// checkClients checks a site's clients against those of the sites in owners,
// and adds them.
func checkClients(site string, clients []string, owners map[netip.Prefix]string) []error {
	var errs []error
	for i, s := range clients {
		at := fmt.Sprintf("%s.clients[%d]", site, i)
		nets, err := policy.ParseNetworks(clients[i : i+1])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s", at, strings.TrimPrefix(err.Error(), "[0]: ")))
			continue
		}
		for _, n := range nets {
			owner, taken := owners[n]
			if taken && !strings.HasPrefix(owner, site+".") {
				errs = append(errs, fmt.Errorf("%s: %q stands at %s too, so there is no saying which site its clients are of", at, s, owner))
				break
			}
			owners[n] = at
		}
	}
	return errs
}
