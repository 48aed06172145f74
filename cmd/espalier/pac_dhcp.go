package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/configs"
	"espalier/pac/wpad"
)

func pacDHCP(load configOf) *cobra.Command {
	var format, url, domain string
	cmd := &cobra.Command{
		Use:   "dhcp",
		Short: "Print what tells DHCP clients where the script is",
		Long: `Print what tells DHCP clients where the script is (option 252, WPAD), ready for the
configuration of a DHCP server. With --domain also the DNS record of wpad.DOMAIN,
for clients that look there.

Devices ask for WPAD only where their proxy is set to automatic without a URL.
docs/wpad.md says what is to be considered: whoever answers first can lead clients
anywhere, so prefer a profile with the PAC URL.`,
		Args: cobra.NoArgs,
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			if url == "" {
				var err error
				if url, err = app.WPADURL(cfg); err != nil {
					return usage(err)
				}
			}
			text, err := wpad.DHCP(format, url)
			if err == nil && domain != "" {
				var record string
				record, err = wpad.DNS(format, url, domain)
				text += "\n" + record
			}
			if err != nil {
				return usage(err)
			}
			onPort80 := func(at netip.AddrPort) bool { return at.Port() == 80 }
			if domain != "" && !slices.ContainsFunc(app.Addresses(cfg.Web.Public), onPort80) {
				fmt.Fprintln(cmd.ErrOrStderr(), "note: those that ask DNS come to port 80, which is not in web.public")
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		}),
	}
	cmd.Flags().StringVar(&format, "format", wpad.Formats[0], "for the `SERVER` "+strings.Join(wpad.Formats, ", "))
	cmd.Flags().StringVar(&url, "url", "", "the script's `URL`, in place of /wpad.dat at this machine's address")
	cmd.Flags().StringVar(&domain, "domain", "", "the `DOMAIN` of the clients")
	return cmd
}
