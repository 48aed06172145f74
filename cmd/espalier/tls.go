package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"espalier/web"
	"espalier/web/certs"
)

// tlsCommand is `espalier tls`.
func tlsCommand(dataDir dataDirOf) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tls",
		Short: "Show and renew the certificates of the listeners",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(tlsShowCommand(dataDir), tlsRenewCommand(dataDir))
	return cmd
}

func tlsShowCommand(dataDir dataDirOf) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the certificates that a running espalier serves TLS with",
		Long: `Show the certificates that a running espalier serves TLS with: where they are
from, what they are for, until when, and their fingerprints (SHA-256), by which a
browser's warning of a self-signed one can be checked.

The exit status is 1 where none runs with the data directory, or there is no
certificate.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd, dataDir, asJSON, certsInForce, writeTLS)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

// certsInForce are the certificates of a running process; none is an error.
func certsInForce(ctx context.Context, c *web.ControlClient) ([]certs.Status, error) {
	st, err := c.Status(ctx)
	if err == nil && len(st.TLS) == 0 {
		err = errors.New("nothing is served with TLS: the configuration has no tls")
	}
	return st.TLS, err
}

func writeTLS(s screen, all []certs.Status) error {
	var b strings.Builder
	for i, c := range all {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s\n", s.paint(bold, strings.Join(c.Names, ", ")))
		row := func(name string, as style, text string) {
			fmt.Fprintf(&b, "  %s  %s\n", s.paint(dim, fmt.Sprintf("%-11s", name)), s.paint(as, text))
		}
		row("Source", plain, c.Source)
		if !c.NotAfter.IsZero() {
			row("Issuer", plain, c.Issuer)
			row("Valid", plain, local(c.NotBefore)+" to "+local(c.NotAfter))
			// In two lines, so that it fits a terminal.
			row("SHA-256", plain, c.Fingerprint[:48])
			row("", plain, c.Fingerprint[48:])
		}
		for _, w := range c.Warnings {
			row("Warning", yellow, w)
		}
	}
	_, err := io.WriteString(s, b.String())
	return err
}

// renewTimeout is longer than an authority may take for a name, and its DNS.
const renewTimeout = 15 * time.Minute

func tlsRenewCommand(dataDir dataDirOf) *cobra.Command {
	var revoke bool
	cmd := &cobra.Command{
		Use:   "renew",
		Short: "Let a running espalier obtain its certificates anew",
		Long: `Let a running espalier obtain its certificates anew from the authority of
tls.acme, with new keys, and wait for it. That happens by itself long before they
expire; this is for when a key may be known to others (--revoke), or to see that
it works. Connections go on, and the certificates before serve until then.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return controlWithin(cmd, dataDir, renewTimeout, func(ctx context.Context, c *web.ControlClient) error {
				if err := c.RenewTLS(ctx, revoke); err != nil {
					return withProblems(err)
				}
				all, err := certsInForce(ctx, c)
				if err != nil {
					return err
				}
				return writeTLS(newScreen(cmd.OutOrStdout()), all)
			})
		},
	}
	cmd.Flags().BoolVar(&revoke, "revoke", false, "revoke the certificates before, as ones whose key others may know")
	return cmd
}
