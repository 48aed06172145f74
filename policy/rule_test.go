package policy

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Every mistake in a rule, one at a time, with its exact message.
func TestValidateRulesErrors(t *testing.T) {
	ok := func(change func(*Rule)) []Rule {
		r := Rule{Name: "games", Then: "deny"}
		change(&r)
		return []Rule{r}
	}
	when := func(change func(*When)) []Rule { return ok(func(r *Rule) { change(&r.When) }) }
	header := func(name, value string) []Rule {
		return ok(func(r *Rule) { r.Headers = map[string]string{name: value} })
	}
	tests := []struct {
		name  string
		rules []Rule
		mode  string // InspectAll where empty
		want  string
	}{
		{name: "none", rules: nil},
		{name: "smallest", rules: ok(func(*Rule) {})},
		{name: "everything", rules: []Rule{{Name: "Schülerin & Co.", Then: "inspect", Headers: map[string]string{"X-School": "Äpfel\t1", "X-Empty": ""}, When: When{
			Hosts: []string{"game.example", "*.game.example", "192.0.2.1", "2001:db8::/32"}, Lists: []string{"ads"}, Clients: []string{"10.0.0.0/8", "loopback"},
			Users: []string{"eve"}, Groups: []string{"staff"}, Ports: []uint16{443}, Hours: []string{"08:00-16:00"}, Services: []string{"siri", "other", "apple-other"},
		}}}},

		{name: "no name", rules: ok(func(r *Rule) { r.Name = "" }), want: `rules[0].name: missing`},
		{name: "built-in name", rules: ok(func(r *Rule) { r.Name = RuleApple }), want: `rules[0].name: "apple" is the name of a built-in decision; choose another`},
		{name: "the guard's name", rules: ok(func(r *Rule) { r.Name = "address-guard" }), want: `rules[0].name: "address-guard" is the name of a built-in decision; choose another`},
		{name: "newline in the name", rules: ok(func(r *Rule) { r.Name = "a\r\nb" }), want: `rules[0].name: "a\r\nb" has characters that cannot be printed`},
		{name: "invalid UTF-8 in the name", rules: ok(func(r *Rule) { r.Name = "a\xff" }), want: `rules[0].name: "a\xff" has characters that cannot be printed`},
		{name: "same name", rules: []Rule{denyAll, denyGame, denyAll, denyAll}, want: "rules[2].name: \"deny all\" is already the name of rules[0]\nrules[3].name: \"deny all\" is already the name of rules[0]"},
		{name: "two without name", rules: []Rule{{Then: "deny"}, {Then: "deny"}}, want: "rules[0].name: missing\nrules[1].name: missing"},
		{name: "no then", rules: ok(func(r *Rule) { r.Then = "" }), want: `rules[0].then: missing (allowed: deny, allow, inspect, tunnel)`},
		{name: "unknown then", rules: ok(func(r *Rule) { r.Then = "Deny" }), want: `rules[0].then: "Deny" is unknown (allowed: deny, allow, inspect, tunnel)`},
		{name: "inspect while inspect.mode is none", rules: ok(func(r *Rule) { r.Then = "inspect" }), mode: InspectNone, want: `rules[0].then: inspect needs inspect.mode listed or all, not none`},

		{name: "host", rules: when(func(w *When) { w.Hosts = []string{"ok.example", "no host"} }), want: `rules[0].when.hosts[1]: "no host" is no host pattern: host has a byte ' ' that no name may have (allowed: a name, *.name, an address or a CIDR block)`},
		{name: "block", rules: when(func(w *When) { w.Hosts = []string{"10.0.0.1/8"} }), want: `rules[0].when.hosts[0]: "10.0.0.1/8" has bits set behind the prefix; did you mean 10.0.0.0/8?`},
		{name: "client", rules: when(func(w *When) { w.Clients = []string{"private", "lab"} }), want: `rules[0].when.clients[1]: "lab" is no address block (allowed: a CIDR block, an address, loopback, private)`},
		{name: "user", rules: when(func(w *When) { w.Users = []string{"eve", ""} }), want: `rules[0].when.users[1]: is empty`},
		{name: "group", rules: when(func(w *When) { w.Groups = []string{"", "staff"} }), want: `rules[0].when.groups[0]: is empty`},
		{name: "port", rules: when(func(w *When) { w.Ports = []uint16{443, 0} }), want: `rules[0].when.ports[1]: 0 is no port`},
		{name: "list", rules: when(func(w *When) { w.Lists = []string{"ads", "adds"} }), want: `rules[0].when.lists[1]: there is no list "adds" under lists`},
		{name: "service", rules: when(func(w *When) { w.Services = []string{"siri", "Siri"} }), want: "rules[0].when.services[1]: \"Siri\" is no service (`espalier catalog list` shows them)"},
		{name: "end_open", rules: ok(func(r *Rule) { r.EndOpen = true }), want: `rules[0].end_open: needs when.hours, which say when open tunnels end`},
		{name: "hours", rules: when(func(w *When) { w.Hours = []string{"08:00-16:00", "8-16"} }), want: `rules[0].when.hours[1]: "8-16" names no days (allowed: "mon-fri 08:00-16:00 Europe/Stockholm"; days and zone may be left out)`},

		{name: "header name", rules: header("X Y", "1"), want: `rules[0].headers: "X Y" is no header name`},
		{name: "empty header name", rules: header("", "1"), want: `rules[0].headers: "" is no header name`},
		{name: "header name with CRLF", rules: header("X\r\nY", "1"), want: `rules[0].headers: "X\r\nY" is no header name`},
		{name: "header value with CRLF", rules: header("X-Y", "1\r\nZ: 2"), want: `rules[0].headers: the value of "X-Y" has control characters`},
		{name: "header that frames", rules: header("transfer-Encoding", "chunked"), want: `rules[0].headers: "transfer-Encoding" is a header that only the proxy itself may set`},
		{name: "Host", rules: header("Host", "x"), want: `rules[0].headers: "Host" is a header that only the proxy itself may set`},

		{name: "several, in order", rules: []Rule{
			{Then: "no", Headers: map[string]string{"b b": "", "a a": ""}, When: When{Hosts: []string{"*", ""}, Ports: []uint16{0}}},
			{Name: "x", When: When{Services: []string{"x"}, Clients: []string{"x", "y"}}},
		}, want: `rules[0].name: missing
rules[0].then: "no" is unknown (allowed: deny, allow, inspect, tunnel)
rules[0].when.hosts[0]: "*" is no host pattern: host has a byte '*' that no name may have (allowed: a name, *.name, an address or a CIDR block)
rules[0].when.hosts[1]: "" is no host pattern: empty host (allowed: a name, *.name, an address or a CIDR block)
rules[0].when.ports[0]: 0 is no port
rules[0].headers: "a a" is no header name
rules[0].headers: "b b" is no header name
rules[1].then: missing (allowed: deny, allow, inspect, tunnel)
rules[1].when.clients[0]: "x" is no address block (allowed: a CIDR block, an address, loopback, private)
rules[1].when.clients[1]: "y" is no address block (allowed: a CIDR block, an address, loopback, private)
` + "rules[1].when.services[0]: \"x\" is no service (`espalier catalog list` shows them)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mode := tt.mode
			if mode == "" {
				mode = InspectAll
			}
			if got := errText(ValidateRules(tt.rules, map[string]List{"ads": {File: "ads.txt"}}, mode)); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestListValidate(t *testing.T) {
	tests := []struct {
		list List
		want string
	}{
		{List{File: "ads.txt"}, ""},
		{List{URL: "https://lists.example/ads"}, ""},
		{List{URL: "http://lists.example/ads", Refresh: time.Hour}, ""},
		{List{}, "file: missing (a list has a file, a url or a ut1)"},
		{List{File: "a", URL: "https://lists.example"}, "url: stands beside file (a list has a file or a url, not both)"},
		{List{File: "a", Refresh: time.Hour}, "refresh: only for a url; a file is read again when it changes"},
		{List{URL: "https://lists.example", Refresh: -1}, "refresh: must not be negative"},
		{List{URL: "lists.example/ads"}, `url: is no http or https URL`},
		{List{URL: "https://user:geheim@a..b/ads"}, "url: is no http or https URL: host has an empty label"},
		{List{URL: "https://lists.example:0/ads"}, "url: is no http or https URL: port is not a number from 1 to 65535"},
		{List{URL: "https://lists.example/ads", Refresh: time.Second}, "refresh: 1s is too often (allowed: 1m at least)"},
		{List{URL: "file:///etc/passwd"}, `url: is no http or https URL`},
		{List{URL: "https:///ads"}, `url: is no http or https URL`},
		{List{UT1: "gambling", Refresh: time.Hour, Required: true}, ""},
		{List{UT1: "../adult"}, `ut1: invalid category "../adult" (allowed: a-z, 0-9, _ and -)`},
		{List{UT1: "gambling", File: "a"}, "ut1: invalid beside file or url: a list has one source"},
		{List{UT1: "gambling", Member: "*/domains"}, "member: invalid beside ut1, which names it"},
		{List{File: "all.tar.gz", Member: "*/gambling/domains"}, ""},
		{List{File: "all.tar.gz", Member: "[a"}, `member: invalid pattern "[a": syntax error in pattern`},
	}
	for _, tt := range tests {
		if got := errText(tt.list.Validate()); got != tt.want {
			t.Errorf("%+v: %s\nwant %s", tt.list, got, tt.want)
		}
	}
}

func TestAppleValidate(t *testing.T) {
	tests := []struct {
		name  string
		apple Apple
		want  string
	}{
		{"zero", Apple{}, ""},
		{"all kinds of extra", Apple{Extra: []string{"mdm.example", "*.mdm.example", "mdm.example:443,8443", "mdm.example:443, 8443", "192.0.2.0/24", "192.0.2.1:443", "2001:db8::1", "[2001:db8::1]:443", "2001:db8::/32"}, PrivateRelay: RelayBlock}, ""},
		{"private relay", Apple{PrivateRelay: "deny"}, `private_relay: "deny" is unknown (allowed: allow, block)`},
		{"no port", Apple{Extra: []string{"mdm.example:"}}, `extra[0]: "mdm.example:": port is not a number from 1 to 65535`},
		{"a word", Apple{Extra: []string{"private"}}, `extra[0]: "private" stands for local hosts, which are not Apple's; name each host`},
		{"a port too many", Apple{Extra: []string{"a.example", "mdm.example:443,"}}, `extra[1]: "mdm.example:443,": port is not a number from 1 to 65535`},
		{"a span of ports", Apple{Extra: []string{"mdm.example:1-9"}}, `extra[0]: "mdm.example:1-9": port is not a number from 1 to 65535`},
		{"host", Apple{Extra: []string{"*:443"}}, `extra[0]: "*" is no host pattern: host has a byte '*' that no name may have (allowed: a name, *.name, an address or a CIDR block)`},
		{"URL", Apple{Extra: []string{"https://mdm.example:443"}}, `extra[0]: "https://mdm.example:443" is no host pattern: host is neither a name nor an address (allowed: a name, *.name, an address or a CIDR block)`},
		{"two", Apple{PrivateRelay: "no", Extra: []string{""}}, "private_relay: \"no\" is unknown (allowed: allow, block)\nextra[0]: \"\" is no host pattern: empty host (allowed: a name, *.name, an address or a CIDR block)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := errText(tt.apple.Validate()); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestAppleExtra(t *testing.T) {
	p := compile(t, Config{Apple: Apple{Extra: []string{"a.example", "*.b.example:443,8443", "[2001:db8::1]:443", "192.0.2.0/24"}}})
	for s, want := range map[string]bool{
		"a.example:1": true, "x.a.example:1": false,
		"x.b.example:8443": true, "x.b.example:80": false, "b.example:443": false,
		"[2001:db8::1]:443": true, "[2001:db8::1]:80": false, "[2001:db8::2]:443": false,
		"192.0.2.9:22": true, "192.0.3.9:22": false,
	} {
		tgt := target(t, s)
		if got := p.Apple().Match(tgt.Host, tgt.Addr, tgt.Port).OK(); got != want {
			t.Errorf("%s: Apple's %v, want %v", s, got, want)
		}
	}
}

func TestInspectConfigValidate(t *testing.T) {
	for _, mode := range []string{"", InspectNone, InspectListed, InspectAll} {
		if err := (InspectConfig{Mode: mode, Exempt: []string{"*.bank.example"}}).Validate(); err != nil {
			t.Errorf("mode %q: %v", mode, err)
		}
	}
	got := errText(InspectConfig{Mode: "some", Exempt: []string{"ok.example", "*"}}.Validate())
	want := `mode: "some" is unknown (allowed: none, listed, all)
exempt[1]: "*" is no host pattern: host has a byte '*' that no name may have (allowed: a name, *.name, an address or a CIDR block)`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// New reports what is wrong everywhere, each with the whole path of its key.
func TestNewErrors(t *testing.T) {
	p, err := New(Config{
		Clients: []string{"private", "x"},
		Apple:   Apple{PrivateRelay: "x", Extra: []string{"*"}},
		Rules:   []Rule{{Name: "r", Then: "inspect"}},
		Inspect: InspectConfig{Mode: "none", Exempt: []string{"*"}},
	})
	want := `proxy.clients[1]: "x" is no address block (allowed: a CIDR block, an address, loopback, private)
apple.private_relay: "x" is unknown (allowed: allow, block)
apple.extra[0]: "*" is no host pattern: host has a byte '*' that no name may have (allowed: a name, *.name, an address or a CIDR block)
rules[0].then: inspect needs inspect.mode listed or all, not none
inspect.exempt[0]: "*" is no host pattern: host has a byte '*' that no name may have (allowed: a name, *.name, an address or a CIDR block)`
	if p != nil || errText(err) != want {
		t.Errorf("New = %v and\n%v\nwant\n%s", p, err, want)
	}
}

func TestNewCatalogFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	p, err := New(Config{Apple: Apple{Catalog: missing}})
	if p != nil || !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "apple.catalog: ") {
		t.Errorf("New with a catalogue that is missing: %v, %v", p, err)
	}
	file := filepath.Join(t.TempDir(), "new.yaml")
	row := "- {host: new.example, ports: [443], transports: [tcp], proxy: \"yes\", service: siri, section: Siri and search, source: test}\n"
	if err := os.WriteFile(file, []byte(row), 0o600); err != nil {
		t.Fatal(err)
	}
	p = compile(t, Config{Apple: Apple{Catalog: file}})
	for s, want := range map[string]string{"new.example:443": RuleApple, siri: RuleDefault} {
		if d := p.Decide(&Request{Target: target(t, s), Client: ipad}); d.Rule != want {
			t.Errorf("%s: by %q, want %q", s, d.Rule, want)
		}
	}
}

// Compiled patterns say the same as a plain walk through them.
func TestHostsMatch(t *testing.T) {
	label := rapid.SampledFrom([]string{"a", "b", "ab", "com"})
	name := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "labels"), ".")
	})
	pattern := rapid.OneOf(name, rapid.Map(name, func(s string) string { return "*." + s }), rapid.SampledFrom([]string{"10.0.0.0/8", "10.1.2.3", "2001:db8::/32"}))
	host := rapid.OneOf(name, rapid.SampledFrom([]string{"10.1.2.3", "10.9.9.9", "11.1.1.1", "[2001:db8::1]"}))
	matches := func(pattern string, t Target) bool {
		if x, ok := strings.CutPrefix(pattern, "*."); ok {
			return !t.Addr.IsValid() && strings.HasSuffix(t.Host, "."+x)
		}
		if p, err := netip.ParsePrefix(pattern); err == nil {
			return p.Contains(t.Addr)
		}
		return pattern == t.Host
	}
	rapid.Check(t, func(rt *rapid.T) {
		patterns := rapid.SliceOfN(pattern, 0, 5).Draw(rt, "patterns")
		tgt := target(t, host.Draw(rt, "host")+":80")
		h, err := compileHosts(patterns)
		if err != nil {
			rt.Fatal(err)
		}
		want := false
		for _, p := range patterns {
			want = want || matches(p, tgt)
		}
		if got := h.match(tgt); got != want {
			rt.Fatalf("%s matches %q: %v, want %v", tgt, patterns, got, want)
		}
	})
}

// The words of hostclass.Words mean the same in rules as elsewhere.
func TestHostWords(t *testing.T) {
	all := []string{
		"127.0.0.1", "::1", "localhost", "a.localhost", "10.0.0.1", "192.168.1.20", "169.254.1.1", "fe80::1", "fd00::1",
		"printer", "private", "plain", "printer.local", "100.64.0.1", "8.8.8.8", "www.example.org", "a.private",
	}
	for word, want := range map[string][]string{
		"loopback": {"127.0.0.1", "::1", "localhost", "a.localhost"},
		"Private":  {"10.0.0.1", "192.168.1.20", "169.254.1.1", "fe80::1", "fd00::1"},
		"plain":    {"localhost", "printer", "private", "plain"},
	} {
		h, err := compileHosts([]string{word})
		if err != nil || h.empty() {
			t.Fatalf("%s: %v", word, err)
		}
		for _, s := range all {
			name, addr, err := ParseHost(s)
			if err != nil {
				t.Fatal(err)
			}
			if got := h.match(Target{Host: name, Addr: addr, Port: 80}); got != slices.Contains(want, s) {
				t.Errorf("%s: match(%s) = %v", word, s, got)
			}
		}
	}
}

// Deny rules that name far more than Apple's own cut Apple off, which is hardly meant.
func TestWarnings(t *testing.T) {
	deny := func(hosts ...string) Rule { return Rule{Name: "deny", Then: "deny", When: When{Hosts: hosts}} }
	apple := Rule{Name: "apple", Then: "allow", When: When{Hosts: []string{"17.0.0.0/8", "*.apple.com", "*.icloud.com"}}}
	for _, x := range []struct {
		name  string
		rules []Rule
		want  []string // the beginnings
	}{
		{"every IPv4 address", []Rule{deny("0.0.0.0/0")}, []string{`rules[0].when.hosts[0]: "0.0.0.0/0" also denies Apple's 17.0.0.0/8;`}},
		{"every IPv6 address", []Rule{deny("game.example", "::/0")}, []string{`rules[0].when.hosts[1]: "::/0" also denies Apple's 2403:300::/32, 2620:149::/32, 2620:0:1b00::/48;`}},
		{"half of them", []Rule{deny("16.0.0.0/7")}, []string{`rules[0].when.hosts[0]: "16.0.0.0/7" also denies Apple's 17.0.0.0/8;`}},
		{"a top-level domain", []Rule{deny("*.com")}, []string{`rules[0].when.hosts[0]: "*.com" also denies Apple's `}},
		{"behind other rules", []Rule{denyGame, deny("0.0.0.0/0")}, []string{`rules[1].when.hosts[0]: "0.0.0.0/0"`}},
		{"Apple let through before", []Rule{apple, deny("0.0.0.0/0")}, nil},
		{"Apple let through to some", []Rule{{Name: "apple", Then: "allow", When: When{Hosts: apple.When.Hosts, Clients: []string{"10.1.0.0/16"}}}, deny("0.0.0.0/0")}, []string{`rules[1].when.hosts[0]: "0.0.0.0/0"`}},
		{"Apple's block itself", []Rule{deny("17.0.0.0/8", "17.1.0.0/16", "17.1.2.3")}, nil},
		{"Apple's names", []Rule{denyBelow, denySiriHost, denySiri}, nil},
		{"other addresses", []Rule{deny("203.0.113.0/24", "private", "loopback")}, nil},
		{"other names", []Rule{deny("*.example", "plain")}, nil},
		{"everything without names", []Rule{denyAll}, nil},
		{"allow", []Rule{{Name: "all", Then: "allow", When: When{Hosts: []string{"0.0.0.0/0"}}}}, nil},
		{"invalid", []Rule{deny("0.0.0.0/0", "a b"), {Name: "list", Then: "deny", When: When{Lists: []string{"absent"}}}}, nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			got := Warnings(x.rules, Apple{Wide: true})
			ok := len(got) == len(x.want)
			for i := 0; ok && i < len(got); i++ {
				ok = strings.HasPrefix(got[i].Error(), x.want[i])
			}
			if !ok {
				t.Errorf("got %q, want %q", got, x.want)
			}
		})
	}
}

// missingList is a required list that is not loaded.
type missingList struct{}

func (missingList) Match(string) (string, bool)                    { return "", false }
func (missingList) MatchURL(string, uint16, string) (string, bool) { return "", false }
func (missingList) Missing() bool                                  { return true }

// A rule that names a required list denies until it is loaded, whatever it says; Apple is not
// cut off. Records say which list it was.
func TestRequiredList(t *testing.T) {
	rule := func(then string, lists ...string) Rule {
		return Rule{Name: "rule", Then: then, When: When{Lists: lists}}
	}
	narrow := Rule{Name: "rule", Then: "deny", When: When{Lists: []string{"absent"}, Clients: []string{"10.9.0.0/16"}}}
	for _, x := range []struct {
		name    string
		rules   []Rule
		host    string
		action  Action
		rule    string
		list    string
		missing bool
	}{
		{"deny", []Rule{rule("deny", "absent")}, "x.example", Deny, "rule", "absent", true},
		{"allow", []Rule{rule("allow", "absent"), denyAll}, "x.example", Deny, "rule", "absent", true},
		{"tunnel", []Rule{rule("tunnel", "absent")}, "x.example", Deny, "rule", "absent", true},
		{"in a list that is loaded", []Rule{rule("allow", "absent", "ads")}, "x.example", Tunnel, "rule", "ads", false},
		{"denied by a list that is loaded", []Rule{rule("deny", "absent", "ads")}, "x.example", Deny, "rule", "ads", false},
		{"other conditions do not hold", []Rule{narrow}, "x.example", Tunnel, RuleDefault, "", false},
		{"allowed before", []Rule{allowAll, rule("deny", "absent")}, "x.example", Tunnel, "allow all", "", false},
		{"Apple", []Rule{rule("deny", "absent")}, "www.apple.com", Tunnel, RuleApple, "", false},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := compile(t, Config{Rules: x.rules, Lists: map[string]HostList{"ads": everythingBut(""), "absent": missingList{}}})
			d := p.Decide(&Request{Target: target(t, x.host+":443"), Client: ipad, Connect: true})
			if d.Action != x.action || d.Rule != x.rule || d.List != x.list || d.Missing != x.missing {
				t.Errorf("%s by %s, list %q, missing %v; want %s by %s, %q, %v", d.Action, d.Rule, d.List, d.Missing, x.action, x.rule, x.list, x.missing)
			}
		})
	}
}
