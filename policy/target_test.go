package policy

import (
	"net/netip"
	"strings"
	"testing"
)

const (
	label63 = "a23456789-123456789-123456789-123456789-123456789-123456789-123"
	badByte = "that no name may have"
)

// long is a name of n bytes in labels of at most 63.
func long(n int) string {
	s := strings.Repeat(label63+".", n/64+1)[:n]
	if s[n-1] == '.' {
		s = s[:n-1] + "x"
	}
	return s
}

var hostTests = []struct {
	name, in string
	want     string // host; empty: an error
	isAddr   bool
	err      string // a part of it
}{
	{name: "name", in: "www.example.com", want: "www.example.com"},
	{name: "single label", in: "intranet", want: "intranet"},
	{name: "upper case", in: "WWW.Example.COM", want: "www.example.com"},
	{name: "trailing dot", in: "example.com.", want: "example.com"},
	{name: "upper case and trailing dot", in: "EXAMPLE.COM.", want: "example.com"},
	{name: "underscore", in: "_dns.resolver.arpa", want: "_dns.resolver.arpa"},
	{name: "hyphens", in: "r1---sn-x.example", want: "r1---sn-x.example"},
	{name: "digits in labels", in: "1.2.3.example", want: "1.2.3.example"},
	{name: "digit first in the last label", in: "example.4com", want: "example.4com"},
	{name: "hexadecimal letters only", in: "dead.beef", want: "dead.beef"},
	{name: "punycode", in: "XN--BCHER-KVA.example", want: "xn--bcher-kva.example"},

	{name: "empty", in: "", err: "empty host"},
	{name: "a dot", in: ".", err: "empty host"},
	{name: "two dots", in: "..", err: "empty label"},
	{name: "two trailing dots", in: "example.com..", err: "empty label"},
	{name: "leading dot", in: ".example.com", err: "empty label"},
	{name: "empty label", in: "a..example.com", err: "empty label"},

	{name: "label of 63", in: label63 + ".example", want: label63 + ".example"},
	{name: "label of 64", in: label63 + "4.example", err: "label longer than 63"},
	{name: "name of 253", in: long(253), want: long(253)},
	{name: "name of 253 and a dot", in: long(253) + ".", want: long(253)},
	{name: "name of 254", in: long(254), err: "longer than 253"},
	{name: "name of 254 and a dot", in: long(254) + ".", err: "longer than 253"},
	{name: "endless", in: strings.Repeat("a.", 50_000), err: "longer than 253"},

	{name: "umlaut", in: "bücher.example", want: "xn--bcher-kva.example"},
	{name: "umlaut in upper case", in: "BÜCHER.Example", want: "xn--bcher-kva.example"},
	{name: "umlaut in two code points", in: "bu\u0308cher.example", want: "xn--bcher-kva.example"},
	{name: "umlaut and trailing dot", in: "bücher.example.", want: "xn--bcher-kva.example"},
	{name: "sharp s stays", in: "faß.example", want: "xn--fa-hia.example"},
	{name: "full-width letters", in: "ａｐｐｌｅ.com", want: "apple.com"},
	{name: "full-width dot", in: "apple．com", want: "apple.com"},
	{name: "ideographic dot", in: "apple。com", want: "apple.com"},
	{name: "half-width ideographic dot", in: "apple｡com", want: "apple.com"},
	{name: "trailing ideographic dot", in: "apple.com。", want: "apple.com"},
	{name: "two trailing dots, one ideographic", in: "apple.com。.", err: "empty label"},
	{name: "two trailing dots, the other ideographic", in: "apple.com.。", err: "empty label"},
	{name: "leading ideographic dot", in: "。apple.com", err: "empty label"},
	{name: "soft hyphen vanishes", in: "app\u00adle.com", want: "apple.com"},
	{name: "Cyrillic look-alike is another name", in: "аpple.com", want: "xn--pple-43d.com"},
	{name: "full-width digits are an address", in: "１２７.0.0.1", want: "127.0.0.1", isAddr: true},
	{name: "full-width slash", in: "apple.com／evil.example", err: "international name"},
	{name: "full-width at sign", in: "apple.com＠evil.example", err: "international name"},
	{name: "care of", in: "℀.example", err: "international name"},
	{name: "zero-width joiner", in: "ap\u200dple.com", err: "international name"},
	{name: "right-to-left override", in: "apple\u202emoc.example", err: "international name"},
	{name: "only a soft hyphen", in: "\u00ad", err: "empty host"},
	{name: "replacement character", in: "\ufffd.com", err: "international name"},
	{name: "invalid UTF-8", in: "apple\xff.com", err: "international name"},
	{name: "lone Latin-1 byte", in: "b\xfccher.example", err: "international name"},
	{name: "truncated UTF-8", in: "apple\xe3\x80", err: "international name"},
	{name: "label too long in ASCII form", in: strings.Repeat("ü", 63) + ".example", err: "label longer than 63"},
	{name: "quadratic in IDNA", in: strings.Repeat("üä", 20_000), err: "longer than 253"},

	{name: "NUL", in: "apple.com\x00.evil.example", err: `'\x00' ` + badByte},
	{name: "newline", in: "apple.com\n", err: `'\n' ` + badByte},
	{name: "CRLF", in: "apple.com\r\nX", err: `'\r' ` + badByte},
	{name: "tab", in: "apple\t.com", err: `'\t' ` + badByte},
	{name: "escape", in: "apple\x1b[31m.com", err: `'\x1b' ` + badByte},
	{name: "delete", in: "apple\x7f.com", err: `'\x7f' ` + badByte},
	{name: "leading space", in: " apple.com", err: `' ' ` + badByte},
	{name: "trailing space", in: "apple.com ", err: `' ' ` + badByte},
	{name: "percent", in: "%61pple.com", err: `'%' ` + badByte},
	{name: "userinfo", in: "user@apple.com", err: `'@' ` + badByte},
	{name: "path", in: "apple.com/x", err: `'/' ` + badByte},
	{name: "back slash", in: `apple.com\x`, err: `'\\' ` + badByte},
	{name: "query", in: "apple.com?x", err: `'?' ` + badByte},
	{name: "fragment", in: "apple.com#x", err: `'#' ` + badByte},
	{name: "asterisk", in: "*.apple.com", err: `'*' ` + badByte},
	{name: "quote", in: `apple".com`, err: `'"' ` + badByte},
	{name: "comma", in: "apple.com,evil.example", err: `',' ` + badByte},
	{name: "plus", in: "a+b.com", err: `'+' ` + badByte},
	{name: "closing bracket", in: "apple.com]", err: `']' ` + badByte},

	{name: "IPv4", in: "192.0.2.1", want: "192.0.2.1", isAddr: true},
	{name: "IPv4 and trailing dot", in: "192.0.2.1.", want: "192.0.2.1", isAddr: true},
	{name: "IPv4 and two dots", in: "192.0.2.1..", err: "empty label"},
	{name: "decimal", in: "2130706433", err: "looks like an address"},
	{name: "octal", in: "0177.0.0.1", err: "looks like an address"},
	{name: "octal last", in: "127.0.0.01", err: "looks like an address"},
	{name: "hexadecimal", in: "0x7f.0.0.1", err: "looks like an address"},
	{name: "hexadecimal whole", in: "0x7f000001", err: "looks like an address"},
	{name: "hexadecimal in upper case", in: "0X7F000001", err: "looks like an address"},
	{name: "hexadecimal last", in: "127.0.0.0x1", err: "looks like an address"},
	{name: "hexadecimal without digits", in: "127.0.0.0x", err: "looks like an address"},
	{name: "two parts", in: "127.1", err: "looks like an address"},
	{name: "three parts", in: "127.0.1", err: "looks like an address"},
	{name: "five parts", in: "127.0.0.1.1", err: "looks like an address"},
	{name: "part too large", in: "256.0.0.1", err: "looks like an address"},
	{name: "name that ends in a number", in: "example.1", err: "looks like an address"},
	{name: "zero", in: "0", err: "looks like an address"},

	{name: "IPv6", in: "2001:db8::1", want: "2001:db8::1", isAddr: true},
	{name: "IPv6 in brackets", in: "[2001:db8::1]", want: "2001:db8::1", isAddr: true},
	{name: "IPv6 long and in upper case", in: "[2001:0DB8:0:0:0:0:0:0001]", want: "2001:db8::1", isAddr: true},
	{name: "IPv6 with dots", in: "[64:ff9b::192.0.2.1]", want: "64:ff9b::c000:201", isAddr: true},
	{name: "IPv4-mapped", in: "[::ffff:127.0.0.1]", want: "127.0.0.1", isAddr: true},
	{name: "IPv4-mapped in hexadecimal", in: "[::FFFF:7f00:1]", want: "127.0.0.1", isAddr: true},
	{name: "IPv4-mapped without brackets", in: "::ffff:127.0.0.1", want: "127.0.0.1", isAddr: true},
	{name: "unspecified", in: "[::]", want: "::", isAddr: true},
	{name: "zone", in: "[fe80::1%eth0]", err: "brackets hold no IPv6"},
	{name: "zone without brackets", in: "fe80::1%eth0", err: "neither a name nor an address"},
	{name: "zone, escaped", in: "[fe80::1%25eth0]", err: "brackets hold no IPv6"},
	{name: "zone on a mapped address", in: "[::ffff:1.2.3.4%eth0]", err: "brackets hold no IPv6"},
	{name: "name in brackets", in: "[example.com]", err: "brackets hold no IPv6"},
	{name: "IPv4 in brackets", in: "[127.0.0.1]", err: "brackets hold no IPv6"},
	{name: "future address in brackets", in: "[v1.x]", err: "brackets hold no IPv6"},
	{name: "nothing in brackets", in: "[]", err: "brackets hold no IPv6"},
	{name: "brackets twice", in: "[[::1]]", err: "brackets hold no IPv6"},
	{name: "no closing bracket", in: "[::1", err: "missing ]"},
	{name: "dot behind brackets", in: "[::1].", err: "missing ]"},
	{name: "IPv6 and trailing dot", in: "::1.", err: "neither a name nor an address"},
	{name: "host and port", in: "example.com:80", err: "neither a name nor an address"},
}

func TestParseHost(t *testing.T) {
	for _, tt := range hostTests {
		t.Run(tt.name, func(t *testing.T) {
			host, addr, err := ParseHost(tt.in)
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || tt.err == "" {
					t.Fatalf("ParseHost(%.80q) = %q, %v; want an error with %q", tt.in, host, err, tt.err)
				}
				if host != "" || addr.IsValid() {
					t.Errorf("ParseHost(%.80q) returns %q, %v beside its error", tt.in, host, addr)
				}
				return
			}
			if err != nil || host != tt.want || addr.IsValid() != tt.isAddr {
				t.Fatalf("ParseHost(%.80q) = %q, %v, %v; want %q", tt.in, host, addr, err, tt.want)
			}
			if tt.isAddr && addr.String() != host {
				t.Errorf("ParseHost(%q): host %q is not the text of %v", tt.in, host, addr)
			}
			if again, addr2, err := ParseHost(host); again != host || addr2 != addr || err != nil {
				t.Errorf("ParseHost(%q) = %q, %v, %v: not left as it is", host, again, addr2, err)
			}
		})
	}
}

func TestParseTarget(t *testing.T) {
	tests := []struct {
		name, in string
		port     uint16 // default
		want     string // Target.String(); empty: an error
		err      string
	}{
		{name: "name and port", in: "example.com:443", want: "example.com:443"},
		{name: "normalised", in: "EXAMPLE.com.:443", want: "example.com:443"},
		{name: "IDNA", in: "bücher.example:443", want: "xn--bcher-kva.example:443"},
		{name: "default port", in: "example.com", port: 80, want: "example.com:80"},
		{name: "port beats default", in: "example.com:8080", port: 80, want: "example.com:8080"},
		{name: "empty port is the default's", in: "example.com:", port: 80, want: "example.com:80"},
		{name: "leading zeros", in: "example.com:00443", want: "example.com:443"},
		{name: "lowest port", in: "example.com:1", want: "example.com:1"},
		{name: "highest port", in: "example.com:65535", want: "example.com:65535"},
		{name: "IPv4", in: "192.0.2.1:443", want: "192.0.2.1:443"},
		{name: "IPv6", in: "[2001:DB8::1]:443", want: "[2001:db8::1]:443"},
		{name: "IPv6, default port", in: "[2001:db8::1]", port: 80, want: "[2001:db8::1]:80"},
		{name: "IPv6, empty port", in: "[2001:db8::1]:", port: 80, want: "[2001:db8::1]:80"},
		{name: "IPv4-mapped", in: "[::ffff:192.0.2.1]:443", want: "192.0.2.1:443"},

		{name: "empty", in: "", err: "missing port"},
		{name: "empty, default port", in: "", port: 80, err: "empty host"},
		{name: "no port", in: "example.com", err: "missing port"},
		{name: "empty port", in: "example.com:", err: "missing port"},
		{name: "IPv6 without port", in: "[2001:db8::1]", err: "missing port"},
		{name: "IPv6 with empty port", in: "[2001:db8::1]:", err: "missing port"},
		{name: "only a port", in: ":443", err: "empty host"},
		{name: "port 0", in: "example.com:0", err: "port is not a number"},
		{name: "port 0 does not mean the default", in: "example.com:0", port: 80, err: "port is not a number"},
		{name: "port 65536", in: "example.com:65536", err: "port is not a number"},
		{name: "port that wraps", in: "example.com:4294967739", err: "port is not a number"},
		{name: "port of six digits", in: "example.com:000443", err: "port is not a number"},
		{name: "negative port", in: "example.com:-443", err: "port is not a number"},
		{name: "signed port", in: "example.com:+443", err: "port is not a number"},
		{name: "hexadecimal port", in: "example.com:0x1b", err: "port is not a number"},
		{name: "port with a letter", in: "example.com:44e", err: "port is not a number"},
		{name: "service name", in: "example.com:https", err: "port is not a number"},
		{name: "space before the port", in: "example.com: 443", err: "port is not a number"},
		{name: "space behind the port", in: "example.com:443 ", err: "port is not a number"},
		{name: "CRLF behind the port", in: "example.com:443\r\n", err: "port is not a number"},
		{name: "full-width port", in: "example.com:４４３", err: "port is not a number"},
		{name: "path", in: "example.com:443/x", err: "port is not a number"},
		{name: "URL", in: "https://example.com", err: "port is not a number"},
		{name: "URL with port", in: "https://example.com:443", err: "more than one colon"},
		{name: "userinfo", in: "user@example.com:443", err: `'@' ` + badByte},
		{name: "userinfo with password", in: "user:pass@example.com:443", err: "more than one colon"},
		{name: "two ports", in: "example.com:443:80", err: "more than one colon"},
		{name: "IPv6 without brackets", in: "2001:db8::1:443", err: "more than one colon"},
		{name: "loopback without brackets", in: "::1:443", port: 80, err: "more than one colon"},
		{name: "IPv6 in brackets, then text", in: "[::1]443", err: "unexpected text after ]"},
		{name: "IPv6 in brackets, then a name", in: "[::1]example.com:443", err: "unexpected text after ]"},
		{name: "IPv6 in brackets, then a dot", in: "[::1].:443", err: "unexpected text after ]"},
		{name: "two ports behind brackets", in: "[::1]:443:80", err: "port is not a number"},
		{name: "no closing bracket", in: "[::1:443", err: "missing ]"},
		{name: "name in brackets", in: "[example.com]:443", err: "brackets hold no IPv6"},
		{name: "IPv4 in brackets", in: "[127.0.0.1]:443", err: "brackets hold no IPv6"},
		{name: "zone", in: "[fe80::1%25eth0]:443", err: "brackets hold no IPv6"},
		{name: "decimal address", in: "2130706433:443", err: "looks like an address"},
		{name: "asterisk", in: "*:443", err: `'*' ` + badByte},
		{name: "space", in: "example.com evil.example:443", err: `' ' ` + badByte},
		{name: "request smuggled into the host", in: "example.com HTTP/1.1\r\nX:443", err: `' ' ` + badByte},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseTarget(tt.in, tt.port)
			if tt.want == "" {
				if err == nil || tt.err == "" || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("ParseTarget(%q) = %v, %v; want an error with %q", tt.in, got, err, tt.err)
				}
				if got != (Target{}) {
					t.Errorf("ParseTarget(%q) returns %v beside its error", tt.in, got)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Fatalf("ParseTarget(%q) = %v, %v; want %s", tt.in, got, err, tt.want)
			}
		})
	}
}

// What means the same place is equal.
func TestParseTargetEqual(t *testing.T) {
	for _, same := range [][]string{
		{"www.apple.com:443", "WWW.APPLE.COM:443", "www.apple.com.:443", "www。apple。com:443", "ｗｗｗ.apple.com:0443"},
		{"17.253.144.10:80", "[::ffff:17.253.144.10]:80", "[::FFFF:11fd:900a]:80", "17.253.144.10.:80"},
		{"[2403:300::1]:5223", "[2403:0300:0:0:0:0:0:1]:5223", "[2403:300:0::0.0.0.1]:5223"},
	} {
		first, err := ParseTarget(same[0], 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range same[1:] {
			if got, err := ParseTarget(s, 0); got != first || err != nil {
				t.Errorf("ParseTarget(%q) = %+v, %v; want %+v", s, got, err, first)
			}
		}
	}
}

func TestParsePattern(t *testing.T) {
	tests := []struct{ in, want, err string }{
		{in: "example.com", want: "example.com"},
		{in: "EXAMPLE.com.", want: "example.com"},
		{in: "*.Example.com", want: "*.example.com"},
		{in: "*.bücher.example", want: "*.xn--bcher-kva.example"},
		{in: "*.com", want: "*.com"},
		{in: "192.0.2.1", want: "192.0.2.1"},
		{in: "[2001:DB8::1]", want: "2001:db8::1"},
		{in: "2001:DB8::1", want: "2001:db8::1"},
		{in: "192.0.2.0/24", want: "192.0.2.0/24"},
		{in: "0.0.0.0/0", want: "0.0.0.0/0"},
		{in: "2001:DB8:0::/32", want: "2001:db8::/32"},
		{in: "::ffff:10.0.0.0/104", want: "10.0.0.0/8"},

		{in: "", err: `"" is no host pattern: empty host (allowed: a name, *.name, an address or a CIDR block)`},
		{in: "*", err: `"*" is no host pattern: host has a byte '*' that no name may have (allowed: a name, *.name, an address or a CIDR block)`},
		{in: "*.", err: `"*." is no host pattern: empty host (allowed: a name, *.name, an address or a CIDR block)`},
		{in: "*.*.example", err: `"*.*.example" is no host pattern: host has a byte '*' that no name may have (allowed: a name, *.name, an address or a CIDR block)`},
		{in: "a*.example", err: `"a*.example" is no host pattern: host has a byte '*' that no name may have (allowed: a name, *.name, an address or a CIDR block)`},
		{in: ".example.com", err: `".example.com" is no host pattern: host has an empty label (allowed: a name, *.name, an address or a CIDR block)`},
		{in: "*.192.0.2.1", err: `"*.192.0.2.1" is no host pattern: an address takes no *. before it`},
		{in: "*.[::1]", err: `"*.[::1]" is no host pattern: an address takes no *. before it`},
		{in: "192.0.2.1/24", err: `"192.0.2.1/24" has bits set behind the prefix; did you mean 192.0.2.0/24?`},
		{in: "::ffff:10.1.0.0/104", err: `"::ffff:10.1.0.0/104" has bits set behind the prefix; did you mean 10.0.0.0/8?`},
		{in: "192.0.2.0/33", err: `"192.0.2.0/33" is no host pattern: host has a byte '/' that no name may have (allowed: a name, *.name, an address or a CIDR block)`},
		{in: "https://example.com", err: `"https://example.com" is no host pattern: host is neither a name nor an address (allowed: a name, *.name, an address or a CIDR block)`},
		{in: "example.com:443", err: `"example.com:443" is no host pattern: host is neither a name nor an address (allowed: a name, *.name, an address or a CIDR block)`},
		{in: "fe80::1%eth0", err: `"fe80::1%eth0" is no host pattern: host is neither a name nor an address (allowed: a name, *.name, an address or a CIDR block)`},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			got, err := ParsePattern(tt.in)
			if text := errText(err); got != tt.want || text != tt.err {
				t.Fatalf("ParsePattern(%q) = %q, %q\nwant %q, %q", tt.in, got, text, tt.want, tt.err)
			}
			if err != nil {
				return
			}
			if again, err := ParsePattern(got); again != got || err != nil {
				t.Errorf("ParsePattern(%q) = %q, %v: not left as it is", got, again, err)
			}
		})
	}
}

func TestParseNetworks(t *testing.T) {
	nets, err := ParseNetworks([]string{"loopback", "192.0.2.7", "::ffff:198.51.100.7", "2001:db8::/32", "::ffff:203.0.113.0/120", "fe80::/10"})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{
		"127.1.2.3": true, "::1": true, "::ffff:127.0.0.1": true,
		"192.0.2.7": true, "192.0.2.8": false,
		"198.51.100.7": true, "198.51.100.8": false,
		"2001:db8:ffff::1": true, "2001:db9::1": false,
		"203.0.113.255": true, "::ffff:203.0.113.1": true, "203.0.114.0": false,
		"fe80::1%eth0": true,
	} {
		if got := nets.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Contains(%s) = %v, want %v", addr, got, want)
		}
	}
	if nets.Contains(netip.Addr{}) {
		t.Error("the zero address is in a block")
	}
	if (Networks)(nil).Contains(netip.MustParseAddr("127.0.0.1")) {
		t.Error("no blocks contain an address")
	}

	_, err = ParseNetworks([]string{"10.0.0.0/8", "10.0.0.0/33", "privat", "10.1.0.0/8", "", "fe80::1%eth0"})
	want := `[1]: "10.0.0.0/33" is no address block (allowed: a CIDR block, an address, loopback, private)
[2]: "privat" is no address block (allowed: a CIDR block, an address, loopback, private)
[3]: "10.1.0.0/8" has bits set behind the prefix; did you mean 10.0.0.0/8?
[4]: "" is no address block (allowed: a CIDR block, an address, loopback, private)
[5]: "fe80::1%eth0" is no address block (allowed: a CIDR block, an address, loopback, private)`
	if got := errText(err); got != want {
		t.Errorf("ParseNetworks: %s\nwant %s", got, want)
	}
}

func TestParseTargetAllocatesNothing(t *testing.T) {
	for _, s := range []string{"gateway.icloud.com:443", "gateway.icloud.com.:443", "17.253.144.10:443"} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := ParseTarget(s, 0); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("ParseTarget(%q) allocates %v times", s, n)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, tt := range hostTests {
		if len(tt.in) < 1000 {
			f.Add(tt.in+":443", uint16(0))
			f.Add(tt.in, uint16(80))
		}
	}
	f.Fuzz(func(t *testing.T, s string, port uint16) {
		got, err := ParseTarget(s, port)
		if err != nil {
			if got != (Target{}) {
				t.Fatalf("ParseTarget(%q) returns %v beside its error", s, got)
			}
			if text := err.Error(); strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Fatalf("ParseTarget(%q): the error %q is not safe to show", s, text)
			}
			return
		}
		if got.Port == 0 || got.Host == "" {
			t.Fatalf("ParseTarget(%q) = %+v", s, got)
		}
		if again, err := ParseTarget(got.String(), 0); again != got || err != nil {
			t.Fatalf("ParseTarget(%q) = %+v; its text parses to %+v, %v", s, got, again, err)
		}
		if host, addr, err := ParseHost(got.Host); host != got.Host || addr != got.Addr || err != nil {
			t.Fatalf("ParseTarget(%q) = %+v; its host parses to %q, %v, %v", s, got, host, addr, err)
		}
		if got.Addr.IsValid() {
			if got.Addr.String() != got.Host || got.Addr.Is4In6() || got.Addr.Zone() != "" {
				t.Fatalf("ParseTarget(%q) = %+v", s, got)
			}
			return
		}
		if _, err := netip.ParseAddr(got.Host); err == nil {
			t.Fatalf("ParseTarget(%q): %q is an address, but counts as a name", s, got.Host)
		}
		if len(got.Host) > 253 || strings.HasSuffix(got.Host, ".") {
			t.Fatalf("ParseTarget(%q) = %+v", s, got)
		}
		for label := range strings.SplitSeq(got.Host, ".") {
			if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
				t.Fatalf("ParseTarget(%q): label %q", s, label)
			}
		}
	})
}

func BenchmarkParseTarget(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseTarget("gateway.icloud.com:443", 0); err != nil {
			b.Fatal(err)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
