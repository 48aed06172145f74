package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/configs"
	"espalier/policy/catalog"
)

const exportHelp = `Write the catalogue for firewalls and other programs.

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
                      poll; web.public serves both under /export/`

func catalogExport() *cobra.Command {
	var format, set string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the catalogue for firewalls and other programs",
		Long:  exportHelp,
		Example: `  espalier catalog export --for devices --format nftables > devices.nft
  espalier catalog export --for devices --format dnsmasq > devices.conf`,
		Args: cobra.NoArgs,
		RunE: with(loadedConfig, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			if err := oneOf("format", format, catalog.Formats()); err != nil {
				return err
			}
			if set == "" && catalog.ForFirewall(format) {
				set = "devices"
			}
			if set != "" {
				if err := oneOf("for", set, catalog.Sets); err != nil {
					return err
				}
			}
			if file, _ := cmd.Flags().GetString("catalog"); file != "" {
				cfg.Apple.Catalog = file
			}
			s, err := app.Selection(cfg, set)
			if err != nil {
				return err
			}
			if covered := s.Covered(); len(covered) > 0 && catalog.ForFirewall(format) && !catalog.CanRefuse(format) {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: wildcards here cover names that the policy refuses; let your resolver answer that these do not exist (--format dnsmasq does): %s\n", strings.Join(covered, ", "))
			}
			return catalog.Export(cmd.OutOrStdout(), format, s)
		}),
	}
	cmd.Flags().StringVar(&set, "for", "", "only what `WHO` must reach: "+strings.Join(catalog.Sets, ", "))
	cmd.Flags().StringVar(&format, "format", "json", "one `FORMAT` of those above")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(catalog.Sets, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(catalog.Formats(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
