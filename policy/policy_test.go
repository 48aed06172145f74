package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"espalier/policy/catalog"
)

var ipad = netip.MustParseAddr("10.1.2.3")

func compile(t testing.TB, cfg Config) *Policy {
	t.Helper()
	if cfg.Clients == nil {
		cfg.Clients = []string{"loopback", "private"}
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func target(t testing.TB, s string) Target {
	t.Helper()
	tgt, err := ParseTarget(s, 0)
	if err != nil {
		t.Fatal(err)
	}
	return tgt
}

// The names that rules have in the tests say what they do.
var (
	denyAll       = Rule{Name: "deny all", Then: "deny"}
	denySiri      = Rule{Name: "deny siri", Then: "deny", When: When{Services: []string{"siri"}}}
	denySiriHost  = Rule{Name: "deny guzzoni", Then: "deny", When: When{Hosts: []string{"guzzoni.apple.com"}}}
	denyBelow     = Rule{Name: "deny below apple", Then: "deny", When: When{Hosts: []string{"*.apple.com"}}}
	denyGame      = Rule{Name: "deny game", Then: "deny", When: When{Hosts: []string{"game.example"}}}
	denyOther     = Rule{Name: "deny other", Then: "deny", When: When{Services: []string{"other"}}}
	denyLab       = Rule{Name: "deny lab", Then: "deny", When: When{Clients: []string{"10.1.0.0/16"}}}
	denyPort      = Rule{Name: "deny 443", Then: "deny", When: When{Ports: []uint16{443}}}
	denyNight     = Rule{Name: "deny hours", Then: "deny", When: When{Hours: []string{"00:00-24:00 UTC"}}}
	denyList      = Rule{Name: "deny list", Then: "deny", When: When{Lists: []string{"ads"}}}
	denyAbsent    = Rule{Name: "deny absent list", Then: "deny", When: When{Lists: []string{"absent"}}}
	denyLists     = Rule{Name: "deny lists", Then: "deny", When: When{Lists: []string{"absent", "ads"}}}
	denyListLab   = Rule{Name: "deny list in lab", Then: "deny", When: When{Lists: []string{"ads"}, Clients: []string{"10.1.0.0/16"}}}
	denyEve       = Rule{Name: "deny eve", Then: "deny", When: When{Users: []string{"eve"}}}
	denySiriEve   = Rule{Name: "deny siri to eve", Then: "deny", When: When{Services: []string{"siri"}, Users: []string{"eve"}}}
	allowAll      = Rule{Name: "allow all", Then: "allow"}
	allowLab      = Rule{Name: "allow lab", Then: "allow", When: When{Clients: []string{"10.1.0.0/16"}}}
	allowSiri     = Rule{Name: "allow siri", Then: "allow", When: When{Services: []string{"siri"}}}
	allowEve      = Rule{Name: "allow eve", Then: "allow", When: When{Users: []string{"eve"}}}
	allowBob      = Rule{Name: "allow bob", Then: "allow", When: When{Users: []string{"bob"}}}
	denyPupils    = Rule{Name: "deny pupils", Then: "deny", When: When{Groups: []string{"Pupils"}}}
	allowStaff    = Rule{Name: "allow staff", Then: "allow", When: When{Groups: []string{"staff", "board"}}}
	allowStaffEve = Rule{Name: "allow eve of the staff", Then: "allow", When: When{Users: []string{"eve"}, Groups: []string{"staff"}}}
	denySiriPupil = Rule{Name: "deny siri to pupils", Then: "deny", When: When{Services: []string{"siri"}, Groups: []string{"pupils"}}}
	tunnelAll     = Rule{Name: "tunnel all", Then: "tunnel"}
	tunnelBank    = Rule{Name: "tunnel bank", Then: "tunnel", When: When{Hosts: []string{"*.bank.example"}}}
	inspectAll    = Rule{Name: "inspect all", Then: "inspect"}
	inspectApple  = Rule{Name: "inspect apple", Then: "inspect", When: When{Hosts: []string{"*.apple.com"}, Services: []string{"siri"}}}
	allowRelay    = Rule{Name: "allow relay", Then: "allow", When: When{Hosts: []string{"*.icloud.com"}}}
	denyRelay     = Rule{Name: "deny relay", Then: "deny", When: When{Hosts: []string{"mask-h2.icloud.com"}}}
)

// everythingBut is a list of every host but one.
type everythingBut string

func (e everythingBut) Match(host string) (string, bool)             { return host, host != string(e) }
func (everythingBut) MatchURL(string, uint16, string) (string, bool) { return "", false }
func (e everythingBut) Missing() bool                                { return false }

const (
	siri  = "guzzoni.apple.com:443"
	game  = "game.example:443"
	relay = "mask-h2.icloud.com:443"
)

// The fixed order of decision, step by step. Where plain is empty, plain HTTP
// has the same answer, with forward in place of tunnel.
func TestDecideOrder(t *testing.T) {
	tests := []struct {
		name   string
		rules  []Rule
		auth   bool
		mode   string // inspect.mode
		relay  string // apple.private_relay
		client string // "10.1.2.3" where empty
		user   string
		groups []string
		target string
		want   Action // of CONNECT
		plain  Action
		rule   string
	}{
		// 1. Clients.
		{name: "stranger", client: "203.0.113.9", target: game, want: Deny, rule: RuleClients},
		{name: "stranger, Apple", client: "203.0.113.9", target: siri, want: Deny, rule: RuleClients},
		{name: "stranger, allowed by a rule", rules: []Rule{allowAll}, client: "203.0.113.9", target: game, want: Deny, rule: RuleClients},
		{name: "stranger, denied by a rule", rules: []Rule{denyAll}, client: "203.0.113.9", target: game, want: Deny, rule: RuleClients},
		{name: "stranger is not asked", auth: true, client: "203.0.113.9", target: game, want: Deny, rule: RuleClients},
		{name: "mapped client", client: "::ffff:10.1.2.3", target: game, want: Tunnel, rule: RuleDefault},
		{name: "link-local client", client: "fe80::1%eth0", target: game, want: Tunnel, rule: RuleDefault},

		// 2. Deny rules that name their target come before Apple.
		{name: "service named", rules: []Rule{denySiri}, target: siri, want: Deny, rule: "deny siri"},
		{name: "host named", rules: []Rule{denySiriHost}, target: siri, want: Deny, rule: "deny guzzoni"},
		{name: "host named by a wildcard", rules: []Rule{denyBelow}, target: siri, want: Deny, rule: "deny below apple"},
		{name: "another host named", rules: []Rule{denyGame}, target: siri, want: Tunnel, rule: RuleApple},
		{name: "the other service named", rules: []Rule{denyOther}, target: siri, want: Tunnel, rule: RuleApple},
		{name: "named, behind a catch-all deny", rules: []Rule{denyAll, denySiri}, target: siri, want: Deny, rule: "deny siri"},
		{name: "named, behind an allow that names it", rules: []Rule{allowSiri, denySiriHost}, target: siri, want: Tunnel, rule: RuleApple},
		{name: "named, behind an allow that names nothing", rules: []Rule{allowLab, denySiri}, target: siri, want: Tunnel, rule: RuleApple},
		{name: "named, behind an allow for other clients", rules: []Rule{allowLab, denySiri}, client: "10.2.0.1", target: siri, want: Deny, rule: "deny siri"},
		{name: "named, behind an inspect", rules: []Rule{inspectAll, denySiri}, mode: InspectListed, target: siri, want: Tunnel, rule: RuleApple},
		{name: "named, for users", rules: []Rule{denySiriEve}, auth: true, target: siri, want: Tunnel, rule: RuleApple},
		{name: "named, for a user who is known", rules: []Rule{denySiriEve}, auth: true, user: "eve", target: siri, want: Deny, rule: "deny siri to eve"},
		{name: "named, for another user", rules: []Rule{denySiriEve}, auth: true, user: "bob", target: siri, want: Tunnel, rule: RuleApple},
		{name: "named, behind an allow for users", rules: []Rule{allowEve, denySiri}, auth: true, target: siri, want: Deny, rule: "deny siri"},

		{name: "named, for a group", rules: []Rule{denySiriPupil}, auth: true, target: siri, want: Tunnel, rule: RuleApple},
		{name: "named, for a group that is known", rules: []Rule{denySiriPupil}, auth: true, user: "eve", groups: []string{"pupils"}, target: siri, want: Deny, rule: "deny siri to pupils"},

		// A rule that names no target never cuts Apple off.
		{name: "catch-all deny", rules: []Rule{denyAll}, target: siri, want: Tunnel, rule: RuleApple},
		{name: "deny by clients", rules: []Rule{denyLab}, target: siri, want: Tunnel, rule: RuleApple},
		{name: "deny by port", rules: []Rule{denyPort}, target: siri, want: Tunnel, rule: RuleApple},
		{name: "deny by hours", rules: []Rule{denyNight}, target: siri, want: Tunnel, rule: RuleApple},
		{name: "deny by user", rules: []Rule{denyEve}, auth: true, user: "eve", target: siri, want: Tunnel, rule: RuleApple},
		{name: "deny by list", rules: []Rule{denyList}, target: siri, want: Tunnel, rule: RuleApple},

		// 3. Private Relay.
		{name: "relay", target: relay, want: Tunnel, rule: RuleApple},
		{name: "relay blocked", relay: RelayBlock, target: relay, want: Deny, rule: RuleRelay},
		{name: "relay blocked, over QUIC's name", relay: RelayBlock, target: "mask.icloud.com:443", want: Deny, rule: RuleRelay},
		{name: "relay blocked, on a port that the catalogue does not have", relay: RelayBlock, target: "mask.icloud.com:8443", want: Deny, rule: RuleRelay},
		{name: "relay blocked, its settings not", relay: RelayBlock, target: "mask-api.icloud.com:443", want: Tunnel, rule: RuleApple},
		{name: "relay blocked, the rest of iCloud not", relay: RelayBlock, target: "gateway.icloud.com:443", want: Tunnel, rule: RuleApple},
		{name: "relay blocked is not asked", relay: RelayBlock, auth: true, target: relay, want: Deny, rule: RuleRelay},
		{name: "relay blocked whatever rules allow", relay: RelayBlock, rules: []Rule{allowRelay}, target: relay, want: Deny, rule: RuleRelay},
		{name: "relay denied by a rule first", relay: RelayBlock, rules: []Rule{denyRelay}, target: relay, want: Deny, rule: "deny relay"},

		// 4. Apple's passes untouched.
		{name: "Apple", target: siri, want: Tunnel, rule: RuleApple},
		{name: "Apple is not asked", auth: true, target: siri, want: Tunnel, rule: RuleApple},
		{name: "Apple is not inspected", mode: InspectAll, target: siri, want: Tunnel, rule: RuleApple},
		{name: "Apple is not inspected by a rule", rules: []Rule{inspectAll}, mode: InspectListed, target: siri, want: Tunnel, rule: RuleApple},
		{name: "Apple is not inspected by a rule that names it", rules: []Rule{inspectApple}, mode: InspectAll, target: siri, want: Tunnel, rule: RuleApple},
		{name: "Apple, everything at once", rules: []Rule{denyLab, denyEve, inspectAll}, auth: true, mode: InspectAll, target: siri, want: Tunnel, rule: RuleApple},
		{name: "Apple's address", auth: true, mode: InspectAll, target: "17.253.144.10:443", want: Tunnel, rule: RuleApple},
		{name: "added by the administrator", auth: true, mode: InspectAll, target: "mdm.school.example:8443", want: Tunnel, rule: RuleApple},
		{name: "added by the administrator, another port", auth: true, target: "mdm.school.example:443", want: Challenge, rule: RuleAuth},
		{name: "look-alike", auth: true, target: "notapple.com:443", want: Challenge, rule: RuleAuth},
		{name: "apple.com in front", auth: true, target: "apple.com.evil.example:443", want: Challenge, rule: RuleAuth},

		// 5. The administrator's rules.
		{name: "deny", rules: []Rule{denyGame}, target: game, want: Deny, rule: "deny game"},
		{name: "deny, another host", rules: []Rule{denyGame}, target: "news.example:443", want: Tunnel, rule: RuleDefault},
		{name: "deny needs no password", rules: []Rule{denyGame}, auth: true, target: game, want: Deny, rule: "deny game"},
		{name: "catch-all deny needs no password", rules: []Rule{denyAll}, auth: true, target: game, want: Deny, rule: "deny all"},
		{name: "deny the other service", rules: []Rule{denyOther}, auth: true, target: game, want: Deny, rule: "deny other"},
		{name: "first match wins", rules: []Rule{allowLab, denyGame}, target: game, want: Tunnel, rule: "allow lab"},
		{name: "first match wins, the other way", rules: []Rule{denyGame, allowLab}, target: game, want: Deny, rule: "deny game"},
		{name: "list", rules: []Rule{denyList, allowAll}, target: "ads.example:443", want: Deny, rule: "deny list"},
		{name: "list, an address", rules: []Rule{denyList}, target: "[2001:DB8:0::1]:443", want: Deny, rule: "deny list"},
		{name: "list, not in it", rules: []Rule{denyList, allowAll}, target: game, want: Tunnel, rule: "allow all"},
		{name: "list that is not loaded", rules: []Rule{denyAbsent, allowAll}, target: game, want: Tunnel, rule: "allow all"},
		{name: "one of several lists", rules: []Rule{denyLists}, target: "ads.example:443", want: Deny, rule: "deny lists"},
		{name: "list, and another condition that does not hold", rules: []Rule{denyListLab}, client: "10.2.0.1", target: "ads.example:443", want: Tunnel, rule: RuleDefault},
		{name: "deny a user, not known: asked", rules: []Rule{denyEve}, auth: true, target: game, want: Challenge, rule: RuleAuth},
		{name: "deny a user, known", rules: []Rule{denyEve}, auth: true, user: "eve", target: game, want: Deny, rule: "deny eve"},
		{name: "deny a user, another", rules: []Rule{denyEve}, auth: true, user: "bob", target: game, want: Tunnel, rule: RuleDefault},
		{name: "allow a user before a deny: asked", rules: []Rule{allowEve, denyGame}, auth: true, target: game, want: Challenge, rule: RuleAuth},
		{name: "allow a user before a deny, known", rules: []Rule{allowEve, denyGame}, auth: true, user: "eve", target: game, want: Tunnel, rule: "allow eve"},
		{name: "allow a user before a deny, another", rules: []Rule{allowEve, denyGame}, auth: true, user: "bob", target: game, want: Deny, rule: "deny game"},
		{name: "deny a user before a deny for all: nobody is asked in vain", rules: []Rule{denyEve, denyGame}, auth: true, target: game, want: Deny, rule: "deny game"},
		{name: "allow a user behind a deny: nobody is asked in vain", rules: []Rule{denyGame, allowEve}, auth: true, target: game, want: Deny, rule: "deny game"},
		{name: "two users", rules: []Rule{allowEve, allowBob, denyAll}, auth: true, user: "bob", target: game, want: Tunnel, rule: "allow bob"},
		{name: "rule with users where nobody can sign in", rules: []Rule{allowEve, denyGame}, target: game, want: Deny, rule: "deny game"},

		{name: "deny a group, not known: asked", rules: []Rule{denyPupils}, auth: true, target: game, want: Challenge, rule: RuleAuth},
		{name: "deny a group", rules: []Rule{denyPupils}, auth: true, user: "eve", groups: []string{"choir", "pupils"}, target: game, want: Deny, rule: "deny pupils"},
		{name: "deny a group, another", rules: []Rule{denyPupils}, auth: true, user: "eve", groups: []string{"choir"}, target: game, want: Tunnel, rule: RuleDefault},
		{name: "deny a group, none", rules: []Rule{denyPupils}, auth: true, user: "eve", target: game, want: Tunnel, rule: RuleDefault},
		{name: "allow a group before a deny: asked", rules: []Rule{allowStaff, denyGame}, auth: true, target: game, want: Challenge, rule: RuleAuth},
		{name: "allow a group before a deny", rules: []Rule{allowStaff, denyGame}, auth: true, user: "eve", groups: []string{"Board"}, target: game, want: Tunnel, rule: "allow staff"},
		{name: "allow a group before a deny, another", rules: []Rule{allowStaff, denyGame}, auth: true, user: "eve", groups: []string{"pupils"}, target: game, want: Deny, rule: "deny game"},
		{name: "user and group", rules: []Rule{allowStaffEve, denyAll}, auth: true, user: "eve", groups: []string{"staff"}, target: game, want: Tunnel, rule: "allow eve of the staff"},
		{name: "user, but not group", rules: []Rule{allowStaffEve, denyAll}, auth: true, user: "eve", target: game, want: Deny, rule: "deny all"},
		{name: "group, but not user", rules: []Rule{allowStaffEve, denyAll}, auth: true, user: "bob", groups: []string{"staff"}, target: game, want: Deny, rule: "deny all"},
		{name: "group of nobody", rules: []Rule{denyPupils}, groups: []string{"pupils"}, target: game, want: Tunnel, rule: RuleDefault},

		// 6. Who is not known is asked.
		{name: "asked", auth: true, target: game, want: Challenge, rule: RuleAuth},
		{name: "asked before an allow", rules: []Rule{allowAll}, auth: true, target: game, want: Challenge, rule: RuleAuth},
		{name: "asked before a tunnel", rules: []Rule{tunnelAll}, auth: true, target: game, want: Challenge, rule: RuleAuth},
		{name: "asked before interception", auth: true, mode: InspectAll, target: game, want: Challenge, rule: RuleAuth},
		{name: "known", auth: true, user: "bob", target: game, want: Tunnel, rule: RuleDefault},
		{name: "known, allowed", rules: []Rule{allowAll}, auth: true, user: "bob", target: game, want: Tunnel, rule: "allow all"},

		// 7. Interception.
		{name: "inspect all", mode: InspectAll, target: game, want: Inspect, plain: Forward, rule: RuleInspect},
		{name: "inspect all, known user", mode: InspectAll, auth: true, user: "bob", target: game, want: Inspect, plain: Forward, rule: RuleInspect},
		{name: "inspect all, allowed by a rule", rules: []Rule{allowAll}, mode: InspectAll, target: game, want: Inspect, plain: Forward, rule: "allow all"},
		{name: "inspect all, tunnelled by a rule", rules: []Rule{tunnelBank}, mode: InspectAll, target: "www.bank.example:443", want: Tunnel, rule: "tunnel bank"},
		{name: "inspect all, exempt", mode: InspectAll, target: "www.clinic.example:443", want: Tunnel, rule: RuleDefault},
		{name: "inspect all, exempt and allowed", rules: []Rule{allowAll}, mode: InspectAll, target: "www.clinic.example:443", want: Tunnel, rule: "allow all"},
		{name: "inspect all, exempt, but a rule says inspect", rules: []Rule{inspectAll}, mode: InspectAll, target: "www.clinic.example:443", want: Inspect, plain: Forward, rule: "inspect all"},
		{name: "inspect listed", mode: InspectListed, target: game, want: Tunnel, rule: RuleDefault},
		{name: "inspect listed, by a rule", rules: []Rule{inspectAll}, mode: InspectListed, target: game, want: Inspect, plain: Forward, rule: "inspect all"},
		{name: "inspect listed, allowed by a rule", rules: []Rule{allowAll}, mode: InspectListed, target: game, want: Tunnel, rule: "allow all"},
		{name: "denied is not inspected", rules: []Rule{denyGame}, mode: InspectAll, target: game, want: Deny, rule: "deny game"},

		// 8. The rest.
		{name: "nothing applies", target: game, want: Tunnel, rule: RuleDefault},
		{name: "an address", target: "192.0.2.1:443", want: Tunnel, rule: RuleDefault},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := compile(t, Config{
				Apple:   Apple{Wide: true, PrivateRelay: tt.relay, Extra: []string{"mdm.school.example:8443"}},
				Auth:    tt.auth,
				Rules:   tt.rules,
				Lists:   map[string]HostList{"ads": everythingBut("game.example"), "absent": nil},
				Inspect: InspectConfig{Mode: tt.mode, Exempt: []string{"*.clinic.example"}},
			})
			client := ipad
			if tt.client != "" {
				client = netip.MustParseAddr(tt.client)
			}
			r := Request{Target: target(t, tt.target), Client: client, User: tt.user, Groups: tt.groups, Connect: true}
			if d := p.Decide(&r); d.Action != tt.want || d.Rule != tt.rule {
				t.Errorf("CONNECT: %s by %q, want %s by %q", d.Action, d.Rule, tt.want, tt.rule)
			}
			want, rule := tt.want, tt.rule
			if tt.plain != "" {
				want = tt.plain
			}
			if want == Tunnel {
				want = Forward
			}
			if rule == RuleInspect {
				rule = RuleDefault
			}
			r.Connect = false
			if d := p.Decide(&r); d.Action != want || d.Rule != rule {
				t.Errorf("plain HTTP: %s by %q, want %s by %q", d.Action, d.Rule, want, rule)
			}
		})
	}
}

// Whatever is configured for the rest, no row of the catalogue is ever refused,
// challenged or intercepted, under any spelling of its host.
func TestDecideCatalogueUntouched(t *testing.T) {
	p := compile(t, Config{
		Apple: Apple{Wide: true, Extra: []string{"mdm.school.example:8443", "*.school.example", "192.0.2.0/24"}},
		Auth:  true,
		Rules: []Rule{denyEve, denyLab, denyPort, denyNight, denyList, denyOther, denyAll, inspectAll, inspectApple},
		Lists: map[string]HostList{"ads": everythingBut("")},
		Inspect: InspectConfig{
			Mode: InspectAll,
		},
	})
	rows := p.Apple().Rows()
	if len(catalog.Embedded()) < 127 || len(rows) <= len(catalog.Embedded()) {
		t.Fatalf("%d rows, %d of them embedded", len(rows), len(catalog.Embedded()))
	}
	for _, row := range rows {
		ports := row.Ports
		if len(ports) == 0 {
			ports = []uint16{1, 80, 443, 5223, 65535}
		}
		var hosts []string
		if prefix, err := netip.ParsePrefix(row.Host); err == nil {
			hosts = []string{prefix.Addr().String(), prefix.Addr().Next().String()}
		} else if x, ok := strings.CutPrefix(row.Host, "*."); ok {
			hosts = []string{"a." + x, "A.B-c." + strings.ToUpper(x) + "."}
		} else {
			hosts = []string{row.Host, strings.ToUpper(row.Host), row.Host + "."}
		}
		for _, host := range hosts {
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			for _, port := range ports {
				for _, user := range []string{"", "eve"} {
					for connect, want := range map[bool]Action{true: Tunnel, false: Forward} {
						r := Request{Target: target(t, fmt.Sprintf("%s:%d", host, port)), Client: ipad, User: user, Connect: connect}
						if d := p.Decide(&r); d.Action != want || d.Rule != RuleApple || !d.Match.OK() || d.Service() == catalog.Other {
							t.Errorf("%s, CONNECT %v, user %q: %s by %q, service %s", r.Target, connect, user, d.Action, d.Rule, d.Service())
						}
					}
				}
			}
		}
	}
}

func TestDecideService(t *testing.T) {
	p := compile(t, Config{Apple: Apple{Wide: true}, Rules: []Rule{denySiri}})
	for s, want := range map[string]string{
		siri:                              "siri", // also when denied
		game:                              catalog.Other,
		"1-courier.push.apple.com:5223":   catalog.Push,
		"something.apple.com:12345":       catalog.AppleOther,
		"17.1.2.3:443":                    catalog.AppleOther,
		"[2403:300::1]:443":               catalog.AppleOther,
		"apple.com:443":                   catalog.AppleOther,
		"icloud.com:443":                  catalog.AppleOther,
		"proxy.safebrowsing.apple:443":    catalog.AppleOther,
		"tether.edge.apple:443":           catalog.AppleOther,
		"apple:443":                       catalog.Other,
		"digicert.com:443":                catalog.Other,
		"18.1.2.3:443":                    catalog.Other,
		"push.apple.com.evil.example:443": catalog.Other,
	} {
		if d := p.Decide(&Request{Target: target(t, s), Client: ipad, Connect: true}); d.Service() != want {
			t.Errorf("%s: service %s, want %s", s, d.Service(), want)
		}
	}
}

// Without apple.wide only the rows of the article are Apple's.
func TestDecideNotWide(t *testing.T) {
	p := compile(t, Config{Auth: true})
	for s, want := range map[string]Action{siri: Tunnel, "something.apple.com:12345": Challenge, "17.1.2.3:443": Challenge} {
		if d := p.Decide(&Request{Target: target(t, s), Client: ipad, Connect: true}); d.Action != want {
			t.Errorf("%s: %s, want %s", s, d.Action, want)
		}
	}
}

// A rule applies where all of its conditions hold, each by any of its values.
func TestDecideConditions(t *testing.T) {
	all := When{
		Hosts: []string{"game.example", "*.game.example", "198.51.100.0/24", "2001:db8::7"}, Clients: []string{"10.1.0.0/16", "10.9.9.9"},
		Users: []string{"bob", "eve"}, Ports: []uint16{443, 8443}, Hours: []string{"mon 08:00-10:00 UTC", "tue 08:00-10:00 UTC"},
		Services: []string{"other", "siri"},
	}
	p := compile(t, Config{Auth: true, Rules: []Rule{{Name: "all", Then: "deny", When: all}}})
	monday := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	base := Request{Target: target(t, game), Client: ipad, User: "bob", Time: monday}
	tests := []struct {
		name   string
		change func(*Request)
		want   bool
	}{
		{"as it is", func(*Request) {}, true},
		{"below", func(r *Request) { r.Target = target(t, "a.b.game.example:443") }, true},
		{"block", func(r *Request) { r.Target = target(t, "198.51.100.9:443") }, true},
		{"mapped address in the block", func(r *Request) { r.Target = target(t, "[::ffff:198.51.100.9]:443") }, true},
		{"address", func(r *Request) { r.Target = target(t, "[2001:db8::7]:443") }, true},
		{"other port", func(r *Request) { r.Target.Port = 8443 }, true},
		{"other client", func(r *Request) { r.Client = netip.MustParseAddr("10.9.9.9") }, true},
		{"other user", func(r *Request) { r.User = "eve" }, true},
		{"other day", func(r *Request) { r.Time = monday.AddDate(0, 0, 1) }, true},
		{"wrong host", func(r *Request) { r.Target = target(t, "agame.example:443") }, false},
		{"wrong parent", func(r *Request) { r.Target = target(t, "example:443") }, false},
		{"wrong address", func(r *Request) { r.Target = target(t, "[2001:db8::8]:443") }, false},
		{"wrong port", func(r *Request) { r.Target.Port = 80 }, false},
		{"wrong client", func(r *Request) { r.Client = netip.MustParseAddr("10.2.0.1") }, false},
		{"wrong user", func(r *Request) { r.User = "Bob" }, false},
		{"wrong hour", func(r *Request) { r.Time = monday.Add(time.Hour) }, false},
		{"wrong day", func(r *Request) { r.Time = monday.AddDate(0, 0, 2) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := base
			tt.change(&r)
			if d := p.Decide(&r); (d.Rule == "all") != tt.want {
				t.Errorf("%s by %q", d.Action, d.Rule)
			}
		})
	}
}

// Lists that are there, but empty, are no conditions; a program that reads the
// configuration may well leave them so.
func TestDecideEmptyConditions(t *testing.T) {
	p := compile(t, Config{Rules: []Rule{{Name: "all", Then: "deny", When: When{
		Hosts: []string{}, Lists: []string{}, Clients: []string{}, Users: []string{}, Groups: []string{}, Ports: []uint16{}, Hours: []string{}, Services: []string{},
	}}}})
	if d := p.Decide(&Request{Target: target(t, game), Client: ipad}); d.Rule != "all" {
		t.Errorf("%s by %q", d.Action, d.Rule)
	}
}

// A Policy keeps what it was compiled from, whatever happens to that.
func TestPolicyImmutable(t *testing.T) {
	cfg := Config{Clients: []string{"private"}, Rules: []Rule{{Name: "r", Then: "deny", When: When{Ports: []uint16{443}, Services: []string{"other"}}}}}
	p := compile(t, cfg)
	cfg.Rules[0].When.Ports[0], cfg.Rules[0].When.Services[0] = 80, "siri"
	if d := p.Decide(&Request{Target: target(t, game), Client: ipad}); d.Rule != "r" {
		t.Errorf("%s by %q", d.Action, d.Rule)
	}
}

func TestDecideZeroConfig(t *testing.T) {
	p, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, client := range []string{"127.0.0.1", "::1", "10.1.2.3"} {
		if d := p.Decide(&Request{Target: target(t, siri), Client: netip.MustParseAddr(client)}); d.Action != Deny || d.Rule != RuleClients {
			t.Errorf("%s: %s by %q", client, d.Action, d.Rule)
		}
	}
}

// What holds for every configuration and request.
func TestDecideInvariants(t *testing.T) {
	hosts := []string{"guzzoni.apple.com", "*.apple.com", "mask-h2.icloud.com", "*.icloud.com", "game.example", "*.example", "17.0.0.0/8", "192.0.2.1"}
	targets := []string{siri, relay, game, "a.game.example:80", "gateway.icloud.com:443", "x.apple.com:99", "17.1.1.1:80", "192.0.2.1:443", "mask.icloud.com:80", "www.google.com:443", "accounts.google.com:80"}
	some := func(t *rapid.T, label string, from []string) []string {
		return rapid.SliceOfN(rapid.SampledFrom(from), 0, 2).Draw(t, label)
	}
	rapid.Check(t, func(rt *rapid.T) {
		var rules []Rule
		for i := range rapid.IntRange(0, 5).Draw(rt, "rules") {
			rules = append(rules, Rule{
				Name: fmt.Sprint("rule ", i),
				Then: rapid.SampledFrom([]string{"deny", "allow", "tunnel", "inspect"}).Draw(rt, "then"),
				When: When{
					Hosts:    some(rt, "hosts", hosts),
					Clients:  some(rt, "clients", []string{"10.0.0.0/8", "loopback"}),
					Users:    some(rt, "users", []string{"eve", "bob"}),
					Groups:   some(rt, "groups", []string{"staff"}),
					Services: some(rt, "services", []string{"siri", "icloud", "other", "apple-other"}),
					Lists:    some(rt, "lists", []string{"ads"}),
				},
			})
		}
		cfg := Config{
			Clients: []string{"10.0.0.0/8"},
			Apple:   Apple{Wide: rapid.Bool().Draw(rt, "wide"), PrivateRelay: rapid.SampledFrom([]string{"", RelayAllow, RelayBlock}).Draw(rt, "relay")},
			Auth:    rapid.Bool().Draw(rt, "auth"), Rules: rules,
			Lists:   map[string]HostList{"ads": everythingBut("")},
			Inspect: InspectConfig{Mode: rapid.SampledFrom([]string{InspectListed, InspectAll}).Draw(rt, "mode"), Exempt: some(rt, "exempt", hosts), DenyPage: rapid.Bool().Draw(rt, "page")},
			Presets: Presets{SafeSearch: some(rt, "search", []string{"google", "bing"}), GoogleDomains: some(rt, "domains", []string{"example.org"})},
		}
		p := compile(t, cfg)
		r := Request{
			Target:  target(t, rapid.SampledFrom(targets).Draw(rt, "target")),
			Client:  netip.MustParseAddr(rapid.SampledFrom([]string{"10.1.2.3", "127.0.0.1"}).Draw(rt, "client")),
			User:    rapid.SampledFrom([]string{"", "eve", "bob"}).Draw(rt, "user"),
			Groups:  some(rt, "groups of the user", []string{"staff", "pupils"}),
			Connect: rapid.Bool().Draw(rt, "connect"),
		}
		d := p.Decide(&r)
		if again := p.Decide(&r); !reflect.DeepEqual(again, d) {
			rt.Fatalf("%+v, then %+v", d, again)
		}
		if (d.HasHeaders() || d.Dial != r.Target) && (d.Match.OK() || d.Action == Deny || d.Action == Challenge) {
			rt.Fatalf("Apple's is changed, or what does not pass: %+v", d)
		}
		if d.HasHeaders() && d.Action == Tunnel {
			rt.Fatalf("headers inside a tunnel: %+v", d)
		}
		i := slices.IndexFunc(rules, func(x Rule) bool { return x.Name == d.Rule })
		exempt, _ := compileHosts(cfg.Inspect.Exempt)
		if page := cfg.Inspect.DenyPage && r.Connect && d.Action == Deny && i >= 0 && !d.Match.OK() && !exempt.match(r.Target) &&
			!(cfg.Apple.PrivateRelay == RelayBlock && isRelay(r.Target.Host)); d.Page != page {
			rt.Fatalf("told inside TLS: %v, want %v: %+v", d.Page, page, d)
		}
		switch d.Action {
		case Deny:
			switch {
			case d.Rule == RuleClients && r.Client != ipad:
			case d.Rule == RuleRelay && cfg.Apple.PrivateRelay == RelayBlock:
			case d.Rule == RulePorts && r.Target.Port == 99 && !d.Match.OK():
			case i < 0 || rules[i].Then != "deny":
				rt.Fatalf("denied by %q", d.Rule)
			case d.Match.OK() && len(rules[i].When.Hosts)+len(rules[i].When.Services) == 0:
				rt.Fatalf("Apple is cut off by %+v", rules[i])
			}
		case Challenge:
			if d.Match.OK() || !cfg.Auth || r.User != "" {
				rt.Fatalf("challenged: %+v", d)
			}
		case Inspect:
			if d.Match.OK() || !r.Connect {
				rt.Fatalf("inspected: %+v", d)
			}
		case Tunnel, Forward:
			if r.Connect != (d.Action == Tunnel) || r.Client != ipad || d.Match.OK() != (d.Rule == RuleApple) {
				rt.Fatalf("passed: %+v", d)
			}
			if cfg.Auth && r.User == "" && !d.Match.OK() {
				rt.Fatalf("passed without being asked: %+v", d)
			}
		default:
			rt.Fatalf("action %q", d.Action)
		}
		// Signing in never turns what passes, or is refused, into a challenge.
		if r.User == "" && d.Action != Challenge {
			r.User = "somebody"
			if known := p.Decide(&r); known.Action == Challenge {
				rt.Fatalf("%+v, and signed in %+v", d, known)
			}
		}
	})
}

// busy is a configuration of some size: what a school might have.
func busy(t testing.TB) *Policy {
	rules := []Rule{denyNight, denyGame, denyEve, tunnelBank}
	for i := range 20 {
		rules = append(rules, Rule{Name: fmt.Sprint("rule ", i), Then: "deny", When: When{
			Hosts: []string{fmt.Sprintf("*.site%d.example", i)}, Clients: []string{"10.0.0.0/8"}, Hours: []string{"mon-fri 08:00-16:00 Europe/Stockholm"},
		}})
	}
	rules[0].When.Hours = []string{"sun 03:00-03:01 UTC"}
	return compile(t, Config{Apple: Apple{Wide: true, PrivateRelay: RelayBlock}, Auth: true, Rules: rules, Inspect: InspectConfig{Mode: InspectAll, Exempt: []string{"*.clinic.example"}},
		Presets: Presets{SafeSearch: []string{"google", "yandex"}, YouTube: YouTubeStrict, GoogleDomains: []string{"example.org"}, Microsoft: Microsoft{Policy: "t:g"}}})
}

var busyTargets = []string{"1-courier.push.apple.com:5223", siri, relay, "17.1.2.3:443", "[2403:300::1]:443", game, "a.b.site7.example:443", "www.clinic.example:443", "192.0.2.1:80", "www.google.se:443"}

func TestDecideAllocatesNothing(t *testing.T) {
	p := busy(t)
	for _, s := range busyTargets {
		r := Request{Target: target(t, s), Client: ipad, User: "bob", Connect: true}
		if n := testing.AllocsPerRun(100, func() { p.Decide(&r) }); n != 0 {
			t.Errorf("%s: %v allocations", s, n)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	p := busy(b)
	for _, s := range []string{"1-courier.push.apple.com:5223", "17.1.2.3:443", "www.clinic.example:443"} {
		r := Request{Target: target(b, s), Client: ipad, User: "bob", Connect: true}
		b.Run(s, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(&r)
			}
		})
	}
	b.Run("mixed, parallel", func(b *testing.B) {
		var targets []Target
		for _, s := range busyTargets {
			targets = append(targets, target(b, s))
		}
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := rand.IntN(len(targets)); pb.Next(); i++ {
				p.Decide(&Request{Target: targets[i%len(targets)], Client: ipad, User: "bob", Connect: true})
			}
		})
	})
}

// What a rule may deny to some client, user or at some time counts as denied; what
// a rule before it lets everybody have does not.
func TestMayDeny(t *testing.T) {
	p, err := New(Config{
		Clients: []string{"10.0.0.0/7"},
		Apple:   Apple{Wide: true, PrivateRelay: RelayBlock},
		Lists:   map[string]HostList{"games": nil},
		Rules: []Rule{
			{Name: "free", When: When{Hosts: []string{"free.example"}}, Then: "allow"},
			{Name: "some", When: When{Hosts: []string{"some.example"}, Clients: []string{"10.0.0.0/8"}}, Then: "allow"},
			{Name: "all", When: When{Hosts: []string{"all.example"}, Clients: []string{"10.0.0.0/7"}}, Then: "tunnel"},
			{Name: "relay", When: When{Hosts: []string{"mask.icloud.com"}}, Then: "allow"},
			{Name: "lists", When: When{Lists: []string{"games"}}, Then: "deny"},
			{Name: "hosts", When: When{Hosts: []string{
				"free.example", "some.example", "all.example", "*.below.example", "192.168.7.0/24", "gc.apple.com", "plain",
			}, Hours: []string{"08:00-16:00"}}, Then: "deny"},
			{Name: "ports", When: When{Hosts: []string{"port.example"}, Ports: []uint16{25}, Users: []string{"x"}}, Then: "deny"},
			{Name: "both", When: When{Hosts: []string{"listed.example"}, Lists: []string{"games"}}, Then: "deny"},
			{Name: "siri", When: When{Services: []string{"siri"}, Groups: []string{"x"}}, Then: "deny"},
			{Name: "smtp", When: When{Ports: []uint16{587}}, Then: "deny"},
			{Name: "other", When: When{Services: []string{"other"}, Ports: []uint16{465}}, Then: "deny"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]struct{ any, named bool }{
		"www.example:443":       {},
		"free.example:443":      {},
		"some.example:443":      {true, true},
		"all.example:443":       {},
		"below.example:443":     {},
		"a.below.example:443":   {true, true},
		"192.168.7.9:80":        {true, true},
		"192.168.8.9:80":        {},
		"printer:631":           {true, true},
		"port.example:25":       {true, true},
		"port.example:443":      {},
		"listed.example:443":    {true, true},
		"gc.apple.com:443":      {true, true},
		"gs.apple.com:443":      {},
		"gs.apple.com:587":      {}, // a rule that names no target never cuts Apple off
		"guzzoni.apple.com:443": {true, true},
		"mask.icloud.com:443":   {true, true},
		"mask-h2.icloud.com:80": {true, true},
		"www.icloud.com:443":    {},
		"www.example:587":       {true, false},
		"192.168.8.9:587":       {true, false},
		"www.example:465":       {true, false},
	} {
		to, err := ParseTarget(target, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.MayDeny(to, false); got != want.any {
			t.Errorf("MayDeny(%s, any) = %v", target, got)
		}
		if got := p.MayDeny(to, true); got != want.named {
			t.Errorf("MayDeny(%s, named) = %v", target, got)
		}
	}
}

// A rule by service matches the same hosts before and after an import of an
// edition that has merged the sections which services were named after.
func TestRulesMatchAcrossAnImport(t *testing.T) {
	data, err := os.ReadFile("catalog/testdata/editions/2026-07.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var article strings.Builder
	section := ""
	for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		f := strings.Split(line, "\t")
		if i == 0 {
			continue
		}
		if f[0] != section {
			section = f[0]
			article.WriteString(section + "\n")
		}
		article.WriteString(strings.Join([]string{f[1], strings.ReplaceAll(f[2], ",", ", "), strings.ToUpper(f[3]), "", "Something", ""}, "\t") + "\n")
	}
	a, err := catalog.Import(strings.NewReader(article.String()), catalog.Options{Known: catalog.Embedded()})
	if err != nil {
		t.Fatal(err)
	}
	rows, _ := a.Update(catalog.Embedded())
	file := filepath.Join(t.TempDir(), "apple.yaml")
	w, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(catalog.Encode(w, rows), w.Close()); err != nil {
		t.Fatal(err)
	}
	for _, service := range catalog.Services {
		if service.ID == catalog.Other {
			continue
		}
		rules := []Rule{{Name: "one service", Then: "deny", When: When{Services: []string{service.ID}}}}
		before := compile(t, Config{Apple: Apple{Wide: true}, Rules: rules})
		after := compile(t, Config{Apple: Apple{Wide: true, Catalog: file}, Rules: rules})
		denied := 0
		for _, r := range before.Apple().Rows() {
			if strings.Contains(r.Host, "/") {
				continue
			}
			for _, port := range append(slices.Clone(r.Ports), 443) {
				ask := &Request{Target: target(t, fmt.Sprintf("%s:%d", strings.Replace(r.Host, "*", "x", 1), port)), Client: ipad, Connect: true}
				is, was := after.Decide(ask), before.Decide(ask)
				if is.Action != was.Action || is.Service() != was.Service() {
					t.Errorf("%s: %s is %v of %s after the import, and was %v of %s", service.ID, ask.Target, is.Action, is.Service(), was.Action, was.Service())
				}
				if is.Action == Deny {
					denied++
				}
			}
		}
		if denied == 0 {
			t.Errorf("%s: nothing is denied", service.ID)
		}
	}
	ppq := &Request{Target: target(t, "ppq.apple.com:443"), Client: ipad, Connect: true}
	p := compile(t, Config{Apple: Apple{Catalog: file}, Rules: []Rule{{Name: "apps", Then: "deny", When: When{Services: []string{"app-store"}}}}})
	if d := p.Decide(ppq); d.Action != Deny || d.Rule != "apps" {
		t.Errorf("ppq.apple.com: %v by %s", d.Action, d.Rule)
	}
}

// What the CA cannot speak for is tunnelled, whatever port it is asked for.
func TestExcludedFromCA(t *testing.T) {
	p := compile(t, Config{
		Inspect: InspectConfig{Mode: InspectAll}, Rules: []Rule{{Name: "inspected", Then: "inspect", When: When{Hosts: []string{"mdm.example"}}}},
		Excluded: func(host string, _ netip.Addr) bool { return host == "mdm.example" },
	})
	for host, want := range map[string]string{"mdm.example:443": RuleConstraints, "gs.apple.com:8443": RuleConstraints, "www.example:443": RuleInspect} {
		d := p.Decide(&Request{Target: target(t, host), Client: ipad, Connect: true})
		if d.Rule != want || (d.Action == Tunnel) != (want == RuleConstraints) || d.Learn && want == RuleConstraints {
			t.Errorf("%s: %s by %s, want %s", host, d.Action, d.Rule, want)
		}
	}
}
