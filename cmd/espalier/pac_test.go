package main

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/configs"
	"espalier/pac"
	"espalier/policy"
	"espalier/proxy"
	"espalier/web"
)

func pacTestConfig() *configs.Config {
	return &configs.Config{
		Apple: policy.Apple{Wide: true},
		Proxy: proxy.Config{Listen: []string{"192.0.2.8:3128"}},
		PAC: pac.Config{
			Routes: pac.Routes{
				Apple: []string{"proxy", "direct"}, AppleUnmarked: []string{"proxy", "direct"},
				Internal: []string{"direct"}, Default: []string{"proxy"},
			},
			Internal: []string{"corp.example"},
			Sites:    map[string]pac.Site{"school": {Clients: []string{"10.0.0.0/8"}, Proxies: []string{"school.example:80"}}},
		},
	}
}

func runPAC(cfg *configs.Config, args ...string) (stdout, stderr string, code int) {
	cmd := pacCommand(func(*cobra.Command) (*configs.Config, error) { return cfg, nil })
	var out, errs bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.Execute(); err != nil {
		code = exitUsage
		if e, ok := errors.AsType[*exitError](err); ok {
			code = e.code
		}
		errs.WriteString(err.Error())
	}
	return out.String(), errs.String(), code
}

func TestPACEval(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"general", []string{"eval", "gs.apple.com", "http://www.example.org/a?b", "https://corp.example/secret", "17.0.0.1:5223"}, "" +
			"URL                         ANSWER\n" +
			"https://gs.apple.com/       PROXY 192.0.2.8:3128; DIRECT\n" +
			"http://www.example.org/a?b  PROXY 192.0.2.8:3128\n" +
			"https://corp.example/       DIRECT\n" +
			"https://17.0.0.1:5223/      PROXY 192.0.2.8:3128; DIRECT\n"},
		{"site", []string{"eval", "--site", "school", "a.example"}, "" +
			"URL                 ANSWER\n" +
			"https://a.example/  PROXY school.example:80\n"},
		{"client", []string{"eval", "--client", "10.1.2.3", "a.example"}, "" +
			"URL                 ANSWER\n" +
			"https://a.example/  PROXY school.example:80\n"},
		{"proxy", []string{"eval", "--client", "192.0.2.3", "--proxy", "p.example:1", "--json", "A.example."}, `[
  {
    "url": "https://a.example./",
    "host": "a.example.",
    "answer": "PROXY p.example:1"
  }
]
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, stderr, code := runPAC(pacTestConfig(), c.args...)
			if stdout != c.want || code != 0 {
				t.Errorf("exit %d, %s%s\nwant:\n%s", code, stderr, stdout, c.want)
			}
		})
	}
}

// What is valid is answered, whatever is not.
func TestPACEvalGoesOn(t *testing.T) {
	for _, args := range []string{"eval a.example gopher://b.example 127.1 c.example", "eval --json a.example 127.1 c.example"} {
		stdout, stderr, code := runPAC(pacTestConfig(), strings.Fields(args)...)
		for _, want := range []string{"https://a.example/", "https://c.example/"} {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s: %s is not in %s", args, want, stdout)
			}
		}
		if code != exitUsage || !strings.Contains(stderr, `"https://127.1" is no URL, name or host:port`) {
			t.Errorf("%s: exit %d, %s", args, code, stderr)
		}
	}
}

// A script is read whole, or not at all.
func TestPACCheckSize(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		filler int
		code   int
		want   string
	}{
		"below": {9 << 20, exitNo, "FindProxyForURL is defined again"},
		"above": {10 << 20, exitUsage, "larger than 10 MB"},
	} {
		file := filepath.Join(dir, name+".pac")
		script := `function FindProxyForURL(url, host) { return "DIRECT"; }` + "\n"
		if err := os.WriteFile(file, []byte(script+strings.Repeat("\n", c.filler)+script), 0o600); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, code := runPAC(pacTestConfig(), "check", file)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("%s 10 MB: exit %d, %s%s; want %q", name, code, stdout, stderr, c.want)
		}
	}
}

func TestPACShow(t *testing.T) {
	stdout, stderr, code := runPAC(pacTestConfig(), "show")
	if code != 0 || !strings.Contains(stdout, `"PROXY 192.0.2.8:3128"`) || !strings.HasSuffix(stdout, "}\n") {
		t.Errorf("exit %d, %s", code, stdout)
	}
	if want := "note: pac.proxies is empty, so devices are given the address that they fetch the script from; here that is 192.0.2.8:3128\n"; stderr != want {
		t.Errorf("standard error: %q, want %q", stderr, want)
	}
	if stdout, stderr, code = runPAC(pacTestConfig(), "show", "--site", "school"); code != 0 || stderr != "" || !strings.Contains(stdout, "PROXY school.example:80") {
		t.Errorf("exit %d, %s%s", code, stderr, stdout)
	}
	large := pacTestConfig()
	for i := range 500 {
		large.PAC.Internal = append(large.PAC.Internal, strings.Repeat("a", 1+i%60)+".example")
	}
	if _, stderr, _ = runPAC(large, "show", "--proxy", "p.example:1"); !strings.Contains(stderr, "keep it below 8192") {
		t.Errorf("of a large script: %q", stderr)
	}
}

func TestPACBadUsage(t *testing.T) {
	bad := pacTestConfig()
	bad.PAC.Routes.Default = nil
	nowhere := pacTestConfig()
	nowhere.Proxy.Listen = []string{"127.0.0.1:3128"}
	for _, c := range []struct {
		cfg  *configs.Config
		args string
		want string
	}{
		{pacTestConfig(), "show --site lab", `--site: there is no "lab" under pac.sites (there are: ["school"])`},
		{pacTestConfig(), "show --client 10.1", `--client: invalid IP address "10.1"`},
		{pacTestConfig(), "show --site school --client 10.1.1.1", "site client"},
		{pacTestConfig(), "show --proxy [::1]:80", "do not understand an IPv6 literal"},
		{pacTestConfig(), "eval", "requires at least 1 arg"},
		{bad, "show", "pac: routes.default: is empty"},
		{nowhere, "show", "set pac.proxies to its host:port, or give --proxy"},
	} {
		stdout, stderr, code := runPAC(c.cfg, strings.Fields(c.args)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) {
			t.Errorf("pac %s: exit %d, %q, %q; want %q", c.args, code, stdout, stderr, c.want)
		}
	}
}

// Devices are told what web.public_url says, and of an address that they can
// reach where it says nothing.
func TestPublicURL(t *testing.T) {
	for _, c := range []struct {
		name, url, listens string
		want               string
	}{
		{"address", "", "192.0.2.8:8080", "http://192.0.2.8:8080"},
		{"loopback", "", "127.0.0.1:8080", ""},
		{"said", "http://pac.example", "192.0.2.8:8080", "http://pac.example"},
		{"said, behind something on this machine", "https://pac.example:8443", "127.0.0.1:8080", "https://pac.example:8443"},
	} {
		got, err := app.PublicURL(web.Config{PublicURL: c.url}, []netip.AddrPort{netip.MustParseAddrPort(c.listens)})
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}
