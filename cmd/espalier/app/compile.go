package app

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"go.uber.org/zap"

	"espalier/configs"
	"espalier/pac"
	"espalier/policy"
	"espalier/policy/auth"
	"espalier/policy/catalog"
	"espalier/policy/lists"
	"espalier/proxy"
	"espalier/proxy/egress"
	"espalier/proxy/inspect"
	"espalier/proxy/trust"
	"espalier/web/explain"
	"espalier/web/profile"
)

// Compiled is what a reload replaces: everything that a configuration decides
// and that no listener depends on.
type Compiled struct {
	State *proxy.State
	PAC   *pac.PAC
	lists *lists.Version
	ca    *inspect.CA // nil: there is none, or it cannot be read
	caErr error       // why

	// Set by App.compile: what only the process itself needs.
	loaded      *configs.Loaded
	explainer   *explain.Explainer
	issuer      *profile.Issuer
	rootProfile []byte     // of ca
	users       *auth.Auth // of the console
}

// kept is what outlives a configuration, and is used by the next.
type kept struct {
	exceptions *inspect.Exceptions // from interception; nil for none
	guard      *auth.Guard         // of sign-ins; nil for a new one
	lists      *lists.Lists
}

// compile makes of a configuration what decides by it. self are the addresses
// that the process listens on. Errors name the key at fault.
func compile(cfg *configs.Config, self []netip.AddrPort, before kept, log *zap.Logger) (*Compiled, error) {
	var errs []error
	users, err := auth.Open(cfg.Auth, before.guard, log)
	errs = append(errs, err)
	version := before.lists.Prepare(cfg.Lists)
	ca, caErr := inspect.LoadCA(CADir(cfg))
	var excluded func(string, netip.Addr) bool
	if caErr == nil {
		excluded = ca.Excludes
	}
	pol, err := policy.New(policy.Config{
		Clients: cfg.Proxy.Clients, Ports: cfg.Proxy.Ports, Apple: cfg.Apple, Auth: users != nil && users.Enabled(),
		Rules: cfg.Rules, Lists: version.HostLists(), Inspect: cfg.Inspect, Presets: cfg.Presets,
		Exceptions: before.exceptions, Excluded: excluded, FoldUser: foldUser(users),
	})
	errs = append(errs, err)
	roots, err := inspect.LoadRoots(cfg.Inspect.Roots)
	if err != nil {
		errs = append(errs, fmt.Errorf("inspect.roots%w", err))
	}
	dialer, err := egress.New(cfg.Egress, ownAddresses(cfg, self))
	if err != nil {
		errs = append(errs, fmt.Errorf("egress: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	script, err := pac.Compile(cfg.PAC, pol)
	if err != nil {
		return nil, fmt.Errorf("pac: %w", err)
	}
	return &Compiled{State: &proxy.State{
		Policy: pol, Dialer: dialer, Auth: users, Roots: roots, Trust: trust.New(roots, fetcher{dialer, roots}), Contact: strings.TrimSpace(cfg.Proxy.Contact),
	}, PAC: script, lists: version, ca: ca, caErr: caErr}, nil
}

// foldUser is how rules compare the names of users; nil if these could not be opened.
func foldUser(users *auth.Auth) func(string) (string, bool) {
	if users == nil {
		return nil
	}
	return users.FoldUser
}

// compileAlone is compile without a running process. exceptions may be nil. Errors are
// of the configuration.
func compileAlone(cfg *configs.Config, exceptions *inspect.Exceptions) (*Compiled, error) {
	made, err := compile(cfg, nil, kept{exceptions: exceptions, lists: newLists(cfg, zap.NewNop())}, nil)
	return made, invalid(err)
}

// ownAddresses are where Espalier is reached that listens on self: there, and at
// the proxies of the PAC script, which may stand before it, or beside it.
func ownAddresses(cfg *configs.Config, self []netip.AddrPort) egress.Self {
	own := egress.Self{Listeners: self}
	add := func(proxies []string) {
		for _, p := range proxies {
			if t, err := policy.ParseTarget(p, 0); err == nil {
				own.Names = append(own.Names, t)
			}
		}
	}
	add(cfg.PAC.Proxies)
	for _, site := range cfg.PAC.Sites {
		add(site.Proxies)
	}
	return own
}

// Apple is what a configuration takes for Apple's.
func Apple(cfg *configs.Config) (*catalog.Set, error) {
	p, err := policy.New(policy.Config{Apple: cfg.Apple})
	if err != nil {
		return nil, err
	}
	return p.Apple(), nil
}

// NewExplainer compiles a configuration as a running process would.
func NewExplainer(cfg *configs.Config) (*explain.Explainer, error) {
	exceptions, unreadable := inspect.OpenExceptions(cfg.Data) // perhaps another user's
	if unreadable == nil {
		exceptions.TunnelWithoutCA(cfg.Inspect.WithoutCA == policy.WithoutCATunnel)
	}
	c, err := compileAlone(cfg, exceptions)
	if err != nil {
		return nil, err
	}
	e := c.explain(cfg, Addresses(cfg.Proxy.Listen))
	e.Unreadable = unreadable
	return e, nil
}

// explain returns what explains cfg, which c was made of.
func (c *Compiled) explain(cfg *configs.Config, proxy []netip.AddrPort) *explain.Explainer {
	return &explain.Explainer{
		Policy: c.State.Policy, Rules: cfg.Rules, Auth: c.State.Auth, Lists: c.lists,
		Dialer: c.State.Dialer, PAC: c.PAC, Proxy: proxy, Clients: cfg.Proxy.Clients,
	}
}
