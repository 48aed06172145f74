package hostclass

import (
	"net/netip"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	for host, want := range map[string]Class{
		"10.0.0.1": Private, "172.16.0.1": Private, "172.31.255.255": Private, "192.168.1.20": Private, "fd12::1": Private, "fc00::": Private,
		"169.254.1.1": LinkLocal, "fe80::1": LinkLocal, "fe80::1%eth0": LinkLocal, "febf::1": LinkLocal, "fec0::1": SiteLocal,
		"127.0.0.1": Loopback, "127.255.255.255": Loopback, "::1": Loopback, "100.64.0.1": CGNAT, "100.127.255.255": CGNAT,
		"::ffff:192.168.1.20": Private, "::ffff:127.0.0.1": Loopback,
		"localhost": Loopback, "a.b.localhost": Loopback, "local": DotLocal, "printer.local": DotLocal, "_ipp._tcp.local": DotLocal,
		"printer": PlainName, "notlocalhost": PlainName, "xlocal": PlainName,
		"www.example.org": "", "local.example.org": "", "localhost.example.org": "", "printer.xlocal": "", "a.notlocalhost": "",
		"8.8.8.8": "", "172.15.255.255": "", "172.32.0.0": "", "100.63.255.255": "", "100.128.0.0": "", "169.253.255.255": "",
		"192.169.0.0": "", "2001:4860::1": "", "192.0.2.1": "documentation", "224.0.0.1": "multicast", "ff02::fb": "multicast",
		"0.0.0.0": "unspecified", "fe00::1": Reserved, "4000::1": Reserved, "2001:db8::1": "documentation",
	} {
		addr, _ := netip.ParseAddr(host)
		if got := Of(host, addr); got != want {
			t.Errorf("Of(%s) = %q, want %q", host, got, want)
		}
		local := strings.Contains("loopback private link-local site-local carrier NAT plain name .local", string(want)) && want != ""
		if want.Local() != local {
			t.Errorf("Class(%q).Local() = %v", want, want.Local())
		}
	}
	if got := OfAddress(netip.Addr{}); got != "unspecified" {
		t.Errorf("OfAddress of no address = %q", got)
	}
}

func TestWord(t *testing.T) {
	for word, want := range map[string]struct{ in, out string }{
		"loopback": {"127.0.0.1 ::1", "10.0.0.1 fe80::1"},
		"Private":  {"10.0.0.1 172.16.0.1 192.168.0.1 169.254.0.1 fc00::1 fe80::1", "127.0.0.1 ::1 100.64.0.1 fec0::1 8.8.8.8"},
		"plain":    {"", "127.0.0.1 10.0.0.1"},
	} {
		set, ok := Word(word)
		if !ok {
			t.Fatalf("%q is unknown", word)
		}
		has := func(text string) bool {
			for _, p := range set.Networks {
				if p.Contains(netip.MustParseAddr(text)) {
					return true
				}
			}
			return false
		}
		for _, a := range strings.Fields(want.in) {
			if !has(a) {
				t.Errorf("%q leaves %s out", word, a)
			}
		}
		for _, a := range strings.Fields(want.out) {
			if has(a) {
				t.Errorf("%q includes %s", word, a)
			}
		}
		if set.Plain != (word == "plain") || (len(set.Domains) > 0) != (word == "loopback") {
			t.Errorf("%q means %+v", word, set)
		}
	}
	for _, text := range []string{"", "privat", "link-local", "corp", "private.example", " private"} {
		if _, ok := Word(text); ok {
			t.Errorf("%q is a word", text)
		}
	}
	for _, word := range Words {
		if _, ok := Word(word); !ok {
			t.Errorf("%q of Words is unknown", word)
		}
	}
}

// A block that another one precedes for all its addresses would never be found.
func TestBlocks(t *testing.T) {
	for _, b := range Blocks {
		if b.Prefix != b.Prefix.Masked() || OfAddress(b.Prefix.Addr()) == "" {
			t.Errorf("%s: %q", b.Prefix, b.Class)
		}
	}
}
