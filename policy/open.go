package policy

import (
	"net/netip"
	"slices"
	"strings"

	"espalier/policy/catalog"
)

// Open returns what a firewall may let out under p: rows without the hosts and
// ports that Decide refuses to every client at any time, by a deny rule or by
// apple.private_relay. What it refuses to some clients, or at some hours, stays.
//
// A wildcard may cover refused names all the same; refused lists the names and
// wildcards of the catalogue, and of rules within it, that are refused on every
// port. Unless proxied is set, rows of the firewall advice are left out whose
// domain has anything refused, for not every firewall can except a name; address
// blocks are if anything is refused, for they might hold any name. Set proxied if
// only the proxy uses the rows, which applies the policy itself.
//
// Rows are rows of Apple, perhaps with fewer ports.
func (p *Policy) Open(rows []catalog.Row, proxied bool) (open []catalog.Row, refused []string) {
	refused, cut := p.refused()
	for _, r := range rows {
		if len(r.Ports) == 0 {
			if p.refuses(r.Host, 0) {
				continue
			}
		} else if r.Ports = slices.DeleteFunc(slices.Clone(r.Ports), func(port uint16) bool { return p.refuses(r.Host, port) }); len(r.Ports) == 0 {
			continue
		}
		if r.Advised() && !proxied && slices.ContainsFunc(cut, func(host string) bool {
			domain := strings.TrimPrefix(r.Host, "*.")
			return firstAddr(r.Host).IsValid() || host == domain || catalog.Covers("*."+domain, host)
		}) {
			continue
		}
		open = append(open, r)
	}
	return open, refused
}

// refused returns the hosts of the catalogue, and the patterns of rules within
// it, that p refuses on all their ports, each once, and in cut those that it
// refuses on any.
func (p *Policy) refused() (refused, cut []string) {
	seen := map[string]bool{}
	add := func(host string, ports []uint16) {
		if seen[host] {
			return
		}
		seen[host] = true
		n := 0
		for _, port := range ports {
			if p.refuses(host, port) {
				n++
			}
		}
		if n > 0 {
			cut = append(cut, host)
		}
		if n == len(ports) {
			refused = append(refused, host)
		}
	}
	ports := map[string][]uint16{}
	for _, r := range p.apple.Rows() {
		if !r.Advised() {
			ports[r.Host] = append(ports[r.Host], r.Ports...)
		}
	}
	for _, r := range p.apple.Rows() {
		if len(ports[r.Host]) > 0 {
			add(r.Host, ports[r.Host])
		}
	}
	for i := range p.rules {
		for _, host := range p.rules[i].hosts.patterns {
			// A rule with ports refuses these, and not all.
			ports := append(slices.Clone(p.rules[i].ports), 443)
			if p.apple.Match(host, firstAddr(host), ports[0]).OK() {
				add(host, ports)
			}
		}
	}
	return refused, cut
}

// refuses reports whether Decide denies host, which is Apple's, to every client
// at any time. Host is a name, a wildcard for all that it matches, an address or
// an address block.
func (p *Policy) refuses(host string, port uint16) bool {
	if p.relay && isRelay(host) {
		return true
	}
	t := Target{Host: host, Addr: firstAddr(host), Port: port}
	service := p.apple.Match(t.Host, t.Addr, t.Port).Service()
	for i := range p.rules {
		switch rule := &p.rules[i]; {
		case rule.then == thenDeny && !rule.names, !rule.covers(t, service) || rule.lists != nil && !rule.has(t):
		case rule.then != thenDeny:
			return false // some client may pass
		case rule.forAll(p.clients):
			return true
		}
	}
	return false
}

// firstAddr returns the first address of a block, and the zero Addr of a name.
func firstAddr(host string) netip.Addr {
	block, _ := catalog.Block(host)
	return block.Addr()
}
