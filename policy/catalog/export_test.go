package catalog

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func export(t *testing.T, format string, rows []Row) string {
	t.Helper()
	var b bytes.Buffer
	if err := Export(&b, format, rows); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The golden files show the exports of the embedded catalogue.
func TestExportGolden(t *testing.T) {
	for _, format := range Formats() {
		t.Run(format, func(t *testing.T) {
			got := export(t, format, Embedded())
			path := filepath.Join("testdata", "export."+format)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s; after a look at the difference, run go test ./policy/catalog -update", path)
			}
		})
	}
}

func TestExportUnknownFormat(t *testing.T) {
	err := Export(&bytes.Buffer{}, "xml", nil)
	if want := `format: "xml" is unknown (allowed: json, csv, hosts, squid, nftables, mikrotik, fortinet)`; err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func TestExportJSON(t *testing.T) {
	var rows []map[string]any
	if err := json.Unmarshal([]byte(export(t, "json", Embedded())), &rows); err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(Embedded()) {
		t.Fatalf("%d objects, want %d", len(rows), len(Embedded()))
	}
	for i, r := range rows {
		for _, key := range []string{"host", "service", "section", "purpose", "proxy", "since", "until", "source"} {
			if _, ok := r[key].(string); !ok {
				t.Errorf("%s: %s is %v, want text", Embedded()[i].Host, key, r[key])
			}
		}
		for _, key := range []string{"ports", "transports", "systems"} {
			if _, ok := r[key].([]any); !ok {
				t.Errorf("%s: %s is %v, want an array", Embedded()[i].Host, key, r[key])
			}
		}
	}
	if got := export(t, "json", nil); got != "[\n]\n" {
		t.Errorf("no rows: %q", got)
	}
}

func TestExportCSVIsReadBack(t *testing.T) {
	r := Row{Host: "*.a.example", Ports: []uint16{443, 80}, Transports: []string{"tcp"}, Purpose: `a, "b"`, Proxy: ProxyYes}
	records, err := csv.NewReader(strings.NewReader(export(t, "csv", []Row{r}))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"*.a.example", "443 80", "tcp", "", "", "", `a, "b"`, "yes", "", "", "", "", ""}
	if len(records) != 2 || !slices.Equal(records[1], want) {
		t.Errorf("got %q, want a head and %q", records, want)
	}
}

// Squid refuses an ACL in which one name covers another.
func TestExportSquidHasNoOverlap(t *testing.T) {
	rows := append(slices.Clone(Embedded()),
		Row{Host: "*.example.com", Ports: []uint16{443}, Transports: []string{"tcp"}},
		Row{Host: "example.com", Ports: []uint16{443}, Transports: []string{"tcp"}},
		Row{Host: "a.example.com", Ports: []uint16{443}, Transports: []string{"tcp"}},
		Row{Host: "*.a.example.com", Ports: []uint16{443}, Transports: []string{"tcp"}},
		Row{Host: "notexample.com", Ports: []uint16{443}, Transports: []string{"tcp"}},
		Row{Host: "udp.example.org", Ports: []uint16{443}, Transports: []string{"udp"}},
	)
	acl := map[string][]string{}
	for line := range strings.Lines(export(t, "squid", rows)) {
		if f := strings.Fields(line); len(f) == 4 && f[2] == "dstdomain" {
			acl[f[1]] = append(acl[f[1]], f[3])
		}
	}
	for name, list := range acl {
		for _, a := range list {
			for _, b := range list {
				if a != b && a[0] == '.' && strings.HasSuffix("."+b, a) {
					t.Errorf("%s: %s covers %s", name, a, b)
				}
			}
		}
	}
	for host, want := range map[string]bool{
		".example.com": true, "example.com": false, "a.example.com": false, ".a.example.com": false,
		"notexample.com": true, "udp.example.org": false, ".mzstatic.com": true, "s.mzstatic.com": false,
	} {
		if slices.Contains(acl["apple_443"], host) != want {
			t.Errorf("%s in the ACL of port 443: %t, want %t", host, !want, want)
		}
	}
}

// The firewall exports have every host that uses UDP or SSH, and no other.
func TestExportFirewallHosts(t *testing.T) {
	rows := append(slices.Clone(Embedded()), Row{Host: "*.wild.example", Ports: []uint16{3478}, Transports: []string{"udp"}})
	for _, format := range []string{"nftables", "mikrotik", "fortinet"} {
		text := export(t, format, rows)
		for _, r := range rows {
			want := r.UDP() || slices.Contains(r.Ports, 22)
			found := hasWord(text, r.Host)
			if found != want && !slices.ContainsFunc(rows, func(o Row) bool { return o.Host == r.Host && o.UDP() }) {
				t.Errorf("%s: %s is there: %t, want %t", format, r.Host, found, want)
			}
		}
	}
}

// hasWord reports whether host stands in text and is not part of a longer name.
func hasWord(text, host string) bool {
	return slices.Contains(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \n\t\"/=:", r) }), host)
}
