package policy

import (
	"maps"
	"slices"
	"testing"
)

func TestPresetsValidate(t *testing.T) {
	const id = "00000000-0000-0000-0000-000000000001"
	tests := []struct {
		name    string
		presets Presets
		want    string
	}{
		{"none", Presets{}, ""},
		{"all but version 2", Presets{
			SafeSearch: []string{"google", "bing", "duckduckgo", "brave", "ecosia", "pixabay", "yandex"}, YouTube: YouTubeModerate,
			GoogleDomains: []string{"example.org", "example.com"}, Microsoft: Microsoft{Tenants: []string{"example.org", id}, Context: id, BlockPersonal: true},
		}, ""},
		{"version 2", Presets{Microsoft: Microsoft{Policy: id + ":" + id}}, ""},
		{"engine", Presets{SafeSearch: []string{"bing", "Google"}}, `safe_search[1]: "Google" is unknown (allowed: bing, brave, duckduckgo, ecosia, google, pixabay, yandex)`},
		{"mode of YouTube", Presets{YouTube: "off"}, `youtube: "off" is unknown (allowed: moderate, strict)`},
		{"domain", Presets{GoogleDomains: []string{"example.org", "192.0.2.1", "org", "a.example,b.example"}}, `google_domains[1]: "192.0.2.1" is no domain
google_domains[2]: "org" is no domain
google_domains[3]: "a.example,b.example" is no domain`},
		{"tenants", Presets{Microsoft: Microsoft{Tenants: []string{"a, b", "", "a\r\nb"}, Context: id}}, `microsoft.tenants[0]: "a, b" is no domain or id
microsoft.tenants[1]: "" is no domain or id
microsoft.tenants[2]: "a\r\nb" is no domain or id`},
		{"no context", Presets{Microsoft: Microsoft{Tenants: []string{id}}}, `microsoft.context: missing (tenants need the id of the directory that restricts)`},
		{"context alone", Presets{Microsoft: Microsoft{Context: id}}, `microsoft.tenants: missing (context is the directory of these)`},
		{"both versions", Presets{Microsoft: Microsoft{BlockPersonal: true, Policy: id + ":" + id}}, `microsoft.policy: stands beside tenants or block_personal (version 2 takes the place of version 1)`},
		{"half a policy", Presets{Microsoft: Microsoft{Policy: id + ":"}}, `microsoft.policy: "` + id + `:" is no policy (allowed: "tenant-id:policy-id")`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := errText(tt.presets.Validate()); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// What sets a header needs interception; safe search does not.
func TestPresetsNeedInterception(t *testing.T) {
	p := Presets{
		SafeSearch: []string{"google"}, YouTube: YouTubeStrict, GoogleDomains: []string{"example.org"},
		Microsoft: Microsoft{Tenants: []string{"t"}, Context: "c", BlockPersonal: true},
	}
	const because = ": needs inspect.mode listed or all, not none: it sets a header inside TLS\n"
	want := "presets.google_domains" + because + "presets.microsoft.tenants" + because + "presets.microsoft.block_personal" + because
	for mode, want := range map[string]string{"": want, InspectNone: want, InspectListed: "\n", InspectAll: "\n"} {
		if got := errText(ValidatePresets(p, mode)) + "\n"; got != want {
			t.Errorf("mode %q: got\n%swant\n%s", mode, got, want)
		}
	}
	if _, err := New(Config{Presets: p}); errText(err)+"\n" != want {
		t.Errorf("New: %v", err)
	}
}

// Requests for an engine's hosts are connected to its safe one.
func TestPresetsDial(t *testing.T) {
	all := slices.Collect(maps.Keys(engines))
	p := compile(t, Config{Presets: Presets{SafeSearch: all, YouTube: YouTubeModerate}, Apple: Apple{Extra: []string{"www.google.is"}}})
	for in, want := range map[string]string{
		"www.google.com:443":           "forcesafesearch.google.com:443",
		"www.google.com:80":            "forcesafesearch.google.com:80",
		"www.google.se:443":            "forcesafesearch.google.com:443",
		"www.google.co.uk:443":         "forcesafesearch.google.com:443",
		"www.google.com.au:443":        "forcesafesearch.google.com:443",
		"www.google.cat:443":           "forcesafesearch.google.com:443",
		"mail.google.com:443":          "mail.google.com:443",
		"google.com:443":               "google.com:443", // it redirects to www
		"www.google.example:443":       "www.google.example:443",
		"www.google.com.example:443":   "www.google.com.example:443",
		"www.google.co.uk.example:443": "www.google.co.uk.example:443",
		"www.google.a.b:443":           "www.google.a.b:443",
		"a.www.google.com:443":         "a.www.google.com:443",
		"notwww.google.com:443":        "notwww.google.com:443",
		"forcesafesearch.google.com:1": "forcesafesearch.google.com:1",
		"www.google.is:443":            "www.google.is:443", // Apple's, by apple.extra
		"www.bing.com:443":             "strict.bing.com:443",
		"duckduckgo.com:443":           "safe.duckduckgo.com:443",
		"html.duckduckgo.com:443":      "safe.duckduckgo.com:443",
		"lite.duckduckgo.com:443":      "safe.duckduckgo.com:443",
		"edgeservices.bing.com:443":    "strict.bing.com:443",
		"bing.com:443":                 "strict.bing.com:443",
		"search.brave.com:443":         "forcesafe.search.brave.com:443",
		"www.ecosia.org:443":           "strict-safe-search.ecosia.org:443",
		"pixabay.com:443":              "safesearch.pixabay.com:443",
		"ya.ru:443":                    "familysearch.yandex.ru:443",
		"www.yandex.com.tr:443":        "familysearch.yandex.ru:443",
		"mail.yandex.ru:443":           "mail.yandex.ru:443",
		"www.youtube.com:443":          "restrictmoderate.youtube.com:443",
		"youtubei.googleapis.com:443":  "restrictmoderate.youtube.com:443",
		"storage.googleapis.com:443":   "storage.googleapis.com:443",
		"216.239.38.120:443":           "216.239.38.120:443",
	} {
		for _, connect := range []bool{true, false} {
			if d := p.Decide(&Request{Target: target(t, in), Client: ipad, Connect: connect}); d.Dial.String() != want {
				t.Errorf("%s: connected to %s, want %s", in, d.Dial, want)
			}
		}
	}
	strict := compile(t, Config{Presets: Presets{YouTube: YouTubeStrict}})
	for in, want := range map[string]string{"m.youtube.com:443": "restrict.youtube.com:443", "www.google.com:443": "www.google.com:443"} {
		if d := strict.Decide(&Request{Target: target(t, in), Client: ipad, Connect: true}); d.Dial.String() != want {
			t.Errorf("strict, %s: connected to %s, want %s", in, d.Dial, want)
		}
	}
}

func TestHeaders(t *testing.T) {
	v1 := Microsoft{Tenants: []string{"a.example", "b.example"}, Context: "c", BlockPersonal: true}
	google := []string{"example.org", "example.com"}
	mark := Rule{Name: "mark", Then: "allow", Headers: map[string]string{"X-Mark": "1", "X-GoogApps-Allowed-Domains": "evil.example"}}
	with := func(r Rule, then string) Rule { r.Then = then; return r }
	tests := []struct {
		name    string
		presets Presets
		rules   []Rule
		target  string
		want    map[string]string // of plain requests
		connect Action
		rule    string // of CONNECT
	}{
		{name: "rule", rules: []Rule{mark}, target: game, want: map[string]string{"X-Mark": "1", "X-GoogApps-Allowed-Domains": "evil.example"}, connect: Tunnel, rule: "mark"},
		{name: "rule that inspects", rules: []Rule{with(mark, "inspect")}, target: game, want: map[string]string{"X-Mark": "1", "X-GoogApps-Allowed-Domains": "evil.example"}, connect: Inspect, rule: "mark"},
		{name: "rule that denies", rules: []Rule{with(mark, "deny")}, target: game, connect: Deny, rule: "mark"},
		{name: "rule, Apple's", rules: []Rule{with(mark, "inspect")}, target: siri, connect: Tunnel, rule: RuleApple},
		{name: "no rule", presets: Presets{GoogleDomains: google}, target: game, connect: Tunnel, rule: RuleDefault},
		{name: "Google", presets: Presets{GoogleDomains: google}, target: "accounts.google.com:443", want: map[string]string{"X-GoogApps-Allowed-Domains": "example.org,example.com"}, connect: Inspect, rule: RulePresets},
		{name: "Google itself", presets: Presets{GoogleDomains: google}, target: "google.com:443", want: map[string]string{"X-GoogApps-Allowed-Domains": "example.org,example.com"}, connect: Inspect, rule: RulePresets},
		{name: "not Google", presets: Presets{GoogleDomains: google}, target: "notgoogle.com:443", connect: Tunnel, rule: RuleDefault},
		{name: "Google, and a rule", presets: Presets{GoogleDomains: google}, rules: []Rule{mark}, target: "accounts.google.com:443", want: map[string]string{"X-Mark": "1", "X-GoogApps-Allowed-Domains": "example.org,example.com"}, connect: Inspect, rule: "mark"},
		{name: "Google, left alone by a rule", presets: Presets{GoogleDomains: google}, rules: []Rule{tunnelAll}, target: "accounts.google.com:443", want: map[string]string{"X-GoogApps-Allowed-Domains": "example.org,example.com"}, connect: Tunnel, rule: "tunnel all"},
		{name: "Google, denied", presets: Presets{GoogleDomains: google}, rules: []Rule{denyAll}, target: "accounts.google.com:443", connect: Deny, rule: "deny all"},
		{name: "Microsoft 1", presets: Presets{Microsoft: v1}, target: "login.microsoftonline.com:443", want: map[string]string{"Restrict-Access-To-Tenants": "a.example,b.example", "Restrict-Access-Context": "c"}, connect: Inspect, rule: RulePresets},
		{name: "Microsoft 1, personal", presets: Presets{Microsoft: v1}, target: "login.live.com:443", want: map[string]string{"Sec-Restrict-Tenant-Access-Policy": "restrict-msa"}, connect: Inspect, rule: RulePresets},
		{name: "Microsoft 2", presets: Presets{Microsoft: Microsoft{Policy: "t:g"}}, target: "login.windows.net:443", want: map[string]string{"Sec-Restrict-Tenant-Access-Policy": "t:g"}, connect: Inspect, rule: RulePresets},
		{name: "Microsoft 2, personal", presets: Presets{Microsoft: Microsoft{Policy: "t:g"}}, target: "login.live.com:443", want: map[string]string{"Sec-Restrict-Tenant-Access-Policy": "t:g"}, connect: Inspect, rule: RulePresets},
		{name: "Microsoft, elsewhere", presets: Presets{Microsoft: v1}, target: "outlook.office.com:443", connect: Tunnel, rule: RuleDefault},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := compile(t, Config{Presets: tt.presets, Rules: tt.rules, Inspect: InspectConfig{Mode: InspectListed, Exempt: []string{"*.google.com"}}})
			r := Request{Target: target(t, tt.target), Client: ipad}
			d := p.Decide(&r)
			if got := maps.Collect(d.Headers()); !maps.Equal(got, tt.want) || d.HasHeaders() != (len(tt.want) > 0) {
				t.Errorf("plain: %v, want %v", got, tt.want)
			}
			r.Connect = true
			d = p.Decide(&r)
			if d.Action != tt.connect || d.Rule != tt.rule {
				t.Errorf("CONNECT: %s by %q, want %s by %q", d.Action, d.Rule, tt.connect, tt.rule)
			}
			want := tt.want
			if d.Action != Inspect {
				want = nil
			}
			if got := maps.Collect(d.Headers()); !maps.Equal(got, want) {
				t.Errorf("CONNECT: %v, want %v", got, want)
			}
		})
	}
}
