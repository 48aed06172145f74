package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/report"
	"espalier/web"
	"espalier/web/certs"
)

// tlsCommand is `espalier tls`.
func tlsCommand(dataDir dataDirOf) *cobra.Command {
	var revoke bool
	show := showing(dataDir, &cobra.Command{
		Use:   "show",
		Short: "Show the certificates that a running espalier serves TLS with",
		Long: `Show the certificates that a running espalier serves TLS with: where they are
from, what they are for, until when, and their fingerprints (SHA-256), by which a
browser's warning of a self-signed one can be checked.

The exit status is 1 where none runs with the data directory, or there is no
certificate.`,
	}, certsInForce, report.Certificates)
	renew := &cobra.Command{
		Use:   "renew",
		Short: "Let a running espalier obtain its certificates anew",
		Long: `Let a running espalier obtain its certificates anew from the authority of
tls.acme, with new keys, and wait for it. That happens by itself long before they
expire; this is for when a key may be known to others (--revoke), or to see that
it works. Connections go on, and the certificates before serve until then.`,
		Args: cobra.NoArgs,
		RunE: asking(dataDir, renewTimeout, func(ctx context.Context, c *web.ControlClient, cmd *cobra.Command, _ []string) error {
			if err := c.RenewTLS(ctx, revoke); err != nil {
				return err
			}
			all, err := certsInForce(c, ctx)
			if err != nil {
				return err
			}
			return report.Certificates(report.NewScreen(cmd.OutOrStdout()), all)
		}),
	}
	renew.Flags().BoolVar(&revoke, "revoke", false, "revoke the certificates before, as ones whose key others may know")
	return group("tls", "Show and renew the certificates of the listeners", show, renew)
}

// certsInForce are the certificates of a running process; none is an error.
func certsInForce(c *web.ControlClient, ctx context.Context) ([]certs.Status, error) {
	st, err := c.Status(ctx)
	if err == nil && len(st.TLS) == 0 {
		err = errors.New("nothing is served with TLS: the configuration has no tls")
	}
	return st.TLS, err
}
