package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"espalier/policy/catalog"
)

// Warnings returns what is valid in rules and cuts off Apple's hosts all the same: host
// patterns of deny rules that are much wider than what Apple has in them, such as
// 0.0.0.0/0 or *.com. A rule before it that lets these hosts through to every client
// clears the warning. Each begins with its key, "rules[i].when.hosts[j]: ". Rules that
// New refuses are passed over.
func Warnings(rules []Rule, apple Apple) []error {
	set, err := apple.compile()
	if err != nil {
		return nil
	}
	var warnings []error
	var before []rule
	for i := range rules {
		c, err := compileRule(&rules[i], nil, InspectAll)
		if err != nil {
			before = append(before, c)
			continue
		}
		for j, pattern := range rules[i].When.Hosts {
			if rules[i].Then != thenDeny || len(rules[i].When.Services) > 0 {
				break
			}
			if hosts := cutOff(pattern, &c, before, set); len(hosts) > 0 {
				warnings = append(warnings, fmt.Errorf(
					"rules[%d].when.hosts[%d]: %q also denies Apple's %s; put an allow rule for Apple's services before it, or name narrower hosts",
					i, j, pattern, strings.Join(hosts[:min(3, len(hosts))], ", ")))
			}
		}
		before = append(before, c)
	}
	return warnings
}

// cutOff returns the hosts of set that pattern covers if it is wider than Apple's: an
// address block that is larger than the row's, or a wildcard over several of Apple's
// domains. Rows that a rule of before lets through do not count.
func cutOff(pattern string, c *rule, before []rule, set *catalog.Set) []string {
	pattern, err := ParsePattern(pattern)
	if err != nil {
		return nil // a word, which holds nothing of Apple's
	}
	block, isBlock := catalog.Block(pattern)
	var hosts []string
	domains := map[string]bool{}
	for _, row := range set.Rows() {
		own, isAddress := catalog.Block(row.Host)
		switch {
		case isBlock != isAddress, slices.Contains(hosts, row.Host):
			continue
		case isBlock && (block.Bits() >= own.Bits() || !block.Contains(own.Addr())):
			continue
		case !isBlock && pattern != row.Host && !catalog.Covers(pattern, row.Host):
			continue
		}
		t := Target{Host: row.Host, Addr: firstAddr(row.Host), Port: 443}
		if len(row.Ports) > 0 {
			t.Port = row.Ports[0]
		}
		if !c.covers(t, row.Service) || slices.ContainsFunc(before, func(b rule) bool {
			return b.then != thenDeny && b.lists == nil && b.covers(t, row.Service) && b.forAll(Networks{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)})
		}) {
			continue
		}
		hosts = append(hosts, row.Host)
		domains[lastLabels(row.Host, 2)] = true
	}
	if !isBlock && len(domains) < 2 {
		return nil
	}
	return hosts
}

// lastLabels returns the last n labels of a name.
func lastLabels(name string, n int) string {
	labels := strings.Split(name, ".")
	return strings.Join(labels[max(0, len(labels)-n):], ".")
}
