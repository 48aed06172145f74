package app

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"espalier/configs"
	"espalier/pac"
	"espalier/policy"
	"espalier/web"
	"espalier/web/httpurl"
)

// CompilePAC makes what scripts are made from.
func CompilePAC(cfg *configs.Config) (*pac.PAC, error) {
	// The script does not depend on what lists hold.
	lists := map[string]policy.HostList{}
	for name := range cfg.Lists {
		lists[name] = nil
	}
	pol, err := policy.New(policy.Config{
		Clients: cfg.Proxy.Clients, Apple: cfg.Apple, Rules: cfg.Rules, Lists: lists, Inspect: cfg.Inspect, Presets: cfg.Presets,
	})
	if err != nil {
		return nil, invalid(err)
	}
	compiled, err := pac.Compile(cfg.PAC, pol)
	if err != nil {
		return nil, invalid(fmt.Errorf("pac: %w", err))
	}
	return compiled, nil
}

// errNoPublicURL is returned where it is not known what devices reach web.public
// by.
var errNoPublicURL = errors.New("web.public: names no IPv4 address that devices can reach (web.public_url says what they reach it by)")

// PublicURL is where devices reach web.public, whose addresses are on: what
// web.public_url says, or else this machine by its first address.
func PublicURL(cfg web.Config, on []netip.AddrPort) (string, error) {
	if cfg.PublicURL != "" {
		u, err := httpurl.Base(cfg.PublicURL) // in ASCII
		if err != nil {
			return "", fmt.Errorf("web.public_url: %w", err)
		}
		return u.String(), nil
	}
	at, err := pac.Fetched(netip.Addr{}, on)
	if err != nil {
		return "", errNoPublicURL
	}
	return "http://" + at, nil
}

// Addresses are the addresses of a configuration's listeners.
func Addresses(list []string) []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, s := range list {
		host, port, err := net.SplitHostPort(s)
		if err == nil && host == "" {
			s = net.JoinHostPort("::", port)
		}
		if a, err := netip.ParseAddrPort(s); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}
