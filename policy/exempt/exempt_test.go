package exempt_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/policy/exempt"
)

// Every row is a normal pattern that stands once, is not Apple's, and has a source.
func TestRows(t *testing.T) {
	seen := map[string]bool{}
	set := catalog.Compile(append(catalog.Wide(), catalog.Embedded()...))
	for _, r := range exempt.Rows() {
		host, err := policy.ParsePattern(r.Host)
		if err != nil || host != r.Host || seen[host] {
			t.Errorf("%s: not a normal pattern, or there already: %v", r.Host, err)
		}
		seen[host] = true
		name, addr, _ := policy.ParseHost(strings.Replace(host, "*", "x", 1))
		if set.Match(name, addr, 443).OK() {
			t.Errorf("%s is Apple's", r.Host)
		}
		u, err := url.Parse(r.Source)
		if err != nil || u.Scheme != "https" || u.Host == "" || r.Group == "" {
			t.Errorf("%s: group %q, source %q", r.Host, r.Group, r.Source)
		}
		if day, err := time.Parse(time.DateOnly, r.Date); err != nil || day.After(time.Now()) {
			t.Errorf("%s: date %q", r.Host, r.Date)
		}
	}
	if len(seen) == 0 || len(exempt.Patterns()) != len(seen) {
		t.Errorf("%d rows", len(seen))
	}
}

// The list yields to a rule that says inspect and to presets, and to nothing else.
func TestDecide(t *testing.T) {
	client := policy.Request{Connect: true}
	var err error
	if client.Target, err = policy.ParseTarget("x.jamfcloud.com:443", 0); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*policy.Config)
		action policy.Action
		rule   string
	}{
		{"on", func(*policy.Config) {}, policy.Tunnel, policy.RuleKnownExempt},
		{"off", func(c *policy.Config) { c.Inspect.KnownExempt = false }, policy.Inspect, policy.RuleInspect},
		{"a rule that says inspect", func(c *policy.Config) {
			c.Rules = []policy.Rule{{Name: "look", When: policy.When{Hosts: []string{"*.jamfcloud.com"}}, Then: "inspect"}}
		}, policy.Inspect, "look"},
		{"a rule that denies", func(c *policy.Config) {
			c.Rules = []policy.Rule{{Name: "no", When: policy.When{Hosts: []string{"*.jamfcloud.com"}}, Then: "deny"}}
		}, policy.Deny, "no"},
	} {
		cfg := policy.Config{Clients: []string{"loopback"}, Inspect: policy.InspectConfig{Mode: policy.InspectAll, KnownExempt: true}}
		tt.change(&cfg)
		p, err := policy.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		nets, _ := policy.ParseNetworks([]string{"loopback"})
		client.Client = nets[0].Addr()
		if d := p.Decide(&client); d.Action != tt.action || d.Rule != tt.rule {
			t.Errorf("%s: %s by %s, want %s by %s", tt.name, d.Action, d.Rule, tt.action, tt.rule)
		}
	}
}
