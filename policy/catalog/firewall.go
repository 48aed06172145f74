package catalog

import (
	"bufio"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A flow is what a firewall must let out beside the proxy: a transport, a port
// and the hosts behind it.
type flow struct {
	transport string
	port      uint16
	hosts     []string
}

func (f flow) name() string { return fmt.Sprintf("apple-%s-%d", f.transport, f.port) }

// direct returns what an HTTP proxy does not carry: UDP, and SSH, whose clients
// seldom speak to one. Sorted by transport and port, hosts in their order.
func direct(rows []Row) []flow {
	var flows []flow
	add := func(transport string, port uint16, host string) {
		i := slices.IndexFunc(flows, func(f flow) bool { return f.transport == transport && f.port == port })
		if i < 0 {
			i, flows = len(flows), append(flows, flow{transport: transport, port: port})
		}
		if !slices.Contains(flows[i].hosts, host) {
			flows[i].hosts = append(flows[i].hosts, host)
		}
	}
	for _, r := range rows {
		for _, port := range r.Ports {
			if r.UDP() {
				add("udp", port, r.Host)
			}
			if r.TCP() && port == 22 {
				add("tcp", port, r.Host)
			}
		}
	}
	slices.SortFunc(flows, func(a, b flow) int {
		return cmp.Or(strings.Compare(a.transport, b.transport), cmp.Compare(a.port, b.port))
	})
	return flows
}

const directHead = `# What a firewall must let out beside the proxy for Apple's services: an HTTP
# proxy does not carry UDP, and SFTP clients seldom use one. Where UDP 443 is
# closed most services fall back to TCP; where UDP 123 is, clocks go wrong.
# Written by espalier catalog export.
`

// exportNftables writes a chain. nftables knows addresses, not names, so there
// is a set of Apple's own blocks, and a set for each flow that dnsmasq fills.
func exportNftables(b *bufio.Writer, rows []Row) error {
	flows := direct(rows)
	var v4, v6 []string
	for _, r := range Wide() {
		if p, err := netip.ParsePrefix(r.Host); err == nil && p.Addr().Is4() {
			v4 = append(v4, r.Host)
		} else if err == nil {
			v6 = append(v6, r.Host)
		}
	}
	b.WriteString(directHead + `#
# Put "jump apple_direct" into your forward chain, above what it drops; if that
# chain is in another table than "inet filter", change the table's name below.
#
# nftables knows addresses, not names. Apple's own address blocks are here;
# hosts on other networks are let out once your resolver fills the named sets.
# With dnsmasq 2.87 or later:
#
`)
	for _, f := range flows {
		for _, h := range f.hosts {
			fmt.Fprintf(b, "#   nftset=/%s/4#inet#filter#%[2]s_4,6#inet#filter#%[2]s_6\n", strings.TrimPrefix(h, "*."), set(f))
		}
	}
	fmt.Fprintf(b, "\ntable inet filter {\n")
	fmt.Fprintf(b, "\tset apple_4 {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = { %s }\n\t}\n", strings.Join(v4, ", "))
	fmt.Fprintf(b, "\tset apple_6 {\n\t\ttype ipv6_addr\n\t\tflags interval\n\t\telements = { %s }\n\t}\n", strings.Join(v6, ", "))
	for _, f := range flows {
		fmt.Fprintf(b, "\tset %s_4 {\n\t\ttype ipv4_addr\n\t}\n\tset %[1]s_6 {\n\t\ttype ipv6_addr\n\t}\n", set(f))
	}
	b.WriteString("\tchain apple_direct {\n")
	for _, f := range flows {
		for _, h := range f.hosts {
			fmt.Fprintf(b, "\t\t# %s\n", h)
		}
		for _, s := range []string{"ip daddr @apple_4", "ip6 daddr @apple_6", "ip daddr @" + set(f) + "_4", "ip6 daddr @" + set(f) + "_6"} {
			fmt.Fprintf(b, "\t\t%s %s dport %d accept\n", s, f.transport, f.port)
		}
	}
	b.WriteString("\t}\n}\n")
	return nil
}

func set(f flow) string { return strings.ReplaceAll(f.name(), "-", "_") }

// exportMikroTik writes a RouterOS script. The router resolves names that stand
// in address lists; it takes no wildcards there.
func exportMikroTik(b *bufio.Writer, rows []Row) error {
	flows := direct(rows)
	b.WriteString(directHead + `#
# RouterOS 7: import, then move the filter rules above the one that drops. The
# router resolves the names itself; let devices ask the same resolver.
`)
	for _, ip := range []string{"ip", "ipv6"} {
		fmt.Fprintf(b, "\n/%s firewall address-list\n", ip)
		for _, f := range flows {
			for _, h := range f.hosts {
				if strings.HasPrefix(h, "*.") {
					fmt.Fprintf(b, "# %s: %s is a wildcard, which an address list does not take\n", f.name(), h)
					continue
				}
				fmt.Fprintf(b, "add list=%s address=%s\n", f.name(), h)
			}
		}
		fmt.Fprintf(b, "/%s firewall filter\n", ip)
		for _, f := range flows {
			fmt.Fprintf(b, "add chain=forward action=accept protocol=%s dst-port=%d dst-address-list=%s comment=\"%[3]s\"\n", f.transport, f.port, f.name())
		}
	}
	return nil
}

// exportFortinet writes a FortiOS script: an address for each host, a service
// and a group for each flow. Policies are left to the administrator, who knows
// the interfaces.
func exportFortinet(b *bufio.Writer, rows []Row) error {
	flows := direct(rows)
	b.WriteString(directHead + `#
# FortiOS 6.2.2 or later. Then allow each group with the service of its name in
# a policy of yours.
`)
	b.WriteString("\nconfig firewall address\n")
	seen := map[string]bool{}
	for _, f := range flows {
		for _, h := range f.hosts {
			if !seen[h] {
				seen[h] = true
				fmt.Fprintf(b, "    edit \"%s\"\n        set type fqdn\n        set fqdn \"%[1]s\"\n    next\n", h)
			}
		}
	}
	b.WriteString("end\nconfig firewall addrgrp\n")
	for _, f := range flows {
		fmt.Fprintf(b, "    edit \"%s\"\n        set member \"%s\"\n    next\n", f.name(), strings.Join(f.hosts, `" "`))
	}
	b.WriteString("end\nconfig firewall service custom\n")
	for _, f := range flows {
		fmt.Fprintf(b, "    edit \"%s\"\n        set %s-portrange %d\n    next\n", f.name(), f.transport, f.port)
	}
	b.WriteString("end\n")
	return nil
}
