package egress

import (
	"errors"
	"net/netip"
	"testing"

	"espalier/policy"
)

// guardTests are the addresses that the guard knows, by what they are; empty
// means that clients may reach it.
var guardTests = []struct{ addr, class string }{
	// Public.
	{"1.0.0.0", ""}, {"8.8.8.8", ""}, {"17.253.144.10", ""}, {"223.255.255.255", ""},
	{"2001:4860:4860::8888", ""}, {"2403:300::1", ""}, {"2620:149::1", ""}, {"2a01:b740::1", ""}, {"2000::1", ""}, {"3ffe:ffff::1", ""},

	// Each block of IPv4, its first and last address, and its neighbours.
	{"0.0.0.0", "unspecified"}, {"0.255.255.255", "unspecified"},
	{"9.255.255.255", ""}, {"10.0.0.0", "private"}, {"10.255.255.255", "private"}, {"11.0.0.0", ""},
	{"100.63.255.255", ""}, {"100.64.0.0", "carrier NAT"}, {"100.127.255.255", "carrier NAT"}, {"100.128.0.0", ""},
	{"126.255.255.255", ""}, {"127.0.0.0", "loopback"}, {"127.0.0.1", "loopback"}, {"127.255.255.255", "loopback"}, {"128.0.0.0", ""},
	{"169.253.255.255", ""}, {"169.254.0.0", "link-local"}, {"169.254.255.255", "link-local"}, {"169.255.0.0", ""},
	{"172.15.255.255", ""}, {"172.16.0.0", "private"}, {"172.31.255.255", "private"}, {"172.32.0.0", ""},
	{"191.255.255.255", ""}, {"192.0.0.0", "protocol assignment"}, {"192.0.0.255", "protocol assignment"}, {"192.0.1.0", ""},
	{"192.0.1.255", ""}, {"192.0.2.0", "documentation"}, {"192.0.2.255", "documentation"}, {"192.0.3.0", ""},
	{"192.88.98.255", ""}, {"192.88.99.0", "6to4 relay"}, {"192.88.99.255", "6to4 relay"}, {"192.88.100.0", ""},
	{"192.167.255.255", ""}, {"192.168.0.0", "private"}, {"192.168.255.255", "private"}, {"192.169.0.0", ""},
	{"198.17.255.255", ""}, {"198.18.0.0", "benchmarking"}, {"198.19.255.255", "benchmarking"}, {"198.20.0.0", ""},
	{"198.51.99.255", ""}, {"198.51.100.0", "documentation"}, {"198.51.100.255", "documentation"}, {"198.51.101.0", ""},
	{"203.0.112.255", ""}, {"203.0.113.0", "documentation"}, {"203.0.113.255", "documentation"}, {"203.0.114.0", ""},
	{"224.0.0.0", "multicast"}, {"239.255.255.255", "multicast"},
	{"240.0.0.0", "reserved"}, {"255.255.255.254", "reserved"}, {"255.255.255.255", "broadcast"},

	// Metadata services.
	{"169.254.169.254", "cloud metadata"}, {"169.254.170.2", "cloud metadata"}, {"169.254.170.23", "cloud metadata"},
	{"100.100.100.200", "cloud metadata"}, {"168.63.129.16", "cloud metadata"}, {"168.63.129.17", ""},
	{"fd00:ec2::254", "cloud metadata"}, {"fd00:ec2::23", "cloud metadata"}, {"fd20:ce::254", "cloud metadata"}, {"fd00:ec2::253", "private"},

	// Each block of IPv6.
	{"::", "unspecified"}, {"::1", "loopback"}, {"::2", "IPv4-compatible"},
	{"::127.0.0.1", "IPv4-compatible"}, {"::8.8.8.8", "IPv4-compatible"}, {"::1:0:0", "reserved"},
	{"64:ff9a::1", "reserved"}, {"64:ff9b:0:1::", "reserved"}, {"64:ff9b:1::1", "local NAT64"}, {"64:ff9b:1:ffff::8.8.8.8", "local NAT64"}, {"64:ff9b:2::1", "reserved"},
	{"100::1", "discard"}, {"100:0:0:1::1", "reserved"}, {"1fff::1", "reserved"},
	{"2001:2::1", "benchmarking"}, {"2001:1::1", "protocol assignment"}, {"2001:10::1", "protocol assignment"}, {"2001:20::1", "protocol assignment"},
	{"2001:1ff:ffff::1", "protocol assignment"}, {"2001:200::1", ""},
	{"2001:db7::1", ""}, {"2001:db8::1", "documentation"}, {"2001:db8:ffff::1", "documentation"}, {"2001:db9::1", ""},
	{"3fff::1", "documentation"}, {"3fff:fff::1", "documentation"}, {"3fff:1000::1", ""},
	{"4000::1", "reserved"}, {"5f00::1", "segment routing"}, {"5f01::1", "reserved"}, {"fbff::1", "reserved"},
	{"fc00::1", "private"}, {"fdff:ffff::1", "private"}, {"fe00::1", "reserved"},
	{"fe80::1", "link-local"}, {"febf::1", "link-local"}, {"fec0::1", "site-local"}, {"feff::1", "site-local"},
	{"ff00::1", "multicast"}, {"ff02::1", "multicast"}, {"ff0e::1", "multicast"}, {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"},
	{"fe80::1%eth0", "link-local"}, {"2403:300::1%eth0", ""}, {"::1%lo", "loopback"},

	// What IPv6 addresses embed.
	{"::ffff:8.8.8.8", ""}, {"::ffff:127.0.0.1", "loopback"}, {"::ffff:10.0.0.1", "private"}, {"::ffff:169.254.169.254", "cloud metadata"}, {"::ffff:0.0.0.0", "unspecified"},
	{"::ffff:0:8.8.8.8", "IPv4-translated"}, {"::ffff:0:127.0.0.1", "IPv4-translated"},
	{"64:ff9b::8.8.8.8", ""}, {"64:ff9b::127.0.0.1", "loopback, embedded 127.0.0.1"}, {"64:ff9b::192.168.1.1", "private, embedded 192.168.1.1"},
	{"64:ff9b::169.254.169.254", "cloud metadata, embedded 169.254.169.254"}, {"64:ff9b::", "unspecified, embedded 0.0.0.0"},
	{"2002:808:808::1", ""}, {"2002:7f00:1::1", "loopback, embedded 127.0.0.1"}, {"2002:a00:1:8:0:808:808:808", "private, embedded 10.0.0.1"}, {"2002:a9fe:a9fe::", "cloud metadata, embedded 169.254.169.254"},
	// Teredo: the server, then the client with its bits inverted.
	{"2001:0:808:808:0:0:f7f7:f7f7", ""},
	{"2001:0:808:808:0:0:80ff:fffe", "loopback, embedded 127.0.0.1"},
	{"2001:0:808:808:0:0:5601:5601", "cloud metadata, embedded 169.254.169.254"},
	{"2001:0:808:808:0:0:7f00:1", ""}, // 128.255.255.254, though its bits look like loopback
	{"2001:0:7f00:1:0:0:f7f7:f7f7", "loopback, embedded 127.0.0.1"},
	{"2001:0:a00:1:0:0:80ff:fffe", "private, embedded 10.0.0.1"},
	// ISATAP, with the universal bit clear and set, below any prefix.
	{"2403:300::5efe:8.8.8.8", ""}, {"2403:300::5efe:127.0.0.1", "loopback, embedded 127.0.0.1"}, {"2403:300::200:5efe:10.0.0.1", "private, embedded 10.0.0.1"},
	{"2403:300::100:5efe:10.0.0.1", ""}, {"2403:300::5eff:10.0.0.1", ""},
	{"fe80::5efe:8.8.8.8", "link-local"}, {"2002:808:808::5efe:127.0.0.1", "loopback, embedded 127.0.0.1"},
}

func TestGuard(t *testing.T) {
	for _, tt := range guardTests {
		if got := forbidden(t, guard{}.check(netip.MustParseAddr(tt.addr))); got != tt.class {
			t.Errorf("%s: %q, want %q", tt.addr, got, tt.class)
		}
	}
	if got := forbidden(t, guard{}.check(netip.Addr{})); got != "unspecified" {
		t.Errorf("the zero address: %q", got)
	}
}

// forbidden is the class of a *ForbiddenError, "" for nil.
func forbidden(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	f := (*ForbiddenError)(nil)
	if !errors.As(err, &f) {
		t.Fatalf("%T: %v", err, err)
	}
	return f.Class
}

func TestGuardAllow(t *testing.T) {
	const ok = ""
	tests := []struct {
		name  string
		allow []string
		want  map[string]string
	}{
		{"a block", []string{"10.1.0.0/16"}, map[string]string{
			"10.1.2.3": ok, "::ffff:10.1.2.3": ok, "10.2.0.1": "private", "127.0.0.1": "loopback",
			"64:ff9b::10.1.2.3": ok, "64:ff9b::10.2.0.1": "private, embedded 10.2.0.1",
			"2002:a01:203::1": ok, "2001:0:808:808:0:0:f5fe:fdfc": ok, // ^10.1.2.3
			"2001:0:a01:203:0:0:f5fe:fdfc": ok, "2001:0:a02:1:0:0:f5fe:fdfc": "private, embedded 10.2.0.1",
			"2403:300::5efe:10.1.2.3": ok, "::10.1.2.3": "IPv4-compatible",
		}},
		{"an address", []string{"192.168.1.1"}, map[string]string{"192.168.1.1": ok, "192.168.1.2": "private"}},
		{"an address, mapped", []string{"::ffff:192.168.1.1"}, map[string]string{"192.168.1.1": ok, "192.168.1.2": "private"}},
		{"IPv6", []string{"fd12::/16", "fe80::/10"}, map[string]string{"fd12::1": ok, "fd13::1": "private", "fe80::1%eth0": ok}},
		{"local NAT64", []string{"64:ff9b:1::/48"}, map[string]string{"64:ff9b:1::1": ok}},
		{"loopback", []string{"loopback"}, map[string]string{"127.9.9.9": ok, "::1": ok, "10.0.0.1": "private"}},
		{"a metadata service by a block", []string{"169.254.0.0/16", "100.64.0.0/10", "fd00::/8"}, map[string]string{
			"169.254.1.1": ok, "169.254.169.254": "cloud metadata", "100.64.0.1": ok, "100.100.100.200": "cloud metadata",
			"fd00:ec2::1": ok, "fd00:ec2::254": "cloud metadata",
		}},
		{"a metadata service by everything", []string{"0.0.0.0/0", "::/0"}, map[string]string{
			"127.0.0.1": ok, "::1": ok, "169.254.169.254": "cloud metadata", "168.63.129.16": "cloud metadata",
			"::ffff:169.254.169.254": "cloud metadata", "64:ff9b::169.254.169.254": "cloud metadata, embedded 169.254.169.254",
			"2002:a9fe:a9fe::1": "cloud metadata, embedded 169.254.169.254",
		}},
		{"a metadata service by the word private", []string{"private"}, map[string]string{"10.0.0.1": ok, "169.254.169.254": "cloud metadata", "fd00:ec2::254": "cloud metadata"}},
		{"a metadata service by its address", []string{"169.254.169.254", "fd00:ec2::254/128"}, map[string]string{
			"169.254.169.254": ok, "64:ff9b::169.254.169.254": ok, "fd00:ec2::254": ok, "169.254.170.2": "cloud metadata", "169.254.1.1": "link-local",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			allow, err := policy.ParseNetworks(tt.allow)
			if err != nil {
				t.Fatal(err)
			}
			for addr, want := range tt.want {
				if got := forbidden(t, guard{allow: allow}.check(netip.MustParseAddr(addr))); got != want {
					t.Errorf("%s: %q, want %q", addr, got, want)
				}
			}
		})
	}
}

// The examples of RFC 6052, section 2.4, and prefixes where there is nothing else.
func TestGuardNAT64(t *testing.T) {
	const ok = ""
	tests := []struct {
		name     string
		prefixes []string
		want     map[string]string
	}{
		{"of each length", []string{"2001:db8::/32", "2001:db9:100::/40", "2001:dba:122::/48", "2001:dbb:122:300::/56", "2001:dbc:122:344::/64", "2001:dbd:122:344::/96"}, map[string]string{
			"2001:db8:c000:221::": "documentation, embedded 192.0.2.33", "2001:db9:1c0:2:21::": "documentation, embedded 192.0.2.33",
			"2001:dba:122:c000:2:2100::": "documentation, embedded 192.0.2.33", "2001:dbb:122:3c0:0:221::": "documentation, embedded 192.0.2.33",
			"2001:dbc:122:344:c0:2:2100::": "documentation, embedded 192.0.2.33", "2001:dbd:122:344::192.0.2.33": "documentation, embedded 192.0.2.33",
			"2001:db8:808:808::": ok, "2001:db9:108:808:8::": ok, "2001:dba:122:808:8:800::": ok, "2001:dbb:122:308:8:808::": ok,
			"2001:dbc:122:344:8:808:800:0": ok, "2001:dbd:122:344::8.8.8.8": ok,
		}},
		{"for local use", []string{"64:ff9b:1:ffff::/96"}, map[string]string{
			"64:ff9b:1:ffff::8.8.8.8": ok, "64:ff9b:1:ffff::127.0.0.1": "loopback, embedded 127.0.0.1",
			"64:ff9b:1::8.8.8.8": "local NAT64", "64:ff9b::10.0.0.1": "private, embedded 10.0.0.1",
		}},
		{"in a private network", []string{"fd64::/96"}, map[string]string{
			"fd64::8.8.8.8": ok, "fd64::10.0.0.1": "private, embedded 10.0.0.1", "fd64:0:0:1::8.8.8.8": "private",
			"fd64::169.254.169.254": "cloud metadata, embedded 169.254.169.254",
		}},
		{"one within another", []string{"2403:300::/32", "2403:300:0:1::/96"}, map[string]string{"2403:300:0:1::10.0.0.1": "private, embedded 10.0.0.1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := dialer(t, Config{NAT64: tt.prefixes})
			for addr, want := range tt.want {
				if got := forbidden(t, d.guard.check(netip.MustParseAddr(addr))); got != want {
					t.Errorf("%s: %q, want %q", addr, got, want)
				}
			}
		})
	}
}

func TestForbiddenErrorText(t *testing.T) {
	for _, tt := range []struct {
		err  ForbiddenError
		want string
	}{
		{ForbiddenError{netip.MustParseAddr("127.0.0.1"), "loopback"}, "127.0.0.1 is no public address (loopback), and egress.allow does not name it"},
		{ForbiddenError{netip.MustParseAddr("10.0.0.1"), classSelf}, "10.0.0.1 is the proxy's own address"},
		{ForbiddenError{Class: classSelf}, "the name is the proxy's own"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

// Whatever form an IPv4 address is dressed in, the guard treats it as the
// address itself.
func FuzzGuardEmbedded(f *testing.F) {
	f.Add(uint8(127), uint8(0), uint8(0), uint8(1))
	f.Add(uint8(169), uint8(254), uint8(169), uint8(254))
	f.Add(uint8(8), uint8(8), uint8(8), uint8(8))
	f.Fuzz(func(t *testing.T, a, b, c, d uint8) {
		plain := netip.AddrFrom4([4]byte{a, b, c, d})
		refused := guard{}.check(plain) != nil
		for name, bytes := range map[string][16]byte{
			"mapped": {10: 0xff, 11: 0xff, 12: a, 13: b, 14: c, 15: d},
			"NAT64":  {0: 0, 1: 0x64, 2: 0xff, 3: 0x9b, 12: a, 13: b, 14: c, 15: d},
			"6to4":   {0: 0x20, 1: 0x02, 2: a, 3: b, 4: c, 5: d, 15: 1},
			"Teredo": {0: 0x20, 1: 0x01, 4: 8, 5: 8, 6: 8, 7: 8, 12: ^a, 13: ^b, 14: ^c, 15: ^d},
			"ISATAP": {0: 0x24, 1: 0x03, 2: 0x03, 8: 0, 10: 0x5e, 11: 0xfe, 12: a, 13: b, 14: c, 15: d},
		} {
			addr := netip.AddrFrom16(bytes)
			if got := (guard{}).check(addr) != nil; got != refused {
				t.Errorf("%s: refused %v, as %s (%s) %v", plain, refused, name, addr, got)
			}
		}
	})
}
