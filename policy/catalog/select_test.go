package catalog

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Which hosts and ports are in which set, where the PAC script names the proxy
// alone and where it falls back to DIRECT.
func TestSelect(t *testing.T) {
	all := append(append(slices.Clone(Embedded()), Wide()...), Extra("extra.example", nil), Extra("extra.example", []uint16{8443}))
	for _, tt := range []struct {
		row                           string // host, transport and port; 0 is any
		proxy, devices, fallback, mdm bool
		udp                           bool
	}{
		{row: "albert.apple.com tcp 443", proxy: true, devices: true, fallback: true, mdm: true},
		{row: "iprofiles.apple.com tcp 443", proxy: true, devices: true, fallback: true, mdm: true},
		{row: "mdmenrollment.apple.com tcp 443", proxy: true, devices: true, fallback: true, mdm: true},
		{row: "axm-servicediscovery.apple.com tcp 443", proxy: true, devices: true, fallback: true, mdm: true},
		{row: "vpp.itunes.apple.com tcp 443", proxy: true, devices: true, fallback: true, mdm: true},
		{row: "*.push.apple.com tcp 5223", proxy: true, devices: true, fallback: true, mdm: true},
		{row: "*.push.apple.com tcp 2197", proxy: true, devices: true, fallback: true, mdm: true},
		{row: "ocsp.apple.com tcp 80", proxy: true, devices: true, fallback: true, mdm: true},
		{row: "crl.entrust.net tcp 80", proxy: true, devices: true, fallback: true, mdm: true}, // retired
		{row: "upload.appleschoolcontent.com tcp 22", proxy: true, fallback: true, mdm: true},
		{row: "api-school.apple.com tcp 443", proxy: true, fallback: true, mdm: true},
		{row: "*.business.apple.com tcp 80", proxy: true, fallback: true, mdm: true},
		{row: "*.itunes.apple.com tcp 443", proxy: true, fallback: true, mdm: true},
		{row: "guzzoni.apple.com tcp 443", proxy: true, fallback: true},
		{row: "mask-h2.icloud.com tcp 443", proxy: true, fallback: true},
		{row: "mask.icloud.com udp 443", devices: true, fallback: true, udp: true},
		{row: "time.apple.com udp 123", devices: true, fallback: true, mdm: true, udp: true},
		{row: "apple-relay.apple.com tcp 443", proxy: true, fallback: true},
		{row: "apple-relay.apple.com udp 443", devices: true, fallback: true, udp: true},
		{row: "*.apple.com tcp 443", proxy: true, fallback: true},
		{row: "*.apple.com udp 443", devices: true, fallback: true, udp: true},
		{row: "17.0.0.0/8 tcp 5223", proxy: true, fallback: true},
		{row: "17.0.0.0/8 udp 123", devices: true, fallback: true, udp: true},
		{row: "17.0.0.0/8 tcp 22"},
		{row: "17.0.0.0/8 udp 5223"},
		{row: "*.apple.com tcp 0"},
		{row: "apple.com tcp 443", proxy: true, fallback: true},
		{row: "icloud.com tcp 443", proxy: true, fallback: true},
		{row: "icloud.com udp 443"}, // *.icloud.com has none
		{row: "*.apple tcp 443", proxy: true, fallback: true},
		{row: "*.apple tcp 80"},
		{row: "extra.example tcp 0", proxy: true, fallback: true},
		{row: "extra.example tcp 8443", proxy: true, fallback: true},
		{row: "time.apple.com tcp 123"},
	} {
		for _, c := range []struct {
			set    string
			direct bool
			want   bool
		}{{"proxy", false, tt.proxy}, {"devices", false, tt.devices}, {"devices", true, tt.fallback}, {"servers", true, tt.mdm}, {"udp", true, tt.udp}} {
			rows, err := Select(all, c.set, func(string, uint16) bool { return c.direct })
			if err != nil {
				t.Fatal(err)
			}
			w := strings.Fields(tt.row)
			var f flow
			f.transport = w[1]
			fmt.Sscan(w[2], &f.port)
			if got := slices.ContainsFunc(rows, func(r Row) bool { return r.Host == w[0] && r.has(f) }); got != c.want {
				t.Errorf("%s in %s (direct: %t): %t, want %t", tt.row, c.set, c.direct, got, c.want)
			}
		}
	}
}

// A port that the script sends direct does not take another of its row along.
func TestSelectByPort(t *testing.T) {
	rows, err := Select([]Row{{Host: "a.example", Ports: []uint16{443, 80}, Transports: []string{"tcp"}, Service: "siri"}}, "devices",
		func(host string, port uint16) bool { return host == "a.example" && port == 80 })
	if err != nil || len(rows) != 1 || !slices.Equal(rows[0].Ports, []uint16{80}) {
		t.Errorf("%v, %v", rows, err)
	}
}

// docs/ports.md has the table of uses.
func TestPortsPageAgrees(t *testing.T) {
	page, err := os.ReadFile("../../docs/ports.md")
	if err != nil {
		t.Fatal(err)
	}
	yes := map[bool]string{true: "yes", false: "no"}
	rows := regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (yes|no) \\| (yes|no) \\|").FindAllStringSubmatch(string(page), -1)
	if len(rows) != len(uses) {
		t.Errorf("%d services in docs/ports.md, want %d", len(rows), len(uses))
	}
	for _, row := range rows {
		if use, ok := uses[row[1]]; !ok || yes[use.enrolment] != row[2] || yes[use.server] != row[3] {
			t.Errorf("docs/ports.md: %s is %s, %s, but %+v (%t)", row[1], row[2], row[3], use, ok)
		}
	}
}

// Sets have known services only.
func TestSelectServices(t *testing.T) {
	for id := range uses {
		if !IsService(id) {
			t.Errorf("%q is unknown", id)
		}
	}
	if _, err := Select(nil, "printers", nil); err == nil || err.Error() != `"printers" is unknown (allowed: proxy, devices, servers, udp)` {
		t.Error(err)
	}
}
