// Package hostclass says what kind of address or name a host is: public, or one that
// a network, a link or a machine has to itself. The PAC script, the address guard,
// the words in lists of networks, and explain all use this one table.
package hostclass

import (
	"net/netip"
	"strings"
)

// A Class is a kind of host. The empty Class is a public host.
type Class string

// The classes that are local: a device reaches such a host itself, and a proxy
// reaches another host by the same address or name, or none.
const (
	Loopback  Class = "loopback"
	Private   Class = "private" // RFC 1918, and ULA (RFC 4193)
	LinkLocal Class = "link-local"
	SiteLocal Class = "site-local"  // RFC 3879
	CGNAT     Class = "carrier NAT" // RFC 6598
	PlainName Class = "plain name"  // no dot: found by search domain, LLMNR or NetBIOS
	DotLocal  Class = ".local"      // multicast DNS, RFC 6762
)

// Reserved is an address outside the IPv6 space that IANA assigns from.
const Reserved Class = "reserved"

// Local reports whether hosts of the class are reached without the proxy.
func (c Class) Local() bool {
	switch c {
	case Loopback, Private, LinkLocal, SiteLocal, CGNAT, PlainName, DotLocal:
		return true
	}
	return false
}

// A Block is an address block and its class.
type Block struct {
	Prefix netip.Prefix
	Class  Class
}

// Blocks are the blocks that are not public, from IANA's special-purpose address
// registries (RFC 6890 and its updates). The first that contains an address
// gives its class. The slice must not be modified.
var Blocks = []Block{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), Private},
	{netip.MustParsePrefix("100.64.0.0/10"), CGNAT},
	{netip.MustParsePrefix("127.0.0.0/8"), Loopback},
	{netip.MustParsePrefix("169.254.0.0/16"), LinkLocal},
	{netip.MustParsePrefix("172.16.0.0/12"), Private},
	{netip.MustParsePrefix("192.0.0.0/24"), "protocol assignment"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), Private},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	{netip.MustParsePrefix("240.0.0.0/4"), Reserved},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), Loopback},
	{netip.MustParsePrefix("::/96"), "IPv4-compatible"},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), "IPv4-translated"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64"}, // RFC 8215: the operator decides what it embeds
	{netip.MustParsePrefix("100::/64"), "discard"},
	{netip.MustParsePrefix("2001:2::/48"), "benchmarking"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("2001::/23"), "protocol assignment"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing"},
	{netip.MustParsePrefix("fc00::/7"), Private},
	{netip.MustParsePrefix("fe80::/10"), LinkLocal},
	{netip.MustParsePrefix("fec0::/10"), SiteLocal},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// Domains are the domains whose names are local, the domains themselves included.
// The slice must not be modified.
var Domains = []Domain{
	{"localhost", Loopback}, // RFC 6761, 6.3
	{"local", DotLocal},
}

// A Domain is a domain and the class of its names.
type Domain struct {
	Name  string
	Class Class
}

var globalUnicast = netip.MustParsePrefix("2000::/3")

// OfAddress returns the class of an address. An IPv4-mapped address counts as the
// address that it embeds; a zone does not matter. The zero Addr is "unspecified".
func OfAddress(addr netip.Addr) Class {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return "unspecified"
	}
	for _, b := range Blocks {
		if b.Prefix.Contains(addr) {
			return b.Class
		}
	}
	// IANA has assigned nothing else so far.
	if addr.Is6() && !globalUnicast.Contains(addr) {
		return Reserved
	}
	return ""
}

// OfName returns the class of a normalised name (lower case, no trailing dot).
func OfName(name string) Class {
	for _, d := range Domains {
		if name == d.Name || strings.HasSuffix(name, d.Name) && name[len(name)-len(d.Name)-1] == '.' {
			return d.Class
		}
	}
	if !strings.Contains(name, ".") {
		return PlainName
	}
	return ""
}

// IsLocalhost reports whether a normalised name means the machine that looks it
// up: localhost, and the names below it.
func IsLocalhost(name string) bool { return OfName(name) == Loopback }

// Of returns the class of a host: of addr if it is valid, of name otherwise.
func Of(name string, addr netip.Addr) Class {
	if addr.IsValid() {
		return OfAddress(addr)
	}
	return OfName(name)
}

// Words are the words that lists in the configuration take in place of address
// blocks and names.
var Words = []string{"loopback", "private", "plain"}

// A Set is what a word means.
type Set struct {
	Networks []netip.Prefix
	Domains  []string // these domains, and the names below
	Plain    bool     // names without a dot
}

// Word returns what one of Words means, in any case; ok is false for every other
// text.
// "private" includes link-local addresses, and leaves carrier NAT out: in
// proxy.clients it must not admit the customers of a carrier.
func Word(word string) (set Set, ok bool) {
	var has func(Class) bool
	switch strings.ToLower(word) {
	case "loopback":
		has = func(c Class) bool { return c == Loopback }
	case "private":
		has = func(c Class) bool { return c == Private || c == LinkLocal }
	case "plain":
		has = func(c Class) bool { return c == PlainName }
	default:
		return Set{}, false
	}
	for _, b := range Blocks {
		if has(b.Class) {
			set.Networks = append(set.Networks, b.Prefix)
		}
	}
	for _, d := range Domains {
		if has(d.Class) {
			set.Domains = append(set.Domains, d.Name)
		}
	}
	set.Plain = has(PlainName)
	return set, true
}
