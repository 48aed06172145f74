package catalog

import (
	"bufio"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// prefix is what the names of a selection's firewall objects begin with. Each set
// has its own, so that two can be loaded side by side.
func (s Selection) prefix() string {
	if s.Set == "" {
		return "apple"
	}
	return "apple_" + s.Set
}

// heads say what each set is for.
var heads = map[string]string{
	"proxy":   "# What the proxy machine must reach for Apple's services.\n",
	"devices": "# What devices must reach past the proxy for Apple's services.\n",
	"servers": "# What MDM servers and administrators' machines must reach at Apple.\n",
	"udp":     "# UDP of Apple's services, which no HTTP proxy carries.\n",
}

// head begins a file of rules, whose comments begin with #.
func (s Selection) head(b *bufio.Writer, text string) {
	b.WriteString(heads[s.Set] + "# Written by espalier catalog export.\n#\n" + text)
}

// byFamily returns the blocks of IPv4 and those of IPv6.
func byFamily(blocks []netip.Prefix) (v4, v6 []string) {
	for _, p := range blocks {
		if p.Addr().Is4() {
			v4 = append(v4, p.String())
		} else {
			v6 = append(v6, p.String())
		}
	}
	return v4, v6
}

// exportNftables writes a chain. nftables matches addresses, so each flow has two
// sets that dnsmasq fills with the addresses of names (exportDnsmasq).
func exportNftables(b *bufio.Writer, s Selection) error {
	chain := s.prefix()
	s.head(b, fmt.Sprintf(`# Load it with nft -f, again after each change, and put "jump %s" into your
# forward chain (the output chain of the proxy machine), above the rule that drops.
# If that chain is in another table than "inet filter", change the table's name
# here and in the file for dnsmasq.
#
# The named sets are empty at first: dnsmasq 2.87 or later fills them with what it
# answers. Give it the file of
#   espalier catalog export --for %s --format dnsmasq
# load this file before it starts, and let clients use no other resolver.

add table inet filter
add chain inet filter %[1]s
flush chain inet filter %[1]s

table inet filter {
`, chain, s.setName()))
	var rules strings.Builder
	for _, f := range flowsOf(s.Rows, all) {
		names, blocks := hostsOf(s.Rows, func(r *Row) bool { return r.has(f) })
		port := f.transport + " dport " + fmt.Sprint(f.port)
		if f.port == 0 {
			port = "meta l4proto " + f.transport
		}
		for _, name := range names {
			fmt.Fprintf(&rules, "\t\t# %s\n", name)
		}
		v4, v6 := byFamily(blocks)
		for _, family := range []struct {
			ip, version, kind string
			blocks            []string
		}{{"ip", "4", "ipv4_addr", v4}, {"ip6", "6", "ipv6_addr", v6}} {
			if len(family.blocks) > 0 {
				fmt.Fprintf(&rules, "\t\t%s daddr { %s } %s accept\n", family.ip, strings.Join(family.blocks, ", "), port)
			}
			if len(names) > 0 {
				set := chain + "_" + f.name() + "_" + family.version
				fmt.Fprintf(b, "\tset %s {\n\t\ttype %s\n\t}\n", set, family.kind)
				fmt.Fprintf(&rules, "\t\t%s daddr @%s %s accept\n", family.ip, set, port)
			}
		}
	}
	fmt.Fprintf(b, "\tchain %s {\n%s\t}\n}\n", chain, rules.String())
	return nil
}

// setName is what --for has.
func (s Selection) setName() string {
	if s.Set == "" {
		return "devices"
	}
	return s.Set
}

// exportDnsmasq writes which sets of exportNftables get the addresses of which
// names. dnsmasq takes the line of the longest domain that a name is at or below,
// so each line has the sets of all rows that cover its domain.
func exportDnsmasq(b *bufio.Writer, s Selection) error {
	s.head(b, fmt.Sprintf(`# For dnsmasq 2.87 or later, which needs to be built with nftset: conf-file=…, or
# put it into its conf-dir. It fills the sets of
#   espalier catalog export --for %s --format nftables
# Load that first. dnsmasq adds an address when it asks for a name, not when it
# answers from its cache: restart it after the sets were emptied.
# To dnsmasq a name is the names below it too.

`, s.setName()))
	names, _ := hostsOf(s.Rows, all)
	seen := map[string]bool{}
	for _, name := range names {
		domain := strings.TrimPrefix(name, "*.")
		if seen[domain] {
			continue
		}
		seen[domain] = true
		var sets []string
		for _, f := range flowsOf(s.Rows, func(r *Row) bool {
			return strings.TrimPrefix(r.Host, "*.") == domain || Covers(r.Host, domain)
		}) {
			set := s.prefix() + "_" + f.name()
			sets = append(sets, "4#inet#filter#"+set+"_4", "6#inet#filter#"+set+"_6")
		}
		fmt.Fprintf(b, "nftset=/%s/%s\n", domain, strings.Join(sets, ","))
	}
	refused := s.within()
	if len(refused) == 0 {
		return nil
	}
	b.WriteString("\n# The policy refuses these, though a line above covers them: they do not exist.\n")
	for _, x := range refused {
		fmt.Fprintf(b, "local=/%s/\n", x)
		for _, name := range names {
			if name != x && within(x, name) {
				fmt.Fprintf(b, "server=/%s/#\n", name)
			}
		}
	}
	return nil
}

// dashed is a name in the style of RouterOS and FortiOS.
func dashed(name string) string { return strings.ReplaceAll(name, "_", "-") }

// A group is hosts with the same flows.
type group struct {
	flows  []flow
	names  []string
	blocks []netip.Prefix
}

// name lists the flows: "tcp-80-443-udp-443".
func (g group) name() string {
	var name, transport string
	for _, f := range g.flows {
		n := f.name()
		if f.transport == transport {
			n = strings.TrimPrefix(n, transport+"_")
		}
		transport = f.transport
		name += "-" + n
	}
	return dashed(name[1:])
}

// ports returns the ports of a transport, joined by sep; ok is false where the
// group has none. Any port is "".
func (g group) ports(transport, sep string) (ports string, ok bool) {
	for _, f := range g.flows {
		switch {
		case f.transport != transport:
		case f.port == 0:
			return "", true
		case ok:
			ports += sep + fmt.Sprint(f.port)
		default:
			ports, ok = fmt.Sprint(f.port), true
		}
	}
	return ports, ok
}

// groups returns the hosts of a selection by their flows, in their order.
func (s Selection) groups() []group {
	var groups []group
	seen := map[string]bool{}
	for _, r := range s.Rows {
		if seen[r.Host] {
			continue
		}
		seen[r.Host] = true
		same := func(o *Row) bool { return o.Host == r.Host }
		flows := flowsOf(s.Rows, same)
		i := slices.IndexFunc(groups, func(g group) bool { return slices.Equal(g.flows, flows) })
		if i < 0 {
			i, groups = len(groups), append(groups, group{flows: flows})
		}
		if p, ok := Block(r.Host); ok {
			groups[i].blocks = append(groups[i].blocks, p)
		} else {
			groups[i].names = append(groups[i].names, r.Host)
		}
	}
	return groups
}

// exportMikroTik writes a RouterOS script. The router resolves the names of
// address lists itself; names below a wildcard come into the list when a client
// asks the router for them.
func exportMikroTik(b *bufio.Writer, s Selection) error {
	prefix := dashed(s.prefix())
	s.head(b, fmt.Sprintf(`# For RouterOS 7: /import it, again after each change; it replaces what it added
# before. Once, put a jump above the rules that drop:
#   /ip firewall filter add chain=forward action=jump jump-target=%[1]s
#   /ipv6 firewall filter add chain=forward action=jump jump-target=%[1]s
# Devices must use the router as their resolver: it learns from its answers what
# the wildcards are. To RouterOS *.x is x too.
`, prefix))
	groups := s.groups()
	fmt.Fprintf(b, "\n/ip dns static\nremove [find where comment=\"%s\"]\n", prefix)
	for _, g := range groups {
		for _, name := range g.names {
			if x, ok := strings.CutPrefix(name, "*."); ok {
				fmt.Fprintf(b, "add name=%s type=FWD match-subdomain=yes forward-to=localhost address-list=%s-%s comment=\"%[2]s\"\n", x, prefix, g.name())
			}
		}
	}
	for _, ip := range []string{"ip", "ipv6"} {
		fmt.Fprintf(b, "\n/%s firewall address-list\nremove [find where comment=\"%s\"]\n", ip, prefix)
		for _, g := range groups {
			add := func(address string) {
				fmt.Fprintf(b, "add list=%s-%s address=%s comment=\"%[1]s\"\n", prefix, g.name(), address)
			}
			for _, p := range g.blocks {
				if p.Addr().Is4() == (ip == "ip") {
					add(p.String())
				}
			}
			for _, name := range g.names {
				if !strings.HasPrefix(name, "*.") {
					add(name)
				}
			}
		}
		fmt.Fprintf(b, "/%s firewall filter\nremove [find where comment=\"%s\"]\n", ip, prefix)
		for _, g := range groups {
			for _, transport := range []string{"tcp", "udp"} {
				ports, ok := g.ports(transport, ",")
				if !ok {
					continue
				}
				if ports != "" {
					ports = " dst-port=" + ports
				}
				fmt.Fprintf(b, "add chain=%s action=accept protocol=%s%s dst-address-list=%[1]s-%[4]s comment=\"%[1]s\"\n", prefix, transport, ports, g.name())
			}
		}
	}
	return nil
}

// exportFortinet writes a FortiOS script: an address for each host, a group and a
// service for each set of ports. Policies are left to the administrator, who knows
// the interfaces.
func exportFortinet(b *bufio.Writer, s Selection) error {
	prefix := dashed(s.prefix())
	s.head(b, fmt.Sprintf(`# For FortiOS 6.2.2 or later, which takes wildcards in an address of type fqdn.
# Allow each group %[1]s-… with the service of its name in a policy of yours.
# Clients and the firewall must use the same resolver, which has to answer through
# the firewall: it learns from these answers what the wildcards are.
`, prefix))
	groups := s.groups()
	var v4, v6 []string
	b.WriteString("\nconfig firewall address\n")
	for _, g := range groups {
		for _, name := range g.names {
			fmt.Fprintf(b, "    edit \"%s\"\n        set type fqdn\n        set fqdn \"%[1]s\"\n    next\n", name)
		}
		a, c := byFamily(g.blocks)
		v4, v6 = append(v4, a...), append(v6, c...)
	}
	for _, p := range v4 {
		fmt.Fprintf(b, "    edit \"%s\"\n        set subnet %[1]s\n    next\n", p)
	}
	b.WriteString("end\n")
	if len(v6) > 0 {
		b.WriteString("config firewall address6\n")
		for _, p := range v6 {
			fmt.Fprintf(b, "    edit \"%s\"\n        set ip6 %[1]s\n    next\n", p)
		}
		b.WriteString("end\n")
	}
	member := func(name string, members []string) {
		fmt.Fprintf(b, "    edit \"%s\"\n        set member \"%s\"\n    next\n", name, strings.Join(members, `" "`))
	}
	b.WriteString("config firewall addrgrp\n")
	for _, g := range groups {
		a, _ := byFamily(g.blocks)
		if members := append(slices.Clone(g.names), a...); len(members) > 0 {
			member(prefix+"-"+g.name(), members)
		}
	}
	b.WriteString("end\n")
	if len(v6) > 0 {
		b.WriteString("config firewall addrgrp6\n")
		for _, g := range groups {
			if _, members := byFamily(g.blocks); len(members) > 0 {
				member(prefix+"-"+g.name(), members)
			}
		}
		b.WriteString("end\n")
	}
	b.WriteString("config firewall service custom\n")
	for _, g := range groups {
		fmt.Fprintf(b, "    edit \"%s-%s\"\n", prefix, g.name())
		for _, transport := range []string{"tcp", "udp"} {
			if ports, ok := g.ports(transport, " "); ok {
				if ports == "" {
					ports = "1-65535"
				}
				fmt.Fprintf(b, "        set %s-portrange %s\n", transport, ports)
			}
		}
		b.WriteString("    next\n")
	}
	b.WriteString("end\n")
	return nil
}
