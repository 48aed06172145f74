package catalog

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/publicsuffix"
)

func TestEmbeddedHasTheArticle(t *testing.T) {
	var article, added []Row
	for _, r := range Embedded() {
		if r.Source == "article 2023-07" {
			if len(added) > 0 {
				t.Errorf("%s: a row of the article behind what was added", r.Host)
			}
			article = append(article, r)
		} else {
			added = append(added, r)
		}
	}
	hosts, yes, seeAPNs := map[string]bool{}, 0, 0
	for _, r := range article {
		hosts[r.Host] = true
		switch r.Proxy {
		case ProxyYes:
			yes++
		case ProxySeeAPNs:
			seeAPNs++
		}
		// What a later list shows of UDP is the one cell in doubt.
		if doubt := slices.Equal(r.Unknown, []string{"transports"}) && r.Host == "*.icloud-content.com"; r.Since != "" || r.Unknown != nil && !doubt {
			t.Errorf("%s: since %q, unknown %q: the article shows every cell and no date", r.Host, r.Since, r.Unknown)
		}
	}
	if len(article) != 127 || len(hosts) != 115 || yes != 40 || seeAPNs != 1 {
		t.Errorf("%d rows, %d hosts, %d marked, %d see-apns; want 127, 115, 40, 1", len(article), len(hosts), yes, seeAPNs)
	}
	if len(added) != 28 {
		t.Errorf("%d rows added since, want 28", len(added))
	}
	for _, r := range added {
		if r.Since == "" {
			t.Errorf("%s: no date", r.Host)
		}
	}
}

// The catalogue has the cells of the newest copy of the article that shows them.
func TestEmbeddedIsTheNewest(t *testing.T) {
	data, err := os.ReadFile("testdata/editions/2026-07.tsv")
	if err != nil {
		t.Fatal(err)
	}
	vision := 0
	for _, r := range Embedded() {
		if slices.Contains(r.Systems, "visionos") {
			vision++
		}
	}
	if vision != 26 {
		t.Errorf("visionOS in %d rows, want 26", vision)
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if f[1] == "host" {
			continue
		}
		r := find(t, Embedded(), f[1], f[6])
		listed[r.Host+" "+r.Service] = true
		got := []string{join(r.Ports, ","), join(r.Transports, ","), join(r.Systems, ","), string(r.Proxy)}
		for i, want := range f[2:6] {
			if a, b := strings.Split(got[i], ","), strings.Split(want, ","); !slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))) {
				t.Errorf("%s (%s): %s, want %s", r.Host, r.Service, got[i], want)
			}
		}
	}
	for _, r := range Embedded() {
		if listed[r.Host+" "+r.Service] == (r.Until != "") {
			t.Errorf("%s (%s): until %q, listed %t", r.Host, r.Service, r.Until, !listed[r.Host+" "+r.Service])
		}
	}
}

func TestEmbeddedRows(t *testing.T) {
	used := map[string]bool{}
	for _, r := range Embedded() {
		used[r.Service] = true
		if r.Purpose == "" {
			t.Errorf("%s (%s): no purpose", r.Host, r.Section)
		}
		if r.Until != "" && r.Note == "" {
			t.Errorf("%s: retired without a note that says why", r.Host)
		}
		if sec, ok := lookupSection(r.Section); !ok || sec.serviceOf(r.Host) != r.Service {
			t.Errorf("%s: section %q gives service %q, the row has %q", r.Host, r.Section, sec.serviceOf(r.Host), r.Service)
		}
	}
	for _, s := range Services {
		if !used[s.ID] && s.ID != AppleOther && s.ID != Other {
			t.Errorf("no row counts for %s", s.ID)
		}
	}
}

// Each domain of the catalogue is either Apple's, and its apex in Wide, or known
// to be another's: a new row decides which.
func TestAppleDomains(t *testing.T) {
	// By the public suffix list, where edgesuite.net and fastly-edge.com are suffixes.
	others := []string{"cloudflare.com", "digicert.cn", "digicert.com", "com.edgesuite.net", "entrust.net", "apple-relay.fastly-edge.com", "vertexsmb.com"}
	seen := map[string]bool{}
	for _, r := range Embedded() {
		name := strings.TrimPrefix(r.Host, "*.")
		if strings.HasSuffix(name, ".apple") {
			continue
		}
		domain, err := publicsuffix.EffectiveTLDPlusOne(name)
		if err != nil {
			t.Fatal(err)
		}
		seen[domain] = true
		if slices.Contains(appleDomains, domain) == slices.Contains(others, domain) {
			t.Errorf("%s: whose domain is %s?", r.Host, domain)
		}
	}
	for _, domain := range appleDomains {
		if !seen[domain] {
			t.Errorf("%s: no row shows that it is Apple's", domain)
		}
	}
}

// find returns the only row of host that counts for service.
func find(t *testing.T, rows []Row, host, service string) Row {
	t.Helper()
	var found []Row
	for _, r := range rows {
		if r.Host == host && r.Service == service {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d rows of %s for %s, want 1", len(found), host, service)
	}
	return found[0]
}

func TestEmbeddedCases(t *testing.T) {
	for _, tt := range []struct {
		name, host, service, want string
	}{
		{"push", "*.push.apple.com", Push,
			"[443 80 5223 2197] [tcp] [ios ipados tvos macos visionos] see-apns until= unknown=[] Device management"},
		{"SSH is tcp 22, no systems", "upload.appleschoolcontent.com", "business-school",
			"[22] [tcp] [] yes until= unknown=[] Apple Business Manager and Apple School Manager"},
		{"a table without a title of its own", "ws-ee-maidsvc.icloud.com", "business-school",
			"[443 80] [tcp] [ios ipados macos visionos] unmarked until= unknown=[] Apple Business Manager and Apple School Manager"},
		{"UDP only", "mask.icloud.com", "icloud",
			"[443] [udp] [ios ipados macos] unmarked until= unknown=[] iCloud"},
		{"ports in the article's order", "certs.apple.com", "certificates",
			"[80 443] [tcp] [ios ipados tvos macos visionos] unmarked until= unknown=[] Certificate validation"},
		{"renamed", "appleid.apple.com", "apple-account",
			"[443] [tcp] [ios ipados tvos macos] yes until=2024-09 unknown=[] Apple ID"},
		{"the new name", "account.apple.com", "apple-account",
			"[443] [tcp] [ios ipados tvos macos] yes until= unknown=[systems] Apple Account"},
		{"removed", "ns.itunes.apple.com", "software-update",
			"[443] [tcp] [ios ipados watchos] yes until=2025-04 unknown=[] Software updates"},
		{"added, cells not seen", "cp4.cloudflare.com", "siri",
			"[443] [tcp udp] [] unmarked until= unknown=[systems proxy] Apple Intelligence, Siri and Search"},
		{"added, cell seen and blank", "api-school.apple.com", "business-school",
			"[443] [tcp] [] unmarked until= unknown=[] Apple Business Manager and Apple School Manager"},
		{"port assumed", "*.apple-dns.net", "icloud",
			"[443] [tcp] [] unmarked until= unknown=[ports transports systems proxy] iCloud"},
		{"unconfirmed change, marked as such", "*.icloud-content.com", "icloud",
			"[443] [tcp udp] [ios ipados tvos macos] unmarked until= unknown=[transports] iCloud"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := find(t, Embedded(), tt.host, tt.service)
			got := fmt.Sprintf("%v %v %v %s until=%s unknown=%v %s", r.Ports, r.Transports, r.Systems, r.Proxy, r.Until, r.Unknown, r.Section)
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// full is the embedded catalogue with what apple.wide and apple.extra add.
func full() *Set {
	rows := slices.Clone(Embedded())
	rows = append(rows, Wide()...)
	rows = append(rows, Extra("updates.example.com", nil), Extra("*.example.net", []uint16{8443}))
	return Compile(rows)
}

func TestMatch(t *testing.T) {
	narrow, wide := Compile(Embedded()), full()
	for _, tt := range []struct {
		name    string
		set     *Set
		host    string // or an address
		port    uint16
		pattern string // of the row; empty: no match
		service string
		marked  bool
	}{
		{"a name", narrow, "albert.apple.com", 443, "albert.apple.com", "device-setup", true},
		{"another port", narrow, "albert.apple.com", 80, "", Other, false},
		{"below a wildcard", narrow, "courier.push.apple.com", 5223, "*.push.apple.com", Push, true},
		{"deep below a wildcard", narrow, "1.courier.push.apple.com", 2197, "*.push.apple.com", Push, true},
		{"*.x is not x", narrow, "push.apple.com", 443, "", Other, false},
		{"*.x is not notx", narrow, "notpush.apple.com", 443, "", Other, false},
		{"the most specific pattern first", narrow, "mask-api.icloud.com", 443, "mask-api.icloud.com", "icloud", true},
		{"the name before the wildcard", narrow, "setup.icloud.com", 443, "setup.icloud.com", "device-management", false},
		{"the longer wildcard first", narrow, "x.gc.apple.com", 443, "*.gc.apple.com", "icloud", false},
		{"the first of the article among equals", narrow, "humb.apple.com", 443, "humb.apple.com", "device-setup", true},
		{"an earlier row without the port", narrow, "gs.apple.com", 80, "gs.apple.com", "software-update", true},
		{"the first section of a wildcard", narrow, "buy.itunes.apple.com", 443, "*.itunes.apple.com", "business-school", true},
		{"marked by another row of the name", narrow, "gdmf.apple.com", 443, "gdmf.apple.com", "device-management", true},
		{"marked by a less specific row", narrow, "play.itunes.apple.com", 443, "play.itunes.apple.com", "classroom", true},
		{"not marked on a port that the marked row has not", narrow, "s.mzstatic.com", 443, "s.mzstatic.com", "classroom", false},
		{"UDP only", narrow, "time.apple.com", 123, "time.apple.com", "device-setup", false},
		{"SFTP", narrow, "upload.appleschoolcontent.com", 22, "upload.appleschoolcontent.com", "business-school", true},
		{"retired rows match", narrow, "crl.entrust.net", 80, "crl.entrust.net", "certificates", false},
		{"the domain .apple", narrow, "token.safebrowsing.apple", 443, "token.safebrowsing.apple", "additional-content", false},

		{"look-alike: Apple's name in front", narrow, "albert.apple.com.evil.example", 443, "", Other, false},
		{"look-alike: a longer label", wide, "notapple.com", 443, "", Other, false},
		{"look-alike: a wildcard's name in front", wide, "push.apple.com.example", 443, "", Other, false},
		{"a single label", wide, "com", 443, "", Other, false},
		{"nothing", wide, "", 443, "", Other, false},

		{"wide: any name below apple.com", wide, "nothing-known.apple.com", 8080, "*.apple.com", AppleOther, false},
		{"wide: apple.com itself", wide, "apple.com", 443, "apple.com", AppleOther, false},
		{"wide: icloud.com itself", wide, "icloud.com", 443, "icloud.com", AppleOther, false},
		{"wide: a row of an apex on its port", wide, "itunes.com", 80, "itunes.com", "carrier", false},
		{"wide: the apex on another port", wide, "itunes.com", 443, "itunes.com", AppleOther, false},
		{"wide: below .apple", wide, "proxy.safebrowsing.apple", 443, "*.apple", AppleOther, false},
		{"wide: two labels below .apple", wide, "tether.edge.apple", 443, "*.apple", AppleOther, false},
		{"wide: a row below .apple", wide, "token.safebrowsing.apple", 443, "token.safebrowsing.apple", "additional-content", false},
		{"wide: apple, a plain name", wide, "apple", 443, "", Other, false},
		{"wide: look-alike of .apple", wide, "proxy.notapple", 443, "", Other, false},
		{"wide: look-alike of .apple in front", wide, "safebrowsing.apple.example", 443, "", Other, false},
		{"wide: look-alike of an apex", wide, "noticloud.com", 443, "", Other, false},
		{"wide: the apex of another company", wide, "digicert.com", 443, "", Other, false},
		{"narrow: no apexes", narrow, "icloud.com", 443, "", Other, false},
		{"wide: a row of the article comes first", wide, "albert.apple.com", 443, "albert.apple.com", "device-setup", true},
		{"wide: a known name on another port", wide, "albert.apple.com", 8443, "*.apple.com", AppleOther, false},
		{"wide: an address", wide, "17.253.144.10", 443, "17.0.0.0/8", AppleOther, false},
		{"wide: an IPv6 address", wide, "2620:149:a44::1", 5223, "2620:149::/32", AppleOther, false},
		{"wide: the /48", wide, "2620:0:1b00::1", 443, "2620:0:1b00::/48", AppleOther, false},
		{"wide: beside the /48", wide, "2620:0:1b01::1", 443, "", Other, false},
		{"wide: another network", wide, "18.0.0.1", 443, "", Other, false},
		{"narrow: no addresses", narrow, "17.253.144.10", 443, "", Other, false},

		{"extra: any port", wide, "updates.example.com", 1, "updates.example.com", AppleOther, false},
		{"extra: a wildcard's port", wide, "a.example.net", 8443, "*.example.net", AppleOther, false},
		{"extra: another port", wide, "a.example.net", 443, "", Other, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr, _ := netip.ParseAddr(tt.host)
			m := tt.set.Match(tt.host, addr, tt.port)
			pattern := ""
			if m.OK() {
				pattern = m.Row.Host
			}
			if pattern != tt.pattern || m.Service() != tt.service || m.Marked != tt.marked {
				t.Errorf("got %q, %s, marked %t; want %q, %s, %t", pattern, m.Service(), m.Marked, tt.pattern, tt.service, tt.marked)
			}
		})
	}
}

func TestMatchTiesInTheOrderOfRows(t *testing.T) {
	row := func(host, service string) Row {
		return Row{Host: host, Ports: []uint16{443}, Service: service, Proxy: ProxyUnmarked}
	}
	s := Compile([]Row{
		row("17.0.0.0/8", "icloud"), row("17.1.0.0/16", "siri"), row("17.1.2.3", "beta"),
		row("17.1.0.0/16", "dns"), row("*.a.example", "carrier"), row("*.example", "push"), row("*.a.example", "diagnostics"),
	})
	for host, want := range map[string]string{
		"17.1.2.3":    "beta siri dns icloud",
		"17.1.2.4":    "siri dns icloud",
		"b.a.example": "carrier diagnostics push",
		"a.example":   "push",
	} {
		addr, _ := netip.ParseAddr(host)
		var got []string
		for _, r := range s.All(host, addr, 443) {
			got = append(got, r.Service)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %v, want %s", host, got, want)
		}
	}
}

// Every row is found by its own host and port, unless an equally specific
// earlier row covers them, and then it is among All.
func TestEveryRowIsFound(t *testing.T) {
	s := Compile(Embedded())
	for i := range s.Rows() {
		r := &s.Rows()[i]
		host := strings.Replace(r.Host, "*", "a.b", 1)
		for _, port := range r.Ports {
			all := s.All(host, netip.Addr{}, port)
			if !slices.Contains(all, r) {
				t.Errorf("%s:%d does not find its row (%s)", host, port, r.Section)
			}
			if m := s.Match(host, netip.Addr{}, port); m.Row != all[0] || m.Row.Host != r.Host {
				t.Errorf("%s:%d finds %s first", host, port, m.Row.Host)
			}
			if s.Match("x"+strings.TrimPrefix(r.Host, "*."), netip.Addr{}, port).Row == r {
				t.Errorf("x%s is taken for %[1]s", r.Host)
			}
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	s := full()
	for _, q := range queries {
		if n := testing.AllocsPerRun(100, func() { s.Match(q.host, q.addr, q.port) }); n != 0 {
			t.Errorf("%s: %v allocations", q.name, n)
		}
	}
}

var queries = []struct {
	name, host string
	addr       netip.Addr
	port       uint16
}{
	{"exact", "albert.apple.com", netip.Addr{}, 443},
	{"wildcard deep", "a.b.c.d.e.push.apple.com", netip.Addr{}, 5223},
	{"miss", "www.a.long.name.that.is.not.example.org", netip.Addr{}, 443},
	{"address", "17.253.144.10", netip.MustParseAddr("17.253.144.10"), 443},
}

func BenchmarkMatch(b *testing.B) {
	s := full()
	for _, q := range queries {
		b.Run(q.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Match(q.host, q.addr, q.port)
			}
		})
	}
}
