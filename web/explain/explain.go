// Package explain says what happens to a destination, and why: for the command
// line, the API and the console alike.
package explain

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"espalier/pac"
	"espalier/policy"
	"espalier/policy/auth"
	"espalier/policy/catalog"
	"espalier/policy/hostclass"
	"espalier/policy/lists"
	"espalier/proxy/egress"
)

// An Explanation says what happens to a destination, and why.
type Explanation struct {
	Target  string     `json:"target"`
	Host    string     `json:"host"`
	Port    uint16     `json:"port"`
	Client  netip.Addr `json:"client"`
	User    string     `json:"user"`
	Groups  []string   `json:"groups,omitempty"`
	Action  string     `json:"action"`
	Rule    string     `json:"rule"`
	Service string     `json:"service"`
	// List and Entry say what the rule has found the host by, where it has lists.
	List  string `json:"list,omitempty"`
	Entry string `json:"entry,omitempty"`
	// NotLoaded are lists that rules name and that are not loaded here, so that they match
	// nothing. Those that are required deny instead: see List.
	NotLoaded []string `json:"lists_not_loaded,omitempty"`
	// Dial is the host that is connected to in place of the target.
	Dial string `json:"dial,omitempty"`
	// Headers are the names of those that are set on the request. Their values
	// may be secrets.
	Headers []string `json:"headers,omitempty"`
	// Also are services of further rows that cover the destination.
	Also []string `json:"also"`
	// Rows are the catalogue's rows for it, the deciding one first.
	Rows []*catalog.Row `json:"rows"`
	// PAC is what the script answers; empty where PACUnknown says why that is not
	// known.
	PAC string `json:"pac"`
	// PACClass is the pac.Class that gives the answer.
	PACClass   string `json:"pac_class,omitempty"`
	PACUnknown string `json:"pac_unknown,omitempty"`
	// Local is the hostclass.Class of a destination whose PACClass is local.
	Local string `json:"local,omitempty"`
	Why   string `json:"why"`
	Note  string `json:"note,omitempty"`
}

// An Explainer knows a configuration as far as it decides. It must not be
// modified; then it is safe for concurrent use.
type Explainer struct {
	Policy *policy.Policy
	Rules  []policy.Rule // of Policy
	Auth   *auth.Auth
	Lists  *lists.Version
	Dialer *egress.Dialer
	PAC    *pac.PAC
	// Proxy are the addresses of the plain proxy's listeners, and Clients
	// proxy.clients.
	Proxy   []netip.AddrPort
	Clients []string
	// Up reports whether a proxy of the script answers; nil takes it of all.
	Up func(proxy string) bool
	// Unreadable is why the exceptions from interception are not known; nil where
	// they are.
	Unreadable error
}

// allowed is a client that proxy.clients allows.
func (e *Explainer) allowed() netip.Addr {
	nets, _ := policy.ParseNetworks(e.Clients)
	if len(nets) == 0 {
		return netip.Addr{}
	}
	client := nets[0].Addr()
	if client.IsLoopback() || nets[0].Bits() < client.BitLen() {
		client = client.Next()
	}
	return client
}

// A Question is about a destination. The zero Client is one that is allowed.
type Question struct {
	Target string // URL or host:port; a host alone is meant as https
	Client netip.Addr
	User   string    // who has signed in; empty: nobody
	Groups []string  // of User, beside those of the file
	At     time.Time // zero: now
}

// Explain answers a question. The error says what is wrong with its target.
func (e *Explainer) Explain(q Question) (*Explanation, error) {
	t, path, connect, err := parse(q.Target)
	if err != nil {
		return nil, err
	}
	client := q.Client.Unmap().WithZone("")
	if !client.IsValid() {
		client = e.allowed()
	}
	groups := slices.Concat(q.Groups, e.Auth.FileGroups(q.User))
	ask := &policy.Request{Target: t, Client: client, User: q.User, Groups: groups, Connect: connect, Path: path, Time: q.At}
	d := e.Policy.Excepted(e.Policy.Decide(ask), ask, "")
	x := &Explanation{
		Target: q.Target, Host: t.Host, Port: t.Port, Client: client, User: q.User, Groups: groups,
		Action: string(d.Action), Rule: d.Rule, Service: d.Service(), Why: why(d),
		Also: []string{}, Rows: []*catalog.Row{},
	}
	x.Rows = append(x.Rows, e.Policy.Apple().All(t.Host, t.Addr, t.Port)...)
	for _, r := range x.Rows {
		if r.Service != x.Service && !slices.Contains(x.Also, r.Service) {
			x.Also = append(x.Also, r.Service)
		}
	}
	if d.Dial != t {
		x.Dial = d.Dial.Host
	}
	for name := range d.Headers() {
		if !slices.Contains(x.Headers, name) {
			x.Headers = append(x.Headers, name)
		}
	}
	if !d.Match.OK() {
		e.askLists(x, d, t, path)
	}
	inspected := d.Action == policy.Inspect
	if err := e.Dialer.Forbidden(t); err != nil && d.Action != policy.Deny && d.Action != policy.Challenge {
		d.Action, x.Action, x.Rule, x.Why = policy.Deny, string(policy.Deny), ruleGuard, err.Error()
	}
	x.Note = e.note(x, t, inspected, d.Action == policy.Deny)
	if err := e.explainPAC(x, t); err != nil {
		return nil, err
	}
	return x, nil
}

// parse finds the target in a URL or host:port, and whether clients ask for it by
// CONNECT. path is empty then: the proxy does not see it.
func parse(text string) (t policy.Target, path string, connect bool, err error) {
	scheme, rest, isURL := strings.Cut(text, "://")
	authority, port, connect := text, uint16(443), true
	if isURL {
		authority = rest
		path = "/"
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			authority = rest[:i]
			if before := rest[i : i+max(0, strings.IndexAny(rest[i:]+"?", "?#"))]; before != "" {
				path = before
			}
		}
		authority = authority[strings.LastIndexByte(authority, '@')+1:]
		switch strings.ToLower(scheme) {
		case "https", "wss":
		case "http", "ws":
			port, connect = 80, false
		default:
			return t, "", false, errors.New("only http, https, ws and wss URLs reach a proxy")
		}
	}
	if a, err := netip.ParseAddr(authority); err == nil && a.Is6() {
		authority = "[" + authority + "]" // as pac.DeviceURL takes it
	}
	if connect {
		path = ""
	}
	t, err = policy.ParseTarget(authority, port)
	return t, path, connect, err
}

// note says what else an administrator should know; empty: nothing.
func (e *Explainer) note(x *Explanation, t policy.Target, inspected, denied bool) string {
	if note := beyondTheProxy(x.Rows); note != "" && !denied {
		return note
	}
	if inspected && e.Unreadable != nil {
		return "whether the host's clients refuse interception is not known: " + e.Unreadable.Error()
	}
	switch ports := e.otherPorts(t); len(ports) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("the catalogue has %s for port %d only", t.Host, ports[0])
	default:
		return fmt.Sprintf("the catalogue has %s for ports %s only", t.Host, joined(ports))
	}
}

// explainPAC adds what the script answers.
func (e *Explainer) explainPAC(x *Explanation, t policy.Target) error {
	site := e.PAC.SiteFor(x.Client)
	proxies, err := e.proxies(site, x.Client)
	if err != nil {
		x.PACUnknown = err.Error()
		return nil
	}
	answer, err := e.PAC.Route(site, proxies, t)
	if err != nil {
		return err
	}
	x.PAC, x.PACClass = answer.Text, string(answer.Class)
	if answer.Class == pac.Local {
		x.Local = string(hostclass.Of(t.Host, t.Addr))
	}
	if x.Note == "" && answer.Denied {
		x.Note = "the script leaves DIRECT out, because the policy may deny the destination"
		if !e.Policy.MayDeny(t, false) {
			x.Note = "the script leaves DIRECT out, because rules name more hosts than a script can hold"
		}
	}
	return nil
}

// proxies are those that the script of a site names to a client.
func (e *Explainer) proxies(site string, client netip.Addr) ([]string, error) {
	proxies := e.PAC.Proxies(site, "")
	if len(proxies) == 0 {
		fetched, err := pac.Fetched(netip.Addr{}, e.Proxy)
		if err != nil {
			return nil, err
		}
		proxies = e.PAC.Proxies(site, fetched)
	}
	return e.PAC.Order(proxies, client, e.Up), nil
}

// Script is the script that a client of a site is given. Where pac.proxies is
// empty it names this machine's first address.
func (e *Explainer) Script(site string, client netip.Addr) (script *pac.Script, proxies []string, err error) {
	if proxies, err = e.proxies(site, client); err != nil {
		return nil, nil, err
	}
	script, err = e.PAC.Script(site, proxies)
	return script, proxies, err
}

// askLists says by which list and entry x was decided, and which lists rules ask
// in vain.
func (e *Explainer) askLists(x *Explanation, d policy.Decision, t policy.Target, path string) {
	switch {
	case d.Missing:
		x.List = d.List
		x.Why += ": " + d.ListState()
	case d.List != "" && slices.ContainsFunc(e.Rules, func(r policy.Rule) bool { return r.Name == x.Rule }):
		list := e.Lists.HostLists()[d.List]
		entry, ok := list.Match(t.Host)
		if !ok {
			entry, _ = list.MatchURL(t.Host, t.Port, path)
		}
		x.List, x.Entry = d.List, entry
		x.Why += fmt.Sprintf(": list %s has %s", d.List, entry)
	}
	for _, s := range e.Lists.Status() {
		named := slices.ContainsFunc(e.Rules, func(r policy.Rule) bool { return slices.Contains(r.When.Lists, s.Name) })
		if named && s.Loaded.IsZero() && !s.Required { // one that is required denies
			x.NotLoaded = append(x.NotLoaded, s.Name)
		}
	}
}

// ruleGuard is what the proxy's records name where the address guard refuses.
const ruleGuard = "address-guard"

// otherPorts are the ports that the catalogue has t's host for where it does not
// have it for t's.
func (e *Explainer) otherPorts(t policy.Target) []uint16 {
	apple := e.Policy.Apple()
	has := func(port uint16) bool {
		return slices.ContainsFunc(apple.All(t.Host, t.Addr, port), func(r *catalog.Row) bool { return len(r.Ports) > 0 })
	}
	if has(t.Port) {
		return nil
	}
	var ports []uint16
	for _, r := range apple.Rows() {
		for _, p := range r.Ports {
			if !slices.Contains(ports, p) && has(p) {
				ports = append(ports, p)
			}
		}
	}
	slices.Sort(ports)
	return ports
}

// reasons say what led to decisions by the policy's own rules.
var reasons = map[string]string{
	policy.RuleClients:     "the client is outside proxy.clients",
	policy.RuleRelay:       "apple.private_relay is block",
	policy.RuleAuth:        "nobody has signed in, and auth says who can",
	policy.RulePresets:     "presets has a header to set there",
	policy.RuleInspect:     "inspect.mode is all, and inspect.exempt does not name the host",
	policy.RuleConstraints: "the CA's certificate excludes the host, so it is not intercepted",
	policy.RuleException:   "the client refuses interception, or an administrator has accepted that clients do: `espalier inspect exceptions`",
	policy.RuleWithoutCA:   "the client does not trust the CA: inspect.without_ca",

	policy.RuleKnownExempt:       "inspect.known_exempt is true, and the list has the host: `espalier inspect exempt`",
	policy.RuleClientCertificate: "the client has a certificate of its own for the host: `espalier inspect exceptions`",
	policy.RuleDefault:           "no rule matches, and nothing else stands against it",
}

// why says in a sentence what led to a decision.
func why(d policy.Decision) string {
	switch d.Rule {
	case policy.RuleApple:
		return fmt.Sprintf("%s is Apple's: its bytes pass untouched, and nobody is asked to sign in", d.Match.Row.Host)
	case policy.RulePorts:
		return fmt.Sprintf("proxy.ports does not have port %d, and no allow, inspect or tunnel rule that names it in when.ports matches", d.Dial.Port)
	}
	return cmp.Or(reasons[d.Rule], fmt.Sprintf("rule %q is the first that matches", d.Rule))
}

// beyondTheProxy says what of a destination's rows a TCP proxy cannot carry.
func beyondTheProxy(rows []*catalog.Row) string {
	tcp, udp := false, false
	for _, r := range rows {
		if r.Service == catalog.AppleOther {
			continue // the firewall advice is about both
		}
		tcp, udp = tcp || r.TCP(), udp || r.UDP()
	}
	switch {
	case udp && tcp:
		return "devices use UDP here too, which a TCP proxy cannot carry: the firewall must let it out"
	case udp:
		return "this is UDP, which a TCP proxy cannot carry: the firewall must let it out"
	}
	return ""
}

// joined are ports with commas between them.
func joined(ports []uint16) string {
	return strings.Join(strings.Fields(strings.Trim(fmt.Sprint(ports), "[]")), ", ")
}
