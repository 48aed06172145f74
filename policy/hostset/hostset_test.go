package hostset

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	utf "golang.org/x/text/encoding/unicode"

	"espalier/policy"
)

func mustParse(t testing.TB, text string) (*Set, Report) {
	t.Helper()
	s, report, err := Parse(strings.NewReader(text), "")
	if err != nil {
		t.Fatal(err)
	}
	return s, report
}

// What each kind of line matches.
func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		name, list string
		in, out    []string // hosts in the set, "host=entry" where that differs
	}{
		{"nothing", "", nil, []string{"x.example", "example", ""}},
		{"plain name: itself and below", "x.example\n",
			[]string{"x.example", "a.x.example=x.example", "a.b.x.example=x.example"}, []string{"example", "ax.example", "x.example.org", "y.example"}},
		{"wildcards are read as the name and below", "*.x.example\n.y.example\n*.zip\n",
			[]string{"x.example", "a.x.example=x.example", "y.example", "a.y.example=y.example", "zip", "a.zip=zip"}, []string{"example"}},
		{"hosts file: exactly the names", "0.0.0.0 x.example Y.example\n127.0.0.1\tz.example # why\n:: v6.example\nfe80::1%lo0 zone.example\n",
			[]string{"x.example", "y.example", "z.example", "v6.example", "zone.example"}, []string{"a.x.example", "example", "0.0.0.0", "why"}},
		{"hosts file: the machine's own names", "127.0.0.1 localhost localhost.localdomain\n::1 ip6-localhost ip6-loopback\n255.255.255.255 broadcasthost\n0.0.0.0 0.0.0.0\n127.0.0.1 x.example\n",
			[]string{"x.example"}, []string{"localhost", "a.localhost", "ip6-loopback", "broadcasthost", "0.0.0.0"}},
		{"hosts file: a single label", "0.0.0.0 tracker\n", []string{"tracker"}, []string{"a.tracker"}},
		{"addresses", "192.0.2.1\n2001:DB8::0:1\n||192.0.2.2^\n0.0.0.0 192.0.2.3\n::ffff:192.0.2.4\n",
			[]string{"192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3", "192.0.2.4"}, []string{"2.1", "192.0.2.5"}},
		{"ad blocker: the name and below", "[Adblock Plus 2.0]\n! comment\n||x.example^\n||y.example^|\n",
			[]string{"x.example", "a.x.example=x.example", "y.example"}, []string{"example", "ax.example"}},
		{"exceptions win", "||x.example^\n@@||ok.x.example^\ny.example\n0.0.0.0 a.z.example\n@@||z.example^\n@@||y.example^|\n",
			[]string{"x.example", "a.x.example=x.example"}, []string{"ok.x.example", "a.ok.x.example", "y.example", "a.z.example"}},
		{"exceptions above win too", "@@||x.example^\n||a.x.example^\n", nil, []string{"a.x.example", "x.example"}},
		{"important rules win over exceptions", "||x.example^$important\n@@||a.x.example^\n||b.a.x.example^\n",
			[]string{"x.example", "a.x.example=x.example", "b.a.x.example=x.example"}, nil},
		{"important exceptions win over all", "||x.example^$important\n@@||a.x.example^$important\n", []string{"x.example"}, []string{"a.x.example", "b.a.x.example"}},
		{"options that block the host", "||a.example^$all\n||b.example^$doc\n||c.example^$document,important\n||d.example^$\n",
			[]string{"a.example", "b.example", "c.example", "d.example"}, nil},
		{"the longest entry is named", "example.org\na.example.org\n", []string{"b.a.example.org=a.example.org", "c.example.org=example.org"}, nil},
		{"twice, in several ways", "0.0.0.0 x.example\nx.example\nX.EXAMPLE.\n", []string{"x.example", "a.x.example=x.example"}, nil},
		{"names are normalised", "BÜCHER.example\n0.0.0.0 Straße.example\nx.example.\n||ДОМ.example^\n",
			[]string{"xn--bcher-kva.example", "a.xn--bcher-kva.example=xn--bcher-kva.example", "xn--strae-oqa.example", "x.example", "xn--d1aqf.example"}, nil},
		{"byte order mark, CRLF, blanks, no end of line", "\uFEFFx.example\r\n\r\n  y.example \t\r\nz.example", []string{"x.example", "y.example", "z.example"}, nil},
		{"comments", "# a.example\n#b.example\n## c.example\n!d.example\nx.example # e.example\ny.example#f.example\n0.0.0.0 z.example #g.example ## h.example\n",
			[]string{"x.example", "y.example", "z.example"}, []string{"a.example", "b.example", "c.example", "d.example", "e.example", "f.example", "g.example", "h.example"}},
		{"hosts file with 0", "0 x.example y.example\n", []string{"x.example", "y.example"}, []string{"a.x.example", "0"}},
		{"address blocks", "192.0.2.0/24\n198.51.100.7/25 ; SBL1\n2001:db8::/32 # why\n; comment\n203.0.113.1/32\n",
			[]string{"192.0.2.1=192.0.2.0/24", "198.51.100.127=198.51.100.0/25", "2001:db8::a=2001:db8::/32", "203.0.113.1=203.0.113.1/32"},
			[]string{"192.0.3.1", "198.51.100.128", "2001:db9::1", "203.0.113.2", "2.0.example"}},
		{"address blocks by netmask", "192.0.2.0/255.255.255.0\n198.51.100.9/255.255.255.255\n",
			[]string{"192.0.2.9=192.0.2.0/24", "198.51.100.9=198.51.100.9/32"}, []string{"192.0.3.1", "198.51.100.8"}},
		{"names beside address blocks", "192.0.2.0/24\nx.example\n192.0.2.9\n", []string{"x.example", "192.0.2.9", "192.0.2.8=192.0.2.0/24"}, []string{"example"}},
		{"dnsmasq", "# comment\naddress=/x.example/0.0.0.0\naddress=/y.example/#\naddress=/z.example/\naddress=/a.example/b.example/::\nserver=/s.example/\nlocal=/l.example/\naddress=/c.example/127.0.0.1 # why\naddress=/*.w.example/0.0.0.0\n",
			[]string{"x.example", "a.x.example=x.example", "y.example", "z.example", "a.example", "b.example", "s.example", "l.example", "c.example", "a.w.example=w.example"}, []string{"example", "why"}},
		{"dnsmasq: names with a dot before them", "address=/.x.example/0.0.0.0\nlocal=/.y.example/\n", []string{"x.example", "a.x.example=x.example", "y.example"}, []string{"example"}},
		{"dnsmasq excepts what the usual server answers", "local=/x.example/\nserver=/ok.x.example/#\n", []string{"x.example"}, []string{"ok.x.example", "a.ok.x.example"}},
		{"unbound", "server:\n  local-zone: \"x.example.\" always_nxdomain\nlocal-zone: y.example refuse # why\nlocal-zone: 'z.example' static\nlocal-data: \"d.example A 0.0.0.0\"\nlocal-data: \"e.example. 3600 IN AAAA ::\"\n",
			[]string{"x.example", "a.x.example=x.example", "y.example", "z.example", "d.example", "e.example"}, []string{"a.d.example", "why"}},
		{"unbound: redirected to nowhere", "local-zone: \"x.example\" redirect\nlocal-data: \"x.example A 0.0.0.0\"\nlocal-zone: \"y.example\" redirect\nlocal-zone: \"z.example\" redirect\n",
			[]string{"x.example", "a.x.example=x.example", "y.example", "z.example", "a.z.example=z.example"}, nil},
		{"unbound: transparent zones are excepted", "local-zone: \"x.example\" static\nlocal-zone: \"ok.x.example\" transparent\n", []string{"x.example"}, []string{"ok.x.example"}},
		{"RPZ", "$TTL 300\n@ SOA localhost. root.localhost. 1 43200 3600 86400 300\n  NS localhost.\n; comment\nx.example CNAME .\n*.x.example CNAME .\ny.example 300 IN CNAME *.\n*.z.example CNAME . ; why\nd.example CNAME rpz-drop.\na.example A 0.0.0.0\nb.example IN AAAA ::\n",
			[]string{"x.example", "a.x.example=x.example", "y.example", "a.z.example=z.example", "d.example", "a.example", "b.example"}, []string{"a.y.example", "z.example", "localhost", "a.a.example"}},
		{"RPZ with an origin", "$ORIGIN rpz.school.example.\n@ IN SOA ns.school.example. root.school.example. (\n  2026010101 ; serial\n  3600 600 86400 300 )\n@ IN NS ns.school.example.\nx.example CNAME .\ny.example.rpz.school.example. CNAME .\n",
			[]string{"x.example", "y.example"}, []string{"rpz.school.example", "x.example.rpz.school.example", "ns.school.example"}},
		{"RPZ with names like triggers", "rpz-news.example CNAME .\n*.rpz-ip-news.example CNAME .\nx.rpz-a.example CNAME .\n",
			[]string{"rpz-news.example", "a.rpz-ip-news.example=rpz-ip-news.example", "x.rpz-a.example"}, []string{"rpz-ip-news.example"}},
		{"RPZ passes through", "*.x.example CNAME .\nok.x.example CNAME rpz-passthru.\nold.x.example CNAME old.x.example.\n",
			[]string{"a.x.example=x.example", "a.ok.x.example=x.example"}, []string{"ok.x.example", "old.x.example", "x.example"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, report := mustParse(t, tt.list)
			if report.Bad+report.Skipped > 0 {
				t.Errorf("report %+v", report)
			}
			for _, host := range tt.in {
				host, want, ok := strings.Cut(host, "=")
				if !ok {
					want = host
				}
				if entry, ok := s.Match(host); !ok || entry != want {
					t.Errorf("%s: %q, %v", host, entry, ok)
				}
			}
			for _, host := range tt.out {
				if entry, ok := s.Match(host); ok || entry != "" {
					t.Errorf("%s: %q, %v", host, entry, ok)
				}
			}
		})
	}
}

func TestNilSet(t *testing.T) {
	var s *Set
	if entry, ok := s.Match("x.example"); ok || entry != "" || s.Len() != 0 {
		t.Errorf("%q, %v, %d entries", entry, ok, s.Len())
	}
}

// Lines that are no hosts: counted, and never in the way of the others.
func TestReport(t *testing.T) {
	long := strings.Repeat("a", maxLine)
	for _, tt := range []struct {
		name, list           string
		lines, skipped, size int
		bad                  []string
	}{
		{name: "comments and blanks", list: "\n\n# a\n! b\n[header]\n  \n", lines: 3},
		{name: "rules about parts of pages", list: "##.ad\nx.example##.ad\nx.example,y.example#@#.ad\nx.example#?#div:has(a)\nx.example#$#body { a: b }\nx.example#%#code()\n#@#.ad\nx.example##+js(a, b)\n", lines: 8, skipped: 8},
		{name: "paths and patterns", list: "/ads/*\n||x.example/ad.js\n||x.example^*/ad\n||*.x.example^\n||ads.\n||x.example\n|https://x.example/\n@@/ok.js\n&ad=\n-banner-\n_ads_\n.ads.\nhttps://x.example/?a\nx.example:8080\nhttp://x.example/#a\n/a b/\nx.*\n||ads.^\n", lines: 18, skipped: 18},
		{name: "options that limit a rule", list: "||x.example^$third-party\n||x.example^$script,domain=y.example\n||x.example^$important,image\n@@||x.example^$document\n@@||x.example^$generichide\n||x.example^$badfilter\n", lines: 6, skipped: 6},
		{name: "dnsmasq for other answers", list: "address=/x.example/192.0.2.1\nserver=/x.example/192.0.2.1\naddress=/#/0.0.0.0\nserver=192.0.2.1\n", lines: 4, skipped: 4},
		{name: "unbound for other answers", list: "local-zone: \"www.google.com\" redirect\nlocal-data: \"www.google.com CNAME forcesafesearch.google.com\"\nlocal-data: \"x.example A 192.0.2.1\"\nlocal-data-ptr: \"192.0.2.1 x.example\"\nlocal-zone: \"x.example\" nodefault\n", lines: 5, skipped: 4},
		{name: "RPZ for other answers", list: "www.google.com CNAME forcesafesearch.google.com.\n32.1.2.0.192.rpz-ip CNAME .\nns.x.example.rpz-nsdname CNAME .\nx.example TXT text\ny.example A 192.0.2.1\nz.example CNAME rpz-tcp-only.\n", lines: 6, skipped: 6},
		{name: "invalid netmasks", list: "192.0.2.0/255.0.255.0\n192.0.2.0/0.0.0.255\n2001:db8::/255.0.0.0\n192.0.2.0/255.255\n", lines: 4, bad: []string{
			`1: "192.0.2.0/255.0.255.0": invalid netmask "255.0.255.0"`,
			`2: "192.0.2.0/0.0.0.255": invalid netmask "0.0.0.255"`,
			`3: "2001:db8::/255.0.0.0": invalid netmask "255.0.0.0"`,
			`4: "192.0.2.0/255.255": invalid prefix length "255.255"`,
		}},
		{name: "nonsense", list: "x.example\nhello\nhello world\na..b.example\n0.0.0.0 ok.example b$d\n||a b^\n127.1\n\xff\xfe.example\n<b>\n256.1.1.1 x.example\n10.0.0.0/80\n", lines: 11, size: 2, bad: []string{
			`2: "hello": is one word, no domain`,
			`3: "hello world": has several words, and the first is no address`,
			`4: "a..b.example": host has an empty label`,
			`5: "0.0.0.0 ok.example b$d": host has a byte '$' that no name may have`,
			`6: "||a b^": host has a byte ' ' that no name may have`,
			`7: "127.1": host looks like an address but is none`,
			`8: "??.example": host is not a valid international name`,
			`9: "<b>": host has a byte '<' that no name may have`,
			`10: "256.1.1.1 x.example": has several words, and the first is no address`,
			`11: "10.0.0.0/80": invalid prefix length "80"`,
		}},
		{name: "control characters are not shown", list: "\x1b[31m\u202e.example\n", lines: 1, bad: []string{`1: "?[31m?.example": host is not a valid international name`}},
		{name: "long lines", list: "x.example\n" + long + "\ny.example\n0.0.0.0 " + long + long + long + "\nz.example\n" + long + ".example", lines: 6, size: 3, bad: []string{
			`2: "` + long[:keptText] + `…": is longer than 64 KiB`,
			`4: "0.0.0.0 ` + long[:keptText-8] + `…": is longer than 64 KiB`,
			`6: "` + long[:keptText] + `…": is longer than 64 KiB`,
		}},
		{name: "a line that just fits", list: strings.Repeat(" ", maxLine-11) + "x.example\n\n", lines: 1, size: 1},
		{name: "exceptions are entries", list: "||x.example^\n@@||a.x.example^\nx.example\n", lines: 3, size: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, report := mustParse(t, tt.list)
			if report.Lines != tt.lines || report.Skipped != tt.skipped || report.Bad != len(tt.bad) || s.Len() != tt.size {
				t.Errorf("%d entries, %+v", s.Len(), report)
			}
			var got []string
			for _, b := range report.First {
				got = append(got, b.String())
			}
			if !slices.Equal(got, tt.bad) {
				t.Errorf("bad lines\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.bad, "\n"))
			}
		})
	}
	_, report := mustParse(t, strings.Repeat("hello\n", 1000))
	if report.Bad != 1000 || len(report.First) != keptBad {
		t.Errorf("%d bad lines, %d kept", report.Bad, len(report.First))
	}
}

func packed(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGzip(t *testing.T) {
	one := packed(t, "\uFEFFx.example\n")
	s, _, err := Parse(bytes.NewReader(slices.Concat(one, packed(t, "y.example\n"))), "")
	if err != nil || s.Len() != 2 {
		t.Errorf("%d entries, %v", s.Len(), err)
	}
	for name, text := range map[string][]byte{
		"cut": one[:len(one)-4], "head only": one[:5], "bad sum": slices.Concat(one[:len(one)-8], make([]byte, 8)),
		"something behind": slices.Concat(one, []byte("x.example\n")),
	} {
		if s, _, err := Parse(bytes.NewReader(text), ""); err == nil || s != nil {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
}

func TestWebPage(t *testing.T) {
	for _, text := range []string{"<!DOCTYPE html>\n<html>", "\n\n  <HTML>", "\uFEFF<?xml version='1.0'?>", string(packed(t, "<html><body>Sign in</body></html>"))} {
		if s, _, err := Parse(strings.NewReader(text), ""); !errors.Is(err, ErrHTML) || s != nil {
			t.Errorf("%q: %v, %v", text, s, err)
		}
	}
}

// endless repeats a text.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.text[e.at]
		e.at = (e.at + 1) % len(e.text)
	}
	return len(p), nil
}

// Nothing that does not end, or that unpacks to too much, is read for ever.
func TestBounds(t *testing.T) {
	const maxBytes, maxEntries = 1 << 20, 10_000
	zeros := packed(t, strings.Repeat("\n", maxBytes+1))
	for _, tt := range []struct {
		name string
		in   io.Reader
		want string
	}{
		{"endless comments", &endless{text: "# nothing\n"}, "is larger than 1 MiB"},
		{"endless line", &endless{text: "x"}, "is larger than 1 MiB"},
		{"endless empty lines", &endless{text: "\n"}, "is larger than 1 MiB"},
		{"bomb", bytes.NewReader(zeros), "is larger than 1 MiB"},
		{"gzip that holds nothing, for ever", &endless{text: string(packed(t, ""))}, "is larger than 1 MiB"},
		{"endless entries", &endless{text: "x.example\n"}, "has more than 10000 entries"},
		{"endless entries in bad lines", &endless{text: "0.0.0.0 a b c d e f g h b$d\n"}, "has more than 10000 entries"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if s, _, err := parse(tt.in, "", maxBytes, maxEntries); err == nil || err.Error() != tt.want || s != nil {
				t.Errorf("%v, %v", s, err)
			}
		})
	}
	if s, _, err := parse(strings.NewReader(strings.Repeat("x.example\n", maxEntries)), "", maxBytes, maxEntries); err != nil || s.Len() != 1 {
		t.Errorf("just as many: %v", err)
	}
	full := strings.Repeat("x", 15) + "\n"
	if _, _, err := parse(strings.NewReader(strings.Repeat(full, maxBytes/len(full))), "", maxBytes, maxEntries); err != nil {
		t.Errorf("just as large: %v", err)
	}
	want := errors.New("the disk is broken")
	if s, _, err := Parse(io.MultiReader(strings.NewReader("x.example\n"), failing{want}), ""); !errors.Is(err, want) || s != nil {
		t.Errorf("a read that fails: %v, %v", s, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// FuzzParse: whatever a list holds, every line is counted, and what is matched is
// matched by an entry that is the host or stands above it.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"x.example\n", "0.0.0.0 x.example y.example # c\r\n", "||x.example^$important\n@@||a.x.example^\n", "\uFEFFbücher.example",
		"x.example##.ad\n/path\n||x^$script", "address=/x.example/a/0.0.0.0\nlocal=//\nserver=/x/#", "192.0.2.0/24\n::ffff:1.2.3.4/100\n0 a",
		"server:\nlocal-zone: \"x\" redirect\nlocal-data: \"x A 0\"\nlocal-zone: a\nlocal-data: \"\"", "$ORIGIN x.\n@ SOA a b (\n1 )\n*.a CNAME .\n CNAME *.\na.rpz-ip A ::\nA A A",
		"\xff\xfex\x00.\x00e\x00\n\x00", "<html>", "*.x.example\n.y.example\n192.0.2.1\n2001:db8::1", string(packed(f, "x.example\n")),
	} {
		f.Add([]byte(seed), "a.x.example")
	}
	f.Fuzz(func(t *testing.T, list []byte, host string) {
		s, report, err := Parse(bytes.NewReader(list), "")
		if (s == nil) != (err != nil) {
			t.Fatalf("%v, %v", s, err)
		}
		if report.Bad+report.Skipped > report.Lines || len(report.First) != min(report.Bad, keptBad) || s.Len() < 0 {
			t.Fatalf("%+v", report)
		}
		for _, b := range report.First {
			if b.Line < 1 || b.Line > bytes.Count(list, []byte("\n"))+1 && !bytes.HasPrefix(list, []byte("\x1f\x8b")) || b.Why == "" {
				t.Fatalf("%+v", b)
			}
		}
		name, _, err := policy.ParseHost(host)
		if err != nil {
			return
		}
		entry, ok := s.Match(name)
		if block, err := netip.ParsePrefix(entry); err == nil && block.Contains(netip.MustParseAddr(name)) {
			return
		}
		if ok != (entry != "") || ok && entry != name && !strings.HasSuffix(name, "."+entry) {
			t.Fatalf("%s: %q, %v", name, entry, ok)
		}
		if ok {
			if again, _, err := policy.ParseHost(entry); err != nil || again != entry {
				t.Fatalf("the entry %q is not normal: %v", entry, err)
			}
		}
	})
}

// Editors of Windows write UTF-16.
func TestUTF16(t *testing.T) {
	const text = "# Ünsinn\r\nx.example\r\nbücher.example\r\n"
	for name, order := range map[string]utf.Endianness{"little endian": utf.LittleEndian, "big endian": utf.BigEndian} {
		t.Run(name, func(t *testing.T) {
			b, err := utf.UTF16(order, utf.UseBOM).NewEncoder().String(text)
			if err != nil {
				t.Fatal(err)
			}
			s, report := mustParse(t, b)
			for _, host := range []string{"x.example", "xn--bcher-kva.example"} {
				if _, ok := s.Match(host); !ok || report.Bad > 0 {
					t.Errorf("%s: %v, %+v", host, ok, report)
				}
			}
		})
	}
}
