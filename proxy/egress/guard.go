package egress

import (
	"fmt"
	"net/netip"
	"slices"

	"espalier/policy"
	"espalier/policy/hostclass"
)

// A ForbiddenError says that a destination's address may not be reached.
type ForbiddenError struct {
	Addr  netip.Addr // not valid where only a parent would have known it
	Class string     // what the address is: "loopback", "private", …
}

// classSelf is the Class of an address at which the proxy would reach itself.
const classSelf = "proxy's own"

func (e *ForbiddenError) Error() string {
	switch {
	case e.Class == classSelf && !e.Addr.IsValid():
		return "the name is the proxy's own"
	case e.Class == classSelf:
		return fmt.Sprintf("%s is the proxy's own address", e.Addr)
	}
	return fmt.Sprintf("%s is no public address (%s), and egress.allow does not name it", e.Addr, e.Class)
}

// guard refuses addresses that are not on the public Internet, so that a client
// cannot reach through the proxy what it could not reach by itself.
type guard struct {
	allow policy.Networks
	nat64 nat64
}

// metadata are the addresses at which clouds hand credentials to their virtual
// machines. Some lie in public space, and most in blocks that an administrator may
// allow as a whole, so only egress.allow with the very address exempts one.
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // most clouds
	netip.MustParseAddr("169.254.170.2"),   // Amazon, containers
	netip.MustParseAddr("169.254.170.23"),  // Amazon, pods
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("fd00:ec2::254"),   // Amazon
	netip.MustParseAddr("fd00:ec2::23"),    // Amazon, pods
	netip.MustParseAddr("fd20:ce::254"),    // Google
}

const classMetadata = "cloud metadata"

var (
	wellKnown = netip.MustParsePrefix("64:ff9b::/96")
	sixToFour = netip.MustParsePrefix("2002::/16")
	teredo    = netip.MustParsePrefix("2001::/32")
)

// check returns a *ForbiddenError where addr must not be dialed. An address that
// embeds an IPv4 address (mapped, NAT64, 6to4, Teredo, ISATAP) is refused when
// what it embeds is; egress.allow may name either. A zone does not matter.
func (g guard) check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	if g.allows(addr) {
		return nil
	}
	if c := g.classify(addr); c != "" {
		return &ForbiddenError{addr, c}
	}
	for _, inner := range g.nat64.embedded(addr) {
		if c := g.classify(inner); c != "" && !g.allows(inner) {
			return &ForbiddenError{addr, c + ", embedded " + inner.String()}
		}
	}
	return nil
}

// allows reports whether egress.allow exempts addr.
func (g guard) allows(addr netip.Addr) bool {
	secret := g.isMetadata(addr)
	for _, p := range g.allow {
		if p.Contains(addr) && (!secret || p.IsSingleIP()) {
			return true
		}
	}
	return false
}

// isMetadata reports whether addr is or embeds one of the metadata addresses.
func (g guard) isMetadata(addr netip.Addr) bool {
	return slices.Contains(metadata, addr) ||
		slices.ContainsFunc(g.nat64.embedded(addr), func(a netip.Addr) bool { return slices.Contains(metadata, a) })
}

// classify names the class of addr, "" for a public address. Teredo and NAT64 are
// left to embedded.
func (g guard) classify(addr netip.Addr) string {
	if slices.Contains(metadata, addr) {
		return classMetadata
	}
	if _, ok := g.nat64.prefix(addr); ok || teredo.Contains(addr) {
		return ""
	}
	return string(hostclass.OfAddress(addr))
}

// nat64 are the prefixes of egress.nat64. The zero value knows the well-known one
// alone.
type nat64 []netip.Prefix

// prefix returns the prefix that addr is translated by. The longest comes first,
// as in routing.
func (n nat64) prefix(addr netip.Addr) (found netip.Prefix, ok bool) {
	if wellKnown.Contains(addr) {
		return wellKnown, true
	}
	for _, p := range n {
		if p.Contains(addr) && p.Bits() >= found.Bits() {
			found, ok = p, true
		}
	}
	return found, ok
}

// parseNAT64 parses a prefix of RFC 6052, section 2.2.
func parseNAT64(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is6() || p.Addr().Is4In6() || !slices.Contains([]int{32, 40, 48, 56, 64, 96}, p.Bits()) {
		return p, fmt.Errorf("%q is no NAT64 prefix (allowed: IPv6 with /32, /40, /48, /56, /64 or /96)", s)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q has bits set behind the prefix; did you mean %s?", s, p.Masked())
	}
	return p, nil
}

// embedded returns the IPv4 addresses that an IPv6 address leads to; none for
// an IPv4 address.
func (n nat64) embedded(addr netip.Addr) []netip.Addr {
	if !addr.Is6() {
		return nil
	}
	b := addr.As16()
	v4 := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	var inner []netip.Addr
	translated, ok := n.prefix(addr)
	switch {
	case ok && translated.Bits() == 96:
		inner = append(inner, v4(12))
	case ok:
		// RFC 6052, 2.2: behind the prefix, byte 8 left out.
		at := translated.Bits() / 8
		rest := slices.Delete(slices.Clone(b[at:]), 8-at, 9-at)
		inner = append(inner, netip.AddrFrom4([4]byte(rest[:4])))
	case sixToFour.Contains(addr):
		inner = append(inner, v4(2)) // RFC 3056
	case teredo.Contains(addr):
		// RFC 4380: the server, and the client's address with its bits inverted.
		client := netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
		inner = append(inner, v4(4), client)
	}
	// ISATAP, RFC 5214: below any prefix, also those above.
	if (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		inner = append(inner, v4(12))
	}
	return inner
}
