package egress

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"espalier/policy"
)

// A ForbiddenError says that a destination's address may not be reached.
type ForbiddenError struct {
	Addr  netip.Addr
	Class string // what the address is: "loopback", "private", …
}

func (e *ForbiddenError) Error() string {
	return fmt.Sprintf("%s is a %s address, which egress.allow does not name", e.Addr, e.Class)
}

// guard refuses addresses that are not on the public Internet, so that a client
// cannot reach through the proxy what it could not reach by itself.
type guard struct {
	allow policy.Networks
}

type class struct {
	prefix netip.Prefix
	name   string
}

// special are the address blocks that are no destination for a client's
// request, from the IANA special-purpose registries (RFC 6890 and its updates).
var special = classes(
	"0.0.0.0/8", "unspecified",
	"10.0.0.0/8", "private",
	"100.64.0.0/10", "carrier NAT",
	"127.0.0.0/8", "loopback",
	"169.254.0.0/16", "link-local",
	"172.16.0.0/12", "private",
	"192.0.0.0/24", "protocol assignment",
	"192.0.2.0/24", "documentation",
	"192.88.99.0/24", "6to4 relay",
	"192.168.0.0/16", "private",
	"198.18.0.0/15", "benchmarking",
	"198.51.100.0/24", "documentation",
	"203.0.113.0/24", "documentation",
	"224.0.0.0/4", "multicast",
	"240.0.0.0/4", "reserved",
	"168.63.129.16/32", "cloud metadata", // Azure's, in public space
	"::/96", "unspecified", // also ::1 and the deprecated IPv4-compatible form
	"64:ff9b:1::/48", "local NAT64", // RFC 8215: what it embeds is the operator's
	"100::/64", "discard",
	"2001::/23", "protocol assignment",
	"2001:db8::/32", "documentation",
	"3fff::/20", "documentation",
	"5f00::/16", "segment routing",
	"fc00::/7", "private",
	"fe80::/10", "link-local",
	"fec0::/10", "site-local",
	"ff00::/8", "multicast",
)

func classes(pairs ...string) []class {
	var out []class
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, class{netip.MustParsePrefix(pairs[i]), pairs[i+1]})
	}
	return out
}

var (
	loopback6 = netip.IPv6Loopback()
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour = netip.MustParsePrefix("2002::/16")
	teredo    = netip.MustParsePrefix("2001::/32")
)

// check returns a *ForbiddenError where addr must not be dialed. An address that
// embeds an IPv4 address (mapped, NAT64, 6to4, Teredo, ISATAP) is refused when
// what it embeds is.
func (g guard) check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if g.allow.Contains(addr) {
		return nil
	}
	if c := classify(addr); c != "" {
		return &ForbiddenError{addr, c}
	}
	for _, inner := range embedded(addr) {
		if c := classify(inner); c != "" && !g.allow.Contains(inner) {
			return &ForbiddenError{addr, c + " (embedded " + inner.String() + ")"}
		}
	}
	return nil
}

// classify names the special block that addr is in, "" for a public address.
// Teredo is left to embedded.
func classify(addr netip.Addr) string {
	if addr == loopback6 {
		return "loopback"
	}
	if teredo.Contains(addr) {
		return ""
	}
	for _, c := range special {
		if c.prefix.Contains(addr) {
			return c.name
		}
	}
	return ""
}

// embedded returns the IPv4 addresses that an IPv6 address leads to.
func embedded(addr netip.Addr) []netip.Addr {
	if !addr.Is6() {
		return nil
	}
	b := addr.As16()
	v4 := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	switch {
	case nat64.Contains(addr):
		return []netip.Addr{v4(12)}
	case sixToFour.Contains(addr):
		return []netip.Addr{v4(2)}
	case teredo.Contains(addr):
		// RFC 4380: the server, and the client's address with its bits inverted.
		client := ^binary.BigEndian.Uint32(b[12:])
		var c [4]byte
		binary.BigEndian.PutUint32(c[:], client)
		return []netip.Addr{v4(4), netip.AddrFrom4(c)}
	case (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe:
		return []netip.Addr{v4(12)} // ISATAP, RFC 5214
	}
	return nil
}
