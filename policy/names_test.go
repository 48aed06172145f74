package policy

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// names is the policy of the tests of Agree: every host's name says what it is.
func names(t testing.TB, change func(*Config)) *Policy {
	cfg := Config{
		Rules: []Rule{
			{Name: "denied", Then: "deny", When: When{Hosts: []string{"denied.example", "gs.apple.com", "203.0.113.9"}}},
			{Name: "staff", Then: "allow", When: When{Hosts: []string{"staff.example"}, Users: []string{"eve"}}},
			{Name: "inspected", Then: "inspect", When: When{Hosts: []string{"inspected.example"}}},
			{Name: "tunnelled", Then: "tunnel", When: When{Hosts: []string{"tunnelled.example"}}},
		},
		Apple:   Apple{Wide: true},
		Inspect: InspectConfig{Mode: InspectListed},
	}
	if change != nil {
		change(&cfg)
	}
	return compile(t, cfg)
}

func TestAgree(t *testing.T) {
	inspectAll := func(c *Config) { c.Inspect.Mode = InspectAll }
	signIn := func(c *Config) { c.Auth = true }
	relay := func(c *Config) { c.Apple.PrivateRelay = RelayBlock }
	page := func(c *Config) { c.Inspect.Mode, c.Inspect.DenyPage = InspectAll, true }
	safe := func(c *Config) {
		c.Inspect.Mode = InspectAll
		c.Presets.SafeSearch = []string{"google"}
		c.Inspect.Exempt = []string{"www.google.com", "free.example"}
	}
	for _, x := range []struct {
		name, connect, sni string
		change             func(*Config)
		user               string
		action             Action
		rule, service      string
		page               bool
	}{
		{name: "the same name", connect: "free.example", sni: "free.example", action: Tunnel, rule: RuleDefault, service: "other"},
		{name: "two free names", connect: "free.example", sni: "other.example", action: Tunnel, rule: RuleDefault, service: "other"},
		{name: "a denied name behind a free one", connect: "free.example", sni: "denied.example", action: Deny, rule: "denied", service: "other"},
		{name: "a free name behind a denied one", connect: "denied.example", sni: "free.example", action: Deny, rule: "denied", service: "other"},
		{name: "a denied name behind a tunnel rule", connect: "tunnelled.example", sni: "denied.example", action: Deny, rule: "denied", service: "other"},
		{name: "an inspected name behind a tunnel rule", connect: "tunnelled.example", sni: "inspected.example", action: Inspect, rule: "inspected", service: "other"},
		{name: "a tunnelled name behind an inspected one", connect: "inspected.example", sni: "tunnelled.example", action: Inspect, rule: "inspected", service: "other"},
		{name: "an address", connect: "203.0.113.7", sni: "free.example", action: Tunnel, rule: RuleDefault, service: "other"},
		{name: "a denied name behind an address", connect: "203.0.113.7", sni: "denied.example", action: Deny, rule: "denied", service: "other"},
		{name: "a free name behind a denied address", connect: "203.0.113.9", sni: "free.example", action: Deny, rule: "denied", service: "other"},
		{name: "an exempt name behind an inspected address", connect: "203.0.113.7", sni: "tunnelled.example", change: inspectAll, action: Inspect, rule: RuleInspect, service: "other"},

		{name: "Apple, Apple's name", connect: "www.apple.com", sni: "albert.apple.com", action: Tunnel, rule: RuleApple},
		{name: "Apple's address, Apple's name", connect: "17.1.2.3", sni: "courier.push.apple.com", action: Tunnel, rule: RuleApple},
		{name: "Apple, a denied name of Apple's", connect: "www.apple.com", sni: "gs.apple.com", action: Deny, rule: "denied"},
		{name: "Apple, a name of Private Relay", connect: "www.apple.com", sni: "mask.icloud.com", change: relay, action: Deny, rule: RuleRelay},
		{name: "Apple, a free name", connect: "www.apple.com", sni: "free.example", action: Tunnel, rule: RuleDefault, service: "other"},
		{name: "Apple, a denied name", connect: "www.apple.com", sni: "denied.example", action: Deny, rule: "denied", service: "other"},
		{name: "Apple, an inspected name", connect: "www.apple.com", sni: "free.example", change: inspectAll, action: Inspect, rule: RuleInspect, service: "other"},
		{name: "Apple, a name that needs a user", connect: "www.apple.com", sni: "free.example", change: signIn, action: Deny, rule: RuleAuth, service: "other"},
		{name: "Apple's address, a free name", connect: "17.1.2.3", sni: "free.example", action: Tunnel, rule: RuleDefault, service: "other"},
		{name: "elsewhere, Apple's name", connect: "free.example", sni: "www.apple.com", action: Deny, rule: RuleName, service: "other"},
		{name: "an address, Apple's name", connect: "203.0.113.7", sni: "www.apple.com", change: inspectAll, action: Deny, rule: RuleName, service: "other"},
		{name: "elsewhere, a denied name of Apple's", connect: "free.example", sni: "gs.apple.com", action: Deny, rule: "denied", service: "other"},

		{name: "a user's name, for the user", connect: "free.example", sni: "staff.example", change: signIn, user: "eve", action: Tunnel, rule: RuleDefault, service: "other"},
		{name: "a denied name, with a page", connect: "free.example", sni: "denied.example", change: page, action: Deny, rule: "denied", service: "other", page: true},
		{name: "a preset's name elsewhere", connect: "free.example", sni: "www.google.com", change: safe, action: Deny, rule: RuleName, service: "other"},
		{name: "a preset's name behind Apple", connect: "www.apple.com", sni: "www.google.com", change: safe, action: Deny, rule: RuleName, service: "other"},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := names(t, x.change)
			r := Request{Target: target(t, x.connect+":443"), Client: ipad, User: x.user, Connect: true}
			before := p.Decide(&r)
			d := p.Agree(Stricter, &r, before, target(t, x.sni+":443"))
			if d.Action != x.action || d.Rule != x.rule || d.Page != x.page {
				t.Errorf("%s by %s, page %v; want %s by %s, %v", d.Action, d.Rule, d.Page, x.action, x.rule, x.page)
			}
			if x.service != "" && d.Service() != x.service {
				t.Errorf("counts for %s, want %s", d.Service(), x.service)
			}
			if d.Dial != before.Dial {
				t.Errorf("leads to %v, but is connected to %v", d.Dial, before.Dial)
			}
		})
	}
}

// The stricter of both names holds, whatever they are and whichever the client puts where.
func TestAgreeIsNeverWeaker(t *testing.T) {
	hosts := []string{
		"free.example", "other.example", "denied.example", "staff.example", "inspected.example", "tunnelled.example",
		"www.apple.com", "gs.apple.com", "albert.apple.com", "mask.icloud.com", "www.google.com", "17.1.2.3", "203.0.113.7", "203.0.113.9",
	}
	strictness := func(d Decision) int {
		switch d.Action {
		case Deny, Challenge:
			return 3
		case Inspect:
			return 2
		}
		if !d.Match.OK() {
			return 1
		}
		return 0
	}
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{Clients: []string{"private"}, Apple: Apple{Wide: true}}
		cfg.Rules = []Rule{
			{Name: "denied", Then: "deny", When: When{Hosts: []string{"denied.example", "gs.apple.com", "203.0.113.9"}}},
			{Name: "staff", Then: "allow", When: When{Hosts: []string{"staff.example"}, Users: []string{"eve"}}},
			{Name: "inspected", Then: "inspect", When: When{Hosts: []string{"inspected.example"}}},
			{Name: "tunnelled", Then: "tunnel", When: When{Hosts: []string{"tunnelled.example"}}},
		}
		cfg.Inspect.Mode = rapid.SampledFrom([]string{InspectListed, InspectAll}).Draw(t, "mode")
		cfg.Auth = rapid.Bool().Draw(t, "auth")
		cfg.Apple.PrivateRelay = rapid.SampledFrom([]string{"", RelayBlock}).Draw(t, "relay")
		p, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ask := func(host string) Request {
			h, addr, err := ParseHost(host)
			if err != nil {
				t.Fatal(err)
			}
			user := ""
			return Request{Target: Target{Host: h, Addr: addr, Port: 443}, Client: netip.MustParseAddr("10.0.0.1"), User: user, Connect: true}
		}
		r, n := ask(rapid.SampledFrom(hosts).Draw(t, "connect")), ask(rapid.SampledFrom(hosts).Draw(t, "sni"))
		before, byName := p.Decide(&r), p.Decide(&n)
		d := p.Agree(Stricter, &r, before, n.Target)
		if want := max(strictness(before), strictness(byName)); strictness(d) < want {
			t.Fatalf("CONNECT %s (%s) with %s (%s) is %s by %s", r.Target, before.Action, n.Target, byName.Action, d.Action, d.Rule)
		}
		if byName.Match.OK() && !before.Match.OK() && strictness(d) != 3 {
			t.Fatalf("CONNECT %s with Apple's %s is %s by %s", r.Target, n.Target, d.Action, d.Rule)
		}
	})
}
