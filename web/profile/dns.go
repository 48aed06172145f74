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

// payload checks d, and returns its domains in their normal form. Errors begin with
// the field at fault.
func (d *DNS) payload() (p payload, domains []string, err error) {
	if d == nil || d.Server == "" {
		return p, nil, errors.New("dns-server: missing (https://NAME/dns-query or tls://NAME)")
	}
	settings, err := d.server()
	if err != nil {
		return p, nil, fmt.Errorf("dns-server: invalid URL %q: %w", d.Server, err)
	}
	var addresses []string
	for _, s := range d.Addresses {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return p, nil, fmt.Errorf("dns-address: invalid address %q (192.0.2.53 or 2001:db8::53)", s)
		}
		addresses = append(addresses, a.Unmap().String())
	}
	if domains, err = d.domains(); err != nil {
		return p, nil, err
	}
	settings["ServerAddresses"], settings["SupplementalMatchDomains"] = addresses, domains
	return payload{kind: "com.apple.dnsSettings.managed", name: "payload.dns", title: "DNS", keys: optional(map[string]any{
		"DNSSettings": optional(settings), "ProhibitDisablement": d.Locked,
	})}, domains, nil
}

// server are the settings that Server is.
func (d *DNS) server() (map[string]any, error) {
	scheme, rest, ok := strings.Cut(d.Server, "://")
	switch {
	case scheme == "https" && ok:
		bare := strings.TrimSuffix(d.Server, "{?dns}")
		u, err := httpurl.Parse(bare)
		if err != nil {
			return nil, err
		}
		return map[string]any{"DNSProtocol": "HTTPS", "ServerURL": u.String() + d.Server[len(bare):]}, nil
	case scheme == "tls" && ok:
		t, err := policy.ParseTarget(strings.TrimSuffix(rest, "/"), 853)
		if err == nil && t.Port != 853 {
			err = errors.New("port must be 853")
		}
		return map[string]any{"DNSProtocol": "TLS", "ServerName": t.Host}, err
	}
	return nil, errors.New("must be https://NAME/PATH or tls://NAME; devices learn of unencrypted servers by DHCP")
}

// domains are d.Domains in their normal form, sorted.
func (d *DNS) domains() ([]string, error) {
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
