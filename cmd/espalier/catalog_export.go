package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"espalier/pac"
	"espalier/policy"
	"espalier/policy/catalog"
)

func catalogExport(load func() ([]catalog.Row, error)) *cobra.Command {
	var format, set string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the catalogue for firewalls and other programs",
		Long: `Write the catalogue for firewalls and other programs.

--for chooses who must reach the hosts:
  proxy    the machine that Espalier runs on: all TCP rows
  devices  devices, past the proxy: all UDP rows, the TCP rows that the PAC
           script sends direct (also as a fallback), and the TCP rows that a
           device needs before it has the script: setup, enrolment, push,
           updates, certificates
  servers  an MDM server and administrators' machines: push, enrolment, portals
           and APIs, app licences, roster upload (SSH), firmware
  udp      all UDP rows, which no HTTP proxy carries
Without --for, firewall formats have devices, and the others every row.

Hosts that the policy (-c FILE) refuses to every client are left out, Private
Relay's too if apple.private_relay is block. So are *.apple.com and Apple's
address blocks if they cover a refused host.

Formats:
  json, csv, hosts    for programs
  squid               access rules
  nftables, dnsmasq   a chain, and what fills its sets with addresses of names
  mikrotik, fortinet  scripts for RouterOS and FortiOS
  list, networks      names, or address blocks, one a line, for firewalls that
                      poll; web.public serves both under /export/`,
		Example: `  espalier catalog export --for devices --format nftables > devices.nft
  espalier catalog export --for devices --format dnsmasq > devices.conf`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(catalog.Formats(), format) {
				return usage(fmt.Errorf("--format: %q is unknown (allowed: %s)", format, strings.Join(catalog.Formats(), ", ")))
			}
			if set == "" && catalog.ForFirewall(format) {
				set = "devices"
			}
			if set != "" && !slices.Contains(catalog.Sets, set) {
				return usage(fmt.Errorf("--for: %q is unknown (allowed: %s)", set, strings.Join(catalog.Sets, ", ")))
			}
			rows, err := load()
			if err != nil {
				return err
			}
			cfg, err := loadedConfig(cmd)
			if err != nil {
				return err
			}
			if file, _ := cmd.Flags().GetString("catalog"); file != "" {
				cfg.Apple.Catalog = file
			}
			made, err := compile(cfg, nil, kept{lists: newLists(cfg, zap.NewNop())}, nil)
			if err != nil {
				return usage(err)
			}
			var s catalog.Selection
			if set != "" {
				s, err = selection(set, made.state.Policy, made.pac)
			} else {
				if file, _ := cmd.Flags().GetString("catalog"); file == "" && cfg.Apple.Catalog != "" {
					rows, err = catalog.Load(cfg.Apple.Catalog)
				}
				s.Rows, s.Refused = made.state.Policy.Open(rows, false)
			}
			if err != nil {
				return usage(err)
			}
			if covered := s.Covered(); len(covered) > 0 && catalog.ForFirewall(format) && !catalog.CanRefuse(format) {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: wildcards here cover names that the policy refuses; let your resolver answer that these do not exist (--format dnsmasq does): %s\n", strings.Join(covered, ", "))
			}
			return catalog.Export(cmd.OutOrStdout(), format, s)
		},
	}
	cmd.Flags().StringVar(&set, "for", "", "only what `WHO` must reach: "+strings.Join(catalog.Sets, ", "))
	cmd.Flags().StringVar(&format, "format", "json", "one `FORMAT` of those above")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(catalog.Sets, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(catalog.Formats(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// selection returns one of catalog.Sets under a policy and its PAC script. A row
// goes direct where it does at any site.
func selection(set string, pol *policy.Policy, script *pac.PAC) (catalog.Selection, error) {
	direct := func(host string, port uint16) bool {
		block, _ := catalog.Block(host)
		t := policy.Target{Host: host, Addr: block.Addr(), Port: port}
		return slices.ContainsFunc(append(script.Sites(), ""), func(site string) bool {
			answer, err := script.Route(site, []string{"proxy.invalid:1"}, t)
			return err == nil && strings.Contains(answer.Text, "DIRECT")
		})
	}
	rows, err := catalog.Select(pol.Apple().Rows(), set, direct)
	if err != nil {
		return catalog.Selection{}, err
	}
	s := catalog.Selection{Set: set}
	s.Rows, s.Refused = pol.Open(rows, set == "proxy")
	return s, nil
}

// exports caches the lists that web.public serves to firewalls that poll: a list
// takes work to make, and any client may ask for it.
type exports struct {
	mu     sync.Mutex
	of     *compiled
	at     time.Time
	format map[string][]byte
}

// exportAge is how long a cached list is served. A reload replaces it at once, a
// change of a host list that a rule names after this time.
const exportAge = time.Minute

// export is what devices must reach past the proxy by the configuration in force,
// nil if web.export is false.
func (a *app) export(format string) []byte {
	if !a.current.Load().Config.Web.Export {
		return nil
	}
	e, made := &a.exports, a.made.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.of != made || time.Since(e.at) > exportAge {
		e.of, e.at, e.format = made, time.Now(), map[string][]byte{}
	}
	if e.format[format] == nil {
		s, err := selection("devices", made.state.Policy, made.pac)
		b := bytes.NewBuffer([]byte{})
		if err == nil {
			err = catalog.Export(b, format, s)
		}
		if err != nil {
			a.log.Error("list for firewalls failed", zap.Error(err))
			return nil
		}
		e.format[format] = b.Bytes()
	}
	return e.format[format]
}
