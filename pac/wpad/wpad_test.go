package wpad

import (
	"encoding/hex"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden file")

const script, domain = "http://192.0.2.1:8080/wpad.dat", "school.example"

func snippets(t *testing.T, format string) (ofDHCP, ofDNS string) {
	t.Helper()
	ofDHCP, err := DHCP(format, script)
	if err != nil {
		t.Fatal(err)
	}
	if ofDNS, err = DNS(format, script, domain); err != nil {
		t.Fatal(err)
	}
	return ofDHCP, ofDNS
}

func TestSnippets(t *testing.T) {
	var got strings.Builder
	for _, format := range Formats {
		ofDHCP, ofDNS := snippets(t, format)
		got.WriteString("== " + format + "\n" + ofDHCP + "\n" + ofDNS + "\n")
	}
	const file = "testdata/snippets.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the snippets differ from %s; if that is meant, run go test -update\n%s", file, got.String())
	}
}

// The servers themselves take the snippets. dnsmasq must be there (.ci/deps);
// the others where they are.
func TestServersTakeSnippets(t *testing.T) {
	for _, c := range []struct {
		name, format string
		config       func(ofDHCP, ofDNS string) string
		check        []string // the file's name follows
		optional     bool
	}{
		{"dnsmasq", "dnsmasq", func(a, b string) string { return "dhcp-range=192.0.2.10,192.0.2.20\n" + a + b },
			[]string{"dnsmasq", "--test", "-C"}, false},
		{"ISC dhcpd", "isc", func(a, _ string) string {
			return a + "subnet 192.0.2.0 netmask 255.255.255.0 { range 192.0.2.10 192.0.2.20; }\n"
		},
			[]string{"dhcpd", "-t", "-4", "-cf"}, true},
		{"Kea", "kea", func(a, _ string) string {
			return "{ \"Dhcp4\": {\n" + a + ", \"subnet4\": [ { \"id\": 1, \"subnet\": \"192.0.2.0/24\" } ] } }\n"
		}, []string{"kea-dhcp4", "-t"}, true},
		{"BIND", "isc", func(_, b string) string {
			return "$TTL 3600\n@ IN SOA ns hostmaster 1 3600 600 86400 600\n@ IN NS ns\nns IN A 192.0.2.2\n" + b
		}, []string{"named-checkzone", domain}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			program := find(c.check[0])
			if program == "" {
				if c.optional {
					t.Skipf("%s is not installed", c.check[0])
				}
				t.Fatalf("%s is not installed: run .ci/deps", c.check[0])
			}
			file := filepath.Join(t.TempDir(), "config")
			ofDHCP, ofDNS := snippets(t, c.format)
			if err := os.WriteFile(file, []byte(c.config(ofDHCP, ofDNS)), 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), program, append(c.check[1:], file)...).CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// Hexadecimal is the URL's bytes and no more, in each grouping.
func TestHexadecimal(t *testing.T) {
	for _, c := range []struct{ format, pattern string }{
		{"hex", `(?m)^([0-9a-f]+)$`}, {"hex", `(?m)^([0-9a-f:]+:[0-9a-f]+)$`}, {"cisco", `option 252 hex (\S+)`}, {"fortinet", `set value "(\S+)"`},
	} {
		for _, url := range []string{script, script + "x"} { // of an odd length and an even one
			text, err := DHCP(c.format, url)
			if err != nil {
				t.Fatal(err)
			}
			m := regexp.MustCompile(c.pattern).FindStringSubmatch(text)
			if m == nil {
				t.Errorf("%s: %q does not match %s", c.format, text, c.pattern)
				continue
			}
			if got, err := hex.DecodeString(strings.NewReplacer(".", "", ":", "").Replace(m[1])); string(got) != url {
				t.Errorf("%s: %s is %q, %v", c.format, m[1], got, err)
			}
		}
	}
}

// find looks where servers are too, which is not in everybody's PATH.
func find(program string) string {
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func TestBadValues(t *testing.T) {
	for bad, want := range map[string]string{
		"":                                     "is no URL",
		"192.0.2.1/wpad.dat":                   "is no URL",
		"https://192.0.2.1/wpad.dat":           "is not http",
		"http://192.0.2.1":                     "has no path",
		"http://192.0.2.1/":                    "has no path",
		"http://192.0.2.1:0/wpad.dat":          "port is not a number",
		"http://[2001:db8::1]/wpad.dat":        "has a character",
		"http://192.0.2.1/\"; exit":            "has a character",
		"http://192.0.2.1/a'b":                 "has a character",
		"http://192.0.2.1/a,b":                 "has a character",
		"http://u:p@192.0.2.1/a":               "has a character",
		"http://192.0.2.1/wpad.dat\n":          "is no URL",
		"http://192.0.2.1/$(x)":                "has a character",
		"http://a/" + strings.Repeat("a", 250): "more than the 255 bytes",
	} {
		if got, err := DHCP("dnsmasq", bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("DHCP(%q) = %q, %v; want an error with %q", bad, got, err, want)
		}
	}
	for _, bad := range []string{"", "192.0.2.1", "wpad.school.example", "a b", "a\nb", `x"`} {
		if got, err := DNS("dnsmasq", script, bad); err == nil {
			t.Errorf("DNS(%q) = %q", bad, got)
		}
	}
	if _, err := DNS("dnsmasq", "http://proxy.example/wpad.dat", domain); err == nil || !strings.Contains(err.Error(), "needs an address") {
		t.Errorf("a name: %v", err)
	}
	if _, err := DHCP("zyxel", script); err == nil || !strings.Contains(err.Error(), "allowed: dnsmasq, isc, kea, windows, mikrotik, cisco, fortinet, hex") {
		t.Errorf("an unknown format: %v", err)
	}
}
