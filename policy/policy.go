// Package policy decides what happens to a request. Decide is the only place
// where that is decided: the proxy acts on it, the PAC script is generated from
// the same rows, and `espalier explain` prints it.
//
// # The order of decision
//
// The order is fixed; no configuration changes it.
//
//  1. A client outside proxy.clients is refused.
//  2. For a target that the catalogue matches, the administrator's rules are
//     asked for one thing only: a deny rule that names its targets, by hosts or
//     services. The first rule that matches counts, so an allow rule before it
//     keeps it from applying. A deny rule that names no target (clients, hours,
//     ports, lists, or nothing at all) never cuts Apple off. Nobody is asked to
//     sign in here, so a rule with users or groups applies only to users
//     already known.
//  3. Private Relay's hosts are refused, where apple.private_relay is block.
//  4. What the catalogue matches passes, untouched: never challenged, never
//     intercepted, whatever else is configured.
//  5. For everything else the first of the administrator's rules that matches
//     decides. A rule that names a list which is required and not loaded denies what
//     its other conditions match. A deny needs no password; with inspect.deny_page it may be told
//     inside TLS. Where a rule with users or groups
//     might let somebody through, whoever is not known is asked to sign in.
//     If proxy.ports does not have the port, only deny rules and rules that name
//     the port by when.ports match.
//  6. A port that proxy.ports does not have, and no rule has let through, is
//     refused. No password helps, so none is asked for.
//  7. Whoever is not known is asked, where somebody can sign in.
//  8. A CONNECT is intercepted where its rule says inspect. Where its rule does
//     not say tunnel, it is intercepted too if a preset has to set a header there,
//     or if inspect.mode is all and neither inspect.exempt nor the maintained list
//     (inspect.known_exempt) exempts it. It is not if an administrator has accepted
//     its host as an exception. Hosts that are intercepted by inspect.mode alone are
//     tunnelled for a client that has shown that it cannot be intercepted there, see
//     Excepted.
//  9. Everything else passes.
//
// What passes by 8 or 9 may be connected to another host's address, by presets,
// and have headers set, by presets and its rule.
package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"espalier/policy/catalog"
	"espalier/policy/exempt"
	"espalier/policy/hostclass"
)

// Action is what is done with a request, as it stands in access records.
type Action string

const (
	Tunnel    Action = "tunnel"    // CONNECT, bytes relayed untouched
	Forward   Action = "forward"   // plain HTTP, passed on
	Inspect   Action = "inspect"   // CONNECT, TLS intercepted
	Deny      Action = "deny"      // refused, 403
	Challenge Action = "challenge" // refused until the user signs in, 407
	Error     Action = "error"     // permitted, but failed; never decided here
)

// Names that Decision.Rule has where no rule of the administrator decided.
const (
	RuleClients = "clients"       // the client is outside proxy.clients
	RuleApple   = "apple"         // the catalogue matched
	RuleRelay   = "private-relay" // apple.private_relay: block
	RulePorts   = "proxy-ports"   // proxy.ports does not have the port
	RuleAuth    = "auth"          // nobody has signed in
	RulePresets = "presets"       // a preset sets a header, so it is intercepted
	RuleInspect = "inspect"       // inspect.mode: all
	RuleDefault = "default"       // nothing else applied

	RuleKnownExempt       = "inspect-known-exempt"       // inspect.known_exempt
	RuleException         = "inspect-exception"          // the client refuses interception, or an administrator accepts that
	RuleClientCertificate = "inspect-client-certificate" // the client has a certificate for the host
	RuleWithoutCA         = "inspect-without-ca"         // the client does not trust the CA: inspect.without_ca
	RuleUnknown           = "inspect-unknown"            // inspect.unknown, for what cannot be intercepted
	RuleConstraints       = "ca-constraints"             // the CA cannot speak for the host
	RuleName              = "tls-name"                   // TLS names a host that the CONNECT does not lead to
)

// A Request is what a decision needs to know.
type Request struct {
	Target Target
	// Client is the address the request came from.
	Client netip.Addr
	// User is who signed in; empty where nobody did.
	User string
	// Groups are those that User is in.
	Groups []string
	// Connect tells CONNECT from a plain HTTP request.
	Connect bool
	// Path is that of the URL, perhaps with a query; empty if it is not seen. Entries of lists
	// may have paths.
	Path string
	// Page is set for a plain HTTP request whose answer a person is to read.
	Page bool
	// Time is looked at by rules with hours; zero means now.
	Time time.Time
}

// A Decision says what is done with a request, and why.
type Decision struct {
	Action Action
	// Rule names what decided: one of the Rule constants or the name of a rule
	// of the administrator.
	Rule string
	// Match is what the catalogue says of the target, whatever was decided.
	Match catalog.Match
	// Dial is where to connect to for what passes: the target, or the host that a
	// preset has in its place. The names in TLS and HTTP are the target's still.
	Dial Target
	// HideURL is set where the rule that matches keeps the URL out of records.
	HideURL bool
	// List is the list of the rule that has the host; empty if the rule names none.
	List string
	// Missing is set if the request is denied because List is required and not loaded.
	Missing bool
	// Page is set where a CONNECT is denied and the page that says why may be shown
	// inside TLS.
	Page bool
	// Learn is set if a CONNECT is inspected by inspect.mode alone, so that a client which
	// shows that it cannot be intercepted is exempt. No rule and no preset is got round so.
	Learn bool

	ruleHeaders, presetHeaders []header
}

// ListState says what List has to do with a refusal.
func (d Decision) ListState() string {
	if d.Missing {
		return "list " + d.List + " is required and not loaded"
	}
	return "in list " + d.List
}

// Service is the service id that the request counts for.
func (d Decision) Service() string { return d.Match.Service() }

// Config is what a Policy is compiled from. The zero value denies every client.
type Config struct {
	Clients []string // proxy.clients
	// Ports are proxy.ports; empty means DefaultPorts.
	Ports []PortRange
	Apple Apple
	Auth  bool // somebody can sign in, so whoever is not known is asked
	// FoldUser returns the key by which a user's name is compared, and false if it is
	// compared as written. It must not depend on anything else; nil compares all as written.
	FoldUser func(name string) (key string, ok bool)
	Rules    []Rule
	Lists    map[string]HostList // by name; nil for one that matches nothing
	Inspect  InspectConfig
	Presets  Presets
	// Excluded reports whether the CA for interception cannot speak for a host; nil: for none.
	Excluded func(host string, addr netip.Addr) bool
	// Exceptions are hosts that turned out not to be interceptable; nil: none.
	Exceptions Exceptions
}

// Exceptions says where interception does not work, such as for apps that know their
// server's certificate. It must be safe for concurrent use, and fast.
type Exceptions interface {
	// Accepted reports whether an administrator has accepted host as an exception.
	Accepted(host string) bool
	// Exempt returns the rule by which client is exempt at host with a name in TLS, for what
	// it did itself; "" if it is not.
	Exempt(host, name string, client netip.Addr) (rule string)
	// WithoutCA reports whether client has shown that it does not trust the CA.
	WithoutCA(client netip.Addr) bool
}

// A Policy is a compiled configuration. It is immutable and safe for concurrent
// use; a reload compiles a new one.
type Policy struct {
	apple   *catalog.Set
	clients Networks
	ports   []PortRange
	relay   bool // block Private Relay
	auth    bool
	rules   []rule
	inspect bool // inspect.mode: all
	unknown Action
	page    bool // inspect.deny_page
	exempt  hosts
	known   hosts // inspect.known_exempt
	// withoutCA is set to refuse clients that do not trust the CA.
	withoutCA bool
	presets   presets

	exceptions Exceptions
	excluded   func(host string, addr netip.Addr) bool // nil: none
}

// New compiles cfg. It reads the file of apple.catalog where one is named.
// Errors begin with the key at fault, all of them joined; the Policy is nil
// then.
func New(cfg Config) (*Policy, error) {
	p := &Policy{
		ports:   slices.Clone(cfg.Ports),
		relay:   cfg.Apple.PrivateRelay == RelayBlock,
		auth:    cfg.Auth,
		inspect: cfg.Inspect.Mode == InspectAll,
		unknown: Tunnel, page: cfg.Inspect.DenyPage, exceptions: cfg.Exceptions, excluded: cfg.Excluded,
		withoutCA: cfg.Inspect.WithoutCA != WithoutCATunnel,
	}
	if cfg.Inspect.KnownExempt {
		p.known, _ = compileHosts(exempt.Patterns()) // a test has seen them
	}
	if cfg.Inspect.Unknown == UnknownDeny {
		p.unknown = Deny
	}
	if len(p.ports) == 0 {
		p.ports = DefaultPorts()
	}
	var errs []error
	fail := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	var err error
	p.clients, err = ParseNetworks(cfg.Clients)
	fail(under("proxy.clients", err))
	p.apple, err = cfg.Apple.compile()
	fail(under("apple", err))
	p.rules, err = compileRules(cfg.Rules, cfg.Lists, cfg.Inspect.Mode)
	fail(err)
	for i := range p.rules {
		p.rules[i].foldUsers(cfg.FoldUser)
	}
	fail(under("inspect", cfg.Inspect.Validate()))
	p.exempt, _ = compileHosts(cfg.Inspect.Exempt) // Validate has seen it
	fail(ValidatePresets(cfg.Presets, cfg.Inspect.Mode))
	p.presets = compilePresets(cfg.Presets)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// Apple returns the compiled catalogue, with what apple.wide and apple.extra
// add to it.
func (p *Policy) Apple() *catalog.Set { return p.apple }

// Decide says what happens to r, in the order that the package's comment gives.
// It does not allocate.
func (p *Policy) Decide(r *Request) Decision {
	d := Decision{Match: p.apple.Match(r.Target.Host, r.Target.Addr, r.Target.Port), Dial: r.Target}
	pass := Forward
	if r.Connect {
		pass = Tunnel
	}
	if !p.clients.Contains(r.Client) {
		d.Action, d.Rule = Deny, RuleClients
		return d
	}
	relay := p.relay && isRelay(r.Target.Host)
	if d.Match.OK() || relay {
		var rule *rule
		rule, d.List = p.firstNaming(r, &d)
		d.HideURL = rule != nil && rule.hideURL
		switch {
		case rule != nil && rule.then == thenDeny:
			d.Action, d.Rule = Deny, rule.name
		case relay:
			d.Action, d.Rule = Deny, RuleRelay
		default:
			d.Action, d.Rule = pass, RuleApple
		}
		return d
	}
	rule, m, ask := p.first(r, &d)
	d.HideURL = rule != nil && rule.hideURL
	d.List, d.Missing = m.list, m.missing
	switch {
	case ask:
		d.Action, d.Rule, d.List, d.Missing = Challenge, RuleAuth, "", false
		return d
	case rule != nil && (rule.then == thenDeny || m.missing):
		d.Action, d.Rule = Deny, rule.name
		d.Page = p.page && r.Connect && !p.spared(r)
		return d
	case rule == nil && !p.opens(r.Target.Port):
		d.Action, d.Rule = Deny, RulePorts
		return d
	case p.auth && r.User == "":
		d.Action, d.Rule = Challenge, RuleAuth
		return d
	}
	d.Action, d.Rule = pass, RuleDefault
	p.passOn(r, rule, &d)
	return d
}

// passOn completes the decision on a request that passes, by rule, or by none if it is
// nil: where to, with which headers, intercepted or not.
func (p *Policy) passOn(r *Request, rule *rule, d *Decision) {
	d.Dial = p.presets.address(r.Target)
	d.presetHeaders = p.presets.headersFor(r.Target)
	then := thenAllow
	if rule != nil {
		d.Rule, then, d.ruleHeaders = rule.name, rule.then, rule.headers
	}
	if !r.Connect {
		if r.Page && p.withoutCA && p.inspect && rule == nil && p.exceptions != nil && p.exceptions.WithoutCA(r.Client) &&
			!p.exempt.match(r.Target) && !p.known.match(r.Target) {
			d.Action, d.Rule = Deny, RuleWithoutCA
		}
		return
	}
	switch {
	case then == thenInspect:
		d.Action = Inspect
	case then == thenTunnel:
	case d.presetHeaders != nil:
		d.Action = Inspect
		if rule == nil {
			d.Rule = RulePresets
		}
	case !p.inspect || p.exempt.match(r.Target):
	case p.known.match(r.Target):
		if rule == nil {
			d.Rule = RuleKnownExempt
		}
	default:
		d.Action, d.Learn = Inspect, d.Dial == r.Target
		if rule == nil {
			d.Rule = RuleInspect
		}
	}
	switch {
	case d.Action != Inspect:
	case p.apple.Match(r.Target.Host, r.Target.Addr, 443).OK(), p.excluded != nil && p.excluded(r.Target.Host, r.Target.Addr):
		d.Action, d.Rule, d.Learn = Tunnel, RuleConstraints, false // a certificate is good for any port
	case p.exceptions != nil && p.exceptions.Accepted(r.Target.Host):
		d.Action, d.Rule, d.Learn = Tunnel, RuleException, false
	}
	if d.Action != Inspect {
		d.ruleHeaders, d.presetHeaders = nil, nil
	}
}

// MayDeny reports whether the rules or apple.private_relay deny t to a client, a
// user or at a time. proxy.ports plays no part: it is about what is reached in the
// proxy's name, and devices may go directly to any port. The lists of rules count as matching nothing, since a PAC
// script cannot carry them. If named is set, only rules that name t count: by hosts,
// or as a service of Apple's.
func (p *Policy) MayDeny(t Target, named bool) bool {
	m := p.apple.Match(t.Host, t.Addr, t.Port)
	if p.relay && isRelay(t.Host) {
		return true
	}
	for i := range p.rules {
		rule := &p.rules[i]
		switch {
		case !rule.covers(t, m.Service()):
		case rule.then != thenDeny && rule.lists == nil && rule.forAll(p.clients):
			return false
		case rule.then != thenDeny:
		case m.OK() && !rule.names: // which never cuts Apple off
		case named && rule.hosts.empty() && (len(rule.services) == 0 || !m.OK()):
		case rule.lists != nil && rule.hosts.empty() && len(rule.services) == 0:
		default:
			return true
		}
	}
	return false
}

// Named returns what MayDeny tells apart beside the catalogue: host patterns, in
// which words are expanded, and ports.
func (p *Policy) Named() (patterns []string, ports []uint16) {
	if p.relay {
		patterns = append(patterns, relayHosts...)
	}
	for i := range p.rules {
		patterns = append(patterns, p.rules[i].hosts.patterns...)
		ports = append(ports, p.rules[i].ports...)
	}
	return patterns, ports
}

// spared reports whether the TLS of a CONNECT that is denied is left alone.
func (p *Policy) spared(r *Request) bool {
	return p.exempt.match(r.Target) || p.known.match(r.Target) ||
		p.exceptions != nil && (p.exceptions.Accepted(r.Target.Host) || p.exceptions.Exempt(r.Target.Host, r.Target.Host, r.Client) != "")
}

// Excepted is what becomes of d, the decision to inspect the CONNECT r, once TLS in it names
// a host, or none: "". It is a tunnel if the client is exempt there for what it did before.
func (p *Policy) Excepted(d Decision, r *Request, name string) Decision {
	if d.Action != Inspect || !d.Learn || p.exceptions == nil {
		return d
	}
	if rule := p.exceptions.Exempt(r.Target.Host, cmp.Or(name, r.Target.Host), r.Client); Doors.InsideTLS.exempts(rule) {
		d.Action, d.Rule, d.Learn = Tunnel, rule, false
		d.ruleHeaders, d.presetHeaders = nil, nil
	}
	return d
}

// Unknown is what becomes of d, a decision to look into a CONNECT, where the
// client turns out to speak neither TLS nor HTTP: inspect.unknown. What is denied
// stays so.
func (p *Policy) Unknown(d Decision) Decision {
	if d.Action == Deny {
		return d
	}
	d.Action, d.Rule, d.Learn = p.unknown, RuleUnknown, false
	d.ruleHeaders, d.presetHeaders = nil, nil
	return d
}

// firstNaming returns the first rule that matches an Apple target, without the
// deny rules that name no target.
func (p *Policy) firstNaming(r *Request, d *Decision) (_ *rule, list string) {
	for i := range p.rules {
		rule := &p.rules[i]
		if !rule.names && rule.then == thenDeny {
			continue
		}
		if m := rule.match(r, d); m.ok && rule.isFor(r) {
			return rule, m.list
		}
	}
	return nil, ""
}

// first returns the first rule that matches a target which is not Apple's. If the
// target's port needs a rule that names it, rules that let it through without
// naming it do not match. ask is set where a rule before it might let a user through
// who is not known yet.
func (p *Policy) first(r *Request, d *Decision) (_ *rule, m match, ask bool) {
	open := p.opens(r.Target.Port)
	for i := range p.rules {
		rule := &p.rules[i]
		m := rule.match(r, d)
		if !m.ok && !m.missing || !open && rule.then != thenDeny && len(rule.ports) == 0 {
			continue
		}
		if rule.isFor(r) {
			return rule, m, ask
		}
		ask = ask || m.ok && p.auth && r.User == "" && rule.then != thenDeny
	}
	return nil, match{}, ask
}

// relayHosts are the hosts that Apple says to block if a network does not allow
// iCloud Private Relay. Devices then tell the user and continue without it.
var relayHosts = []string{"mask.icloud.com", "mask-h2.icloud.com"}

func isRelay(host string) bool { return slices.Contains(relayHosts, host) }

// under puts key in front of err, joined errors one by one, so that each names
// the whole path of the key at fault. An error that begins with an index "[i]"
// belongs to an element of key.
func under(key string, err error) error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var errs []error
		for _, e := range joined.Unwrap() {
			errs = append(errs, under(key, e))
		}
		return errors.Join(errs...)
	}
	if msg := err.Error(); msg != "" && msg[0] == '[' {
		return fmt.Errorf("%s%w", key, err)
	}
	return fmt.Errorf("%s.%w", key, err)
}

// Networks is a set of address blocks.
type Networks []netip.Prefix

// Contains reports whether addr is in any block. An IPv4-mapped address counts
// as what it embeds, a zone does not matter, and the zero Addr is in none.
func (n Networks) Contains(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range n {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// ParseNetworks parses a list whose elements ParseNetwork takes. Errors begin
// with the index, "[i]: ", all of them joined.
func ParseNetworks(list []string) (Networks, error) {
	var nets Networks
	var errs []error
	for i, s := range list {
		n, err := ParseNetwork(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("[%d]: %w", i, err))
		}
		nets = append(nets, n...)
	}
	return nets, errors.Join(errs...)
}

// ParseNetwork parses a CIDR block, a single address, or one of the words
// loopback and private, which stand for several blocks.
func ParseNetwork(s string) (Networks, error) {
	if set, ok := hostclass.Word(s); ok && set.Networks != nil {
		return set.Networks, nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return Networks{netip.PrefixFrom(a, a.BitLen())}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return nil, fmt.Errorf("%q is no address block (allowed: a CIDR block, an address, loopback, private)", s)
	}
	if p, err = canonicalPrefix(s, p); err != nil {
		return nil, err
	}
	return Networks{p}, nil
}
