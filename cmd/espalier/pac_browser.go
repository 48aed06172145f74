package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"espalier/pac"
)

// A pacBrowser is what a script of any origin runs in.
type pacBrowser struct {
	engine, at string
	resolve    []string
}

func (b *pacBrowser) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.engine, "engine", "", "answer as this `ENGINE` only: "+engineNames())
	cmd.Flags().StringVar(&b.at, "at", "", "run the script at this `TIME` (RFC 3339) instead of now")
	cmd.Flags().StringArrayVar(&b.resolve, "resolve", nil, "resolve `NAME=ADDRESS` in the script; repeatable")
}

func engineNames() string {
	var names []string
	for _, e := range pac.Engines {
		names = append(names, string(e))
	}
	return strings.Join(names, ", ")
}

// panel returns an evaluator of the script for each engine that was chosen. client is
// its myIpAddress. The time is the same for all.
func (b *pacBrowser) panel(script []byte, client netip.Addr, now time.Time) ([]*pac.Evaluator, error) {
	browser, engines, err := b.browser(client, now)
	if err != nil {
		return nil, err
	}
	return pac.NewPanel(script, browser, engines...)
}

func (b *pacBrowser) browser(client netip.Addr, now time.Time) (pac.Browser, []pac.Engine, error) {
	browser := pac.Browser{Client: client, Now: now, Hosts: map[string]netip.Addr{}}
	engines := pac.Engines
	if b.engine != "" {
		engines = []pac.Engine{pac.Engine(b.engine)}
		if !slices.Contains(pac.Engines, engines[0]) {
			return browser, nil, fmt.Errorf("--engine: unknown engine %q (allowed: %s)", b.engine, engineNames())
		}
	}
	if b.at != "" {
		var err error
		if browser.Now, err = time.Parse(time.RFC3339, b.at); err != nil {
			return browser, nil, fmt.Errorf("--at: invalid time %q (example: 2026-03-01T08:00:00+01:00)", b.at)
		}
	}
	for _, s := range b.resolve {
		name, address, _ := strings.Cut(s, "=")
		a, err := netip.ParseAddr(address)
		if err != nil || name == "" {
			return browser, nil, fmt.Errorf("--resolve: invalid %q (example: intranet.example=10.0.0.1)", s)
		}
		browser.Hosts[strings.ToLower(name)] = a
	}
	return browser, engines, nil
}
