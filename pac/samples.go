package pac

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/policy/hostclass"
)

// Samples returns URLs that between them ask a script about all that a policy
// distinguishes: each row with its ports, each pattern (a name, "*.name", an
// address, a CIDR block, a word of hostclass.Words) with 443 and 80, a name below
// those, hosts that are local, and hosts that scripts often get wrong. They are in
// the order given, each once.
func Samples(rows []catalog.Row, patterns []string) []string {
	var urls []string
	seen := map[string]bool{}
	ask := func(host string, ports ...uint16) {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		for _, port := range ports {
			url := "https://" + host
			switch port {
			case 443:
			case 80:
				url = "http://" + host
			default:
				url += ":" + strconv.Itoa(int(port))
			}
			if url += "/"; !seen[url] {
				seen[url] = true
				urls = append(urls, url)
			}
		}
	}
	web := []uint16{443, 80}
	for i := range rows {
		ports := rows[i].Ports
		if len(ports) == 0 {
			ports = web
		}
		ask(memberOf(rows[i].Host), ports...)
	}
	var local []string
	for _, b := range hostclass.Blocks {
		if b.Class.Local() {
			local = append(local, b.Prefix.String())
		}
	}
	for _, d := range hostclass.Domains {
		local = append(local, d.Name)
	}
	for _, pattern := range slices.Concat(patterns, local) {
		if _, ok := hostclass.Word(pattern); ok {
			continue // hosts that are local follow
		}
		host := memberOf(pattern)
		ask(host, web...)
		if _, err := netip.ParseAddr(host); err != nil && host == pattern {
			ask("www."+host, web...)
		}
	}
	for _, host := range []string{
		"www.example.org", "www.example.org.", "WWW.EXAMPLE.ORG", "apple.com", "apple.com.evil.example", "notapple.com",
		"localhost", "intranet", "constructor", "tostring", "127.0.0.1", "10.0.0.1", "192.168.1.1", "17.0.0.1", "192.0.2.1", "2001:db8::1",
		strings.Repeat("long.", 40) + "example",
	} {
		ask(host, web...)
	}
	return urls
}

var (
	stringLiteral = regexp.MustCompile(`"[^"\n]*"|'[^'\n]*'`)
	dottedName    = regexp.MustCompile(`[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+`)
)

// HostsIn returns the names and IPv4 addresses in strings of a script, each once,
// for Samples: where two scripts differ, it is about these.
func HostsIn(script []byte) []string {
	source, _ := Decode(script)
	var hosts []string
	seen := map[string]bool{}
	for _, text := range stringLiteral.FindAllString(source, -1) {
		for _, name := range dottedName.FindAllString(text, -1) {
			host, _, err := policy.ParseHost(name)
			if err != nil || seen[host] {
				continue
			}
			seen[host] = true
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// memberOf is a host that a pattern matches.
func memberOf(pattern string) string {
	if p, err := netip.ParsePrefix(pattern); err == nil {
		if p.IsSingleIP() {
			return p.Addr().String()
		}
		return p.Masked().Addr().Next().String()
	}
	if below, ok := strings.CutPrefix(pattern, "*."); ok {
		return "www." + below
	}
	return pattern
}
