package pac

import (
	"strings"
	"testing"
)

// with returns the standard routes, and some by host and service.
func with(hosts, services map[string][]string) Routes {
	r := standard
	r.Hosts, r.Services = hosts, services
	return r
}

func TestValidate(t *testing.T) {
	site := func(s Site) map[string]Site { return map[string]Site{"s": s} }
	for _, c := range []struct {
		name string
		cfg  Config
		want []string // one a line
	}{
		{"the default", Config{Routes: standard, WPAD: true}, nil},
		{"everything", Config{
			Routes: distinct, Proxies: []string{"192.0.2.1:3128", "Proxy.example:80"},
			Internal: []string{"corp.example", "local", "10.0.0.0/8", "192.0.2.7", "fd00::/8", "::1"},
			Sites: map[string]Site{
				"north-1": {Clients: []string{"10.1.0.0/16", "10.1.2.3", "loopback"}, Internal: []string{"north.example"}},
				"south":   {Clients: []string{"10.0.0.0/8"}, Routes: Routes{Default: []string{"direct"}}},
			},
		}, nil},
		{"nothing", Config{}, []string{
			"routes.apple: is empty (allowed: a list of proxy, direct)",
			"routes.apple_unmarked: is empty (allowed: a list of proxy, direct)",
			"routes.internal: is empty (allowed: a list of proxy, direct)",
			"routes.default: is empty (allowed: a list of proxy, direct)",
		}},
		{"routes", Config{Routes: Routes{
			Apple: []string{"proxy", "socks"}, AppleUnmarked: []string{"direct", "direct"}, Internal: []string{"DIRECT"}, Default: []string{""},
		}}, []string{
			`routes.apple[1]: "socks" is unknown (allowed: proxy, direct)`,
			`routes.apple_unmarked[1]: "direct" stands at routes.apple_unmarked[0] too`,
			`routes.internal[0]: "DIRECT" is unknown (allowed: proxy, direct)`,
			`routes.default[0]: "" is unknown (allowed: proxy, direct)`,
		}},
		{"proxies", Config{Routes: standard, Proxies: []string{
			"proxy.example", "http://proxy.example:3128", "[2001:db8::1]:3128", "2001:db8::1", "proxy.example:0",
			"a.example:80", "A.example.:80", `x"; alert(1); ":80`, ":3128", "127.1:80",
		}}, []string{
			`proxies[0]: "proxy.example" is no proxy address: missing port (allowed: "name:port" or "192.0.2.1:3128")`,
			`proxies[1]: "http://proxy.example:3128" has a scheme, which a PAC answer has no room for (allowed: "name:port" or "192.0.2.1:3128")`,
			`proxies[2]: "[2001:db8::1]:3128": devices do not understand an IPv6 literal in a PAC answer; use a name (allowed: "name:port" or "192.0.2.1:3128")`,
			`proxies[3]: "2001:db8::1": devices do not understand an IPv6 literal in a PAC answer; use a name (allowed: "name:port" or "192.0.2.1:3128")`,
			`proxies[4]: "proxy.example:0" is no proxy address: port is not a number from 1 to 65535 (allowed: "name:port" or "192.0.2.1:3128")`,
			`proxies[6]: "A.example.:80" stands at proxies[5] too`,
			`proxies[7]: "x\"; alert(1); \":80" is no proxy address: host has a byte '"' that no name may have (allowed: "name:port" or "192.0.2.1:3128")`,
			`proxies[8]: ":3128" is no proxy address: empty host (allowed: "name:port" or "192.0.2.1:3128")`,
			`proxies[9]: "127.1:80" is no proxy address: host looks like an address but is none (allowed: "name:port" or "192.0.2.1:3128")`,
		}},
		{"internal", Config{Routes: standard, Internal: []string{"*.corp.example", ".corp.example", "a b", "10.0.0.1/8", ""}}, []string{
			`internal[0]: "*.corp.example": write "corp.example", which covers itself and the names below`,
			`internal[1]: ".corp.example": write "corp.example", which covers itself and the names below`,
			`internal[2]: "a b" is neither a domain nor an address block: host has a byte ' ' that no name may have`,
			`internal[3]: "10.0.0.1/8" has bits set behind the prefix; did you mean 10.0.0.0/8?`,
			`internal[4]: "" is neither a domain nor an address block: empty host`,
		}},
		{"words", Config{Routes: standard, Local: "direct", Internal: []string{"private", "Loopback", "plain", "corp"}, Sites: site(Site{
			Local: "proxy", Internal: []string{"plain"},
		})}, nil},
		{"local", Config{Routes: standard, Local: "DIRECT", Sites: site(Site{Local: "default"})}, []string{
			`local: "DIRECT" is unknown (allowed: direct, proxy)`,
			`sites.s.local: "default" is unknown (allowed: direct, proxy)`,
		}},
		{"routes by service", Config{Routes: with(nil, map[string][]string{
			"push": {"proxy"}, "appstore": {"direct"}, "other": {"direct"}, "siri": {}, "icloud": {"socks"},
		}), Sites: site(Site{Routes: Routes{Services: map[string][]string{"facetime": {"proxy"}}}})}, []string{
			"routes.services.appstore: unknown service \"appstore\" (`espalier catalog list` shows them)",
			`routes.services.icloud[0]: "socks" is unknown (allowed: proxy, direct)`,
			"routes.services.other: covers everything that is not Apple's; set routes.default",
			`routes.services.siri: is empty (allowed: a list of proxy, direct)`,
			"sites.s.routes.services.facetime: unknown service \"facetime\" (`espalier catalog list` shows them)",
		}},
		{"routes by host", Config{Routes: with(map[string][]string{
			"*.zoom.us": {"direct"}, "Zoom.us": {"proxy"}, "zoom.us.": {"direct"}, "a b": {"direct"}, "10.0.0.1/8": {"direct"}, "private": {"proxy"},
		}, nil)}, []string{
			`routes.hosts: "10.0.0.1/8" has bits set behind the prefix; did you mean 10.0.0.0/8?`,
			`routes.hosts: "a b" is no host pattern: host has a byte ' ' that no name may have (allowed: a name, *.name, an address or a CIDR block)`,
			`routes.hosts.zoom.us.: routes.hosts.Zoom.us means the same hosts`,
		}},
		{"site names", Config{Routes: standard, Sites: map[string]Site{"": {}, "default": {}, "Nord": {}, "a.b": {}, "a/b": {}}}, []string{
			`sites.: "" is no site name (allowed: a-z, 0-9 and -, 63 at most)`,
			`sites.Nord: "Nord" is no site name (allowed: a-z, 0-9 and -, 63 at most)`,
			`sites.a.b: "a.b" is no site name (allowed: a-z, 0-9 and -, 63 at most)`,
			`sites.a/b: "a/b" is no site name (allowed: a-z, 0-9 and -, 63 at most)`,
			`sites.default: "default" means the values outside sites; choose another name`,
		}},
		{"a site's values", Config{Routes: standard, Sites: site(Site{
			Clients: []string{"10.0.0.0/8", "everybody"}, Proxies: []string{"x"}, Routes: Routes{Apple: []string{"x"}}, Internal: []string{"*.x"},
		})}, []string{
			`sites.s.clients[1]: "everybody" is no address block (allowed: a CIDR block, an address, loopback, private)`,
			`sites.s.proxies[0]: "x" is no proxy address: missing port (allowed: "name:port" or "192.0.2.1:3128")`,
			`sites.s.routes.apple[0]: "x" is unknown (allowed: proxy, direct)`,
			`sites.s.internal[0]: "*.x": write "x", which covers itself and the names below`,
		}},
		{"the same clients at two sites", Config{Routes: standard, Sites: map[string]Site{
			"a": {Clients: []string{"10.1.0.0/16", "10.0.0.0/8"}}, "b": {Clients: []string{"private", "10.1.0.0/16"}},
		}}, []string{
			`sites.b.clients[0]: "private" stands at sites.a.clients[1] too, so there is no saying which site its clients are of`,
			`sites.b.clients[1]: "10.1.0.0/16" stands at sites.a.clients[0] too, so there is no saying which site its clients are of`,
		}},
		{"tokens", Config{Routes: standard, WPAD: true, Token: "0123456789abcdef0123", Sites: map[string]Site{
			"a": {Token: "short"}, "b": {Token: "with a blank, and long enough"}, "c": {Token: "c-0123456789abcdef0123"},
			"c-c": {},
		}}, []string{
			`token: wpad serves the script to whoever asks all the same; set pac.wpad to false`,
			"sites.a.token: has 5 characters (allowed: 20 to 128; `openssl rand -hex 16` makes a good one)",
			`sites.b.token: has a character that is not allowed (allowed: a-z, A-Z, 0-9, - and _)`,
			`sites.c-c.token: makes the same path of it that sites.c has; choose another`,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if err := c.cfg.Validate(); err != nil {
				got = err.Error()
			}
			if want := strings.Join(c.want, "\n"); got != want {
				t.Errorf("Validate:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}
