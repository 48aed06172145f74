package app

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

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

// checkSite is the error of a --site that the configuration has not; the empty one
// is none in particular.
func checkSite(compiled *pac.PAC, site string) error {
	if site != "" && !compiled.HasSite(site) {
		return fmt.Errorf("--site: there is no %q under pac.sites (there are: %q)", site, compiled.Sites())
	}
	return nil
}

// Script makes the script that devices get by a configuration: that of a site, or of the
// client if its address is valid. proxy stands in place of pac.proxies if it is not empty.
// notes say what is unusual. Errors are of the configuration or of what is asked.
func Script(cfg *configs.Config, site string, client netip.Addr, proxy string) (script *pac.Script, notes []string, err error) {
	compiled, err := CompilePAC(cfg)
	if err != nil {
		return nil, nil, err
	}
	if client.IsValid() {
		site = compiled.SiteFor(client)
	} else if err := checkSite(compiled, site); err != nil {
		return nil, nil, invalid(err)
	}
	proxies := compiled.Proxies(site, "")
	switch {
	case proxy != "":
		proxies = []string{proxy}
	case proxies == nil:
		fetched, err := pac.Fetched(netip.Addr{}, Addresses(cfg.Proxy.Listen))
		if err != nil {
			return nil, nil, invalid(fmt.Errorf("%w, or give --proxy", err))
		}
		proxies = compiled.Proxies(site, fetched)
		notes = append(notes, "pac.proxies is empty, so devices are given the address that they fetch the script from; here that is "+fetched)
	}
	if script, err = compiled.Script(site, compiled.Order(proxies, client, nil)); err != nil {
		return nil, nil, invalid(err)
	}
	if n := len(script.Body); n > pac.MaxSize {
		notes = append(notes, fmt.Sprintf("the script has %d bytes; keep it below %d, for devices have hung on large ones", n, pac.MaxSize))
	}
	return script, notes, nil
}

// ScriptURLs are where devices fetch the script by a configuration: by their address, "",
// and of each site.
func ScriptURLs(cfg *configs.Config) (map[string]string, error) {
	compiled, err := CompilePAC(cfg)
	if err != nil {
		return nil, err
	}
	base, err := PublicURL(cfg.Web, Addresses(cfg.Web.Public))
	if err != nil {
		return nil, invalid(err)
	}
	urls := map[string]string{}
	for _, site := range append(compiled.Sites(), "") {
		urls[site] = base + compiled.Path(site)
	}
	return urls, nil
}

// ScriptURL is where devices fetch the script of a site, or given if that is not empty. An
// unknown site is an error either way.
func ScriptURL(cfg *configs.Config, site, given string) (string, error) {
	compiled, err := CompilePAC(cfg)
	if err == nil {
		err = checkSite(compiled, site)
	}
	if err != nil || given != "" {
		return given, err
	}
	urls, err := ScriptURLs(cfg)
	if err != nil {
		return "", fmt.Errorf("%w; name the script with --pac-url", err)
	}
	return urls[site], nil
}

// WPADURL is where this machine serves the script for WPAD.
func WPADURL(cfg *configs.Config) (string, error) {
	if !cfg.PAC.WPAD {
		return "", errors.New("pac.wpad is false, so that nothing is at /wpad.dat; set it to true, or give --url")
	}
	base, err := PublicURL(cfg.Web, Addresses(cfg.Web.Public))
	if err != nil {
		return "", fmt.Errorf("%w; give --url", err)
	}
	return base + "/wpad.dat", nil
}

// PACSamples are URLs that tell apart what the script of a configuration does.
func PACSamples(cfg *configs.Config) ([]string, error) {
	apple, err := Apple(cfg)
	if err != nil {
		return nil, invalid(err)
	}
	patterns := slices.Concat(cfg.PAC.Internal, slices.Sorted(maps.Keys(cfg.PAC.Routes.Hosts)))
	for _, name := range slices.Sorted(maps.Keys(cfg.PAC.Sites)) {
		site := cfg.PAC.Sites[name]
		patterns = slices.Concat(patterns, site.Internal, slices.Sorted(maps.Keys(site.Routes.Hosts)))
	}
	for _, r := range cfg.Rules {
		patterns = append(patterns, r.When.Hosts...)
	}
	return pac.Samples(apple.Rows(), patterns), nil
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
