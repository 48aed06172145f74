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
	"time"

	"espalier/policy"
	"espalier/policy/cache"
	"espalier/policy/catalog"
	"espalier/policy/hostclass"
)

// A PAC answers where destinations go, and makes the scripts that say the same
// to devices. It is immutable but for its cache and safe for concurrent use; a
// reload compiles a new one.
type PAC struct {
	policy   *policy.Policy
	sites    map[string]*site // the general values are ""
	clients  []clientNet
	wpad     bool
	spread   bool
	probed   []string
	modified time.Time
	paths    map[[sha256.Size]byte]string // digest of a path: site
	general  [sha256.Size]byte            // digest of the path where the client's address decides

	scripts *cache.Cache[string, Script] // by site and proxies
}

// maxScripts bounds the scripts kept in memory: whoever can reach a machine by
// many addresses makes it name each of them in a script.
const maxScripts = 256

type clientNet struct {
	prefix netip.Prefix
	site   string
}

type site struct {
	proxies  []string
	routes   map[Class][]string
	internal matcher
	hosts    matcher    // of pac.routes.hosts
	closed   bool       // the default route has no direct: rules name more than maxOthers allows
	hops     [][]string // the script's routes, by number
	table    []byte     // the script but for its routes
	path     string
}

// A Class is the kind of a destination: what gives it its route. It is Local, the
// key under pac.routes, or one of services.ID and hosts.PATTERN there.
type Class string

const (
	Default       Class = "default"        // everything else
	Local         Class = "local"          // by hostclass.Class
	AppleUnmarked Class = "apple_unmarked" // Apple's, not marked for proxy support
	Apple         Class = "apple"          // Apple's, marked
	Internal      Class = "internal"       // named by pac.internal

	service = "services."
	hosts   = "hosts."
)

// ErrNoSite is returned for a site that is not configured.
var ErrNoSite = errors.New("there is no such site under pac.sites")

// Compile validates cfg and compiles it, for the policy that decides.
func Compile(cfg Config, pol *policy.Policy) (*PAC, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &PAC{
		policy:   pol,
		sites:    map[string]*site{},
		wpad:     cfg.WPAD,
		spread:   cfg.Spread,
		paths:    map[[sha256.Size]byte]string{},
		modified: time.Now(),
		scripts:  cache.New[string, Script](maxScripts, nil, nil),
	}
	all := maps.Clone(cfg.Sites)
	if all == nil {
		all = map[string]Site{}
	}
	all[""] = Site{Proxies: cfg.Proxies, Routes: cfg.Routes, Local: cfg.Local, Internal: cfg.Internal}
	for name, c := range all {
		nets, _ := policy.ParseNetworks(c.Clients) // Validate has seen it
		for _, n := range nets {
			p.clients = append(p.clients, clientNet{n, name})
		}
		s := &site{routes: c.Routes.or(cfg.Routes).byClass()}
		s.routes[Local] = []string{cmp.Or(c.Local, cfg.Local, viaDirect)}
		for _, proxy := range or(c.Proxies, cfg.Proxies) {
			proxy, _ = parseProxy(proxy)
			s.proxies = append(s.proxies, proxy)
		}
		for _, in := range or(c.Internal, cfg.Internal) {
			patterns, _ := internalPatterns(in)
			for _, pattern := range patterns {
				s.internal.add(pattern, Internal)
			}
		}
		s.hosts = hostRoutes(s.routes)
		s.table = s.writeTable(pol)
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

// byClass returns the routes by class, without that of Local.
func (r Routes) byClass() map[Class][]string {
	routes := map[Class][]string{Default: r.Default, AppleUnmarked: r.AppleUnmarked, Apple: r.Apple, Internal: r.Internal}
	for id, hops := range r.Services {
		routes[Class(service+id)] = hops
	}
	for pattern, hops := range r.Hosts {
		routes[Class(hosts+pattern)] = hops
	}
	return routes
}

// hostRoutes returns a matcher of the classes hosts.PATTERN. A pattern beats a word
// that stands for the same.
func hostRoutes(routes map[Class][]string) matcher {
	var m matcher
	var patterns []string
	for class := range routes {
		pattern, ok := strings.CutPrefix(string(class), hosts)
		if _, word := hostclass.Word(pattern); word {
			m.add(pattern, class)
		} else if ok {
			patterns = append(patterns, pattern)
		}
	}
	for _, pattern := range patterns {
		m.add(pattern, Class(hosts+pattern))
	}
	return m
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

// class returns the class of t.
func (s *site) class(apple *catalog.Set, t policy.Target) Class {
	if class, ok := s.internal.match(t); ok {
		return class
	}
	if class, ok := s.hosts.match(t); ok {
		return class
	}
	if m := apple.Match(t.Host, t.Addr, t.Port); m.OK() {
		if class := Class(service + m.Service()); s.routes[class] != nil {
			return class
		} else if m.Marked {
			return Apple
		}
		return AppleUnmarked
	}
	if hostclass.Of(t.Host, t.Addr).Local() {
		return Local
	}
	return Default
}

// route returns the class of t and its hops. Devices never go past the proxy to what
// the policy denies, pac.internal aside: their direct hop is left out. A rule that
// names no host is about what takes the default route.
func (s *site) route(pol *policy.Policy, t policy.Target) (class Class, hops []string, denied bool) {
	class = s.class(pol.Apple(), t)
	hops = s.routes[class]
	if class == Internal || !slices.Contains(hops, viaDirect) {
		return class, hops, false
	}
	if class == Default && s.closed || pol.MayDeny(t, class != Default) {
		return class, []string{viaProxy}, true
	}
	return class, hops, false
}

// An Answer is what a site's script answers, and why.
type Answer struct {
	// Text is the answer, "PROXY a:1; DIRECT".
	Text  string
	Class Class
	// Denied is set if the route of Class goes direct, and the answer does not,
	// because the policy may deny the destination, or denies more destinations than a
	// script can hold.
	Denied bool
}

// Route returns what the site's script answers for t. Scripts are tested against it.
func (p *PAC) Route(site string, proxies []string, t policy.Target) (Answer, error) {
	s := p.sites[site]
	if s == nil {
		return Answer{}, ErrNoSite
	}
	class, hops, denied := s.route(p.policy, t)
	return Answer{answer(hops, proxies), class, denied}, nil
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
	if script := p.scripts.Get(key); script != nil {
		return script, nil
	}
	for _, proxy := range proxies {
		if normal, err := parseProxy(proxy); err != nil {
			return nil, err
		} else if normal != proxy {
			return nil, fmt.Errorf("proxy address %q is not normal; write %q", proxy, normal)
		}
	}
	script := s.script(proxies)
	p.scripts.Set(key, script)
	return script, nil
}
