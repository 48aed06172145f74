package egress

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"espalier/policy"
	"espalier/proxy/egress/lookup"
)

// Config is the configuration of how destinations are reached, `egress`.
type Config struct {
	// Hosts gives names fixed addresses before DNS is asked. A name may begin
	// with "*.", which stands for the names below; an exact name comes first,
	// then the longest. Several addresses are separated by commas, and checked by
	// the address guard like any others.
	Hosts map[string]string `koanf:"hosts"`
	// DNS are the servers to ask, "address" or "address:port"; empty means the
	// system's resolver.
	DNS []string `koanf:"dns"`
	// Allow are address blocks exempt from the address guard: CIDR blocks,
	// addresses, or the words loopback and private. The address of a cloud's
	// metadata service is exempt only if it is an entry of its own.
	Allow []string `koanf:"allow"`
	// NAT64 are the prefixes by which this network's own NAT64 translates, beside
	// 64:ff9b::/96; empty means none. An address in one is to the guard what the
	// IPv4 address is that it embeds (RFC 6052).
	NAT64 []string `koanf:"nat64"`
	// Parent is a proxy to go through, http://[user:pass@]host:port; empty
	// means none. Several, separated by commas, are tried in order. User and
	// password are percent-encoded if they hold what URLs reserve, a comma
	// included. The parent looks names up: the address guard sees only literal
	// addresses, Hosts and localhost, and never the parent's own address. A tunnel
	// waits for a parent that says nothing for its share of ConnectTimeout. A plain
	// request waits for longer, but those that come later go by another parent.
	Parent string `koanf:"parent"`
	// ConnectTimeout bounds look-up and connect together, with all parents that
	// are tried; it must be positive.
	ConnectTimeout time.Duration `koanf:"connect_timeout"`
}

// Validate checks the values. Errors begin with the key, joined.
func (c Config) Validate() error {
	_, err := c.parse()
	return err
}

// settings are the values of a Config.
type settings struct {
	exact   map[string][]netip.Addr // egress.hosts
	below   map[string][]netip.Addr // egress.hosts, "*.x" by x
	servers []string                // egress.dns; empty: the system's resolver
	guard   guard
	parents []*Parent // in the order of preference; empty: destinations are reached directly
}

func (c Config) parse() (settings, error) {
	s := settings{exact: map[string][]netip.Addr{}, below: map[string][]netip.Addr{}}
	var errs []error
	check := func(err error, key string, args ...any) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", fmt.Sprintf(key, args...), err))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Hosts)) {
		plain, all := strings.CutPrefix(name, "*.")
		if host, addr, err := policy.ParseHost(plain); err != nil || addr.IsValid() || host != plain {
			check(fmt.Errorf("%q is no name (allowed: a lower-case name or *.name)", name), "hosts.%s", name)
		}
		addrs, err := parseAddrs(c.Hosts[name])
		check(err, "hosts.%s", name)
		if all {
			s.below[plain] = addrs
		} else {
			s.exact[name] = addrs
		}
	}
	for i, text := range c.DNS {
		server, err := lookup.ParseServer(text)
		check(err, "dns[%d]", i)
		s.servers = append(s.servers, server)
	}
	for i, text := range c.Allow {
		_, err := policy.ParseNetwork(text)
		check(err, "allow[%d]", i)
	}
	s.guard.allow, _ = policy.ParseNetworks(c.Allow)
	for i, text := range c.NAT64 {
		prefix, err := parseNAT64(text)
		check(err, "nat64[%d]", i)
		s.guard.nat64 = append(s.guard.nat64, prefix)
	}
	var err error
	s.parents, err = parseParents(c.Parent)
	check(err, "parent")
	if c.ConnectTimeout <= 0 {
		check(fmt.Errorf("must be positive, not %s", c.ConnectTimeout), "connect_timeout")
	}
	return s, errors.Join(errs...)
}

// parseAddrs parses a comma list of IP addresses.
func parseAddrs(s string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for part := range strings.SplitSeq(s, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(part))
		if err != nil || a.Zone() != "" {
			return nil, fmt.Errorf("%q is no address", strings.TrimSpace(part))
		}
		addrs = append(addrs, a.Unmap())
	}
	return addrs, nil
}
