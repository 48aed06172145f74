package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"espalier/policy/catalog"
)

// runCatalog runs `espalier catalog` and returns what it wrote and its exit
// status. An error that names no status is bad usage, as cobra's are.
func runCatalog(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := catalogCommand()
	var out, errs bytes.Buffer
	cmd.SetIn(strings.NewReader(stdin))
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

const article = `iCloud
Devices need these hosts.
Hosts
Ports
Protocol
OS
Description
Supports proxies
a.example.com
443, 80
TCP
iOS and macOS
Things
Yes
b.example.com
443
UDP
macOS only
`

const germanArticle = `# Eine Seite

## Fahrzeuge

Text.

| Hosts | Ports | Protokoll | OS | Beschreibung | Proxyunterstützung |
|---|---|---|---|---|---|
| a.example.com | 443 | TCP | iOS und macOS | Dinge | Ja |

## Boats

| Hosts | Ports | Protokoll | OS | Beschreibung | Proxyunterstützung |
|---|---|---|---|---|---|
| e.example.com | 443 | TCP, UDP | iOS und visionOS | Dinge | — |

Veröffentlicht am 7. August 2026
`

const catalogue = `- {host: a.example.com, ports: [443], transports: [tcp], systems: [ios, macos], proxy: "yes",
   purpose: Things, service: icloud, section: iCloud, source: article}
- {host: c.example.com, ports: [22], transports: [tcp], systems: [ios], proxy: unmarked,
   service: siri, section: Siri and search, source: article,
   until: 2024-09}
- {host: d.example.com, ports: [123], transports: [udp], proxy: unmarked,
   service: siri, section: Siri and search, source: article,
   since: after 2023, unknown: [proxy]}
- {host: "*.push.apple.com", ports: [443, 5223], transports: [tcp], proxy: see-apns,
   service: push, section: Device management, source: article}
`

// files writes name, content pairs to a directory and goes there.
func files(t *testing.T, pairs ...string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for i := 0; i < len(pairs); i += 2 {
		if err := os.WriteFile(pairs[i], []byte(pairs[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCatalog(t *testing.T) {
	files(t, "article.txt", article, "article.md", germanArticle, "catalogue.yaml", catalogue, "catalogue", "# as import writes it\n"+catalogue,
		"bad.txt", strings.Replace(article, "UDP", "QUIC", 1), "bad.yaml", strings.Replace(catalogue, "443", "0", 1))
	for _, tt := range []struct {
		name, args, stdin, stdout, stderr string
		code                              int
	}{
		{name: "list", args: "list --catalog catalogue.yaml", stdout: `SERVICE  HOST              PORTS     TRANSPORT  PROXY   PURPOSE
push     *.push.apple.com  443,5223  tcp        by PAC
icloud   a.example.com     443       tcp        yes     Things
siri     c.example.com     22        tcp        -       retired 2024-09
siri     d.example.com     123       udp        ?

4 rows, 4 hosts, 1 retired.
1 row with UDP, which a TCP proxy cannot carry; the firewall must let it out: d.example.com:123.
Port 22 is SSH; an SFTP client that knows no HTTP proxy needs it let out, too: c.example.com.
For the firewall: espalier catalog export --for devices, proxy, servers or udp.
`},
		{name: "list of a service", args: "list --catalog catalogue.yaml --service icloud", stdout: `HOST           PORTS  TRANSPORT  PROXY  PURPOSE
a.example.com  443    tcp        yes    Things

1 row, 1 host, 0 retired.
`},
		{name: "list as JSON", args: "list --catalog catalogue.yaml --service icloud --json", stdout: `[
  {"host":"a.example.com","ports":[443],"transports":["tcp"],"systems":["ios","macos"],"service":"icloud","section":"iCloud","purpose":"Things","proxy":"yes","since":"","until":"","source":"article"}
]
`},
		{name: "list: unknown service", args: "list --service cloud", code: exitUsage,
			stderr: `--service: "cloud" is unknown (allowed: ` + strings.Join(catalog.ServiceIDs(), ", ") + `)`},
		{name: "list: no such file", args: "list --catalog none.yaml", code: exitUsage, stderr: "open none.yaml: no such file or directory"},
		{name: "list: bad catalogue", args: "list --catalog bad.yaml", code: exitUsage, stderr: `bad.yaml:1:33: ports: "0" is not a port (allowed: 1 to 65535)`},
		{name: "list: an argument", args: "list icloud", code: exitUsage, stderr: `unknown command "icloud" for "catalog list"`},
		{name: "unknown subcommand", args: "lost", code: exitUsage, stderr: `unknown command "lost" for "catalog"`},

		{name: "export", args: "export --format hosts --catalog catalogue.yaml", stdout: "a.example.com\nc.example.com\nd.example.com\n*.push.apple.com\n"},
		{name: "export: unknown format", args: "export --format xml", code: exitUsage,
			stderr: `--format: "xml" is unknown (allowed: json, csv, hosts, squid, nftables, dnsmasq, mikrotik, fortinet, list, networks)`},

		{name: "import", args: "import article.txt", stdout: `# iCloud
- {host: a.example.com, ports: [443, 80], transports: [tcp], systems: [ios, macos], proxy: "yes",
   purpose: Things, service: icloud, section: iCloud, source: article}
- {host: b.example.com, ports: [443], transports: [udp], systems: [macos], proxy: unmarked,
   service: icloud, section: iCloud, source: article}
`, stderr: `article.txt: 2 rows, 2 hosts (article)
new: a.example.com counts for icloud: by its section, "iCloud"
new: b.example.com counts for icloud: by its section, "iCloud"
no host of the catalogue is listed: its rows are left out
`},
		{name: "import into a catalogue", args: "import article.md --catalog catalogue.yaml --section Boats=siri", stdout: `# iCloud
- {host: a.example.com, ports: [443], transports: [tcp], systems: [ios, macos], proxy: "yes",
   purpose: Things, service: icloud, section: iCloud, source: article 2026-08}

# Siri and search
- {host: c.example.com, ports: [22], transports: [tcp], systems: [ios], proxy: unmarked,
   service: siri, section: Siri and search, source: article,
   until: 2024-09}
- {host: d.example.com, ports: [123], transports: [udp], proxy: unmarked,
   service: siri, section: Siri and search, source: article,
   since: after 2023, until: 2026-08, unknown: [proxy], note: no longer listed}

# Device management
- {host: "*.push.apple.com", ports: [443, 5223], transports: [tcp], proxy: see-apns,
   service: push, section: Device management, source: article,
   until: 2026-08, note: no longer listed}

# Boats
- {host: e.example.com, ports: [443], transports: [tcp, udp], systems: [ios, visionos], proxy: unmarked,
   purpose: Dinge, service: siri, section: Boats, source: article 2026-08,
   since: 2026-08}
`, stderr: `article.md: 2 rows, 2 hosts (article 2026-08)
unknown heading "Fahrzeuge": 1 row, read as "iCloud"
unknown heading "Boats": 1 row, a section of its own; known hosts keep their service
new: e.example.com counts for siri: as --section says
retired: d.example.com (siri)
retired: *.push.apple.com (push)
5 rows written
`},
		{name: "import: invalid --section", args: "import article.md --section Boats", code: exitUsage,
			stderr: `--section: invalid "Boats" (want HEADING=SERVICE; services: ` + strings.Join(rowServices(), ", ") + ")"},
		{name: "import: unknown service in --section", args: "import article.md --section Boats=other", code: exitUsage,
			stderr: `--section: invalid "Boats=other" (want HEADING=SERVICE; services: ` + strings.Join(rowServices(), ", ") + ")"},
		{name: "import: a heading that the article has not", args: "import article.md --section Trains=siri", code: exitUsage,
			stderr: `article.md: section "Trains": no table of the article is below such a heading (it has "Fahrzeuge", "Boats")`},
		{name: "import: no catalogue", args: "import article.md --catalog none.yaml", code: exitUsage, stderr: "open none.yaml: no such file or directory"},
		{name: "import: malformed", args: "import bad.txt", code: exitUsage,
			stderr: `bad.txt: line 17: b.example.com: protocol: "QUIC" is not a protocol (known: TCP, UDP, SSH)`},
		{name: "import: another text", args: "import -", stdin: "Hello", code: exitUsage,
			stderr: `-: no table found (want rows of a host, its ports such as "443, 80" and its protocol such as TCP)`},
		{name: "import: no file", args: "import", code: exitUsage, stderr: "accepts 1 arg(s), received 0"},
		{name: "import: no such file", args: "import none.txt", code: exitUsage, stderr: "open none.txt: no such file or directory"},

		{name: "diff", args: "diff article.txt --catalog catalogue.yaml", code: exitNo, stdout: `CHANGE   HOST              SERVICE  WHAT
changed  a.example.com     icloud   ports: 443 → 80, 443
removed  d.example.com     siri     123 udp; listed after 2023
removed  *.push.apple.com  push     443,5223 tcp; proxy see-apns
added    b.example.com     icloud   443 udp; macos

In article.txt and not in the catalogue: 1 row. In the catalogue and not there: 2 rows. Different: 1 row.
`},
		{name: "diff of standard input", args: "diff - --catalog catalogue.yaml", stdin: catalogue, stdout: "- and the catalogue have the same rows.\n"},
		{name: "diff of a catalogue", args: "diff catalogue --catalog catalogue.yaml", stdout: "catalogue and the catalogue have the same rows.\n"},
		{name: "diff: the same as JSON", args: "diff catalogue --catalog catalogue.yaml --json", stdout: "[]\n"},
		{name: "diff: malformed article", args: "diff bad.txt", code: exitUsage,
			stderr: `bad.txt: line 17: b.example.com: protocol: "QUIC" is not a protocol (known: TCP, UDP, SSH)`},
		{name: "diff: malformed catalogue", args: "diff bad.yaml", code: exitUsage, stderr: `bad.yaml:1:33: ports: "0" is not a port (allowed: 1 to 65535)`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := runCatalog(t, tt.stdin, strings.Fields(tt.args)...)
			if stdout != tt.stdout {
				t.Errorf("standard output:\n%s\nwant:\n%s", stdout, tt.stdout)
			}
			if stderr != tt.stderr {
				t.Errorf("standard error:\n%s\nwant:\n%s", stderr, tt.stderr)
			}
			if code != tt.code {
				t.Errorf("exit status %d, want %d", code, tt.code)
			}
		})
	}
}

func TestCatalogDiffJSON(t *testing.T) {
	files(t, "article.txt", article, "catalogue.yaml", catalogue)
	stdout, _, code := runCatalog(t, "", "diff", "article.txt", "--catalog", "catalogue.yaml", "--json")
	if code != exitNo {
		t.Errorf("exit status %d, want %d", code, exitNo)
	}
	var changes []struct {
		Change, Host, Service string
		Cells                 []struct{ Cell, Old, New string }
		Old, New              *catalog.Row
	}
	if err := json.Unmarshal([]byte(stdout), &changes); err != nil {
		t.Fatal(err)
	}
	if len(changes) != 4 {
		t.Fatalf("%d changes, want 4", len(changes))
	}
	c := changes[0]
	if c.Change != "changed" || c.Host != "a.example.com" || c.Service != "icloud" || c.Old == nil || c.New == nil ||
		len(c.Cells) != 1 || c.Cells[0].Cell != "ports" || c.Cells[0].Old != "443" || c.Cells[0].New != "80, 443" {
		t.Errorf("got %+v", c)
	}
	if r := changes[1]; r.Change != "removed" || r.Old == nil || r.New != nil || r.Cells == nil {
		t.Errorf("got %+v", r)
	}
	if a := changes[3]; a.Change != "added" || a.Old != nil || a.New == nil {
		t.Errorf("got %+v", a)
	}
}

// Without --catalog the commands use the built-in catalogue, all of it.
func TestCatalogBuiltIn(t *testing.T) {
	stdout, stderr, code := runCatalog(t, "", "export")
	var rows []catalog.Row
	if err := json.Unmarshal([]byte(stdout), &rows); err != nil || code != 0 || stderr != "" {
		t.Fatalf("exit status %d, %q, %v", code, stderr, err)
	}
	if len(rows) != len(catalog.Embedded()) {
		t.Errorf("%d rows, want %d", len(rows), len(catalog.Embedded()))
	}
	var b bytes.Buffer
	if err := catalog.Encode(&b, catalog.Embedded()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "same.yaml")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if stdout, _, code := runCatalog(t, "", "diff", path); code != 0 {
		t.Errorf("the built-in catalogue differs from itself: %s", stdout)
	}
}

func TestExitError(t *testing.T) {
	if err := usage(nil); err != nil {
		t.Errorf("usage(nil) is %v", err)
	}
	err := usage(os.ErrNotExist)
	if e, ok := errors.AsType[*exitError](err); !ok || e.code != exitUsage || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %#v", err)
	}
	if s := (&exitError{code: exitNo}).Error(); s != "" {
		t.Errorf("an answer already given prints %q", s)
	}
}
