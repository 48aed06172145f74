package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"espalier/policy/catalog"
)

// What a firewall may let out: a refused row is not there, nor a row of the
// firewall advice that covers it.
func TestOpen(t *testing.T) {
	deny := func(w When) Rule { return Rule{Name: "no", Then: "deny", When: w} }
	const all = "guzzoni.apple.com:443 *.smoot.apple.com:443 gs.apple.com:443 gs.apple.com:80 *.push.apple.com:2197 *.icloud.com:443 mask.icloud.com:443 " +
		"mask-h2.icloud.com:443 *.apple.com:443 17.0.0.0/8:443"
	for _, tt := range []struct {
		name, relay string
		rules       []Rule
		gone        string // of all
		except      string
	}{
		{name: "default"},
		{name: "relay", relay: RelayBlock, gone: "mask.icloud.com:443 mask-h2.icloud.com:443 17.0.0.0/8:443", except: "mask.icloud.com mask-h2.icloud.com"},
		{name: "relay, allowed by a rule", relay: RelayBlock, rules: []Rule{{Name: "yes", Then: "allow", When: When{Hosts: []string{"mask.icloud.com"}}}},
			gone: "mask.icloud.com:443 mask-h2.icloud.com:443 17.0.0.0/8:443", except: "mask.icloud.com mask-h2.icloud.com"},
		{name: "service", rules: []Rule{deny(When{Services: []string{"siri"}})},
			gone: "guzzoni.apple.com:443 *.smoot.apple.com:443 *.apple.com:443 17.0.0.0/8:443"},
		{name: "host", rules: []Rule{deny(When{Hosts: []string{"gs.apple.com"}})}, gone: "gs.apple.com:443 gs.apple.com:80 *.apple.com:443 17.0.0.0/8:443"},
		{name: "port of a host", rules: []Rule{deny(When{Hosts: []string{"gs.apple.com"}, Ports: []uint16{80}})},
			gone: "gs.apple.com:80 *.apple.com:443 17.0.0.0/8:443"},
		{name: "wildcard", rules: []Rule{deny(When{Hosts: []string{"*.push.apple.com"}})}, gone: "*.push.apple.com:2197 *.apple.com:443 17.0.0.0/8:443"},
		{name: "wildcard above", rules: []Rule{deny(When{Hosts: []string{"*.apple.com"}})},
			gone: "guzzoni.apple.com:443 *.smoot.apple.com:443 gs.apple.com:443 gs.apple.com:80 *.push.apple.com:2197 *.apple.com:443 17.0.0.0/8:443"},
		{name: "a name below a wildcard", rules: []Rule{deny(When{Hosts: []string{"p1.icloud.com"}})}, gone: "17.0.0.0/8:443", except: "p1.icloud.com"},
		{name: "a name of the advice", rules: []Rule{deny(When{Hosts: []string{"secret.apple.com"}})}, gone: "*.apple.com:443 17.0.0.0/8:443"},
		{name: "an address of the advice", rules: []Rule{deny(When{Hosts: []string{"17.5.0.0/16"}})}, gone: "17.0.0.0/8:443"},
		{name: "not Apple's", rules: []Rule{deny(When{Hosts: []string{"game.example", "*.game.example", "192.0.2.1"}})}},
		{name: "no target", rules: []Rule{deny(When{})}},
		{name: "clients that are all", rules: []Rule{deny(When{Hosts: []string{"gs.apple.com"}, Clients: []string{"0.0.0.0/0", "::/0"}})},
			gone: "gs.apple.com:443 gs.apple.com:80 *.apple.com:443 17.0.0.0/8:443"},
		{name: "some clients", rules: []Rule{deny(When{Hosts: []string{"gs.apple.com"}, Clients: []string{"10.1.0.0/16"}})}},
		{name: "a user", rules: []Rule{deny(When{Hosts: []string{"gs.apple.com"}, Users: []string{"eve"}})}},
		{name: "a group", rules: []Rule{deny(When{Hosts: []string{"gs.apple.com"}, Groups: []string{"year 1"}})}},
		{name: "hours", rules: []Rule{deny(When{Services: []string{"siri"}, Hours: []string{"mon-fri 08:00-16:00"}})}},
		{name: "allowed to some before", rules: []Rule{
			{Name: "yes", Then: "allow", When: When{Services: []string{"siri"}, Clients: []string{"10.1.0.0/16"}}}, deny(When{Services: []string{"siri"}}),
		}},
		{name: "denied to some before", rules: []Rule{
			deny(When{Services: []string{"siri"}, Clients: []string{"10.1.0.0/16"}}), {Name: "rest", Then: "deny", When: When{Hosts: []string{"guzzoni.apple.com"}}},
		}, gone: "guzzoni.apple.com:443 *.apple.com:443 17.0.0.0/8:443"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := compile(t, Config{Apple: Apple{Wide: true, PrivateRelay: tt.relay}, Rules: tt.rules})
			rows, err := catalog.Select(p.Apple().Rows(), "devices", func(string, uint16) bool { return true })
			if err != nil {
				t.Fatal(err)
			}
			open, refused := p.Open(rows, false)
			except := catalog.Selection{Rows: open, Refused: refused}.Covered()
			has := func(rows []catalog.Row, want string) bool {
				return slices.ContainsFunc(rows, func(r catalog.Row) bool {
					return slices.ContainsFunc(r.Ports, func(port uint16) bool { return fmt.Sprintf("%s:%d", r.Host, port) == want })
				})
			}
			for _, row := range strings.Fields(all) {
				if !has(rows, row) {
					t.Errorf("%s is not there in the first place", row)
				}
				if got, want := has(open, row), !slices.Contains(strings.Fields(tt.gone), row); got != want {
					t.Errorf("%s open: %t, want %t", row, got, want)
				}
			}
			if got := strings.Join(except, " "); got != tt.except {
				t.Errorf("except %q, want %q", got, tt.except)
			}
			if proxied, _ := p.Open(rows, true); !has(proxied, "17.0.0.0/8:443") {
				t.Error("the proxy's own firewall lacks an address block")
			}
		})
	}
}

// Open leaves a host and port out exactly where Decide denies it to every client.
func TestOpenAgreesWithDecide(t *testing.T) {
	rules := []Rule{denyAll, denySiri, denySiriHost, denyBelow, denyGame, denyLab, denyPort, denyEve, denySiriEve, allowAll, allowLab, allowSiri}
	for _, first := range rules {
		for _, second := range rules {
			if first.Name == second.Name {
				continue
			}
			for _, relay := range []string{RelayAllow, RelayBlock} {
				p := compile(t, Config{Apple: Apple{PrivateRelay: relay}, Rules: []Rule{first, second}})
				rows := p.Apple().Rows()
				open, _ := p.Open(rows, false)
				for _, r := range rows {
					for _, port := range r.Ports {
						passes := false
						for _, client := range []string{"10.1.2.3", "10.2.0.1"} {
							for _, user := range []string{"", "eve", "adam"} {
								d := p.Decide(&Request{
									Target: Target{Host: strings.Replace(r.Host, "*", "member", 1), Port: port},
									Client: netip.MustParseAddr(client), User: user, Connect: true, Time: time.Unix(0, 0),
								})
								passes = passes || d.Action != Deny
							}
						}
						if got := slices.ContainsFunc(open, func(o catalog.Row) bool { return o.Host == r.Host && o.HasPort(port) }); got != passes {
							t.Errorf("%q, %q, relay %s: %s:%d open: %t, but a client passes: %t", first.Name, second.Name, relay, r.Host, port, got, passes)
						}
					}
				}
			}
		}
	}
}
