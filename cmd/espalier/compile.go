package main

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
	"espalier/proxy"
	"espalier/proxy/egress"
	"espalier/proxy/inspect"
)

// compiled is what a reload replaces: everything that a configuration decides
// and that no listener depends on.
type compiled struct {
	state *proxy.State
	pac   *pac.PAC
	ca    caInForce // set by app.compile
}

// compile makes of a configuration what decides by it. self are the addresses
// that the process listens on; exceptions are those from interception, nil for
// none; before is what was known of users, nil at the start. Errors name the key
// at fault.
func compile(cfg *configs.Config, self []netip.AddrPort, exceptions *inspect.Exceptions, before *auth.Auth, log *zap.Logger) (*compiled, error) {
	var errs []error
	users, err := auth.Open(cfg.Auth, before, log)
	errs = append(errs, err)
	lists := map[string]policy.HostList{}
	for name := range cfg.Lists {
		lists[name] = nil
	}
	pol, err := policy.New(policy.Config{
		Clients: cfg.Proxy.Clients, Apple: cfg.Apple, Auth: users != nil && users.Enabled(),
		Rules: cfg.Rules, Lists: lists, Inspect: cfg.Inspect, Presets: cfg.Presets,
		Exceptions: exceptions,
	})
	errs = append(errs, err)
	roots, err := inspect.LoadRoots(cfg.Inspect.Roots)
	if err != nil {
		errs = append(errs, fmt.Errorf("inspect.roots%w", err))
	}
	dialer, err := egress.New(cfg.Egress, self)
	if err != nil {
		errs = append(errs, fmt.Errorf("egress: %w", err))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	script, err := pac.Compile(cfg.PAC, pol.Apple())
	if err != nil {
		return nil, fmt.Errorf("pac: %w", err)
	}
	return &compiled{state: &proxy.State{
		Policy: pol, Dialer: dialer, Auth: users, Roots: roots, Contact: strings.TrimSpace(cfg.Proxy.Contact),
	}, pac: script}, nil
}
