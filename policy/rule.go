package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"espalier/policy/catalog"
)

// A Rule is one of the administrator's rules. The first that matches wins.
type Rule struct {
	// Name stands in records and on the deny page; it must be unique.
	Name string `koanf:"name"`
	// When lists conditions, all of which must hold; none means always.
	When When `koanf:"when"`
	// Then is deny, allow, tunnel (never intercepted) or inspect.
	Then string `koanf:"then"`
	// Headers are set on requests that are forwarded or intercepted.
	Headers map[string]string `koanf:"headers"`
}

// When holds the conditions of a rule. Each holds where any of its values
// matches; an empty one always holds.
type When struct {
	Hosts    []string `koanf:"hosts"`    // patterns: name, *.name, address, CIDR block
	Lists    []string `koanf:"lists"`    // names of lists
	Clients  []string `koanf:"clients"`  // CIDR blocks, addresses, loopback, private
	Users    []string `koanf:"users"`    // user names
	Ports    []uint16 `koanf:"ports"`    // destination ports
	Hours    []string `koanf:"hours"`    // "[mon-fri] 08:00-16:00 [Europe/Stockholm]"
	Services []string `koanf:"services"` // service ids of the catalogue
}

// A List names a set of hosts kept in a file or fetched from a URL.
type List struct {
	File    string        `koanf:"file"`
	URL     string        `koanf:"url"`
	Refresh time.Duration `koanf:"refresh"` // of a URL; 0 means 24 h
}

// Validate checks that exactly one source is named.
func (l List) Validate() error {
	switch {
	case l.File == "" && l.URL == "":
		return errors.New("file: missing (a list has a file or a url)")
	case l.File != "" && l.URL != "":
		return errors.New("url: stands beside file (a list has a file or a url, not both)")
	case l.File != "" && l.Refresh != 0:
		return errors.New("refresh: only for a url; a file is read again when it changes")
	case l.Refresh < 0:
		return errors.New("refresh: must not be negative")
	}
	return nil
}

// ValidateRules checks rules as New does. Errors begin with the key.
func ValidateRules(rules []Rule, lists map[string]List, inspectMode string) error {
	_, err := compileRules(rules, lists, inspectMode)
	return err
}

const (
	thenDeny    = "deny"
	thenAllow   = "allow"
	thenTunnel  = "tunnel"
	thenInspect = "inspect"
)

type rule struct {
	name     string
	then     string
	names    bool // the rule names its targets, by hosts or services
	hosts    hosts
	lists    bool // has lists, which match nothing until they are loaded
	clients  Networks
	users    map[string]bool // nil: any
	ports    []uint16
	hours    []hours
	services []string
}

// match reports whether every condition but users holds.
func (c *rule) match(r *Request, d *Decision) bool {
	if c.lists {
		return false
	}
	if len(c.hosts.exact)+len(c.hosts.below)+len(c.hosts.nets) > 0 && !c.hosts.match(r.Target) {
		return false
	}
	if c.clients != nil && !c.clients.Contains(r.Client) {
		return false
	}
	if c.ports != nil && !slices.Contains(c.ports, r.Target.Port) {
		return false
	}
	if c.services != nil && !slices.Contains(c.services, d.Service()) {
		return false
	}
	if c.hours != nil {
		t := r.Time
		if t.IsZero() {
			t = time.Now()
		}
		return slices.ContainsFunc(c.hours, func(h hours) bool { return h.contain(t) })
	}
	return true
}

// builtinRules are the names that a rule of the administrator must not take,
// so that a record never leaves open who decided.
var builtinRules = []string{RuleClients, RuleApple, RuleRelay, RuleAuth, RuleInspect, RuleDefault, "address-guard"}

func compileRules(rules []Rule, lists map[string]List, inspectMode string) ([]rule, error) {
	var out []rule
	var errs []error
	seen := map[string]int{}
	for i, r := range rules {
		at := func(key, format string, args ...any) {
			errs = append(errs, fmt.Errorf("rules[%d].%s: %w", i, key, fmt.Errorf(format, args...)))
		}
		switch j, dup := seen[r.Name]; {
		case r.Name == "":
			at("name", "missing")
		case slices.Contains(builtinRules, r.Name):
			at("name", "%q is the name of a built-in decision; choose another", r.Name)
		case dup:
			at("name", "%q is already the name of rules[%d]", r.Name, j)
		default:
			seen[r.Name] = i
		}
		switch r.Then {
		case thenDeny, thenAllow, thenTunnel:
		case thenInspect:
			if inspectMode == InspectNone || inspectMode == "" {
				at("then", "inspect needs inspect.mode listed or all, not none")
			}
		case "":
			at("then", "missing (allowed: deny, allow, inspect, tunnel)")
		default:
			at("then", "%q is unknown (allowed: deny, allow, inspect, tunnel)", r.Then)
		}
		c := rule{name: r.Name, then: r.Then, ports: r.When.Ports, services: r.When.Services, lists: len(r.When.Lists) > 0}
		c.names = len(r.When.Hosts) > 0 || len(r.When.Services) > 0
		var err error
		c.hosts, err = compileHosts(r.When.Hosts)
		addErr := func(key string, err error) {
			if err != nil {
				errs = append(errs, under(fmt.Sprintf("rules[%d].when.%s", i, key), err))
			}
		}
		addErr("hosts", err)
		c.clients, err = ParseNetworks(r.When.Clients)
		addErr("clients", err)
		for j, name := range r.When.Lists {
			if _, ok := lists[name]; !ok {
				at(fmt.Sprintf("when.lists[%d]", j), "there is no list %q under lists", name)
			}
		}
		for j, id := range r.When.Services {
			if !catalog.IsService(id) {
				at(fmt.Sprintf("when.services[%d]", j), "%q is no service (`espalier catalog list` shows them)", id)
			}
		}
		for j, p := range r.When.Ports {
			if p == 0 {
				at(fmt.Sprintf("when.ports[%d]", j), "0 is no port")
			}
		}
		for j, s := range r.When.Hours {
			h, err := parseHours(s)
			if err != nil {
				at(fmt.Sprintf("when.hours[%d]", j), "%w", err)
				continue
			}
			c.hours = append(c.hours, h)
		}
		if len(r.When.Users) > 0 {
			c.users = map[string]bool{}
			for _, u := range r.When.Users {
				c.users[u] = true
			}
		}
		for name := range r.Headers {
			if !validHeaderName(name) {
				at("headers", "%q is no header name", name)
			}
		}
		out = append(out, c)
	}
	return out, errors.Join(errs...)
}

func validHeaderName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// hosts is a compiled list of host patterns.
type hosts struct {
	exact, below map[string]bool
	nets         Networks
}

// compileHosts compiles patterns; errors begin with the index, "[i]: ".
func compileHosts(patterns []string) (hosts, error) {
	h := hosts{exact: map[string]bool{}, below: map[string]bool{}}
	var errs []error
	for i, s := range patterns {
		p, err := ParsePattern(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("[%d]: %w", i, err))
			continue
		}
		if x, ok := strings.CutPrefix(p, "*."); ok {
			h.below[x] = true
		} else if n, err := netip.ParsePrefix(p); err == nil {
			h.nets = append(h.nets, n)
		} else if a, err := netip.ParseAddr(p); err == nil {
			h.nets = append(h.nets, netip.PrefixFrom(a, a.BitLen()))
		} else {
			h.exact[p] = true
		}
	}
	return h, errors.Join(errs...)
}

func (h hosts) match(t Target) bool {
	if t.Addr.IsValid() {
		return h.nets.Contains(t.Addr)
	}
	if h.exact[t.Host] {
		return true
	}
	for rest := t.Host; len(h.below) > 0; {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			return false
		}
		if h.below[parent] {
			return true
		}
		rest = parent
	}
	return false
}
