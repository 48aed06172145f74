package pac

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"espalier/policy"
	"espalier/policy/catalog"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// A variant is a configuration.
type variant struct {
	name  string
	cfg   Config
	apple policy.Apple
	rules []policy.Rule
}

func (v variant) compile(t testing.TB) *PAC {
	t.Helper()
	return compileFor(t, v.cfg, policy.Config{Apple: v.apple, Rules: v.rules})
}

// asked are the patterns that v tells apart.
func (v variant) asked() []string {
	list := slices.Concat(v.cfg.Internal, slices.Collect(maps.Keys(v.cfg.Routes.Hosts)))
	for _, r := range v.rules {
		list = append(list, r.When.Hosts...)
	}
	return list
}

// variants are configurations whose scripts must say what Go says.
var variants = []variant{
	{"default", Config{Routes: standard}, policy.Apple{Wide: true}, nil},
	{"narrow", Config{Routes: standard}, policy.Apple{}, nil},
	{"distinct", Config{Routes: distinct}, policy.Apple{Wide: true}, nil},
	{"distinct, narrow", Config{Routes: distinct}, policy.Apple{}, nil},
	{"everything alike", Config{Routes: Routes{
		Apple: distinct.Apple, AppleUnmarked: distinct.Apple, Internal: distinct.Apple, Default: distinct.Apple,
	}}, policy.Apple{Wide: true}, nil},
	{"marked like the rest", Config{Routes: Routes{
		Apple: distinct.Default, AppleUnmarked: distinct.AppleUnmarked, Internal: distinct.Internal, Default: distinct.Default,
	}}, policy.Apple{Wide: true}, nil},
	{"unmarked like the rest", Config{Routes: Routes{
		Apple: distinct.Apple, AppleUnmarked: distinct.Default, Internal: distinct.Internal, Default: distinct.Default,
	}}, policy.Apple{Wide: true}, nil},
	{"extra and internal", Config{Routes: distinct, Internal: []string{
		"corp.example", "itunes.apple.com", "constructor", "local", "10.0.0.0/8", "172.16.0.0/12",
		"192.168.6.0/23", "192.168.7.128/25", "203.0.113.9", "fd00::/8", "2001:db8:40::/45", "17.32.0.0/11",
		"2403:300:aaaa::/47", "::ffff:192.0.2.64/122",
	}}, policy.Apple{Wide: true, Extra: []string{
		"cdn.example:443,8443", "*.cdn.example", "www.corp.example:443", "198.51.100.0/25:443", "198.51.100.7:80",
		"2001:db8::/31", "17.0.0.0/9:443", "2001:db8:0:1::1",
	}}, nil},
	{"local by the proxy", Config{Routes: distinct, Local: "proxy"}, policy.Apple{Wide: true}, nil},
	{"words", Config{Routes: distinct, Local: "proxy", Internal: []string{"private", "Loopback", "plain"}}, policy.Apple{Wide: true}, nil},
	{"denied", Config{Routes: standard, Internal: []string{"gsa.apple.com", "10.8.1.0/24"}}, policy.Apple{Wide: true, PrivateRelay: policy.RelayBlock},
		[]policy.Rule{
			{Name: "push", When: policy.When{Services: []string{"push"}, Ports: []uint16{443, 5223}}, Then: "allow"},
			{Name: "no-siri", When: policy.When{Services: []string{"siri", "push"}, Hours: []string{"08:00-16:00"}}, Then: "deny"},
			{Name: "portal", When: policy.When{Hosts: []string{"10.8.2.1"}, Users: []string{"alice"}}, Then: "allow"},
			{Name: "hosts", When: policy.When{Hosts: []string{
				"gc.apple.com", "gsa.apple.com", "*.itunes.apple.com", "printer.local", "router", "10.7.0.0/16", "10.8.0.0/22", "fd00::/8",
				"17.1.0.0/16", "17.32.0.0/11", "www.example.org",
			}, Clients: []string{"10.0.0.0/8"}}, Then: "deny"},
			{Name: "web", When: policy.When{Hosts: []string{"169.254.0.0/16", "*.cdn-apple.com"}, Ports: []uint16{80}}, Then: "deny"},
			{Name: "rest", Then: "deny"},
		}},
	{"denied, default direct", Config{Routes: Routes{
		Apple: standard.Apple, AppleUnmarked: []string{"direct"}, Internal: standard.Internal, Default: []string{"proxy", "direct"},
	}}, policy.Apple{Wide: true},
		[]policy.Rule{
			{Name: "mail", When: policy.When{Ports: []uint16{25, 80}, Hosts: []string{"mail.example.org"}}, Then: "allow"},
			{Name: "no-mail", When: policy.When{Ports: []uint16{25, 80}}, Then: "deny"},
			{Name: "games", When: policy.When{Hosts: []string{"*.games.example", "games.example"}, Groups: []string{"pupils"}}, Then: "deny"},
			{Name: "plain", When: policy.When{Hosts: []string{"plain"}, Ports: []uint16{80}}, Then: "deny"},
		}},
	{"denied, all", Config{Routes: Routes{
		Apple: standard.Apple, AppleUnmarked: standard.Apple, Internal: standard.Internal, Default: []string{"direct", "proxy"},
	}}, policy.Apple{Wide: true},
		[]policy.Rule{
			{Name: "school", When: policy.When{Hosts: []string{"*.school.example", "192.0.2.0/24"}}, Then: "tunnel"},
			{Name: "rest", When: policy.When{Clients: []string{"10.0.0.0/8"}}, Then: "deny"},
		}},
	{"routes by service and host", Config{Routes: Routes{
		Apple: standard.Apple, AppleUnmarked: standard.Apple, Internal: []string{"direct", "proxy"}, Default: []string{"proxy"},
		Services: map[string][]string{"push": {"direct"}, "icloud": {"proxy"}, "apple-other": {"direct", "proxy"}},
		Hosts: map[string][]string{
			"*.zoom.us": {"direct"}, "us02.zoom.us": {"proxy"}, "*.eu.zoom.us": {"proxy", "direct"}, "10.8.0.0/16": {"proxy"},
			"10.8.1.0/24": {"direct"}, "private": {"proxy", "direct"}, "plain": {"proxy"}, "gc.apple.com": {"direct"}, "fe80::/10": {"proxy"},
		},
	}, Internal: []string{"in.zoom.us"}}, policy.Apple{Wide: true},
		[]policy.Rule{{Name: "no", When: policy.When{Hosts: []string{"b.zoom.us", "10.8.1.9", "*.push.apple.com"}}, Then: "deny"}}},
}

// A call is one of FindProxyForURL, and what the policy says to it.
type call struct{ url, host, want string }

// calls are the script of a variant and what it is asked.
func (v variant) calls(t testing.TB) (body []byte, list []call) {
	t.Helper()
	p := v.compile(t)
	proxies := []string{"192.0.2.1:3128", "proxy.example:80"}
	for i, q := range questions(p.policy.Apple().Rows(), v.asked()) {
		target, err := policy.ParseTarget(q.host, q.port)
		if q.addr {
			target, err = parseLiteral(q.host, q.port)
		}
		if err != nil {
			t.Fatalf("question %q: %v", q.host, err)
		}
		want, err := p.Route("", proxies, target)
		if err != nil {
			t.Fatal(err)
		}
		urls := q.urls()
		list = append(list, call{urls[i%len(urls)], q.host, want.Text})
	}
	return script(t, p, "", proxies...).Body, list
}

func TestScriptAgreesWithPolicy(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			body, list := v.calls(t)
			js, err := newEvaluator(body, time.Minute, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) < 2000 {
				t.Errorf("only %d questions", len(list))
			}
			for _, c := range list {
				if got, err := js.FindProxy(c.url, c.host); err != nil || got != c.want {
					t.Errorf("FindProxyForURL(%q, %q) = %q, %v; the policy says %q", c.url, c.host, got, err, c.want)
				}
			}
		})
	}
}

// A question is a host as devices may write it, and a port.
type question struct {
	host string
	port uint16
	addr bool // an IPv6 literal, with or without brackets
}

func parseLiteral(host string, port uint16) (policy.Target, error) {
	name, addr, err := policy.ParseHost(host)
	return policy.Target{Host: name, Addr: addr, Port: port}, err
}

// urls are forms in which the question may be put.
func (q question) urls() []string {
	host := q.host
	if q.addr && host[0] != '[' {
		host = "[" + host + "]"
	}
	port := ":" + strconv.Itoa(int(q.port))
	urls := []string{
		"https://" + host + port + "/",
		"https://" + host + port,
		"http://user:pw@" + host + port + "/a:1/@b?c:2#d",
		"HTTPS://gs.apple.com:443@" + host + port + "?x=/:80",
	}
	for scheme, p := range schemePorts {
		if p == q.port {
			urls = append(urls,
				scheme+"://"+host+"/", scheme+"://"+host, scheme+"://"+host+":/",
				scheme+"://gs.apple.com:5223@"+host+"/", scheme+"://"+host+"#:22")
		}
	}
	return urls
}

// questions asks for every row and pattern, and for what lies near them.
func questions(rows []catalog.Row, patterns []string) []question {
	var out []question
	seen := map[question]bool{}
	ask := func(host string, ports ...uint16) {
		for _, port := range ports {
			q := question{host, port, strings.Contains(host, ":")}
			if !seen[q] {
				seen[q] = true
				out = append(out, q)
			}
		}
	}
	near := func(host string, ports ...uint16) {
		ask(host, ports...)
		ask(strings.ToUpper(host), ports...)
		ask(host+".", ports...)
		ask("a."+host, ports...)
		ask("A.b."+host+".", ports...)
		ask("not"+host, ports...)
		ask(host+".evil.example", ports...)
		ask("x-"+host, ports...)
		if _, up, ok := strings.Cut(host, "."); ok {
			ask(up, ports...)
			ask("other."+up, ports...)
		}
	}
	for i := range rows {
		r := &rows[i]
		ports := append(slices.Clone(r.Ports), 8443)
		host := strings.TrimPrefix(r.Host, "*.")
		if strings.ContainsAny(host, "/:") || host[0] >= '0' && host[0] <= '9' {
			continue // literals are below
		}
		near(host, ports...)
		if host != r.Host {
			ask("1-courier."+host, ports...)
		}
	}
	for _, name := range patterns {
		if !strings.ContainsAny(name, "/:0123456789") {
			near(strings.TrimPrefix(name, "*."), 443, 80, 8443, 25)
		}
	}
	for _, name := range []string{
		"constructor", "__proto__", "hasownproperty", "tostring", "valueof", "prototype", "length", "watch",
		"localhost", "local", "printer", "3d-printer", "printer.local", "_ipp.local", "x_1", "apple", "com", "a", "xn--pple-43d.com", "_dns.apple.com", "1.apple.com", "x1",
		"apple.co", "apple-com", "wwwapple.com", "17.apple.com", "applecom",
	} {
		near(name, 443, 80, 21, 5223, 1, 65535)
	}
	ask(strings.Repeat("a.", 120)+"apple.com", 443)
	for _, a := range []string{
		"17.0.0.0", "17.255.255.255", "16.255.255.255", "18.0.0.0", "17.1.2.3.", "17.31.255.255", "17.32.0.1", "17.63.9.9",
		"17.64.0.0", "17.127.0.1", "17.128.0.1", "1.7.0.0", "170.0.0.0", "0.0.0.0", "255.255.255.255", "127.0.0.1",
		"10.0.0.1", "10.255.255.255", "11.0.0.0", "9.255.255.255", "172.15.0.1", "172.16.0.1", "172.31.255.255", "172.32.0.1",
		"100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0", "126.255.255.255", "127.255.255.255", "128.0.0.0",
		"169.253.255.255", "169.254.0.1", "169.254.169.254", "169.255.0.0", "192.167.255.255", "192.168.0.0", "192.168.255.255",
		"192.169.0.0", "10.7.0.1", "10.8.0.1", "10.8.1.1", "10.8.2.1",
		"192.168.5.255", "192.168.6.0", "192.168.7.127", "192.168.7.128", "192.168.8.0", "203.0.113.9", "203.0.113.8",
		"198.51.100.0", "198.51.100.7", "198.51.100.127", "198.51.100.128", "192.0.2.63", "192.0.2.64", "192.0.2.127", "192.0.2.128",
		"2403:300::", "2403:300::1", "2403:0300:0:0:0:0:0:1", "2403:300:ffff:ffff:ffff:ffff:ffff:ffff", "2403:301::", "2403:2ff::1",
		"2403:300:aaaa::1", "2403:300:aaab::1", "2403:300:aaac::1",
		"2620:149::1", "2620:0:1b00::1", "2620:0:1b01::1", "2620::1b00:0:0:0:1", "2a01:b740:a::", "2a01:b747::5", "2a01:b741::",
		"2620:149:0:0::", "::2403:300:0", "::", "::1", "1::", "fd00::1", "fdff::", "fc00::1", "fbff::1", "fe00::1", "fe7f::1",
		"fe80::1", "febf::1", "fec0::1", "feff::1", "ff00::1", "::2", "::ffff:192.168.1.20", "::ffff:c0a8:114", "64:ff9b::a00:1",
		"2001:db8:40::1", "2001:db8:47:ffff::1", "2001:db8:48::1", "2001:db9::1", "2001:dba::1", "2001:db8:0:1::1",
		"::ffff:17.1.2.3", "::ffff:18.1.2.3", "::ffff:1101:203", "0:0:0:0:0:ffff:10.0.0.1", "::FFFF:A00:1", "::17.1.2.3",
		"2403:300::17.0.0.1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8",
	} {
		for _, port := range []uint16{443, 80, 8443, 5223} {
			ask(a, port)
			if strings.Contains(a, ":") {
				ask("["+a+"]", port)
				ask("["+strings.ToUpper(a)+"]", port)
			}
		}
	}
	return out
}

// What is no name and no address takes the default route, and nothing throws.
func TestScriptIsSafeWithNonsense(t *testing.T) {
	p := compile(t, Config{Routes: distinct, Internal: []string{"0.0.0.0/0", "::/0"}}, policy.Apple{Wide: true})
	js, err := newEvaluator(script(t, p, "", "192.0.2.1:3128").Body, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{
		"", ".", "..", "[", "]", "[]", "[::1", ":", ":::", "1:2", "1:::2", "1::2::3", "1:2:3:4:5:6:7:8:9",
		"1:2:3:4:5:6:7::8", "12345::", "g::", "1:2:3:4:5:6:7:", "1::2:", "::1.2.3", "::1.2.3.256", "1.2.3.4::", "::1.2.3.4:5",
		"17.1", "17.0.0", "17.0.0.0.1", "017.0.0.1", "0x11.0.0.1", "17.0.0.256", "17.0.0.", "17..0.1", "285212673", "17.0.0.-1",
		"17.0.0.1e1", "0x", "0x7f000001", "\x00", "\"", "\\", "1 b", "*.com", "ａｐｐｌｅ.com",
	} {
		for _, url := range []string{"https://" + host + "/", "", "x", "://", "https://"} {
			if got, err := js.FindProxy(url, host); err != nil || got != "PROXY 192.0.2.1:3128" {
				t.Errorf("FindProxyForURL(%q, %q) = %q, %v; want the default route", url, host, got, err)
			}
		}
	}
}

// A zone of a link-local address plays no part; policy.ParseHost refuses it, so that
// no proxy is asked for it.
func TestScriptLeavesZonesOut(t *testing.T) {
	p := compile(t, Config{Routes: distinct}, policy.Apple{Wide: true})
	js, err := newEvaluator(script(t, p, "", "192.0.2.1:3128").Body, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"fe80::1%en0", "[fe80::1%25en0]", "fe80::1%eth0.5"} {
		if got, err := js.FindProxy("http://printer/", host); err != nil || got != "DIRECT" {
			t.Errorf("FindProxyForURL(%q) = %q, %v", host, got, err)
		}
	}
}

// The time that a host takes does not grow with the square of its length.
func TestScriptIsLinear(t *testing.T) {
	p := compile(t, Config{Routes: distinct}, policy.Apple{Wide: true})
	// Hours would not do for a square.
	js, err := newEvaluator(script(t, p, "", "192.0.2.1:3128").Body, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	const want = "PROXY 192.0.2.1:3128"
	for name, host := range map[string]string{
		"dots": strings.Repeat(".", 1<<20), "labels": strings.Repeat("a.", 1<<20), "colons": strings.Repeat(":", 1<<20),
		"digits": strings.Repeat("1", 1<<20), "letters": strings.Repeat("a", 1<<20), "brackets": strings.Repeat("[", 1<<20),
		"apple": strings.Repeat("a.", 1<<20) + "apple.com",
	} {
		if got, err := js.FindProxy("https://x/", host); err != nil || got != want {
			t.Errorf("a host of a million %s: %q, %v", name, got, err)
		}
		if got, err := js.FindProxy("https://"+host[:5000]+":80/", host[:5000]); err != nil || got != want {
			t.Errorf("a URL with 5,000 %s: %q, %v", name, got, err)
		}
	}
	if got, err := js.FindProxy("https://gs.apple.com./", "gs.apple.com."); err != nil || got != want+"; DIRECT" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestScriptSize(t *testing.T) {
	for _, v := range variants {
		if len(v.cfg.Internal) > 0 {
			continue // which the administrator may make as long as needed
		}
		p := v.compile(t)
		if n := len(script(t, p, "", "192.0.2.1:3128", "proxy.example:3128").Body); n >= MaxSize {
			t.Errorf("%s: the script has %d bytes, want less than %d", v.name, n, MaxSize)
		}
	}
}

func TestScriptGolden(t *testing.T) {
	p := compile(t, Config{Routes: standard}, policy.Apple{Wide: true})
	got := script(t, p, "", "192.0.2.1:3128").Body
	const file = "testdata/default.pac"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the default script differs from %s; if that is meant, run go test -update and read the difference\n%s", file, got)
	}
}

func TestScriptIsTheSameAgain(t *testing.T) {
	for _, v := range variants {
		a := script(t, v.compile(t), "", "192.0.2.1:3128")
		b := script(t, v.compile(t), "", "192.0.2.1:3128")
		if !bytes.Equal(a.Body, b.Body) || a.ETag != b.ETag {
			t.Errorf("%s: two compilations differ", v.name)
		}
		if c := script(t, v.compile(t), "", "192.0.2.2:3128"); c.ETag == a.ETag {
			t.Errorf("%s: scripts with different proxies share the tag %s", v.name, c.ETag)
		}
	}
}

// Rows that change nothing are left out: below apple.com with apple.wide, and
// everywhere when all routes are alike.
func TestScriptLeavesRedundantRowsOut(t *testing.T) {
	for name, words := range map[string][]string{
		"default":          {"=gs.apple.com", ".itunes.apple.com", ".push.apple.com"},
		"everything alike": {".apple.com", "443,"},
	} {
		i := slices.IndexFunc(variants, func(v variant) bool { return v.name == name })
		body := string(script(t, variants[i].compile(t), "", "192.0.2.1:3128").Body)
		for _, w := range words {
			if strings.Contains(body, w) {
				t.Errorf("%s: the script mentions %s, which changes nothing", name, w)
			}
		}
	}
}

func FuzzScript(f *testing.F) {
	var all []*PAC
	var js []*Evaluator
	proxies := []string{"192.0.2.1:3128"}
	for _, v := range variants {
		p := v.compile(f)
		eval, err := newEvaluator(script(f, p, "", proxies...).Body, time.Minute, nil)
		if err != nil {
			f.Fatal(err)
		}
		all, js = append(all, p), append(js, eval)
	}
	schemes := []string{"http", "https", "ws", "wss", "ftp"}
	f.Add("gs.apple.com", uint16(443), "user:80", "a?b", uint8(1), uint8(0))
	f.Add("__proto__", uint16(0), "", "", uint8(0), uint8(7))
	f.Add("[::ffff:17.1.2.3]", uint16(80), "@x", "", uint8(3), uint8(3))
	f.Add("2620:0:1b00::1", uint16(5223), "", ":1@/", uint8(1), uint8(2))
	f.Fuzz(func(t *testing.T, host string, port uint16, user, path string, scheme, which uint8) {
		name, addr, err := policy.ParseHost(host)
		if err != nil {
			return
		}
		for i := 0; i < len(host); i++ {
			if host[i] >= 0x80 {
				host = name // devices pass names in ASCII
				break
			}
		}
		s := schemes[int(scheme)%len(schemes)]
		url := s + "://"
		if user != "" && !strings.ContainsAny(user, "/?#\\") {
			url += user + "@"
		}
		if addr.IsValid() && strings.Contains(host, ":") && host[0] != '[' {
			url += "[" + host + "]"
		} else {
			url += host
		}
		target := policy.Target{Host: name, Addr: addr, Port: port}
		if port == 0 {
			target.Port = schemePorts[s]
		} else {
			url += fmt.Sprintf(":%d", port)
		}
		if path != "" {
			url += "/" + path
		}
		i := int(which) % len(all)
		want, err := all[i].Route("", proxies, target)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := js[i].FindProxy(url, host); err != nil || got != want.Text {
			t.Errorf("%s: FindProxyForURL(%q, %q) = %q, %v; the policy says %q", variants[i].name, url, host, got, err, want.Text)
		}
	})
}

func BenchmarkCompile(b *testing.B) {
	pol := policyOf(b, policy.Config{Apple: policy.Apple{Wide: true}})
	for b.Loop() {
		if _, err := Compile(Config{Routes: standard}, pol); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScriptCached(b *testing.B) {
	p := compile(b, Config{Routes: standard}, policy.Apple{Wide: true})
	proxies := []string{"192.0.2.1:3128"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Script("", proxies); err != nil {
			b.Fatal(err)
		}
	}
}
