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
	cmd.Flags().StringVar(&b.engine, "engine", "", "answer as this `ENGINE` only: "+pac.EngineNames())
	cmd.Flags().StringVar(&b.at, "at", "", "run the script at this `TIME` (RFC 3339) instead of now")
	cmd.Flags().StringArrayVar(&b.resolve, "resolve", nil, "resolve `NAME=ADDRESS` in the script; repeatable")
}

// open returns the browser of a client, and its engines. The time of all is now, unless
// the flag says another.
func (b *pacBrowser) open(who *pacClient, now time.Time) (pac.Browser, []pac.Engine, error) {
	client, err := who.address()
	browser := pac.Browser{Client: client, Now: now, Hosts: map[string]netip.Addr{}}
	engines := pac.Engines
	if err != nil {
		return browser, nil, err
	}
	if b.engine != "" {
		engines = []pac.Engine{pac.Engine(b.engine)}
		if !slices.Contains(pac.Engines, engines[0]) {
			return browser, nil, fmt.Errorf("--engine: unknown engine %q (allowed: %s)", b.engine, pac.EngineNames())
		}
	}
	if b.at != "" {
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
