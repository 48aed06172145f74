package profile

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"espalier/policy"
	"espalier/web/httpurl"
)

// DNS is an encrypted name server that devices ask: com.apple.dnsSettings.managed.
type DNS struct {
	// Server is "https://NAME/PATH" (DNS over HTTPS, RFC 8484; the path may end in
	// the template {?dns}) or "tls://NAME" (DNS over TLS, RFC 7858, port 853).
	Server string
	// Addresses are those of Server; empty: devices look its name up in the network.
	Addresses []string
	// Domains are those whose names are asked there, "example.org" or
	// "*.example.org", with the names below; empty: all.
	Domains []string
	// Locked keeps people from switching it off; supervised devices only.
	Locked bool
}

// payload checks d. Errors begin with the field at fault.
func (d DNS) payload() (Payload, error) {
	settings := map[string]any{}
	scheme, rest, _ := strings.Cut(d.Server, "://")
	switch scheme {
	case "https":
		bare := strings.TrimSuffix(d.Server, "{?dns}")
		u, err := httpurl.Parse(bare)
		if err != nil {
			return Payload{}, fmt.Errorf("dns-server: invalid URL %q: %w", d.Server, err)
		}
		settings["DNSProtocol"], settings["ServerURL"] = "HTTPS", u.String()+d.Server[len(bare):]
	case "tls":
		t, err := policy.ParseTarget(strings.TrimSuffix(rest, "/"), 853)
		if err != nil {
			return Payload{}, fmt.Errorf("dns-server: invalid URL %q: %w", d.Server, err)
		}
		if t.Port != 853 {
			return Payload{}, fmt.Errorf("dns-server: invalid URL %q: port must be 853", d.Server)
		}
		settings["DNSProtocol"], settings["ServerName"] = "TLS", t.Host
	case "":
		return Payload{}, errors.New("dns-server: missing (https://NAME/dns-query or tls://NAME)")
	default:
		return Payload{}, fmt.Errorf("dns-server: invalid URL %q: must be https://NAME/PATH or tls://NAME; devices learn of unencrypted servers by DHCP", d.Server)
	}
	if len(d.Addresses) > 0 {
		list := make([]string, len(d.Addresses))
		for i, s := range d.Addresses {
			a, err := netip.ParseAddr(s)
			if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
				return Payload{}, fmt.Errorf("dns-address: invalid address %q (192.0.2.53 or 2001:db8::53)", s)
			}
			list[i] = a.Unmap().String()
		}
		settings["ServerAddresses"] = list
	}
	domains, err := d.domains()
	if err != nil {
		return Payload{}, err
	}
	if len(domains) > 0 {
		settings["SupplementalMatchDomains"] = domains
	}
	keys := map[string]any{"DNSSettings": settings}
	if d.Locked {
		keys["ProhibitDisablement"] = true
	}
	return Payload{kind: "com.apple.dnsSettings.managed", name: "payload.dns", title: "DNS", keys: keys}, nil
}

// domains are d.Domains in their normal form, sorted.
func (d DNS) domains() ([]string, error) {
	var list []string
	for _, s := range d.Domains {
		rest, wild := strings.CutPrefix(s, "*.")
		host, addr, err := policy.ParseHost(rest)
		if err == nil && addr.IsValid() {
			err = errors.New("an address has no names below it")
		}
		if err != nil {
			return nil, fmt.Errorf("dns-domain: invalid domain %q: %w", s, err)
		}
		if wild {
			host = "*." + host
		}
		list = append(list, host)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
