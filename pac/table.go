package pac

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"espalier/policy"
	"espalier/policy/hostclass"
)

// The script's table maps keys to rules. Keys are
//
//	=host      the name itself
//	.domain    the names below the domain
//	-          names without a dot
//	#4hex      IPv4 addresses that begin with these hexadecimal digits
//	#6hex      IPv6 addresses likewise
//	*          everything
//
// and no key can be a property that every JavaScript object has. The script
// tries the keys of a host from the most specific to the least and takes the
// first rule that has the port. Rules are written by asking site.route about one
// host that has the key and none more specific, so that they say what it says.

const (
	plainKey = "-"
	everyKey = "*"
)

// anyPort stands in rules for the ports not listed before it.
const anyPort = 0

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

// maxOthers bounds the bytes of the keys of hosts that the policy denies, or allows
// amid what it denies, and that are neither Apple's nor local. A script with more would
// not stay below MaxSize.
const maxOthers = 2000

// groups returns the rules that differ from what the less specific keys say,
// grouped, in a stable order. It numbers the routes of s as it meets them, that of
// everything with 0.
func (s *site) groups(pol *policy.Policy) []group {
	keys, ports := s.points(pol)
	other := uint16(1)
	for slices.Contains(ports, other) {
		other++
	}
	ports = append([]uint16{anyPort}, ports...)
	rules := map[string][]int{} // by key: the route of each port
	for _, key := range append([]string{everyKey}, keys...) {
		host, ok := memberOnlyOf(key, keys)
		if !ok {
			continue // the keys below it cover it
		}
		rules[key] = make([]int, len(ports))
		for i, port := range ports {
			t := host
			if t.Port = port; port == anyPort {
				t.Port = other
			}
			_, hops, _ := s.route(pol, t)
			rules[key][i] = s.number(hops)
		}
	}

	byRule := map[string]*group{}
	others := 0 // bytes of the keys of hosts with the default class
	for key := range rules {
		rule := difference(ports, rules[key], above(key, rules))
		if len(rule) == 0 {
			continue
		}
		if host, _ := memberOnlyOf(key, keys); s.class(pol.Apple(), host) == Default {
			others += len(key) + 1
		}
		id := fmt.Sprint(rule)
		if byRule[id] == nil {
			byRule[id] = &group{rule: rule}
		}
		byRule[id].keys = append(byRule[id].keys, key)
	}
	if others > maxOthers && !s.closed {
		s.closed, s.hops = true, nil
		return s.groups(pol)
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

// points returns the keys and the ports at which routes may change, sorted.
func (s *site) points(pol *policy.Policy) (keys []string, ports []uint16) {
	for _, r := range pol.Apple().Rows() {
		keys = append(keys, patternKeys(r.Host)...)
		ports = append(ports, r.Ports...)
	}
	patterns, named := pol.Named()
	for _, pattern := range patterns {
		keys = append(keys, patternKeys(pattern)...)
	}
	ports = append(ports, named...)
	for _, b := range hostclass.Blocks {
		if b.Class.Local() {
			keys = append(keys, prefixKeys(b.Prefix)...)
		}
	}
	for _, d := range hostclass.Domains {
		keys = append(keys, "="+d.Name, "."+d.Name)
	}
	keys = append(keys, plainKey)
	keys = append(keys, s.internal.keys()...)
	keys = append(keys, s.hosts.keys()...)
	slices.Sort(keys)
	slices.Sort(ports)
	return slices.Compact(keys), slices.Compact(ports)
}

// number returns the number of a route in the script.
func (s *site) number(hops []string) int {
	i := slices.IndexFunc(s.hops, func(h []string) bool { return slices.Equal(h, hops) })
	if i < 0 {
		i = len(s.hops)
		s.hops = append(s.hops, hops)
	}
	return i
}

// above returns the routes of the next key that the script tries after key; nil for
// the last, which stands for route 0.
func above(key string, rules map[string][]int) []int {
	for up, ok := lessSpecific(key); ok; up, ok = lessSpecific(up) {
		if rules[up] != nil {
			return rules[up]
		}
	}
	return make([]int, len(rules[key]))
}

// difference returns what the table must say for a key with the routes here, where
// the keys above it say above: nothing where they say the same. The first of ports
// is anyPort.
func difference(ports []uint16, here, above []int) []portRoute {
	whole := here[0] != above[0]
	var rule []portRoute
	for i, port := range ports[1:] {
		r := here[i+1]
		if whole && r != here[0] || !whole && r != above[i+1] {
			rule = append(rule, portRoute{port, r})
		}
	}
	if whole {
		rule = append(rule, portRoute{anyPort, here[0]})
	}
	return rule
}

// lessSpecific returns the next key that the script tries after key.
func lessSpecific(key string) (string, bool) {
	switch {
	case key == everyKey:
		return "", false
	case key[0] == '#' && len(key) > len("#4"):
		return key[:len(key)-1], true
	case key[0] == '=' || key[0] == '.':
		if i := strings.IndexByte(key[1:], '.'); i >= 0 {
			return key[1+i:], true
		} else if key[0] == '=' {
			return plainKey, true
		}
	}
	return everyKey, true
}

// memberOnlyOf returns a host that has key, and none of the more specific keys; ok
// is false where there is none. keys are sorted.
func memberOnlyOf(key string, keys []string) (t policy.Target, ok bool) {
	const label = "?" // which no name has
	switch key[0] {
	case '=':
		t.Host = key[1:]
	case '.':
		t.Host = label + key
	case plainKey[0]:
		t.Host = label
	case everyKey[0]:
		t.Host = label + "." + label
	default:
		if t.Addr, ok = addressOnlyOf(key, keys); !ok {
			return t, false
		}
		t.Host = t.Addr.String()
	}
	return t, true
}

func addressOnlyOf(key string, keys []string) (netip.Addr, bool) {
	i, found := slices.BinarySearch(keys, key)
	if found {
		i++
	}
	if i == len(keys) || !strings.HasPrefix(keys[i], key) {
		return firstOf(key), true
	}
	for _, digit := range "0123456789abcdef" {
		below := key + string(digit)
		if _, own := slices.BinarySearch(keys, below); own {
			continue
		}
		if a, ok := addressOnlyOf(below, keys); ok {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// firstOf returns the first address that has key.
func firstOf(key string) netip.Addr {
	size := 16
	if strings.HasPrefix(key, "#4") {
		size = 4
	}
	digits := key[2:] + strings.Repeat("0", 2*size-len(key[2:]))
	raw, _ := hex.DecodeString(digits) // prefixKeys has written them
	a, _ := netip.AddrFromSlice(raw)
	return a
}

// A matcher finds the class of the most specific pattern that matches. The zero
// value matches nothing.
type matcher struct {
	names map[string]Class // by key of the table
	nets  map[netip.Prefix]Class
}

// add adds a normal pattern or a word of hostclass.Words, in place of what is there
// for the same hosts.
func (m *matcher) add(pattern string, class Class) {
	if m.names == nil {
		m.names, m.nets = map[string]Class{}, map[netip.Prefix]Class{}
	}
	if set, ok := hostclass.Word(pattern); ok {
		for _, p := range set.Networks {
			m.nets[p] = class
		}
		for _, d := range set.Domains {
			m.names["="+d], m.names["."+d] = class, class
		}
		if set.Plain {
			m.names[plainKey] = class
		}
		return
	}
	if p, err := netip.ParsePrefix(pattern); err == nil {
		m.nets[p] = class
	} else if a, err := netip.ParseAddr(pattern); err == nil {
		m.nets[netip.PrefixFrom(a, a.BitLen())] = class
	} else {
		m.names[patternKeys(pattern)[0]] = class
	}
}

func (m *matcher) match(t policy.Target) (class Class, ok bool) {
	if t.Addr.IsValid() {
		longest := -1
		for p, c := range m.nets {
			if p.Bits() > longest && p.Contains(t.Addr) {
				longest, class = p.Bits(), c
			}
		}
		return class, longest >= 0
	}
	for key, more := "="+t.Host, len(m.names) > 0; more; key, more = lessSpecific(key) {
		if class, ok = m.names[key]; ok {
			return class, true
		}
	}
	return "", false
}

// keys returns the keys of what m matches.
func (m *matcher) keys() []string {
	keys := slices.Collect(maps.Keys(m.names))
	for p := range m.nets {
		keys = append(keys, prefixKeys(p)...)
	}
	return keys
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
