package doctor

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"

	"espalier/policy"
	"espalier/policy/catalog"
)

// protocolOf returns how to ask a host at a port.
func protocolOf(host string, port uint16, transport string) func(*probe, context.Context) Finding {
	push := host == "push.apple.com" || strings.HasSuffix(host, ".push.apple.com")
	switch {
	case transport == "udp":
		return (*probe).ntp
	case port == 22, push && port == 80: // APNs has no web server
		return (*probe).tcp
	case push && port == 2197:
		return (*probe).http2
	case port == 80:
		return (*probe).http
	}
	return (*probe).tls
}

// plan adds the services to try to r, in the catalogue's order, and returns the probes
// that their checks need: all direct ones first. Several checks may share one.
func (d *Doctor) plan(r *Report) []*probe {
	type key struct {
		way       Way
		target    policy.Target
		transport string
	}
	shared := map[key]*probe{}
	var probes []*probe
	trust := newTrust(d.Roots)
	for _, s := range catalog.Services {
		if len(d.Services) > 0 && !slices.Contains(d.Services, s.ID) {
			continue
		}
		checks := d.checksOf(s.ID)
		if len(checks) > 0 {
			r.Services = append(r.Services, Service{ID: s.ID, Name: s.Section, Checks: checks})
		}
		for i := range checks {
			c := &checks[i]
			if c.State != "" {
				continue
			}
			k := key{c.Way, c.target(), c.Transport}
			p := shared[k]
			if p == nil {
				p = &probe{d: d, trust: trust, way: c.Way, target: k.target, ask: protocolOf(k.target.Host, c.Port, c.Transport)}
				shared[k] = p
				probes = append(probes, p)
			}
			p.checks = append(p.checks, c)
		}
	}
	slices.SortStableFunc(probes, func(a, b *probe) int { return strings.Compare(string(a.way), string(b.way)) })
	return probes
}

// target is where a check goes.
func (c *Check) target() policy.Target {
	t := policy.Target{Host: cmp.Or(c.Tried, c.Host), Port: c.Port}
	t.Addr, _ = netip.ParseAddr(t.Host)
	return t
}

// checksOf returns the checks of a service, each once.
func (d *Doctor) checksOf(service string) (out []Check) {
	for i := range d.Rows {
		r := &d.Rows[i]
		if r.Service != service {
			continue
		}
		for _, port := range r.Ports {
			for _, transport := range r.Transports {
				c := Check{Way: Direct, Host: r.Host, Port: port, Transport: transport}
				if slices.ContainsFunc(out, func(o Check) bool {
					return o.Host == c.Host && o.Port == c.Port && o.Transport == c.Transport
				}) {
					continue
				}
				c.skip(r, d.member(r.Host, port))
				out = append(out, c)
				if c.Way = Through; d.Proxy != "" && transport == "tcp" {
					out = append(out, c)
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
