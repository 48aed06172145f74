package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"espalier/configs"
	"espalier/pac"
	"espalier/policy"
	"espalier/policy/auth"
	"espalier/policy/catalog"
	"espalier/policy/lists"
	"espalier/proxy/egress"
	"espalier/proxy/inspect"
)

// An explanation says what happens to a destination, and why.
type explanation struct {
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
	// NotLoaded are lists that rules name and that are not to be had here, where
	// they match nothing.
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
	// PAC is empty where devices could not reach the proxy.
	PAC  string `json:"pac"`
	Why  string `json:"why"`
	Note string `json:"note,omitempty"`

	pacUnknown error
}

func explainCommand() *cobra.Command {
	var client, user string
	var groups []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain URL|HOST:PORT...",
		Short: "Say what happens to a destination, and why",
		Example: `  espalier explain https://gs.apple.com/
  espalier explain --client 10.1.2.3 --user alice example.com:443`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(groups) > 0 && user == "" {
				return usage(errors.New("--group: needs --user"))
			}
			cfg, err := loadedConfig(cmd)
			if err != nil {
				return err
			}
			e, err := newExplainer(cfg, client)
			if err != nil {
				return err
			}
			s := newScreen(cmd.OutOrStdout())
			for i, arg := range args {
				x, err := e.explain(arg, user, groups)
				if err != nil {
					return usage(fmt.Errorf("%s: %w", arg, err))
				}
				if asJSON {
					if err := json.NewEncoder(cmd.OutOrStdout()).Encode(x); err != nil {
						return err
					}
					continue
				}
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				if err := x.write(s); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&client, "client", "", "the client's address; without it one that is allowed")
	cmd.Flags().StringVar(&user, "user", "", "user who has signed in")
	cmd.Flags().StringArrayVar(&groups, "group", nil, "`GROUP` of that user, beside auth.groups; repeatable")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, a line for each destination")
	return cmd
}

type explainer struct {
	cfg    *configs.Config
	policy *policy.Policy
	auth   *auth.Auth
	pac    *pac.PAC
	dialer *egress.Dialer
	lists  *lists.Version
	client netip.Addr

	unreadable error // the exceptions from interception are
}

func newExplainer(cfg *configs.Config, client string) (*explainer, error) {
	exceptions, unreadable := inspect.OpenExceptions(cfg.Data) // perhaps another user's
	c, err := compile(cfg, nil, kept{exceptions: exceptions, lists: newLists(cfg, zap.NewNop())}, nil)
	if err != nil {
		return nil, usage(err)
	}
	e := &explainer{
		cfg: cfg, policy: c.state.Policy, auth: c.state.Auth, pac: c.pac, dialer: c.state.Dialer, lists: c.lists, unreadable: unreadable,
	}
	if client != "" {
		if e.client, err = netip.ParseAddr(client); err != nil {
			return nil, usage(fmt.Errorf("--client: %q is no address", client))
		}
	} else if nets, _ := policy.ParseNetworks(cfg.Proxy.Clients); len(nets) > 0 {
		e.client = nets[0].Addr()
		if e.client.IsLoopback() || nets[0].Bits() < e.client.BitLen() {
			e.client = nets[0].Addr().Next()
		}
	}
	return e, nil
}

// explain decides about a URL or host:port. A host alone is meant as https.
func (e *explainer) explain(arg, user string, groups []string) (*explanation, error) {
	scheme, rest, isURL := strings.Cut(arg, "://")
	connect := true
	port := uint16(443)
	authority := arg
	if isURL {
		authority = rest
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			authority = rest[:i]
		}
		authority = authority[strings.LastIndexByte(authority, '@')+1:]
		switch strings.ToLower(scheme) {
		case "https", "wss":
		case "http", "ws":
			port, connect = 80, false
		default:
			return nil, errors.New("only http, https, ws and wss URLs reach a proxy")
		}
	}
	t, err := policy.ParseTarget(authority, port)
	if err != nil {
		return nil, err
	}
	groups = slices.Concat(groups, e.auth.FileGroups(user))
	d := e.policy.Decide(&policy.Request{Target: t, Client: e.client, User: user, Groups: groups, Connect: connect})
	x := &explanation{
		Target: arg, Host: t.Host, Port: t.Port, Client: e.client, User: user, Groups: groups,
		Action: string(d.Action), Rule: d.Rule, Service: d.Service(), Also: []string{},
		Rows: e.policy.Apple().All(t.Host, t.Addr, t.Port),
	}
	for _, r := range x.Rows {
		if r.Service != x.Service && !slices.Contains(x.Also, r.Service) {
			x.Also = append(x.Also, r.Service)
		}
	}
	if x.Rows == nil {
		x.Rows = []*catalog.Row{}
	}
	if d.Action == policy.Inspect && e.unreadable != nil {
		x.Note = "whether the host's clients refuse interception is not known: " + e.unreadable.Error()
	}
	if d.Dial != t {
		x.Dial = d.Dial.Host
	}
	for name := range d.Headers() {
		if !slices.Contains(x.Headers, name) {
			x.Headers = append(x.Headers, name)
		}
	}
	x.Why = why(d)
	if !d.Match.OK() {
		e.askLists(x, t)
	}
	if err := e.forbidden(t); err != nil && d.Action != policy.Deny && d.Action != policy.Challenge {
		d.Action, x.Action, x.Rule, x.Why = policy.Deny, string(policy.Deny), ruleGuard, err.Error()
	}
	if note := beyondTheProxy(x.Rows); note != "" && d.Action != policy.Deny {
		x.Note = note
	} else if ports := e.otherPorts(t); x.Note == "" && len(ports) > 0 {
		noun := "port"
		if len(ports) > 1 {
			noun = "ports"
		}
		x.Note = fmt.Sprintf("the catalogue has %s for %s %s only", t.Host, noun, joined(ports, ", "))
	}
	site := e.pac.SiteFor(e.client)
	fetched, err := fetchedProxy(e.cfg)
	if err != nil && len(e.pac.Proxies(site, "")) == 0 {
		x.pacUnknown = err
		return x, nil
	}
	x.PAC, err = e.pac.Route(site, e.pac.Order(e.pac.Proxies(site, fetched), e.client, nil), t)
	return x, err
}

// askLists says by which list and entry x was decided, and which lists rules ask
// in vain.
func (e *explainer) askLists(x *explanation, t policy.Target) {
	all := e.lists.HostLists()
	for _, r := range e.cfg.Rules {
		for _, name := range r.When.Lists {
			if r.Name != x.Rule || x.List != "" {
				continue
			}
			if entry, ok := all[name].Match(t.Host); ok {
				x.List, x.Entry = name, entry
				x.Why += fmt.Sprintf(": list %s has %s", name, entry)
			}
		}
	}
	for _, s := range e.lists.Status() {
		named := slices.ContainsFunc(e.cfg.Rules, func(r policy.Rule) bool { return slices.Contains(r.When.Lists, s.Name) })
		if named && s.Loaded.IsZero() {
			x.NotLoaded = append(x.NotLoaded, s.Name)
		}
	}
}

// ruleGuard is what the proxy's records name where the address guard refuses.
const ruleGuard = "address-guard"

// forbidden is the address guard's objection to an IP literal. What a name
// resolves to is only known when it is asked for.
func (e *explainer) forbidden(t policy.Target) error {
	if !t.Addr.IsValid() {
		return nil
	}
	_, err := e.dialer.Lookup(context.Background(), t)
	return err
}

// otherPorts are the ports that the catalogue has t's host for where it does not
// have it for t's.
func (e *explainer) otherPorts(t policy.Target) []uint16 {
	apple := e.policy.Apple()
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

// why says in a sentence what led to a decision.
func why(d policy.Decision) string {
	switch d.Rule {
	case policy.RuleApple:
		return fmt.Sprintf("%s is Apple's: its bytes pass untouched, and nobody is asked to sign in", d.Match.Row.Host)
	case policy.RuleClients:
		return "the client is outside proxy.clients"
	case policy.RuleRelay:
		return "apple.private_relay is block"
	case policy.RuleAuth:
		return "nobody has signed in, and auth says who can"
	case policy.RulePresets:
		return "presets has a header to set there"
	case policy.RuleInspect:
		return "inspect.mode is all, and inspect.exempt does not name the host"
	case policy.RuleException:
		return "its clients refuse interception, or an administrator has accepted that they do: `espalier inspect exceptions`"
	case policy.RuleDefault:
		return "no rule matches, and nothing else stands against it"
	}
	return fmt.Sprintf("rule %q is the first that matches", d.Rule)
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

func (x *explanation) write(s screen) error {
	service := x.Service
	if len(x.Also) > 0 {
		service += " (also " + strings.Join(x.Also, ", ") + ")"
	}
	as := green
	if x.Action == string(policy.Deny) || x.Action == string(policy.Challenge) {
		as = red
	}
	var b strings.Builder
	b.WriteString(s.paint(bold, x.Target) + "\n")
	const indent = 13
	line := func(label string, as style, text string) {
		for _, part := range s.broken(text, indent) {
			fmt.Fprintf(&b, "  %s %s\n", s.paint(dim, fmt.Sprintf("%-*s", indent-3, label)), s.paint(as, part))
			label = ""
		}
	}
	line("action", as, x.Action)
	line("rule", plain, x.Rule)
	line("why", plain, x.Why)
	line("service", plain, service)
	if x.Dial != "" {
		line("dial", plain, "the address of "+x.Dial)
	}
	if len(x.Headers) > 0 {
		line("sets", plain, strings.Join(x.Headers, ", "))
	}
	if x.pacUnknown != nil {
		line("PAC", yellow, "not known: "+x.pacUnknown.Error())
	} else {
		line("PAC", plain, x.PAC)
	}
	for i, r := range x.Rows {
		label := ""
		if i == 0 {
			label = "catalogue"
		}
		text := r.Host + " " + strings.Join(r.Transports, ",")
		if len(r.Ports) > 0 {
			text += " " + joined(r.Ports, ",")
		}
		text += ", " + r.Section
		if r.Purpose != "" {
			text += ": " + r.Purpose
		}
		if r.Until != "" {
			text += " (retired " + r.Until + ")"
		}
		line(label, plain, text)
	}
	if len(x.NotLoaded) > 0 {
		line("lists", yellow, "not to be had here, so that they match nothing: "+strings.Join(x.NotLoaded, ", "))
	}
	if x.Note != "" {
		line("note", yellow, x.Note)
	}
	_, err := io.WriteString(s, b.String())
	return err
}
