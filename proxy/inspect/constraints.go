package inspect

import (
	"cmp"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"strings"

	"espalier/policy/catalog"
)

// Constraints are what a CA must not speak for. The zero value excludes nothing.
type Constraints struct {
	// Domains are lower-case names; each stands for itself and all names below
	// (RFC 5280, section 4.2.1.10). None is below another, and they are sorted.
	Domains []string
	// Blocks are masked address blocks, none inside another, sorted.
	Blocks []netip.Prefix
}

// ConstraintsOf returns what covers every row, on any port and in any transport.
// "*.x" excludes x too, since a constraint cannot say less.
func ConstraintsOf(rows []catalog.Row) Constraints {
	var c Constraints
	for i := range rows {
		host := rows[i].Host
		if p, err := netip.ParsePrefix(host); err == nil {
			c.Blocks = append(c.Blocks, p.Masked())
		} else if a, err := netip.ParseAddr(host); err == nil {
			c.Blocks = append(c.Blocks, netip.PrefixFrom(a, a.BitLen()))
		} else {
			c.Domains = append(c.Domains, strings.TrimPrefix(host, "*."))
		}
	}
	return c.least()
}

// merge returns what covers both a and b.
func merge(a, b Constraints) Constraints {
	c := Constraints{Domains: slices.Concat(a.Domains, b.Domains), Blocks: slices.Concat(a.Blocks, b.Blocks)}
	return c.least()
}

// least sorts c, and drops what the rest of it covers. It works on c's slices.
func (c Constraints) least() Constraints {
	// The widest come first, so that what they cover finds them there.
	slices.SortFunc(c.Domains, func(a, b string) int { return cmp.Or(len(a)-len(b), cmp.Compare(a, b)) })
	slices.SortFunc(c.Blocks, func(a, b netip.Prefix) int {
		return cmp.Or(a.Bits()-b.Bits(), a.Addr().Compare(b.Addr()))
	})
	var least Constraints
	for _, d := range c.Domains {
		if !least.Exclude(d, netip.Addr{}) {
			least.Domains = append(least.Domains, d)
		}
	}
	for _, b := range c.Blocks {
		if !least.contain(b) {
			least.Blocks = append(least.Blocks, b)
		}
	}
	slices.Sort(least.Domains)
	slices.SortFunc(least.Blocks, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return least
}

// Exclude reports whether a certificate for a normalised name, or for addr if that
// is valid, would be refused. It does not allocate.
func (c *Constraints) Exclude(host string, addr netip.Addr) bool {
	if addr.IsValid() {
		return c.contain(netip.PrefixFrom(addr, addr.BitLen()))
	}
	return slices.ContainsFunc(c.Domains, func(d string) bool {
		rest, ok := strings.CutSuffix(host, d)
		return ok && (rest == "" || rest[len(rest)-1] == '.')
	})
}

// contain reports whether one of the blocks contains the whole of b.
func (c *Constraints) contain(b netip.Prefix) bool {
	return slices.ContainsFunc(c.Blocks, func(have netip.Prefix) bool {
		return have.Bits() <= b.Bits() && have.Contains(b.Addr())
	})
}

// Missing returns the hosts of rows that c does not exclude in full, sorted,
// each once.
func (c *Constraints) Missing(rows []catalog.Row) []string {
	var hosts []string
	for i := range rows {
		want := ConstraintsOf(rows[i : i+1])
		if slices.ContainsFunc(want.Domains, func(d string) bool { return !c.Exclude(d, netip.Addr{}) }) ||
			slices.ContainsFunc(want.Blocks, func(b netip.Prefix) bool { return !c.contain(b) }) {
			hosts = append(hosts, rows[i].Host)
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// constrain writes c into the template of a CA certificate.
func (c *Constraints) constrain(t *x509.Certificate) {
	t.ExcludedDNSDomains = c.Domains
	for _, b := range c.Blocks {
		t.ExcludedIPRanges = append(t.ExcludedIPRanges, &net.IPNet{
			IP: b.Addr().AsSlice(), Mask: net.CIDRMask(b.Bits(), b.Addr().BitLen()),
		})
	}
	// The field's name says permitted, but it makes the whole extension critical.
	t.PermittedDNSDomainsCritical = true
}

// constraintsIn reads what a CA certificate excludes.
func constraintsIn(cert *x509.Certificate) Constraints {
	c := Constraints{Domains: cert.ExcludedDNSDomains}
	for _, n := range cert.ExcludedIPRanges {
		addr, ok := netip.AddrFromSlice(n.IP)
		ones, bits := n.Mask.Size()
		if ok && bits == addr.BitLen() {
			c.Blocks = append(c.Blocks, netip.PrefixFrom(addr, ones))
		}
	}
	return c
}
