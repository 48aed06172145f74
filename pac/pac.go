package pac

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"espalier/policy"
	"espalier/policy/catalog"
)

// A PAC answers where destinations go, and makes the scripts that say the same
// to devices. It is immutable but for its cache and safe for concurrent use; a
// reload compiles a new one.
type PAC struct {
	apple    *catalog.Set
	sites    map[string]*site // the general values are ""
	clients  []clientNet
	wpad     bool
	spread   bool
	probed   []string
	modified time.Time
	paths    map[[sha256.Size]byte]string // digest of a path: site
	general  [sha256.Size]byte            // digest of the path where the client's address decides

	mu    sync.RWMutex
	cache map[string]*Script
}

// maxScripts bounds the scripts kept in memory: whoever can reach a machine by
// many addresses makes it name each of them in a script.
const maxScripts = 256

type clientNet struct {
	prefix netip.Prefix
	site   string
}

type site struct {
	proxies []string
	routes  [classes][]string
	names   map[string]bool // internal
	nets    policy.Networks // internal
	choice  [classes]int    // route numbers in the script
	hops    [][]string      // the script's routes, by number
	table   []byte          // the script but for its routes
	path    string
}

// A Class is a kind of destination; every class has a route. A higher class
// beats a lower one.
type Class uint8

const (
	Default       Class = iota // everything else
	AppleUnmarked              // Apple's, not marked for proxy support
	Apple                      // Apple's, marked
	Internal                   // named by pac.internal
	classes
)

// String returns the key of the class under pac.routes.
func (c Class) String() string {
	return [...]string{"default", "apple_unmarked", "apple", "internal"}[c]
}

// ErrNoSite is returned for a site that is not configured.
var ErrNoSite = errors.New("there is no such site under pac.sites")

// Compile validates cfg and compiles it. apple is policy.Policy.Apple().
func Compile(cfg Config, apple *catalog.Set) (*PAC, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &PAC{
		apple:    apple,
		sites:    map[string]*site{},
		wpad:     cfg.WPAD,
		spread:   cfg.Spread,
		paths:    map[[sha256.Size]byte]string{},
		modified: time.Now(),
		cache:    map[string]*Script{},
	}
	all := maps.Clone(cfg.Sites)
	if all == nil {
		all = map[string]Site{}
	}
	all[""] = Site{Proxies: cfg.Proxies, Routes: cfg.Routes, Internal: cfg.Internal}
	for name, c := range all {
		nets, _ := policy.ParseNetworks(c.Clients) // Validate has seen it
		for _, n := range nets {
			p.clients = append(p.clients, clientNet{n, name})
		}
		routes := c.Routes.or(cfg.Routes)
		s := &site{names: map[string]bool{}}
		s.routes = [classes][]string{routes.Default, routes.AppleUnmarked, routes.Apple, routes.Internal}
		for _, proxy := range or(c.Proxies, cfg.Proxies) {
			proxy, _ = parseProxy(proxy)
			s.proxies = append(s.proxies, proxy)
		}
		for _, in := range or(c.Internal, cfg.Internal) {
			if name, prefix, _ := parseInternal(in); name != "" {
				s.names[name] = true
			} else {
				s.nets = append(s.nets, prefix)
			}
		}
		s.numberRoutes()
		s.table = s.writeTable(apple)
		if name == "" {
			s.path = generalPath(cfg.Token)
			p.general = sha256.Sum256([]byte(s.path))
		} else {
			s.path = sitePath(name, cmp.Or(c.Token, cfg.Token))
			p.paths[sha256.Sum256([]byte(s.path))] = name
		}
		p.sites[name] = s
	}
	if cfg.Probe {
		for _, s := range p.sites {
			p.probed = append(p.probed, s.proxies...)
		}
		slices.Sort(p.probed)
		p.probed = slices.Compact(p.probed)
	}
	slices.SortFunc(p.clients, func(a, b clientNet) int { return b.prefix.Bits() - a.prefix.Bits() })
	return p, nil
}

// numberRoutes gives classes with the same route the same number, the default
// route number 0.
func (s *site) numberRoutes() {
	for c, hops := range s.routes {
		i := slices.IndexFunc(s.hops, func(h []string) bool { return slices.Equal(h, hops) })
		if i < 0 {
			i = len(s.hops)
			s.hops = append(s.hops, hops)
		}
		s.choice[c] = i
	}
}

// Modified is when p was compiled.
func (p *PAC) Modified() time.Time { return p.modified }

// Path returns where the site's script is served, with its token; of the general
// values where the client's address decides. It is empty where there is no such
// site.
func (p *PAC) Path(site string) string {
	if s := p.sites[site]; s != nil {
		return s.path
	}
	return ""
}

// At returns whose script is served to client at path; ok is false where none
// is. How long that takes says nothing about tokens: digests are compared.
func (p *PAC) At(path string, client netip.Addr) (site string, ok bool) {
	// The latter is what some DHCP clients make of option 252.
	if p.wpad && (path == "/wpad.dat" || path == "/wpad.da") {
		return p.SiteFor(client), true
	}
	digest := sha256.Sum256([]byte(path))
	if digest == p.general {
		return p.SiteFor(client), true
	}
	site, ok = p.paths[digest]
	return site, ok
}

// Sites returns the names of the configured sites, sorted.
func (p *PAC) Sites() []string {
	names := slices.Sorted(maps.Keys(p.sites))
	return names[1:] // the general values sort first
}

// HasSite reports whether name is a configured site.
func (p *PAC) HasSite(name string) bool { return name != "" && p.sites[name] != nil }

// ByClient reports whether the site depends on the client's address.
func (p *PAC) ByClient() bool { return len(p.clients) > 0 || p.spread }

// SiteFor returns the site that has client, by the longest prefix; "" where none
// has, which names the general values. An IPv4-mapped address counts as what it
// embeds.
func (p *PAC) SiteFor(client netip.Addr) string {
	client = client.Unmap().WithZone("")
	for _, c := range p.clients {
		if c.prefix.Contains(client) {
			return c.site
		}
	}
	return ""
}

// Proxies returns the proxies of a site in order: the configured ones, or
// fetched, which is host:port of the proxy at the address that the script is
// fetched from. It returns none where fetched is needed and empty, or where
// there is no such site.
func (p *PAC) Proxies(site, fetched string) []string {
	s := p.sites[site]
	switch {
	case s == nil:
		return nil
	case len(s.proxies) > 0:
		return s.proxies
	case fetched == "":
		return nil
	}
	return []string{fetched}
}

// Probed returns the proxies whose state is to be watched, for Order: all that
// are configured, none where pac.probe is off. It must not be modified.
func (p *PAC) Probed() []string { return p.probed }

// Order returns the order in which client is to try proxies, which are not
// modified: those come last that up says no of, otherwise they are as they were.
// A nil up says yes of all.
//
// Where pac.spread is set, a client has an order of its own, by a digest of its
// address and each proxy (rendezvous hashing): every proxy comes first for an
// even share of the clients, the clients of one that fails go to all the others,
// and one that is added or removed changes nothing else. It stays as long as the
// client's address does, and is the same wherever the script is made. An invalid
// address has the configured order.
func (p *PAC) Order(proxies []string, client netip.Addr, up func(proxy string) bool) []string {
	if len(proxies) < 2 {
		return proxies
	}
	type place struct {
		down   bool
		digest [sha256.Size]byte
		proxy  string
	}
	places := make([]place, len(proxies))
	for i, proxy := range proxies {
		places[i] = place{down: up != nil && !up(proxy), proxy: proxy}
		if p.spread && client.IsValid() {
			address := client.As16()
			places[i].digest = sha256.Sum256(append(address[:], proxy...))
		}
	}
	slices.SortStableFunc(places, func(a, b place) int {
		if a.down != b.down {
			if a.down {
				return 1
			}
			return -1
		}
		return bytes.Compare(a.digest[:], b.digest[:])
	})
	order := make([]string, len(places))
	for i := range places {
		order[i] = places[i].proxy
	}
	return order
}

// Class says what kind of destination t is at a site, by the general values
// where there is no such site. A name is internal by itself or by a domain
// above it.
func (p *PAC) Class(site string, t policy.Target) Class {
	s := p.sites[site]
	if s == nil {
		s = p.sites[""]
	}
	if s.internal(t) {
		return Internal
	}
	switch m := p.apple.Match(t.Host, t.Addr, t.Port); {
	case m.Marked:
		return Apple
	case m.OK():
		return AppleUnmarked
	}
	return Default
}

func (s *site) internal(t policy.Target) bool {
	if t.Addr.IsValid() {
		return s.nets.Contains(t.Addr)
	}
	for name, more := t.Host, len(s.names) > 0; more; _, name, more = strings.Cut(name, ".") {
		if s.names[name] {
			return true
		}
	}
	return false
}

// Route returns what the site's script answers for t, "PROXY a:1; DIRECT". It
// is the truth that scripts are tested against. The proxy's own rules, such as
// deny, play no part: the proxy must see a request to answer for it.
func (p *PAC) Route(site string, proxies []string, t policy.Target) (string, error) {
	s := p.sites[site]
	if s == nil {
		return "", ErrNoSite
	}
	return answer(s.routes[p.Class(site, t)], proxies), nil
}

// answer writes hops as a PAC answer.
func answer(hops, proxies []string) string {
	var b strings.Builder
	add := func(s ...string) {
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		for _, s := range s {
			b.WriteString(s)
		}
	}
	for _, hop := range hops {
		if hop == viaDirect {
			add("DIRECT")
			continue
		}
		for _, proxy := range proxies {
			add("PROXY ", proxy)
		}
	}
	return b.String()
}

// Script returns the script of a site that names proxies in the order given.
// It is kept in memory for the next caller.
func (p *PAC) Script(site string, proxies []string) (*Script, error) {
	s := p.sites[site]
	if s == nil {
		return nil, ErrNoSite
	}
	if len(proxies) == 0 {
		return nil, ErrNoProxy
	}
	key := site + " " + strings.Join(proxies, " ")
	p.mu.RLock()
	script := p.cache[key]
	p.mu.RUnlock()
	if script != nil {
		return script, nil
	}
	for _, proxy := range proxies {
		if normal, err := parseProxy(proxy); err != nil {
			return nil, err
		} else if normal != proxy {
			return nil, fmt.Errorf("proxy address %q is not normal; write %q", proxy, normal)
		}
	}
	script = s.script(proxies)
	p.mu.Lock()
	defer p.mu.Unlock()
	for old := range p.cache {
		if len(p.cache) < maxScripts {
			break
		}
		delete(p.cache, old) // any: the order of a map is random
	}
	p.cache[key] = script
	return script, nil
}
