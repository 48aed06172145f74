package certs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/acmedns"
	"github.com/libdns/cloudflare"
	"github.com/libdns/desec"
	"github.com/libdns/gandi"
	"github.com/libdns/hetzner/v2"
	"github.com/libdns/rfc2136"
)

// A dnsProvider is a service or server that records are made at, by libdns.
type dnsProvider struct {
	make  func() certmagic.DNSProvider // with fields for settings, by their JSON names
	wants []string                     // settings that must be there
	takes []string                     // and that may be
}

// made is a provider of type P with settings, separated by blanks.
func made[P any, Pointer interface {
	*P
	certmagic.DNSProvider
}](wants, takes string) dnsProvider {
	return dnsProvider{func() certmagic.DNSProvider { return Pointer(new(P)) }, strings.Fields(wants), strings.Fields(takes)}
}

var dnsProviders = map[string]dnsProvider{
	// Any server that takes dynamic updates signed with TSIG: BIND, Knot, PowerDNS.
	"rfc2136": made[rfc2136.Provider]("server key_name key", "key_alg"),
	// A server for nothing else, to which _acme-challenge of any zone may point.
	"acmedns":    made[acmedns.Provider]("server_url username password subdomain", ""),
	"cloudflare": made[cloudflare.Provider]("api_token", "zone_token"),
	"desec":      made[desec.Provider]("token", ""),
	"gandi":      made[gandi.Provider]("bearer_token", ""),
	"hetzner":    made[hetzner.Provider]("api_token", ""),
}

// provider makes the provider. Errors begin with the key.
func (c DNS) provider() (certmagic.DNSProvider, error) {
	p, ok := dnsProviders[c.Provider]
	if !ok {
		return nil, fmt.Errorf("provider: %q is unknown (allowed: %s)", c.Provider, strings.Join(slices.Sorted(maps.Keys(dnsProviders)), ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Settings)) {
		if !slices.Contains(p.wants, name) && !slices.Contains(p.takes, name) {
			return nil, fmt.Errorf("settings.%s: is no setting of %s (allowed: %s)", name, c.Provider, strings.Join(slices.Concat(p.wants, p.takes), ", "))
		}
	}
	for _, name := range p.wants {
		if c.Settings[name] == "" {
			return nil, fmt.Errorf("settings: lacks %s, which %s needs", name, c.Provider)
		}
	}
	provider := p.make()
	text, err := json.Marshal(c.Settings)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(provider); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return provider, nil
}
