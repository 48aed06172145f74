package configs

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"espalier/pac"
	"espalier/policy"
	"espalier/policy/auth"
	"espalier/proxy"
	"espalier/proxy/accesslog"
	"espalier/proxy/egress"
	"espalier/web"
	"espalier/web/api"
	"espalier/web/certs"
	"espalier/web/profile"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden compares got with a file, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n got:\n%s\nwant:\n%s", name, got, want)
	}
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(names), err)
	}
	return names
}

// One bad file a mistake; beside each, all that is said of it.
func TestLoadBad(t *testing.T) {
	t.Chdir("testdata/bad")
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range glob(t, "*.yaml") {
		t.Run(name, func(t *testing.T) {
			l, err := Load(Options{File: name})
			if problems, ok := errors.AsType[Problems](err); !ok || len(problems) == 0 || l != nil {
				t.Fatalf("got %v, %v; want problems", l, err)
			}
			got := strings.ReplaceAll(err.Error(), dir, "DIR") + "\n"
			golden(t, strings.TrimSuffix(name, ".yaml")+".txt", got)
		})
	}
}

// Good files; beside each, the warnings and what is not a default in the
// configuration in force.
func TestLoadGood(t *testing.T) {
	t.Chdir("testdata/good")
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range glob(t, "*.yaml") {
		t.Run(name, func(t *testing.T) {
			l, err := Load(Options{File: name})
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			for _, w := range l.Warnings {
				if !strings.Contains(w.Message, "every user of this machine") { // a checkout is for everybody
					b.WriteString("# " + w.Error() + "\n")
				}
			}
			if err := l.Dump(&b); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(b.String(), "geheim") {
				t.Error("a secret is shown")
			}
			got := ""
			for line := range strings.Lines(strings.ReplaceAll(b.String(), dir, "DIR")) {
				if !strings.HasSuffix(line, "  # default\n") {
					got += line
				}
			}
			golden(t, strings.TrimSuffix(name, ".yaml")+".txt", got)
		})
	}
}

// The contract of the defaults.
func TestDefault(t *testing.T) {
	l, err := Load(Options{})
	if err != nil {
		t.Fatal(err)
	}
	data, err := filepath.Abs("espalier-data")
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Data: data,
		Proxy: proxy.Config{
			Listen: []string{":3128"}, TLSListen: []string{}, Clients: []string{"loopback", "private"}, Ports: policy.DefaultPorts(),
			ProxyProtocol: []string{}, IdleTimeout: 24 * time.Hour, DrainTimeout: 30 * time.Second,
		},
		Egress: egress.Config{Hosts: map[string]string{}, DNS: []string{}, Allow: []string{}, NAT64: []string{}, ConnectTimeout: 10 * time.Second},
		Apple:  policy.Apple{Wide: true, Extra: []string{}, PrivateRelay: "allow"},
		Auth: auth.Config{Realm: "Espalier", LDAP: auth.LDAPConfig{
			Filter: "(uid=%s)", NameAttribute: "uid", GroupAttribute: "memberOf",
			Timeout: 5 * time.Second, Cache: 5 * time.Minute, Outage: time.Hour, MaxFailures: 3,
		}},
		Lists: map[string]policy.List{}, Rules: []policy.Rule{},
		Inspect: policy.InspectConfig{Mode: "none", Exempt: []string{}, Unknown: "tunnel", Roots: []string{}, Pinned: policy.Pinned{For: 24 * time.Hour}, KnownExempt: true, WithoutCA: "deny"},
		Presets: policy.Presets{SafeSearch: []string{}, GoogleDomains: []string{}, Microsoft: policy.Microsoft{Tenants: []string{}}},
		PAC: pac.Config{
			Proxies: []string{}, Internal: []string{}, WPAD: true, Probe: true, Sites: map[string]pac.Site{},
			Routes: pac.Routes{
				Apple: []string{"proxy", "direct"}, AppleUnmarked: []string{"proxy", "direct"},
				Internal: []string{"direct"}, Default: []string{"proxy"},
				Services: map[string][]string{}, Hosts: map[string][]string{},
			},
			Local: "direct",
		},
		Log: Log{
			Level: "info",
			Access: accesslog.Config{
				File: filepath.Join(data, "access.log"), Format: "json", Rotate: 100_000_000, Keep: 30 * 24 * time.Hour,
			},
			Store: accesslog.StoreConfig{Path: filepath.Join(data, "espalier.db"), Keep: 90 * 24 * time.Hour, MaxSize: 4e9},
		},
		TLS: certs.Config{ACME: certs.ACME{
			Domains: []string{}, Challenges: []string{}, DNS: certs.DNS{Settings: map[string]string{}, Resolvers: []string{}},
		}},
		Web: web.Config{Public: []string{":8080"}, Export: true, Admin: []string{"127.0.0.1:8081"}, Hosts: []string{},
			Profile: profile.Config{Organization: "Espalier", Identifier: "espalier"}},
	}
	if !reflect.DeepEqual(l.Config, want) {
		t.Errorf("got\n%+v\nwant\n%+v", l.Config, want)
	}
	if err := l.Config.Validate(); err != nil {
		t.Errorf("Validate: %v", err)
	}
	if len(l.Warnings) > 0 {
		t.Errorf("warnings: %v", l.Warnings)
	}
	for _, k := range knownKeys {
		if l.Origin(k.path) != "default" {
			t.Errorf("%s: origin %q; default.yaml has every key", k.path, l.Origin(k.path))
		}
	}
}

func TestLayers(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "espalier.yaml")
	write(t, file, `
data: state
proxy:
  listen: [":1"]
  max_tunnels: 1
  idle_timeout: 1h
egress:
  hosts: {a.example: 192.0.2.1, b.example: 192.0.2.1}
log: {level: warn}
`)
	l, err := Load(Options{
		File: file,
		Environ: []string{
			"PATH=/bin", "ESPALIER_PROXY_MAX_TUNNELS=2", "ESPALIER_PROXY_CLIENTS=10.0.0.0/8, loopback",
			"ESPALIER_EGRESS_HOSTS={b.example: 192.0.2.2, c.example: 192.0.2.2}",
			"ESPALIER_LOG_LEVEL=error", "ESPALIER_APPLE_WIDE=false", "ESPALIER_PROXY_PORTS=443, 8000-9000",
			"ESPALIER_LOG_ACCESS={keep: 1d, format: squid}", "ESPALIER_LOG_ACCESS_KEEP=2d",
			"ESPALIER_APPLE_EXTRA=[\"x.example:443,80\"]", "ESPALIER_EGRESS_PARENT=",
			"ESPALIER_SERVICE_HOST=10.0.0.1", "ESPALIER_PORT=tcp://10.0.0.1:3128",
			"ESPALIER_PORT_3128_TCP_ADDR=10.0.0.1", "ESPALIER_WEB_SERVICE_PORT_HTTP=8080",
		},
		Set: []string{
			"log.level=debug", "proxy.listen=:2,[::1]:3", "egress.hosts.c.example=192.0.2.3",
			"pac.sites.gym.clients=10.1.0.0/16", `rules=[{name: a, then: deny, when: {ports: [80]}}]`,
			"proxy.listen=:4", "proxy.tls_listen=",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := l.Config
	for _, x := range []struct {
		key       string
		got, want any
		origin    string
	}{
		{"data", c.Data, filepath.Join(dir, "state"), file + ":2"},
		{"proxy.listen", c.Proxy.Listen, []string{":4"}, "flag --set proxy.listen"},
		{"proxy.tls_listen", c.Proxy.TLSListen, []string{}, "flag --set proxy.tls_listen"},
		{"proxy.max_tunnels", c.Proxy.MaxTunnels, 2, "environment ESPALIER_PROXY_MAX_TUNNELS"},
		{"proxy.idle_timeout", c.Proxy.IdleTimeout, time.Hour, file + ":6"},
		{"proxy.drain_timeout", c.Proxy.DrainTimeout, 30 * time.Second, "default"},
		{"proxy.clients", c.Proxy.Clients, []string{"10.0.0.0/8", "loopback"}, "environment ESPALIER_PROXY_CLIENTS"},
		{"proxy.ports", c.Proxy.Ports, []policy.PortRange{{First: 443, Last: 443}, {First: 8000, Last: 9000}}, "environment ESPALIER_PROXY_PORTS"},
		{"egress.hosts.a.example", c.Egress.Hosts["a.example"], "192.0.2.1", file + ":8"},
		{"egress.hosts.b.example", c.Egress.Hosts["b.example"], "192.0.2.2", "environment ESPALIER_EGRESS_HOSTS"},
		{"egress.hosts.c.example", c.Egress.Hosts["c.example"], "192.0.2.3", "flag --set egress.hosts.c.example"},
		{"egress.parent", c.Egress.Parent, "", "environment ESPALIER_EGRESS_PARENT"},
		{"apple.wide", c.Apple.Wide, false, "environment ESPALIER_APPLE_WIDE"},
		{"apple.extra", c.Apple.Extra, []string{"x.example:443,80"}, "environment ESPALIER_APPLE_EXTRA"},
		{"log.level", c.Log.Level, "debug", "flag --set log.level"},
		{"log.access.keep", c.Log.Access.Keep, 48 * time.Hour, "environment ESPALIER_LOG_ACCESS_KEEP"},
		{"log.access.format", c.Log.Access.Format, "squid", "environment ESPALIER_LOG_ACCESS"},
		{"log.access.file", c.Log.Access.File, filepath.Join(dir, "state", "access.log"), "default"},
		{"pac.sites.gym.clients", c.PAC.Sites["gym"].Clients, []string{"10.1.0.0/16"}, "flag --set pac.sites.gym.clients"},
		{"rules[0].name", c.Rules[0].Name, "a", "flag --set rules"},
		{"rules[0].when.hosts", len(c.Rules[0].When.Hosts), 0, ""},
	} {
		if !reflect.DeepEqual(x.got, x.want) {
			t.Errorf("%s: got %v, want %v", x.key, x.got, x.want)
		}
		if got := l.Origin(x.key); got != x.origin {
			t.Errorf("%s: origin %q, want %q", x.key, got, x.origin)
		}
	}
}

func TestEnvironmentAndFlagsBad(t *testing.T) {
	for _, x := range []struct {
		name, env, set, want string
	}{
		{name: "unknown variable", env: "ESPALIER_PROXY_LISTNE=:1",
			want: "environment ESPALIER_PROXY_LISTNE: unknown variable; did you mean ESPALIER_PROXY_LISTEN? (allowed: ESPALIER_ and the key in capitals, with _ for each dot)"},
		{name: "a port is no service link", env: "ESPALIER_PROXY_PORT=3128",
			want: "environment ESPALIER_PROXY_PORT: unknown variable; did you mean ESPALIER_PROXY_PORTS? (allowed: ESPALIER_ and the key in capitals, with _ for each dot)"},
		{name: "element", env: "ESPALIER_PROXY_LISTEN=:1,two",
			want: `environment ESPALIER_PROXY_LISTEN: proxy.listen[1]: "two" is no listen address (allowed: ":3128", "192.0.2.1:3128", "[2001:db8::1]:3128")`},
		{name: "number", env: "ESPALIER_PROXY_MAX_TUNNELS=many",
			want: `environment ESPALIER_PROXY_MAX_TUNNELS: proxy.max_tunnels: found the text "many", wanted a whole number`},
		{name: "nothing for a number", env: "ESPALIER_PROXY_MAX_TUNNELS=",
			want: "environment ESPALIER_PROXY_MAX_TUNNELS: proxy.max_tunnels: has no value (wanted: a whole number, or no such line)"},
		{name: "duration", env: "ESPALIER_PROXY_IDLE_TIMEOUT=5",
			want: "environment ESPALIER_PROXY_IDLE_TIMEOUT: proxy.idle_timeout: 5 has no unit (wanted: a duration such as 30s, 5m, 24h or 30d)"},
		{name: "yaml", env: "ESPALIER_EGRESS_HOSTS={a: b",
			want: "environment ESPALIER_EGRESS_HOSTS: egress.hosts: is no YAML: could not find flow mapping end token '}'"},
		{name: "missing beside", env: "ESPALIER_TLS_FILES_CERT=load_test.go",
			want: "environment ESPALIER_TLS_FILES_CERT: tls.files.key: missing (a certificate needs its key)"},
		{name: "clash with a default", env: "ESPALIER_PROXY_LISTEN=:8080",
			want: `environment ESPALIER_PROXY_LISTEN: proxy.listen[0]: ":8080" is taken by web.public[0] (":8080"); every listener needs an address of its own`},
		{name: "control character", env: "ESPALIER_DATA=a\nb\x01",
			want: "environment ESPALIER_DATA: data: control character U+0001 stands in the text"},
		{name: "flag value", set: "log.level=loud",
			want: `flag --set log.level: "loud" is unknown (allowed: debug, info, warn, error)`},
		{name: "unknown flag key", set: "log.levle=info",
			want: "flag --set log.levle: unknown key; did you mean level? (allowed: access, level, store)"},
		{name: "flag without value", set: "log.level", want: "flag --set log.level: has no value (wanted: --set key=value)"},
		{name: "below a value", set: "log.level.x=1", want: "flag --set log.level.x: log.level has no keys below it"},
		{name: "below a duration", set: "proxy.idle_timeout.x=1", want: "flag --set proxy.idle_timeout.x: proxy.idle_timeout is a single value"},
		{name: "element of a list", set: "proxy.listen[0]=:1", want: "flag --set proxy.listen[0]: a flag sets a list as a whole: --set proxy.listen=…"},
		{name: "in a section of names", set: "pac.sites.gym.client=10.0.0.0/8",
			want: "flag --set pac.sites.gym.client: unknown key; did you mean clients? (allowed: clients, internal, local, proxies, routes, token)"},
	} {
		t.Run(x.name, func(t *testing.T) {
			var o Options
			if x.env != "" {
				o.Environ = []string{x.env}
			}
			if x.set != "" {
				o.Set = []string{x.set}
			}
			_, err := Load(o)
			if err == nil || err.Error() != x.want {
				t.Errorf("\n got %v\nwant %s", err, x.want)
			}
		})
	}
}

// Mistakes of all layers are told together, those of the file first, also where
// the file is not there.
func TestAllLayersAreTold(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "a.yaml", "log: {level: loud}\nproxy: 5\n")
	o := Options{File: "a.yaml", Environ: []string{"ESPALIER_X=1"}, Set: []string{"y=1"}}
	_, err := Load(o)
	for i, want := range []string{"a.yaml:1:14: log.level: ", "a.yaml:2:8: proxy: ", "environment ESPALIER_X: ", "flag --set y: "} {
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != 4 || !strings.HasPrefix(lines[i], want) {
			t.Fatalf("got %v; want line %d to begin with %q", err, i, want)
		}
	}
	for _, x := range []struct{ file, want string }{
		{"b.yaml", "b.yaml: does not exist\nenvironment ESPALIER_X: "},
		{".", ".: cannot be read: is a directory\nenvironment ESPALIER_X: "},
	} {
		o.File = x.file
		if _, err := Load(o); !strings.HasPrefix(err.Error(), x.want) {
			t.Errorf("got %v, want %s", err, x.want)
		}
	}
}

func TestTooMuch(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "large.yaml", strings.Repeat("# comment\n", maxFile/10+1))
	write(t, "keys.yaml", "egress:\n  hosts:\n"+strings.Repeat("    a: b\n", maxKeys))
	for name, want := range map[string]string{
		"large.yaml": "large.yaml: is larger than 4 MiB",
		"keys.yaml":  "keys.yaml:20001:6: has more than 20000 keys",
	} {
		if _, err := Load(Options{File: name}); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

// Settings say of every key what Dump does, and tell no secret.
func TestSettings(t *testing.T) {
	l, err := Load(Options{File: "testdata/good/full.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]api.Setting{}
	for _, s := range l.Settings() {
		got[s.Key] = s
	}
	for key, want := range map[string]string{
		"proxy.idle_timeout": "60h  # testdata/good/full.yaml:8",
		"egress.parent":      `"http://user:xxxxx@proxy.example.org:3128"  # testdata/good/full.yaml:17`,
		"auth.ldap.password": "xxxxx  # testdata/good/full.yaml:33",
		"lists.games.url":    `"https://user:xxxxx@lists.example.org/games.txt"  # testdata/good/full.yaml:45`,
		"rules[0].name":      "no-games  # testdata/good/full.yaml:47",
		"egress.hosts":       `{"*.lab.example.org": "192.0.2.2, 2001:db8::2", gs.apple.com: "192.0.2.1"}  # testdata/good/full.yaml:12`,
		"web.hosts":          "[console.school.example]  # testdata/good/full.yaml:90",
	} {
		if s := got[key]; s.Value+"  # "+s.Origin != want {
			t.Errorf("%s: %s  # %s", key, s.Value, s.Origin)
		}
	}
}

// What Dump shows, Load reads back.
func TestDumpIsAConfiguration(t *testing.T) {
	for _, name := range glob(t, "testdata/good/*.yaml") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// Without what Dump hides.
		plain := strings.NewReplacer("user:geheim@", "", "password: geheim", "password: xxxxx", "mac_key: Z2VoZWlt", "mac_key: xxxxx", " key: geheim", " key: xxxxx", ", Authorization: geheim", "").Replace(string(text))
		l, err := load(Options{File: name}, []byte(plain))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := l.Dump(&b); err != nil {
			t.Fatal(err)
		}
		again, err := load(Options{File: "elsewhere.yaml"}, b.Bytes())
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, b.String())
		}
		if keys := differences(l.Config, again.Config); len(keys) > 0 {
			t.Errorf("%s: %v differ", name, keys)
		}
	}
}

func differences(a, b *Config) []string {
	before := map[string]reflect.Value{}
	leaves(reflect.ValueOf(a).Elem(), "", func(key string, v reflect.Value) { before[key] = v })
	var keys []string
	leaves(reflect.ValueOf(b).Elem(), "", func(key string, v reflect.Value) {
		if old, ok := before[key]; !ok || !sameValue(old, v) {
			keys = append(keys, key)
		}
		delete(before, key)
	})
	for key := range before {
		keys = append(keys, key)
	}
	return keys
}

func TestFiles(t *testing.T) {
	l, err := Load(Options{File: "testdata/good/full.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range l.Files {
		got = append(got, filepath.Base(f))
	}
	if want := []string{"full.yaml", "users", "groups", "roots.pem", "cert.pem", "key.pem", "users"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	dir, err := filepath.Abs("testdata/good")
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, "users"); l.Config.Auth.HTPasswd != want {
		t.Errorf("auth.htpasswd: got %s, want %s", l.Config.Auth.HTPasswd, want)
	}
	if want := filepath.Join(dir, "ads.txt"); l.Config.Lists["ads"].File != want {
		t.Errorf("lists.ads.file: got %s, want %s", l.Config.Lists["ads"].File, want)
	}
	if want := "/var/lib/espalier/records.db"; l.Config.Log.Store.Path != want {
		t.Errorf("log.store.path: got %s, want %s", l.Config.Log.Store.Path, want)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
