package policy

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"espalier/policy/catalog"
	"espalier/policy/hostclass"
)

// A Rule is one of the administrator's rules. The first that matches wins.
type Rule struct {
	// Name stands in records and on the deny page; it must be unique, printable
	// and none of the built-in ones (RuleApple, …).
	Name string `koanf:"name"`
	// When lists conditions, all of which must hold; none means always.
	When When `koanf:"when"`
	// Then is deny, allow, tunnel (never intercepted) or inspect.
	Then string `koanf:"then"`
	// Headers are set on requests that are forwarded or intercepted. The
	// headers that frame a message or belong to one connection are not allowed.
	Headers map[string]string `koanf:"headers"`
	// HideURL keeps the URL out of the records of what the rule matches; they have
	// the host.
	HideURL bool `koanf:"hide_url"`
	// EndOpen ends open tunnels and inspected connections too when the rule's hours begin or
	// end, if the policy would deny them then. It needs When.Hours.
	EndOpen bool `koanf:"end_open"`
}

// When holds the conditions of a rule. Each holds where any of its values
// matches; an empty one always holds.
type When struct {
	Hosts    []string `koanf:"hosts"`    // patterns: name, *.name, address, CIDR block; loopback, private, plain
	Lists    []string `koanf:"lists"`    // names of lists
	Clients  []string `koanf:"clients"`  // CIDR blocks, addresses, loopback, private
	Users    []string `koanf:"users"`    // user names, compared as their source does; Apple's hosts ask for none
	Groups   []string `koanf:"groups"`   // names of groups that a user is in, in any case
	Ports    []uint16 `koanf:"ports"`    // destination ports; a rule that does not deny opens them
	Hours    []string `koanf:"hours"`    // "[mon-fri] 08:00-16:00 [Europe/Stockholm]"
	Services []string `koanf:"services"` // service ids of the catalogue
}

// ValidateRules checks rules as New does. Errors begin with the key.
func ValidateRules(rules []Rule, lists map[string]List, inspectMode string) error {
	names := map[string]HostList{}
	for name := range lists {
		names[name] = nil
	}
	_, err := compileRules(rules, names, inspectMode)
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
	lists    []namedList
	clients  Networks
	users    map[string]bool // nil: any
	fold     func(name string) (string, bool)
	folded   map[string]bool // the keys of users by fold
	groups   []string        // none: any
	ports    []uint16
	hours    []hours
	services []string
	headers  []header
	hideURL  bool
	endOpen  bool
}

// A match is how a rule's conditions hold but for users and groups.
type match struct {
	ok   bool
	list string // that has the host; empty if the rule has no lists
	// missing is set if the rule would match if list, which is required and not loaded, had
	// the host. ok is false.
	missing bool
}

// match looks at every condition but users and groups.
func (c *rule) match(r *Request, d *Decision) match {
	if !c.covers(r.Target, d.Service()) || c.clients != nil && !c.clients.Contains(r.Client) || !c.onTime(r.Time) {
		return match{}
	}
	if c.lists == nil {
		return match{ok: true}
	}
	name, missing, ok := listed(c.lists, r.Target, r.Path)
	return match{ok, name, missing}
}

// has reports whether a list of the rule has t.
func (c *rule) has(t Target) bool {
	_, _, ok := listed(c.lists, t, "")
	return ok
}

// onTime reports whether the hours hold at t; zero means now.
func (c *rule) onTime(t time.Time) bool {
	if len(c.hours) == 0 {
		return true
	}
	if t.IsZero() {
		t = time.Now()
	}
	return slices.ContainsFunc(c.hours, func(h hours) bool { return h.contain(t) })
}

// covers reports whether the conditions on the target hold, lists aside.
func (c *rule) covers(t Target, service string) bool {
	return (c.hosts.empty() || c.hosts.match(t)) &&
		(len(c.ports) == 0 || slices.Contains(c.ports, t.Port)) &&
		(len(c.services) == 0 || slices.Contains(c.services, service))
}

// forAll reports whether the other conditions hold for each of clients, whoever
// has signed in, at any time.
func (c *rule) forAll(clients Networks) bool {
	if c.users != nil || len(c.groups) > 0 || len(c.hours) > 0 {
		return false
	}
	return c.clients == nil || !slices.ContainsFunc(clients, func(p netip.Prefix) bool {
		return !slices.ContainsFunc(c.clients, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
	})
}

// isFor reports whether the conditions users and groups hold; they never do for a
// user who is not known, "".
func (c *rule) isFor(r *Request) bool {
	if c.users != nil && !c.hasUser(r.User) {
		return false
	}
	return len(c.groups) == 0 || r.User != "" && c.hasGroup(r.Groups)
}

// foldUsers makes the rule compare users by fold.
func (c *rule) foldUsers(fold func(name string) (string, bool)) {
	if c.users == nil || fold == nil {
		return
	}
	c.fold, c.folded = fold, map[string]bool{}
	for name := range c.users {
		if key, ok := fold(name); ok {
			c.folded[key] = true
		}
	}
}

func (c *rule) hasUser(name string) bool {
	if c.users[name] || len(c.folded) == 0 || name == "" {
		return c.users[name]
	}
	key, ok := c.fold(name)
	return ok && c.folded[key]
}

// hasGroup compares without regard to case, as directories do.
func (c *rule) hasGroup(groups []string) bool {
	for _, want := range c.groups {
		for _, g := range groups {
			if strings.EqualFold(g, want) {
				return true
			}
		}
	}
	return false
}

// builtinRules are the names that a rule of the administrator must not take,
// so that a record never leaves open who decided. Those in the last line are
// the proxy's.
var builtinRules = []string{
	RuleClients, RuleApple, RuleRelay, RulePorts, RuleAuth, RulePresets, RuleInspect, RuleDefault,
	RuleException, RuleUnknown, RuleName, RuleConstraints,
	"address-guard", "invalid-target", "malformed-request", "method", "scheme", "misdirected", "invalid-tls",
}

// connectionHeaders frame a message, name its destination or belong to one
// connection: the proxy alone sets them.
var connectionHeaders = []string{
	"connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
	"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}

// compileRules compiles rules; errors begin with "rules[i].".
func compileRules(rules []Rule, lists map[string]HostList, inspectMode string) ([]rule, error) {
	out := make([]rule, len(rules))
	var errs []error
	seen := map[string]int{}
	for i := range rules {
		key := fmt.Sprintf("rules[%d]", i)
		if name := rules[i].Name; name != "" {
			if j, dup := seen[name]; dup {
				errs = append(errs, fmt.Errorf("%s.name: %q is already the name of rules[%d]", key, name, j))
			} else {
				seen[name] = i
			}
		}
		var err error
		out[i], err = compileRule(&rules[i], lists, inspectMode)
		errs = append(errs, under(key, err))
	}
	return out, errors.Join(errs...)
}

// compileRule compiles one rule; errors begin with the key, joined.
func compileRule(r *Rule, lists map[string]HostList, inspectMode string) (rule, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case r.Name == "":
		fail("name: missing")
	case slices.Contains(builtinRules, r.Name):
		fail("name: %q is the name of a built-in decision; choose another", r.Name)
	case !printable(r.Name):
		fail("name: %q has characters that cannot be printed", r.Name)
	}
	switch r.Then {
	case thenDeny, thenAllow, thenTunnel:
	case thenInspect:
		if inspectMode == InspectNone || inspectMode == "" {
			fail("then: inspect needs inspect.mode listed or all, not none")
		}
	case "":
		fail("then: missing (allowed: deny, allow, inspect, tunnel)")
	default:
		fail("then: %q is unknown (allowed: deny, allow, inspect, tunnel)", r.Then)
	}
	c := rule{
		name: r.Name, then: r.Then, hideURL: r.HideURL, endOpen: r.EndOpen,
		names:    len(r.When.Hosts) > 0 || len(r.When.Services) > 0,
		ports:    slices.Clone(r.When.Ports),
		services: slices.Clone(r.When.Services),
	}
	var err error
	c.hosts, err = compileHosts(r.When.Hosts)
	errs = append(errs, under("when.hosts", err))
	for i, name := range r.When.Lists {
		l, ok := lists[name]
		if !ok {
			fail("when.lists[%d]: there is no list %q under lists", i, name)
		}
		c.lists = append(c.lists, namedList{name, l})
	}
	c.clients, err = ParseNetworks(r.When.Clients)
	errs = append(errs, under("when.clients", err))
	for i, name := range r.When.Users {
		if name == "" {
			fail("when.users[%d]: is empty", i)
		}
		if c.users == nil {
			c.users = map[string]bool{}
		}
		c.users[name] = true
	}
	for i, name := range r.When.Groups {
		if name == "" {
			fail("when.groups[%d]: is empty", i)
		}
		c.groups = append(c.groups, name)
	}
	for i, port := range r.When.Ports {
		if port == 0 {
			fail("when.ports[%d]: 0 is no port", i)
		}
	}
	if r.EndOpen && len(r.When.Hours) == 0 {
		fail("end_open: needs when.hours, which say when open tunnels end")
	}
	for i, s := range r.When.Hours {
		h, err := parseHours(s)
		if err != nil {
			fail("when.hours[%d]: %w", i, err)
		}
		c.hours = append(c.hours, h)
	}
	for i, id := range r.When.Services {
		if !catalog.IsService(id) {
			fail("when.services[%d]: %q is no service (`espalier catalog list` shows them)", i, id)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			fail("headers: %q is no header name", name)
		case slices.Contains(connectionHeaders, strings.ToLower(name)):
			fail("headers: %q is a header that only the proxy itself may set", name)
		case !httpguts.ValidHeaderFieldValue(r.Headers[name]):
			fail("headers: the value of %q has control characters", name)
		}
		c.headers = append(c.headers, header{name, r.Headers[name]})
	}
	return c, errors.Join(errs...)
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) })
}

// hosts is a compiled list of host patterns.
type hosts struct {
	exact, below map[string]bool
	nets         Networks
	plain        bool     // names without a dot
	patterns     []string // all but plain, normalised, words expanded
}

// compileHosts compiles patterns, and the words of hostclass.Words; errors begin with
// the index, "[i]: ".
func compileHosts(patterns []string) (hosts, error) {
	h := hosts{exact: map[string]bool{}, below: map[string]bool{}}
	var errs []error
	for i, s := range patterns {
		if set, ok := hostclass.Word(s); ok {
			for _, d := range set.Domains {
				h.add(d)
				h.add("*." + d)
			}
			for _, n := range set.Networks {
				h.add(n.String())
			}
			h.plain = h.plain || set.Plain
		} else if p, err := ParsePattern(s); err != nil {
			errs = append(errs, fmt.Errorf("[%d]: %w", i, err))
		} else {
			h.add(p)
		}
	}
	return h, errors.Join(errs...)
}

// add adds a normal pattern.
func (h *hosts) add(p string) {
	h.patterns = append(h.patterns, p)
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

func (h hosts) empty() bool { return len(h.exact)+len(h.below)+len(h.nets) == 0 && !h.plain }

func (h hosts) match(t Target) bool {
	if t.Addr.IsValid() {
		return h.nets.Contains(t.Addr)
	}
	if h.exact[t.Host] || h.plain && !strings.Contains(t.Host, ".") {
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
