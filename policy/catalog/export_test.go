package catalog

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func export(t *testing.T, format string, rows []Row) string {
	t.Helper()
	return exportSelection(t, format, Selection{Rows: rows})
}

func exportSelection(t *testing.T, format string, s Selection) string {
	t.Helper()
	var b bytes.Buffer
	if err := Export(&b, format, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// selected is a set of the embedded catalogue and the firewall advice, under a PAC
// script that sends everything direct in the end.
func selected(t *testing.T, set string) Selection {
	t.Helper()
	rows, err := Select(append(slices.Clone(Embedded()), Wide()...), set, func(string, uint16) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	return Selection{Set: set, Rows: rows}
}

// The golden files show the exports of the embedded catalogue, for firewalls what
// devices need.
func TestExportGolden(t *testing.T) {
	for _, format := range Formats() {
		t.Run(format, func(t *testing.T) {
			s := Selection{Rows: Embedded()}
			if ForFirewall(format) {
				s = selected(t, "devices")
			}
			got := exportSelection(t, format, s)
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
	err := Export(&bytes.Buffer{}, "xml", Selection{})
	if want := `format: "xml" is unknown (allowed: json, csv, hosts, squid, nftables, dnsmasq, mikrotik, fortinet, list, networks)`; err == nil || err.Error() != want {
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

// Every host of a selection is in each firewall's file, and no other host of the
// catalogue.
func TestExportFirewallHosts(t *testing.T) {
	for _, set := range Sets {
		s := selected(t, set)
		want := map[string]bool{}
		for _, r := range s.Rows {
			want[r.Host] = true
		}
		for _, format := range []string{"nftables", "dnsmasq", "mikrotik", "fortinet", "list"} {
			t.Run(set+" "+format, func(t *testing.T) {
				text := exportSelection(t, format, s)
				for _, r := range append(slices.Clone(Embedded()), Wide()...) {
					host := r.Host
					if _, isBlock := Block(host); isBlock {
						if format == "list" || format == "dnsmasq" {
							continue
						}
					} else if format == "dnsmasq" || format == "mikrotik" {
						host = strings.TrimPrefix(host, "*.")
					}
					// To these two a domain is written like the names below it.
					covered := (format == "dnsmasq" || format == "mikrotik") && (want[host] || want["*."+host])
					if found := hasWord(text, host); found != (want[r.Host] || covered) {
						t.Errorf("%s is there: %t, want %t", r.Host, found, want[r.Host])
					}
				}
			})
		}
	}
}

// hasWord reports whether host stands in text and is not part of a longer name.
func hasWord(text, host string) bool {
	return slices.Contains(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,\n\t\"=", r) }), host) ||
		strings.Contains(text, "=/"+host+"/")
}

// Squid, dnsmasq and nft themselves take the files, and dnsmasq reads no line of
// more than 1024 bytes.
func TestExportIsLoadable(t *testing.T) {
	selections := map[string]Selection{"empty": {}, "extra": {
		Set: "devices", Refused: []string{"mask.icloud.com", "*.smoot.apple.com", "a.smoot.apple.com"},
		Rows: append(selected(t, "devices").Rows, Extra("extra.example", nil), Extra("*.extra.example", []uint16{8443}),
			Extra("192.0.2.1", []uint16{22}), Extra("17.5.0.0/16", nil), Extra("2001:db8::/32", nil)),
	}}
	for _, set := range Sets {
		selections[set] = selected(t, set)
	}
	for name, s := range selections {
		for format, c := range map[string]struct{ programs, command string }{
			"nftables": {"unshare nft", "unshare --net nft --check --file FILE"},
			"dnsmasq":  {"dnsmasq", "dnsmasq --test --conf-file=FILE"},
			"squid":    {"squid", "squid -k parse -f FILE"},
		} {
			t.Run(name+" "+format, func(t *testing.T) {
				need(t, strings.Fields(c.programs)...)
				text := exportSelection(t, format, s)
				for line := range strings.Lines(text) {
					if format == "dnsmasq" && len(line) > 1000 {
						t.Errorf("a line of %d bytes: %.60s", len(line), line)
					}
				}
				if format == "squid" {
					text = "acl localnet src all\nhttp_port 3128\n" + text + "http_access deny all\n"
				}
				file := filepath.Join(t.TempDir(), "rules")
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				args := strings.Fields(strings.Replace(c.command, "FILE", file, 1))
				out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
				if err != nil || bytes.Contains(out, []byte("is a subdomain of")) || bytes.Contains(out, []byte("unrecognized")) {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
	}
}

// need skips a test that lacks a program, or root where a namespace is made; in CI
// it fails.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		_, err := exec.LookPath(program)
		if err == nil && program == "unshare" && os.Getuid() != 0 {
			err = errors.New("a network namespace needs root")
		}
		if err != nil && os.Getenv("CI") != "" {
			t.Fatal(err)
		} else if err != nil {
			t.Skipf("%v (make deps installs programs)", err)
		}
	}
}

// A name has the ports of every row that covers it, since dnsmasq takes the line
// of the longest domain only.
func TestExportDnsmasqUnitesRows(t *testing.T) {
	s := Selection{Set: "devices", Rows: []Row{
		{Host: "*.a.example", Ports: []uint16{443}, Transports: []string{"tcp"}},
		{Host: "q.a.example", Ports: []uint16{443}, Transports: []string{"udp"}},
		{Host: "a.example", Ports: []uint16{80}, Transports: []string{"tcp"}},
		{Host: "no.example", Ports: []uint16{80}, Transports: []string{"tcp"}},
	}, Refused: []string{"*.no.a.example"}}
	s.Rows = append(s.Rows, Row{Host: "yes.no.a.example", Ports: []uint16{80}, Transports: []string{"tcp"}})
	var got []string
	for line := range strings.Lines(exportSelection(t, "dnsmasq", s)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			got = append(got, strings.NewReplacer("4#inet#filter#apple_devices_", "", "6#inet#filter#apple_devices_", "").Replace(line))
		}
	}
	want := []string{
		"nftset=/a.example/tcp_80_4,tcp_80_6,tcp_443_4,tcp_443_6",
		"nftset=/q.a.example/tcp_443_4,tcp_443_6,udp_443_4,udp_443_6",
		"nftset=/no.example/tcp_80_4,tcp_80_6",
		"nftset=/yes.no.a.example/tcp_80_4,tcp_80_6,tcp_443_4,tcp_443_6",
		"local=/*.no.a.example/",
		"server=/yes.no.a.example/#",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
