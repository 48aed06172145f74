package doctor

import (
	"net/netip"
	"slices"
	"strings"

	"espalier/policy"
	"espalier/policy/catalog"
)

// A planned check is a line of the report, and the attempt that answers it; nil
// where Check says already why there is none.
type planned struct {
	service string
	Check
	attempt *attempt
}

// An attempt reaches one port of one host one way. Several rows may share it.
type attempt struct {
	way      Way
	target   policy.Target
	protocol protocol
	found    Finding
}

// A protocol is what is spoken to a port.
type protocol int

const (
	tcp    protocol = iota // nothing: it is enough to connect
	tlsAny                 // TLS, whatever is inside
	tlsH2                  // TLS with HTTP/2
	plain                  // HTTP
	ntp
)

// protocolOf is what a host speaks at a port.
func protocolOf(host string, port uint16, transport string) protocol {
	push := host == "push.apple.com" || strings.HasSuffix(host, ".push.apple.com")
	switch {
	case transport == "udp":
		return ntp
	case port == 22:
		return tcp
	case push && port == 80:
		return tcp // APNs has no web server
	case push && port == 2197:
		return tlsH2
	case port == 80:
		return plain
	}
	return tlsAny
}

// plan returns the checks of all rows, by service in the catalogue's order, and
// the attempts that they need: all direct ones first.
func (d *Doctor) plan() ([]*planned, []*attempt) {
	var checks []*planned
	for _, s := range catalog.Services {
		if d.wants(s.ID) {
			checks = append(checks, d.checksOf(s.ID)...)
		}
	}
	type key struct {
		way       Way
		target    policy.Target
		transport string
	}
	shared := map[key]*attempt{}
	var attempts []*attempt
	for _, way := range []Way{Direct, Through} {
		for _, c := range checks {
			if c.Way != way || c.State != "" {
				continue
			}
			k := key{way, c.target(), c.Transport}
			if shared[k] == nil {
				shared[k] = &attempt{way: way, target: k.target, protocol: protocolOf(k.target.Host, c.Port, c.Transport)}
				attempts = append(attempts, shared[k])
			}
			c.attempt = shared[k]
		}
	}
	return checks, attempts
}

// target is where a check goes.
func (c *Check) target() policy.Target {
	t := policy.Target{Host: c.Host, Port: c.Port}
	if c.Tried != "" {
		t.Host = c.Tried
	}
	t.Addr, _ = netip.ParseAddr(t.Host)
	return t
}

// checksOf returns the checks of a service, each once.
func (d *Doctor) checksOf(service string) []*planned {
	var out []*planned
	add := func(c Check) {
		if !slices.ContainsFunc(out, func(p *planned) bool {
			return p.Way == c.Way && p.Host == c.Host && p.Port == c.Port && p.Transport == c.Transport
		}) {
			out = append(out, &planned{service: service, Check: c})
		}
	}
	for i := range d.Rows {
		r := &d.Rows[i]
		if r.Service != service {
			continue
		}
		for _, port := range r.Ports {
			for _, transport := range r.Transports {
				c := Check{Way: Direct, Host: r.Host, Port: port, Transport: transport}
				c.skip(r, d.member(r.Host, port))
				add(c)
				if c.Way = Through; d.Proxy != "" && transport == "tcp" {
					add(c)
				}
			}
		}
	}
	return out
}

// skip marks a check that cannot be made, or sets what is tried for a wildcard.
func (c *Check) skip(r *catalog.Row, member string) {
	switch {
	case r.Until != "":
		c.State, c.Note = Skipped, noteRetired
	case c.Transport == "udp" && c.Port != 123:
		c.State, c.Note = Skipped, noteUDP
	case member == "":
		c.State, c.Note = Skipped, noteWildcard
	case member != r.Host:
		c.Tried = member
	}
}

// members are names below the catalogue's wildcards that are known to be there,
// at these ports. Those that the catalogue itself names need not stand here.
var members = map[string][]struct {
	name  string
	ports []uint16
}{
	"*.push.apple.com": {
		{"1-courier.push.apple.com", []uint16{80, 443, 5223}}, // devices
		{"api.push.apple.com", []uint16{2197}},                // servers
	},
	"*.itunes.apple.com":        {{"init.itunes.apple.com", []uint16{80, 443}}},
	"*.mzstatic.com":            {{"is1-ssl.mzstatic.com", []uint16{443}}},
	"*.apps.apple.com":          {{"amp-api.apps.apple.com", []uint16{443}}},
	"*.appattest.apple.com":     {{"data.appattest.apple.com", []uint16{443}}},
	"*.apple-mapkit.com":        {{"cdn.apple-mapkit.com", []uint16{443}}},
	"*.apple-livephotoskit.com": {{"cdn.apple-livephotoskit.com", []uint16{443}}},
	"*.gc.apple.com":            {{"static.gc.apple.com", []uint16{443}}},
	"*.icloud.com":              {{"www.icloud.com", []uint16{443}}},
	"*.icloud.com.cn":           {{"www.icloud.com.cn", []uint16{443}}},
	"*.icloud-content.com":      {{"cvws.icloud-content.com", []uint16{443}}},
	"*.smoot.apple.com":         {{"api.smoot.apple.com", []uint16{443}}},
}

// member is the name to try for a row's host: itself, a known member of a
// wildcard, or another row's host below it; empty where none is known.
func (d *Doctor) member(host string, port uint16) string {
	if strings.Contains(host, "/") {
		return "" // a block of addresses
	}
	parent, wildcard := strings.CutPrefix(host, "*.")
	if !wildcard {
		return host
	}
	for _, m := range members[host] {
		if slices.Contains(m.ports, port) {
			return m.name
		}
	}
	for i := range d.Rows {
		r := &d.Rows[i]
		if strings.HasSuffix(r.Host, "."+parent) && r.Host[0] != '*' && r.Until == "" && r.TCP() && slices.Contains(r.Ports, port) {
			return r.Host
		}
	}
	return ""
}
