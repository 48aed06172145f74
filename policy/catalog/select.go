package catalog

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Sets are the names of what Select chooses, each the part of the catalogue
// that one kind of machine needs:
//
//   - proxy: the machine that Espalier runs on. Every TCP row, since the proxy
//     passes all of Apple's on.
//   - devices: connections past the proxy. Every UDP row; every TCP row that the
//     PAC script sends direct, also as a fallback; and every TCP row of a service
//     that devices use before they have the PAC script.
//   - servers: an MDM server and administrators' machines. The rows of the
//     services that either uses.
//   - udp: the UDP rows, which no HTTP proxy carries.
//
// Retired rows are in each set, for older systems still contact these hosts.
var Sets = []string{"proxy", "devices", "servers", "udp"}

// uses says which services a device needs before it has the PAC script
// (activation, enrolment, an update that enrolment enforces), and which an MDM
// server or an administrator's machine needs (push, the portals and APIs, app
// licences, roster upload, restores by Apple Configurator). Services that are not
// here are needed for neither.
var uses = map[string]struct{ enrolment, server bool }{
	Push:                  {enrolment: true, server: true},
	"device-setup":        {enrolment: true, server: true},
	"device-management":   {enrolment: true, server: true},
	"business-school":     {server: true},
	"business-essentials": {enrolment: true, server: true},
	"software-update":     {enrolment: true, server: true},
	"app-store":           {server: true},
	"certificates":        {enrolment: true, server: true},
	"apple-account":       {enrolment: true, server: true},
}

// Select returns the rows of one of Sets, in their order, each with the
// transports and ports that belong to the set. direct says whether the PAC script
// ever sends the row's host and port past the proxy.
//
// A row of the firewall advice, which has no ports, gets those of the rows in its
// domain, an address block those of apple.com, each transport its own: a firewall
// needs no other port open to Apple.
func Select(rows []Row, set string, direct func(host string, port uint16) bool) ([]Row, error) {
	if err := checkWord(set, Sets); err != nil {
		return nil, err
	}
	var out []Row
	for _, r := range rows {
		var parts []Row
		for _, transport := range r.Transports {
			part := r
			part.Transports = []string{transport}
			if r.Advised() && len(r.Ports) == 0 {
				if part.Ports = portsWithin(rows, r.Host, transport); part.Ports == nil {
					continue
				}
			}
			if set == "devices" && transport == "tcp" && !uses[r.Service].enrolment {
				wasAny := len(part.Ports) == 0
				part.Ports = slices.DeleteFunc(slices.Clone(part.Ports), func(port uint16) bool { return !direct(r.Host, port) })
				if len(part.Ports) == 0 && !(wasAny && direct(r.Host, 443)) {
					continue
				}
			}
			if set == "proxy" && transport == "udp" || set == "udp" && transport == "tcp" || set == "servers" && !uses[r.Service].server {
				continue
			}
			parts = append(parts, part)
		}
		if len(parts) == 2 && slices.Equal(parts[0].Ports, parts[1].Ports) {
			parts = []Row{parts[0]}
			parts[0].Transports = r.Transports
		}
		out = append(out, parts...)
	}
	return out, nil
}

// adviceSection is the section of the firewall advice.
var adviceSection = Wide()[0].Section

// Advised reports whether r is of the firewall advice: a domain or an address
// block of Apple's and not a host of the article.
func (r *Row) Advised() bool { return r.Service == AppleOther && r.Section == adviceSection }

// portsWithin returns the ports that the catalogue's rows for the names below
// host's domain have with a transport, sorted. The row of the wildcard itself
// counts alone, if there is one: to some firewalls, the domain covers the names
// below it.
func portsWithin(rows []Row, host, transport string) []uint16 {
	domain := strings.TrimPrefix(host, "*.")
	if _, isBlock := Block(host); isBlock {
		domain = "apple.com"
	}
	wildcard := func(r *Row) bool { return !r.Advised() && r.Host == "*."+domain }
	counts := func(r *Row) bool {
		return !r.Advised() && within(domain, r.Host)
	}
	if slices.ContainsFunc(rows, func(r Row) bool { return wildcard(&r) }) {
		counts = wildcard
	}
	var ports []uint16
	for _, f := range flowsOf(rows, counts) {
		if f.transport == transport && f.port != 0 {
			ports = append(ports, f.port)
		}
	}
	return ports
}

// A Selection is what Export writes.
type Selection struct {
	// Set is one of Sets, part of the names that firewall rules get; empty means
	// every row of the catalogue.
	Set  string
	Rows []Row
	// Refused are names and wildcards that must not pass, though Rows may cover
	// them.
	Refused []string
}

// Covered returns which of Refused a wildcard of Rows covers: a firewall that
// takes all of Rows, and no exceptions, lets these through.
func (s Selection) Covered() []string {
	return s.refused(func(r *Row, host string) bool { return Covers(r.Host, host) })
}

// within returns which of Refused are in the domain of a row. To dnsmasq and Squid
// "*.x" includes x, and to dnsmasq a name includes the names below it.
func (s Selection) within() []string {
	return s.refused(func(r *Row, host string) bool { return within(r.Host, host) })
}

func (s Selection) refused(covers func(r *Row, host string) bool) (hosts []string) {
	for _, host := range s.Refused {
		if slices.ContainsFunc(s.Rows, func(r Row) bool { return r.Host != host && covers(&r, host) }) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// within reports whether a name or wildcard is in the domain of another, or the
// same but for "*.".
func within(domain, host string) bool {
	domain, host = strings.TrimPrefix(domain, "*."), strings.TrimPrefix(host, "*.")
	return host == domain || Covers("*."+domain, host)
}

// A flow is a transport and a port, 0 for any.
type flow struct {
	transport string
	port      uint16
}

func (f flow) name() string {
	if f.port == 0 {
		return f.transport + "_any"
	}
	return fmt.Sprintf("%s_%d", f.transport, f.port)
}

// flowsOf returns what rows that match lets through, sorted by transport and
// port.
func flowsOf(rows []Row, match func(*Row) bool) []flow {
	var flows []flow
	for _, r := range rows {
		if !match(&r) {
			continue
		}
		for _, t := range r.Transports {
			for _, port := range r.Ports {
				flows = append(flows, flow{t, port})
			}
			if len(r.Ports) == 0 {
				flows = append(flows, flow{t, 0})
			}
		}
	}
	slices.SortFunc(flows, func(a, b flow) int {
		if a.transport != b.transport {
			return strings.Compare(a.transport, b.transport)
		}
		return int(a.port) - int(b.port)
	})
	return slices.Compact(flows)
}

// hostsOf returns the hosts of rows that match, each once, names first and then
// address blocks.
func hostsOf(rows []Row, match func(*Row) bool) (names []string, blocks []netip.Prefix) {
	seen := map[string]bool{}
	for _, r := range rows {
		if !match(&r) || seen[r.Host] {
			continue
		}
		seen[r.Host] = true
		if p, ok := Block(r.Host); ok {
			blocks = append(blocks, p)
		} else {
			names = append(names, r.Host)
		}
	}
	return names, blocks
}

func all(*Row) bool { return true }

// Block returns the address block that a row's host, or a rule's pattern, is; ok
// is false for a name. A single address is a block of its own.
func Block(host string) (block netip.Prefix, ok bool) {
	if a, err := netip.ParseAddr(host); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(host)
	return p, err == nil
}

// has reports whether r lets f through.
func (r *Row) has(f flow) bool {
	return slices.Contains(r.Transports, f.transport) && (f.port == 0 && len(r.Ports) == 0 || slices.Contains(r.Ports, f.port))
}

// Covers reports whether pattern a matches everything that pattern b does. Both
// are names or wildcards; "*.x" does not cover x.
func Covers(a, b string) bool {
	if a == b {
		return true
	}
	x, ok := strings.CutPrefix(a, "*")
	return ok && strings.HasSuffix(b, x)
}
