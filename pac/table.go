package pac

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"espalier/policy/catalog"
)

// The script's table maps keys to rules. Keys are
//
//	=host      the name itself
//	.domain    the names below the domain
//	#4hex      IPv4 addresses that begin with these hexadecimal digits
//	#6hex      IPv6 addresses likewise
//
// and no key can be a property that every JavaScript object has. The script
// tries the keys of a host from the most specific to the least and takes the
// first rule that has the port, so every rule must say what holds after the
// less specific ones were asked too: a port counts as marked when any pattern
// that covers it is.

// anyPort stands in rules for the ports not listed before it.
const anyPort = 0

// ports are the classes that patterns of one key give to ports.
type ports map[uint16]Class

func (p ports) raise(port uint16, c Class) { p[port] = max(p[port], c) }

// at returns the class that p gives to port.
func (p ports) at(port uint16) Class { return max(p[port], p[anyPort]) }

// A portRoute sends a port, or any, by a route of the script.
type portRoute struct {
	port  uint16
	route int
}

// group is a rule and the keys that have it.
type group struct {
	rule []portRoute
	keys []string
}

// groups returns the rules that differ from what the less specific keys
// say, grouped, in a stable order.
func (s *site) groups(apple *catalog.Set) []group {
	own := map[string]ports{}
	raise := func(key string, port uint16, c Class) {
		if own[key] == nil {
			own[key] = ports{}
		}
		own[key].raise(port, c)
	}
	rows := apple.Rows()
	for i := range rows {
		class := Apple
		if rows[i].Proxy == catalog.ProxyUnmarked {
			class = AppleUnmarked
		}
		for _, key := range patternKeys(rows[i].Host) {
			if len(rows[i].Ports) == 0 {
				raise(key, anyPort, class)
			}
			for _, port := range rows[i].Ports {
				raise(key, port, class)
			}
		}
	}
	for name := range s.names {
		raise("="+name, anyPort, Internal)
		raise("."+name, anyPort, Internal)
	}
	for _, prefix := range s.nets {
		for _, key := range prefixKeys(prefix) {
			raise(key, anyPort, Internal)
		}
	}

	byRule := map[string]*group{}
	for key := range own {
		rule := s.rule(key, own)
		if len(rule) == 0 {
			continue
		}
		id := fmt.Sprint(rule)
		if byRule[id] == nil {
			byRule[id] = &group{rule: rule}
		}
		byRule[id].keys = append(byRule[id].keys, key)
	}
	var groups []group
	for _, g := range byRule {
		slices.Sort(g.keys)
		groups = append(groups, *g)
	}
	slices.SortFunc(groups, func(a, b group) int {
		return slices.CompareFunc(a.rule, b.rule, func(a, b portRoute) int {
			return cmp.Or(cmp.Compare(a.route, b.route), cmp.Compare(a.port, b.port))
		})
	})
	return groups
}

// rule returns what the table must say for key: nothing where the less specific
// keys say the same already.
func (s *site) rule(key string, own map[string]ports) []portRoute {
	above := ports{}
	for up, ok := lessSpecific(key); ok; up, ok = lessSpecific(up) {
		for port, class := range own[up] {
			above.raise(port, class)
		}
	}
	here := maps.Clone(above)
	for port, class := range own[key] {
		here.raise(port, class)
	}
	route := func(p ports, port uint16) int { return s.choice[p.at(port)] }
	whole := route(here, anyPort) != route(above, anyPort)
	var rule []portRoute
	for _, port := range slices.Sorted(maps.Keys(here)) {
		r := route(here, port)
		if whole && r != route(here, anyPort) || !whole && r != route(above, port) {
			rule = append(rule, portRoute{port, r})
		}
	}
	if whole {
		rule = append(rule, portRoute{anyPort, route(here, anyPort)})
	}
	return rule
}

// lessSpecific returns the next key that the script tries after key.
func lessSpecific(key string) (string, bool) {
	if key[0] == '#' {
		return key[:len(key)-1], len(key) > len("#4")
	}
	i := strings.IndexByte(key[1:], '.')
	return key[1+max(i, 0):], i >= 0
}

// patternKeys returns the keys of a catalogue pattern.
func patternKeys(host string) []string {
	if p, err := netip.ParsePrefix(host); err == nil {
		return prefixKeys(p)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return prefixKeys(netip.PrefixFrom(a, a.BitLen()))
	}
	if below, ok := strings.CutPrefix(host, "*"); ok {
		return []string{below}
	}
	return []string{"=" + host}
}

// prefixKeys returns the keys that cover exactly p: one where its length is a
// multiple of 4 bits, up to 8 otherwise.
func prefixKeys(p netip.Prefix) []string {
	p = p.Masked()
	family, raw := "#6", p.Addr().AsSlice()
	if p.Addr().Is4() {
		family = "#4"
	}
	var digits strings.Builder
	for _, b := range raw {
		fmt.Fprintf(&digits, "%02x", b)
	}
	whole, rest := p.Bits()/4, p.Bits()%4
	stem := family + digits.String()[:whole]
	if rest == 0 {
		return []string{stem}
	}
	first, _ := strconv.ParseUint(digits.String()[whole:whole+1], 16, 8)
	var keys []string
	for d := first; d < first+1<<(4-rest); d++ {
		keys = append(keys, stem+strconv.FormatUint(d, 16))
	}
	return keys
}
