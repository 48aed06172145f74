package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestPortRange(t *testing.T) {
	const allowed = ` (allowed: 1 to 65535, or a range such as 1024-65535)`
	for _, tt := range []struct {
		text string
		want PortRange
		err  string
	}{
		{text: "443", want: PortRange{443, 443}},
		{text: "1", want: PortRange{1, 1}},
		{text: "1024-65535", want: PortRange{1024, 65535}},
		{text: "1024 - 65535", want: PortRange{1024, 65535}},
		{text: "80-80", want: PortRange{80, 80}},
		{text: "", err: `invalid port ""` + allowed},
		{text: "0", err: `invalid port "0"` + allowed},
		{text: "65536", err: `invalid port "65536"` + allowed},
		{text: "-1", err: `invalid port "-1"` + allowed},
		{text: "+80", err: `invalid port "+80"` + allowed},
		{text: "0x50", err: `invalid port "0x50"` + allowed},
		{text: "https", err: `invalid port "https"` + allowed},
		{text: "1024-", err: `invalid port "1024-"` + allowed},
		{text: "1-2-3", err: `invalid port "1-2-3"` + allowed},
		{text: "1024:2048", err: `invalid port "1024:2048"` + allowed},
		{text: "443-80", err: `invalid port range "443-80": the first port is above the last (write "80-443")`},
	} {
		var r PortRange
		err := r.UnmarshalText([]byte(tt.text))
		if r != tt.want || err == nil != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%q: %v, %v", tt.text, r, err)
		}
		if err != nil {
			continue
		}
		var again PortRange
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Errorf("%q: %q is read as %v, %v", tt.text, r, again, err)
		}
	}
}

func ranges(t testing.TB, texts string) (list []PortRange) {
	for _, text := range strings.Fields(texts) {
		var r PortRange
		if err := r.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// Which ports requests reach, as DefaultPorts and proxy.ports have it.
func TestPorts(t *testing.T) {
	for _, tt := range []struct {
		ports string // proxy.ports
		open  []uint16
		shut  []uint16
	}{
		{"", []uint16{80, 443, 1024, 3128, 5223, 8443, 65535}, []uint16{1, 7, 22, 23, 25, 79, 81, 110, 143, 442, 444, 445, 465, 587, 993, 1023}},
		{"443", []uint16{443}, []uint16{1, 80, 442, 444, 1024, 65535}},
		{"443 20-25", []uint16{20, 22, 25, 443}, []uint16{19, 26, 80, 8443}},
		{"1-65535", []uint16{1, 22, 25, 80, 443, 65535}, nil},
	} {
		t.Run(tt.ports, func(t *testing.T) {
			p := compile(t, Config{Apple: Apple{Wide: true}, Ports: ranges(t, tt.ports)})
			for _, host := range []string{"game.example", "192.0.2.1", "[2001:db8::1]", "localhost", "apple.com.evil.example"} {
				check := func(port uint16, want string) {
					for _, connect := range []bool{true, false} {
						d := p.Decide(&Request{Target: target(t, fmt.Sprintf("%s:%d", host, port)), Client: ipad, Connect: connect})
						if d.Rule != want || (d.Action == Deny) != (want == RulePorts) {
							t.Errorf("%s:%d, CONNECT %v: %s by %q, want %q", host, port, connect, d.Action, d.Rule, want)
						}
					}
				}
				for _, port := range tt.open {
					check(port, RuleDefault)
				}
				for _, port := range tt.shut {
					check(port, RulePorts)
				}
			}
		})
	}
}

// Apple's hosts and ports always pass, and so do ports that a rule names; nobody is
// asked for a password for a port that is refused anyway.
func TestDecidePorts(t *testing.T) {
	rule := func(name, then string, w When) Rule { return Rule{Name: name, Then: then, When: w} }
	smtp := When{Ports: []uint16{25}}
	mail := When{Hosts: []string{"mail.example"}, Ports: []uint16{25, 587}}
	for _, tt := range []struct {
		name   string
		ports  string // proxy.ports
		rules  []Rule
		auth   bool
		user   string
		client string
		target string
		want   Action
		rule   string
	}{
		{name: "Apple's push", ports: "443", target: "1-courier.push.apple.com:5223", want: Tunnel, rule: RuleApple},
		{name: "Apple's push for servers", ports: "443", target: "api.push.apple.com:2197", want: Tunnel, rule: RuleApple},
		{name: "Apple's SFTP", target: "upload.appleschoolcontent.com:22", want: Tunnel, rule: RuleApple},
		{name: "Apple's SFTP is not asked", auth: true, target: "upload.appleschoolcontent.com:22", want: Tunnel, rule: RuleApple},
		{name: "a name below apple.com, by apple.wide", target: "x.apple.com:25", want: Tunnel, rule: RuleApple},
		{name: "an address of Apple's, by apple.wide", ports: "443", target: "17.1.2.3:5223", want: Tunnel, rule: RuleApple},
		{name: "extra on any port", target: "mdm.example:22", want: Tunnel, rule: RuleApple},
		{name: "extra on its port", target: "vpn.example:500", want: Tunnel, rule: RuleApple},
		{name: "extra on another port", target: "vpn.example:25", want: Deny, rule: RulePorts},
		{name: "look-alike", target: "upload.appleschoolcontent.com.evil.example:22", want: Deny, rule: RulePorts},
		{name: "stranger", client: "203.0.113.9", target: "mail.example:25", want: Deny, rule: RuleClients},

		{name: "mail", target: "mail.example:25", want: Deny, rule: RulePorts},
		{name: "mail, not asked", auth: true, target: "mail.example:25", want: Deny, rule: RulePorts},
		{name: "mail, signed in", auth: true, user: "eve", target: "mail.example:25", want: Deny, rule: RulePorts},

		{name: "an allow rule names the port", rules: []Rule{rule("smtp", "allow", smtp)}, target: "mail.example:25", want: Tunnel, rule: "smtp"},
		{name: "a tunnel rule names the port", rules: []Rule{rule("smtp", "tunnel", mail)}, target: "mail.example:25", want: Tunnel, rule: "smtp"},
		{name: "an inspect rule names the port", rules: []Rule{rule("smtp", "inspect", mail)}, target: "mail.example:25", want: Inspect, rule: "smtp"},
		{name: "a rule names the port of an address", rules: []Rule{rule("smtp", "allow", When{Hosts: []string{"192.0.2.0/24"}, Ports: []uint16{25}})}, target: "192.0.2.1:25", want: Tunnel, rule: "smtp"},
		{name: "of another host", rules: []Rule{rule("smtp", "allow", mail)}, target: "other.example:25", want: Deny, rule: RulePorts},
		{name: "of another client", rules: []Rule{rule("smtp", "allow", When{Ports: []uint16{25}, Clients: []string{"10.9.0.0/16"}})}, target: "mail.example:25", want: Deny, rule: RulePorts},
		{name: "another port", rules: []Rule{rule("smtp", "allow", When{Ports: []uint16{587}})}, target: "mail.example:25", want: Deny, rule: RulePorts},
		{name: "an allow rule names the host only", rules: []Rule{rule("mail", "allow", When{Hosts: []string{"mail.example"}})}, target: "mail.example:25", want: Deny, rule: RulePorts},
		{name: "… before a rule that names the port", rules: []Rule{rule("mail", "allow", When{Hosts: []string{"mail.example"}}), rule("smtp", "allow", smtp)}, target: "mail.example:25", want: Tunnel, rule: "smtp"},
		{name: "an allow rule without conditions", rules: []Rule{rule("all", "allow", When{})}, target: "mail.example:25", want: Deny, rule: RulePorts},
		{name: "a tunnel rule without conditions", rules: []Rule{rule("all", "tunnel", When{})}, target: "mail.example:25", want: Deny, rule: RulePorts},

		{name: "a deny rule", rules: []Rule{rule("no mail", "deny", When{Hosts: []string{"mail.example"}})}, target: "mail.example:25", want: Deny, rule: "no mail"},
		{name: "a deny rule before an allow rule", rules: []Rule{rule("no", "deny", smtp), rule("smtp", "allow", smtp)}, target: "mail.example:25", want: Deny, rule: "no"},
		{name: "a deny rule behind an allow rule", rules: []Rule{rule("smtp", "allow", smtp), rule("no", "deny", smtp)}, target: "mail.example:25", want: Tunnel, rule: "smtp"},
		{name: "a deny rule behind an allow rule without the port", rules: []Rule{rule("mail", "allow", When{Hosts: []string{"mail.example"}}), rule("no", "deny", When{})}, target: "mail.example:25", want: Deny, rule: "no"},

		{name: "named, asked", auth: true, rules: []Rule{rule("smtp", "allow", smtp)}, target: "mail.example:25", want: Challenge, rule: RuleAuth},
		{name: "named, known", auth: true, user: "eve", rules: []Rule{rule("smtp", "allow", smtp)}, target: "mail.example:25", want: Tunnel, rule: "smtp"},
		{name: "named for eve, asked", auth: true, rules: []Rule{rule("smtp", "allow", When{Ports: []uint16{25}, Users: []string{"eve"}})}, target: "mail.example:25", want: Challenge, rule: RuleAuth},
		{name: "named for eve", auth: true, user: "eve", rules: []Rule{rule("smtp", "allow", When{Ports: []uint16{25}, Users: []string{"eve"}})}, target: "mail.example:25", want: Tunnel, rule: "smtp"},
		{name: "named for eve, bob", auth: true, user: "bob", rules: []Rule{rule("smtp", "allow", When{Ports: []uint16{25}, Users: []string{"eve"}})}, target: "mail.example:25", want: Deny, rule: RulePorts},
		{name: "eve may, but no port is named: not asked", auth: true, rules: []Rule{rule("eve", "allow", When{Users: []string{"eve"}})}, target: "mail.example:25", want: Deny, rule: RulePorts},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := compile(t, Config{
				Apple: Apple{Wide: true, Extra: []string{"mdm.example", "vpn.example:500"}}, Auth: tt.auth,
				Ports: ranges(t, tt.ports), Rules: tt.rules,
				Inspect: InspectConfig{Mode: InspectListed, DenyPage: true},
			})
			client := ipad
			if tt.client != "" {
				client = netip.MustParseAddr(tt.client)
			}
			r := Request{Target: target(t, tt.target), Client: client, User: tt.user, Connect: true}
			want, d := tt.want, p.Decide(&r)
			if d.Action != want || d.Rule != tt.rule {
				t.Errorf("CONNECT: %s by %q, want %s by %q", d.Action, d.Rule, tt.want, tt.rule)
			}
			if d.Rule == RulePorts && d.Page {
				t.Error("told inside TLS, which clients of such ports hardly speak")
			}
			if want == Tunnel || want == Inspect {
				want = Forward
			}
			r.Connect = false
			if d := p.Decide(&r); d.Action != want || d.Rule != tt.rule {
				t.Errorf("plain HTTP: %s by %q, want %s by %q", d.Action, d.Rule, want, tt.rule)
			}
		})
	}
}

// A rule of the administrator cannot be taken for the built-in decision.
func TestPortsRuleName(t *testing.T) {
	err := ValidateRules([]Rule{{Name: RulePorts, Then: "deny"}}, nil, "")
	if err == nil || !strings.Contains(err.Error(), "is the name of a built-in decision") {
		t.Error(err)
	}
}
