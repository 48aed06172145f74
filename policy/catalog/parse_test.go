package catalog

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "bring apple.yaml into form and write the golden files anew")

func encode(t *testing.T, rows []Row) string {
	t.Helper()
	var b bytes.Buffer
	if err := Encode(&b, rows); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// apple.yaml is what Encode writes, below a comment that explains it.
func TestEmbeddedIsInForm(t *testing.T) {
	head, _, ok := strings.Cut(string(appleYAML), "\n\n")
	if !ok || !strings.HasPrefix(head, "# ") {
		t.Fatal("apple.yaml does not begin with a comment")
	}
	want := head + "\n\n" + encode(t, Embedded())
	if *update {
		if err := os.WriteFile("apple.yaml", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(appleYAML) {
		t.Error("apple.yaml is not in the form that Encode writes; run go test ./policy/catalog -update")
	}
}

const valid = `- {host: a.example.com, ports: [443, 80], transports: [tcp, udp], systems: [ios, macos], proxy: "yes",
   purpose: "Shows: things", service: icloud, section: iCloud, source: "2023",
   since: 2024-07, until: after 2025, unknown: [systems], note: "#1"}
`

func TestParse(t *testing.T) {
	want := []Row{{
		Host: "a.example.com", Ports: []uint16{443, 80}, Transports: []string{"tcp", "udp"}, Systems: []string{"ios", "macos"},
		Proxy: ProxyYes, Purpose: "Shows: things", Service: "icloud", Section: "iCloud", Source: "2023",
		Since: "2024-07", Until: "after 2025", Unknown: []string{"systems"}, Note: "#1",
	}}
	for _, tt := range []struct{ name, yaml string }{
		{"flow", valid},
		{"block", `
# a comment
- host: a.example.com
  ports: [443, 80]
  transports:
    - tcp
    - udp
  systems: [ios, macos]
  proxy: yes # as text
  purpose: 'Shows: things'
  service: icloud
  section: iCloud
  source: 2023
  since: 2024-07
  until: after 2025
  unknown: [systems]
  note: "#1"
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse([]byte(tt.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			if encode(t, got) != "# iCloud\n"+valid {
				t.Errorf("encoded:\n%s", encode(t, got))
			}
		})
	}
}

func TestEncodeKeepsAnyText(t *testing.T) {
	for _, s := range []string{
		"a: b", "- a", "#", "yes", "No", "null", "~", "1", "1.5", "2024", "2024-07", "2024-07-01", "0x1f", "1e3", "a, b", "[a]", "{a}", "a #b", "a:b", "*a",
		"&a", "!a", "|", ">", "'", `"`, `\`, "a\\nb", "%a", "@a", "`a`", "på svenska", "日本", "a  b", "é", "a'b", "?", "? a", "=", "<<", "--- a", "...", "<a&b>",
		"Key:", "a-", "-a", "true", "12:30", "😀",
	} {
		r := Row{
			Host: "a.example", Ports: []uint16{1}, Transports: []string{"tcp"}, Service: "icloud", Section: s,
			Purpose: s, Proxy: ProxyYes, Since: s, Until: s, Source: s, Note: s,
		}
		got, err := Parse([]byte(encode(t, []Row{r})))
		if err != nil {
			t.Errorf("%q: %v", s, err)
		} else if !reflect.DeepEqual(got, []Row{r}) {
			t.Errorf("%q is read back as %q", s, got[0].Note)
		}
	}
}

func TestParseMistakes(t *testing.T) {
	// change puts a value in place of another in a valid row.
	change := func(old, new string) string { return strings.Replace(valid, old, new, 1) }
	for _, tt := range []struct{ name, yaml, want string }{
		{"empty", "", "no rows (want a list of rows)"},
		{"only comments", "# nothing\n", "no rows (want a list of rows)"},
		{"empty list", "[]", "1:1: no rows (want a list of rows)"},
		{"not a list", "host: a.example.com\n", "1:1: want a list of rows"},
		{"text", "hello\n", "1:1: want a list of rows"},
		{"two documents", valid + "---\n" + valid, "5:1: a second document (want one list of rows)"},
		{"row is text", "- hello\n", "1:3: want a row with the keys host, ports, transports, service, section, proxy, source"},
		{"broken YAML", "- {host: a.example.com, ports: [443}\n", "1:36: ',' or ']' must be specified"},
		{"unknown key", change("note:", "nota:"), "3:59: nota: unknown key (allowed: host, ports, transports, systems, service, section, purpose, proxy, since, until, source, unknown, note)"},
		{"missing key", "- {host: a.example.com, ports: [443], transports: [tcp], service: icloud, section: iCloud, proxy: unmarked}\n", "1:4: source: is missing from the row"},
		{"missing key of a block row", "- host: a.example.com\n  ports: [443]\n  transports: [tcp]\n  service: icloud\n  section: iCloud\n  proxy: unmarked\n", "1:3: source: is missing from the row"},
		{"a key twice", change("note:", "until:"), "3:59: mapping key \"until\" already defined at [3:20]"},
		{"host: case", change("a.example.com", "A.example.com"), `1:10: host: "A.example.com" is not a host name (allowed: a lower-case name such as www.example.com, or *.example.com)`},
		{"host: one label", change("a.example.com", "localhost"), `1:10: host: "localhost" is not a host name (allowed: a lower-case name such as www.example.com, or *.example.com)`},
		{"host: a wildcard of a top-level domain", change("a.example.com", `"*.com"`), `1:10: host: "*.com" is not a host name (allowed: a lower-case name such as www.example.com, or *.example.com)`},
		{"host: wildcard inside", change("a.example.com", "a.*.com"), `1:10: host: "a.*.com" is not a host name (allowed: a lower-case name such as www.example.com, or *.example.com)`},
		{"host: trailing dot", change("a.example.com", "a.example.com."), `1:10: host: "a.example.com." is not a host name (allowed: a lower-case name such as www.example.com, or *.example.com)`},
		{"host: address", change("a.example.com", "17.0.0.1"), `1:10: host: "17.0.0.1" is not a host name (allowed: a lower-case name such as www.example.com, or *.example.com)`},
		{"host: address block", change("a.example.com", "17.0.0.0/8"), `1:10: host: "17.0.0.0/8" is not a host name (allowed: a lower-case name such as www.example.com, or *.example.com)`},
		{"host: a list", change("a.example.com", "[a.example.com]"), "1:10: host: want text"},
		{"ports: too large", change("80]", "65536]"), `1:38: ports: "65536" is not a port (allowed: 1 to 65535)`},
		{"ports: zero", change("80]", "0]"), `1:38: ports: "0" is not a port (allowed: 1 to 65535)`},
		{"ports: a word", change("80]", "http]"), `1:38: ports: "http" is not a port (allowed: 1 to 65535)`},
		{"ports: twice", change("80]", "443]"), `1:38: ports: 443 stands twice`},
		{"ports: no list", change("[443, 80]", "443"), "1:32: ports: want a list in brackets, with one value or more"},
		{"ports: empty", change("[443, 80]", "[]"), "1:32: ports: want a list in brackets, with one value or more"},
		{"ports: list in list", change("[443, 80]", "[[443]]"), "1:33: ports: want a list of plain values"},
		{"transports", change("udp]", "quic]"), `1:61: transports: "quic" is unknown (allowed: tcp, udp)`},
		{"systems", change("macos]", "linux]"), `1:82: systems: "linux" is unknown (allowed: ios, ipados, tvos, macos, watchos, visionos)`},
		{"service: unknown", change("service: icloud", "service: cloud"), `2:39: service: "cloud" is unknown (allowed: push, device-setup, device-management, business-school, business-essentials, classroom, software-update, app-store, carrier, content-caching, app-features, beta, diagnostics, dns, certificates, apple-account, icloud, siri, associated-domains, tap-to-pay, additional-content, id-verifier, apple-other)`},
		{"service: other is nobody's", change("service: icloud", "service: other"), `2:39: service: "other" is unknown (allowed: push, device-setup, device-management, business-school, business-essentials, classroom, software-update, app-store, carrier, content-caching, app-features, beta, diagnostics, dns, certificates, apple-account, icloud, siri, associated-domains, tap-to-pay, additional-content, id-verifier, apple-other)`},
		{"proxy", change(`"yes"`, "maybe"), `1:97: proxy: "maybe" is unknown (allowed: yes, unmarked, see-apns)`},
		{"proxy: a truth value", change(`"yes"`, "true"), "1:97: proxy: want text"},
		{"unknown", change("[systems]", "[host]"), `3:49: unknown: "host" is unknown (allowed: ports, transports, systems, proxy)`},
		{"purpose: a line break", change("Shows: things", `Shows\nthings`), "2:13: purpose: a line break or control character is not allowed here"},
		{"purpose: empty", change(`"Shows: things"`, `""`), "2:13: purpose: is empty"},
		{"since: nothing", change("since: 2024-07", "since:"), "3:10: since: want text"},
		{"all of them", change("80]", "0]") + change("a.example.com", "a"), `1:38: ports: "0" is not a port (allowed: 1 to 65535)` + "\n" +
			`4:10: host: "a" is not a host name (allowed: a lower-case name such as www.example.com, or *.example.com)`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := Parse([]byte(tt.yaml))
			if err == nil {
				t.Fatalf("parsed as %+v", rows)
			}
			if err.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	for path, data := range map[string]string{good: valid, bad: strings.Replace(valid, "443", "0", 1)} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if rows, err := Load(good); err != nil || len(rows) != 1 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	_, err := Load(bad)
	if want := bad + `:1:33: ports: "0" is not a port (allowed: 1 to 65535)`; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err := Load(filepath.Join(dir, "none.yaml")); !os.IsNotExist(err) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(valid))
	f.Add(appleYAML[:4000])
	f.Add([]byte("- {host: a.b, ports: [1"))
	f.Add([]byte("- &a {host: *a}\n- *a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := Parse(data)
		if err != nil {
			if strings.TrimSpace(err.Error()) == "" {
				t.Error("an error that says nothing")
			}
			return
		}
		again, err := Parse([]byte(encode(t, rows)))
		if err != nil {
			t.Fatalf("what was parsed does not parse again: %v\n%s", err, encode(t, rows))
		}
		if !reflect.DeepEqual(again, rows) {
			t.Fatalf("read back as\n%+v\nnot\n%+v", again, rows)
		}
	})
}
