package pac

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"espalier/policy"
)

var sites = Config{
	Routes:   distinct,
	Internal: []string{"corp.example"},
	Sites: map[string]Site{
		"school": {
			Clients: []string{"10.0.0.0/8", "2001:db8::/32"}, Proxies: []string{"Proxy.school.example:3128", "192.0.2.9:80"},
			Routes: Routes{Default: []string{"direct"}}, Internal: []string{"school.example"}, Local: "proxy",
		},
		"library": {Clients: []string{"10.1.0.0/16", "10.3.0.0/16"}},
		"remote":  {},
	},
}

func TestSiteFor(t *testing.T) {
	p := compile(t, sites, policy.Apple{Wide: true})
	for client, want := range map[string]string{
		"10.0.0.1": "school", "10.1.2.3": "library", "10.3.0.1": "library", "::ffff:10.1.2.3": "library",
		"2001:db8::1": "school", "2001:db8::1%eth0": "school", "192.0.2.1": "", "::1": "",
	} {
		if got := p.SiteFor(netip.MustParseAddr(client)); got != want {
			t.Errorf("SiteFor(%s) = %q, want %q", client, got, want)
		}
	}
	if got := p.SiteFor(netip.Addr{}); got != "" {
		t.Errorf("SiteFor(no address) = %q", got)
	}
	if got := p.Sites(); !slices.Equal(got, []string{"library", "remote", "school"}) {
		t.Errorf("Sites() = %q", got)
	}
}

func TestAt(t *testing.T) {
	const secret, other = "0123456789abcdef0123", "abcdefghij-KLMNOPQR_"
	open := Config{WPAD: true, Routes: standard, Sites: map[string]Site{
		"a": {Clients: []string{"10.0.0.0/8"}}, "b": {Token: secret},
	}}
	closed := Config{Token: other, Routes: standard, Sites: map[string]Site{
		"a": {Clients: []string{"10.0.0.0/8"}}, "b": {Token: secret},
	}}
	const none = "none"
	for _, c := range []struct {
		name string
		cfg  Config
		want map[string]string // path: site
	}{
		{"open", open, map[string]string{
			"/proxy.pac": "a", "/wpad.dat": "a", "/wpad.da": "a", "/pac/a.pac": "a",
			"/pac/b.pac": none, "/pac/b-" + secret + ".pac": "b", "/pac/b-" + secret: none,
			"/pac/b-" + secret[1:] + ".pac": none, "/pac/a-" + secret + ".pac": none, "/pac/b-.pac": none,
			"/proxy-.pac": none, "/pac/.pac": none, "": none,
		}},
		{"closed", closed, map[string]string{
			"/proxy.pac": none, "/wpad.dat": none, "/wpad.da": none, "/pac/a.pac": none, "/pac/b.pac": none,
			"/proxy-" + other + ".pac": "a", "/pac/a-" + other + ".pac": "a", "/pac/b-" + secret + ".pac": "b",
			"/pac/b-" + other + ".pac": none, "/proxy-" + strings.ToLower(other) + ".pac": none, "/proxy-" + secret + ".pac": none,
		}},
	} {
		p := compile(t, c.cfg, policy.Apple{Wide: true})
		for path, want := range c.want {
			site, ok := p.At(path, netip.MustParseAddr("10.1.2.3"))
			if !ok {
				site = none
			}
			if site != want {
				t.Errorf("%s: At(%q) = %q, want %q", c.name, path, site, want)
			}
		}
		for _, site := range append(p.Sites(), "") {
			if _, ok := p.At(p.Path(site), netip.Addr{}); !ok {
				t.Errorf("%s: nothing is at Path(%q) = %q", c.name, site, p.Path(site))
			}
		}
	}
}

func TestOrder(t *testing.T) {
	abc := []string{"a:1", "b:1", "c:1"}
	client := netip.MustParseAddr("192.0.2.7")
	down := func(names ...string) func(string) bool {
		return func(proxy string) bool { return !slices.Contains(names, proxy) }
	}
	p := compile(t, Config{Routes: standard}, policy.Apple{})
	for _, c := range []struct {
		proxies, down []string
		want          string
	}{
		{abc, nil, "a:1 b:1 c:1"},
		{abc, []string{"a:1"}, "b:1 c:1 a:1"},
		{abc, []string{"a:1", "b:1"}, "c:1 a:1 b:1"},
		{abc, abc, "a:1 b:1 c:1"},
		{abc[:1], abc, "a:1"},
		{nil, nil, ""},
	} {
		if got := strings.Join(p.Order(c.proxies, client, down(c.down...)), " "); got != c.want {
			t.Errorf("Order(%q) with %q down = %q, want %q", c.proxies, c.down, got, c.want)
		}
	}

	p = compile(t, Config{Routes: standard, Spread: true}, policy.Apple{})
	if got := p.Order(abc, netip.Addr{}, nil); !slices.Equal(got, abc) {
		t.Errorf("without an address: %q", got)
	}
	if got, want := p.Order(abc, netip.MustParseAddr("::ffff:192.0.2.7"), nil), p.Order(abc, client, nil); !slices.Equal(got, want) {
		t.Errorf("an IPv4-mapped address has the order %q, the address itself %q", got, want)
	}
	if !slices.Equal(abc, []string{"a:1", "b:1", "c:1"}) {
		t.Errorf("the argument was modified: %q", abc)
	}
	// Every order is as frequent as every other, so that load and what a failure
	// adds to it are even.
	const clients = 6000
	count := map[string]int{}
	for i := range clients {
		client := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		order := p.Order(abc, client, nil)
		count[strings.Join(order, " ")]++
		if without := p.Order(abc[:2], client, nil); !slices.Equal(without, slices.DeleteFunc(slices.Clone(order), func(s string) bool { return s == "c:1" })) {
			t.Fatalf("%s: %q, but %q without c:1", client, order, without)
		}
		if got := p.Order(abc, client, down(order[0])); got[0] != order[1] || got[2] != order[0] {
			t.Fatalf("%s: %q, but %q with the first down", client, order, got)
		}
	}
	for order, n := range count {
		if n < clients/6*9/10 || n > clients/6*11/10 {
			t.Errorf("%d of %d clients have the order %s", n, clients, order)
		}
	}
	if len(count) != 6 {
		t.Errorf("the orders are %v", count)
	}
}

func TestRoute(t *testing.T) {
	p := compile(t, sites, policy.Apple{Wide: true})
	const fetched = "192.0.2.1:3128"
	for _, c := range []struct {
		site, target string
		class        Class
		want         string
	}{
		{"", "gs.apple.com:443", Apple, "PROXY 192.0.2.1:3128; DIRECT"},
		{"", "gs.apple.com:8443", AppleUnmarked, "DIRECT; PROXY 192.0.2.1:3128"},
		{"", "www.example.org:443", Default, "PROXY 192.0.2.1:3128"},
		{"", "corp.example:443", Internal, "DIRECT"},
		{"", "a.b.corp.example:443", Internal, "DIRECT"},
		{"", "notcorp.example:443", Default, "PROXY 192.0.2.1:3128"},
		{"remote", "corp.example:443", Internal, "DIRECT"},
		{"", "192.168.1.20:443", Local, "DIRECT"},
		{"remote", "printer:631", Local, "DIRECT"},
		{"school", "printer.local:631", Local, "PROXY proxy.school.example:3128; PROXY 192.0.2.9:80"},
		{"school", "gs.apple.com:443", Apple, "PROXY proxy.school.example:3128; PROXY 192.0.2.9:80; DIRECT"},
		{"school", "gs.apple.com:80", Apple, "PROXY proxy.school.example:3128; PROXY 192.0.2.9:80; DIRECT"},
		{"school", "www.example.org:443", Default, "DIRECT"},
		{"school", "corp.example:443", Default, "DIRECT"},
		{"school", "www.school.example:443", Internal, "DIRECT"},
	} {
		target, err := policy.ParseTarget(c.target, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Route(c.site, p.Proxies(c.site, fetched), target)
		if want := (Answer{Text: c.want, Class: c.class}); err != nil || got != want {
			t.Errorf("Route(%q, %s) = %+v, %v; want %+v", c.site, c.target, got, err, want)
		}
		js, err := evalOnce(script(t, p, c.site, p.Proxies(c.site, fetched)...).Body, "https://"+c.target, target.Host)
		if err != nil || js != c.want {
			t.Errorf("the script of %q says %q, %v of %s; want %q", c.site, js, err, c.target, c.want)
		}
	}
}

// A site's services and hosts come before the general ones, one by one.
func TestRoutesOfSites(t *testing.T) {
	p := compileFor(t, Config{
		Routes: with(
			map[string][]string{"*.zoom.us": {"direct"}, "teams.example": {"direct"}, "10.8.0.0/16": {"proxy"}},
			map[string][]string{"push": {"direct"}, "siri": {"proxy"}},
		),
		Proxies: []string{"proxy.example:3128"},
		Sites: map[string]Site{"s": {Routes: Routes{
			Services: map[string][]string{"siri": {"direct", "proxy"}},
			Hosts:    map[string][]string{"*.Zoom.us": {"proxy"}, "us02.zoom.us": {"direct"}, "private": {"proxy", "direct"}},
		}}},
	}, policy.Config{Apple: policy.Apple{Wide: true}})
	const proxy = "PROXY proxy.example:3128"
	for _, c := range []struct{ target, general, site string }{
		{"1-courier.push.apple.com:5223", "DIRECT", "DIRECT"},
		{"guzzoni.apple.com:443", proxy, "DIRECT; " + proxy},
		{"a.zoom.us:443", "DIRECT", proxy},
		{"us02.zoom.us:443", "DIRECT", "DIRECT"},
		{"zoom.us:443", proxy, proxy},
		{"teams.example:443", "DIRECT", "DIRECT"},
		{"10.8.1.1:443", proxy, proxy},
		{"10.9.1.1:443", "DIRECT", proxy + "; DIRECT"},
		{"printer:443", "DIRECT", "DIRECT"},
	} {
		target, err := policy.ParseTarget(c.target, 0)
		if err != nil {
			t.Fatal(err)
		}
		for site, want := range map[string]string{"": c.general, "s": c.site} {
			if got, err := p.Route(site, p.Proxies(site, ""), target); err != nil || got.Text != want {
				t.Errorf("Route(%q, %s) = %+v, %v; want %q", site, c.target, got, err, want)
			}
			js, err := evalOnce(script(t, p, site, p.Proxies(site, "")...).Body, "https://"+c.target, target.Host)
			if err != nil || js != want {
				t.Errorf("the script of %q says %q, %v of %s; want %q", site, js, err, c.target, want)
			}
		}
	}
}

// What the policy may deny has no DIRECT, unless pac.internal names it.
func TestDeniedIsNeverDirect(t *testing.T) {
	rules := []policy.Rule{
		{Name: "games", When: policy.When{Hosts: []string{"gc.apple.com", "printer.local", "192.168.1.1", "game.zoom.us"}, Hours: []string{"08:00-16:00"}}, Then: "deny"},
		{Name: "siri", When: policy.When{Services: []string{"siri"}, Groups: []string{"pupils"}}, Then: "deny"},
		{Name: "lists", When: policy.When{Lists: []string{"games"}}, Then: "deny"},
		{Name: "rest", When: policy.When{Clients: []string{"10.0.0.0/8"}}, Then: "deny"},
	}
	const proxy, both = "PROXY 192.0.2.1:3128", "PROXY 192.0.2.1:3128; DIRECT"
	for _, c := range []struct {
		target string
		want   string
		denied bool
	}{
		{"mask.icloud.com:443", proxy, true},
		{"mask-h2.icloud.com:443", proxy, true},
		{"gateway.icloud.com:443", both, false},
		{"gc.apple.com:443", proxy, true},
		{"guzzoni.apple.com:443", proxy, true},
		{"gs.apple.com:443", both, false}, // of which rest says nothing
		{"printer.local:631", proxy, true},
		{"scanner.local:631", "DIRECT", false}, // likewise
		{"192.168.1.1:80", proxy, true},
		{"192.168.1.2:80", "DIRECT", false},
		{"game.zoom.us:443", proxy, true},
		{"eu.zoom.us:443", "DIRECT", false},
		{"www.example.org:443", proxy, true},
		{"siri.corp.example:443", "DIRECT", false},
	} {
		routes := with(map[string][]string{"*.zoom.us": {"direct"}}, nil)
		routes.Default = []string{"proxy", "direct"}
		p := compileFor(t, Config{Routes: routes, Internal: []string{"corp.example"}}, policy.Config{
			Apple: policy.Apple{Wide: true, PrivateRelay: policy.RelayBlock}, Rules: rules, Lists: map[string]policy.HostList{"games": nil},
		})
		target, err := policy.ParseTarget(c.target, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Route("", []string{"192.0.2.1:3128"}, target)
		if err != nil || got.Text != c.want || got.Denied != c.denied {
			t.Errorf("Route(%s) = %+v, %v; want %q, denied %v", c.target, got, err, c.want, c.denied)
		}
		js, err := evalOnce(script(t, p, "", "192.0.2.1:3128").Body, "https://"+c.target, target.Host)
		if err != nil || js != c.want {
			t.Errorf("the script says %q, %v of %s; want %q", js, err, c.target, c.want)
		}
	}
}

// Rules for thousands of hosts add nothing to a script whose default route has no
// direct, and Apple's and local hosts among them one key each.
func TestDeniedHostsAreFewInTheScript(t *testing.T) {
	hosts := []string{"gc.apple.com", "10.7.7.7"}
	for i := range 5000 {
		hosts = append(hosts, fmt.Sprintf("h%d.example", i), fmt.Sprintf("198.18.%d.%d", i/256, i%256))
	}
	pol := policy.Config{Apple: policy.Apple{Wide: true}, Rules: []policy.Rule{{Name: "hosts", When: policy.When{Hosts: hosts}, Then: "deny"}}}
	plain := script(t, compile(t, Config{Routes: standard}, policy.Apple{Wide: true}), "", "192.0.2.1:3128").Body
	denied := script(t, compileFor(t, Config{Routes: standard}, pol), "", "192.0.2.1:3128").Body
	if more := len(denied) - len(plain); more > 100 || len(denied) >= MaxSize {
		t.Errorf("the script has %d bytes, %d more than without rules", len(denied), more)
	}
}

// A script stays small however many hosts rules name: then the default route has no
// direct at all.
func TestScriptIsBounded(t *testing.T) {
	routes := standard
	routes.Default = []string{"proxy", "direct"}
	for n, want := range map[int]string{
		50:   "PROXY 192.0.2.1:3128; DIRECT",
		60:   "PROXY 192.0.2.1:3128",
		5000: "PROXY 192.0.2.1:3128",
	} {
		var hosts []string
		for i := range n {
			hosts = append(hosts, fmt.Sprintf("host-%d.example", i), fmt.Sprintf("*.host-%d.example", i))
		}
		p := compileFor(t, Config{Routes: routes}, policy.Config{Apple: policy.Apple{Wide: true}, Rules: []policy.Rule{
			{Name: "hosts", When: policy.When{Hosts: hosts}, Then: "deny"},
		}})
		body := script(t, p, "", "192.0.2.1:3128").Body
		if len(body) >= MaxSize {
			t.Errorf("%d hosts: the script has %d bytes", 2*n, len(body))
		}
		for host, want := range map[string]string{
			"www.example.org": want, "host-0.example": "PROXY 192.0.2.1:3128", "printer": "DIRECT", "gs.apple.com": "PROXY 192.0.2.1:3128; DIRECT",
		} {
			if got, err := evalOnce(body, "https://"+host+"/", host); err != nil || got != want {
				t.Errorf("%d hosts: %s gets %q, %v; want %q", 2*n, host, got, err, want)
			}
			got, err := p.Route("", []string{"192.0.2.1:3128"}, policy.Target{Host: host, Port: 443})
			if err != nil || got.Text != want {
				t.Errorf("%d hosts: Route(%s) = %+v, %v; want %q", 2*n, host, got, err, want)
			}
		}
	}
}

func TestScriptErrors(t *testing.T) {
	p := compile(t, sites, policy.Apple{})
	if _, err := p.Script("nowhere", []string{"192.0.2.1:80"}); !errors.Is(err, ErrNoSite) {
		t.Errorf("an unknown site: %v", err)
	}
	if _, err := p.Script("", p.Proxies("", "")); !errors.Is(err, ErrNoProxy) {
		t.Errorf("no proxy: %v", err)
	}
	for _, proxy := range []string{"[::1]:80", "a", `a"+b:80`, "A.example:80", "x\n:80", "http://a:80", "a:80; DIRECT"} {
		if _, err := p.Script("", []string{proxy}); err == nil {
			t.Errorf("proxy %q was taken", proxy)
		}
	}
	if _, err := Compile(Config{}, policyOf(t, policy.Config{})); err == nil {
		t.Error("an invalid configuration was compiled")
	}
}

// Whoever reaches the machine by many addresses cannot fill its memory.
func TestScriptsInMemoryAreBounded(t *testing.T) {
	p := compile(t, Config{Routes: standard}, policy.Apple{Wide: true})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 100 {
				proxy := fmt.Sprintf("127.0.%d.%d:3128", g, i)
				s, err := p.Script("", []string{proxy})
				if err != nil || !strings.Contains(string(s.Body), "PROXY "+proxy) {
					t.Errorf("%s: %v", proxy, err)
				}
			}
		})
	}
	wg.Wait()
	if n := p.scripts.Len(); n > maxScripts {
		t.Errorf("%d scripts are kept, want %d at most", n, maxScripts)
	}
	if a, b := script(t, p, "", "127.0.0.1:1"), script(t, p, "", "127.0.0.1:1"); a != b {
		t.Error("the same script was made twice")
	}
}

func TestFetched(t *testing.T) {
	byInterface := func(v6 netip.Addr) netip.Addr {
		if v6 == netip.MustParseAddr("2001:db8::1") {
			return netip.MustParseAddr("192.0.2.1")
		}
		return netip.MustParseAddr("198.51.100.1")
	}
	for _, c := range []struct {
		name, local, listen, want string
	}{
		{"IPv4", "192.0.2.7", "[::]:3128", "192.0.2.7:3128"},
		{"IPv4, all of IPv4", "192.0.2.7", "0.0.0.0:3128", "192.0.2.7:3128"},
		{"IPv4-mapped", "::ffff:192.0.2.7", "[::]:3128", "192.0.2.7:3128"},
		{"IPv6", "2001:db8::1", "[::]:3128", "192.0.2.1:3128"},
		{"link-local", "fe80::1%eth0", "[::]:3128", "198.51.100.1:3128"},
		{"loopback", "127.0.0.1", "[::]:3128", "127.0.0.1:3128"},
		{"IPv6 loopback", "::1", "[::]:3128", "127.0.0.1:3128"},
		{"not known", "", "[::]:3128", "198.51.100.1:3128"},
		{"first port", "192.0.2.7", "[::]:3128 [::]:8080", "192.0.2.7:3128"},
		{"the address that listens", "192.0.2.7", "192.0.2.1:1 192.0.2.7:2", "192.0.2.7:2"},
		{"another address listens", "192.0.2.7", "127.0.0.1:1 192.0.2.1:2", "192.0.2.1:2"},
		{"loopback listens for loopback", "::1", "127.0.0.1:1", "127.0.0.1:1"},
		{"only loopback listens", "192.0.2.7", "127.0.0.1:1", ""},
		{"only IPv6 listens", "192.0.2.7", "[2001:db8::1]:1", ""},
		{"nothing listens", "192.0.2.7", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			local, _ := netip.ParseAddr(c.local)
			var listen []netip.AddrPort
			for _, s := range strings.Fields(c.listen) {
				listen = append(listen, netip.MustParseAddrPort(s))
			}
			got, err := fetched(local, listen, byInterface)
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("fetched = %q, %v; want %q", got, err, c.want)
			}
		})
	}
	none := func(netip.Addr) netip.Addr { return netip.Addr{} }
	all := []netip.AddrPort{netip.MustParseAddrPort("[::]:3128")}
	if got, err := fetched(netip.MustParseAddr("2001:db8::1"), all, none); !errors.Is(err, ErrNoProxy) {
		t.Errorf("a machine without IPv4: %q, %v", got, err)
	}
}
