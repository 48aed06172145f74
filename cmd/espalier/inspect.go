package main

import (
	"context"
	"espalier/cmd/espalier/report"
	"espalier/policy"
	"espalier/web"
	"espalier/web/api"
	"fmt"

	"github.com/spf13/cobra"
)

// inspectCommand is `espalier inspect`.
func inspectCommand(dataDir dataDirOf) *cobra.Command {
	exceptions := listExceptions(dataDir)
	exceptions.Use = "exceptions"
	exceptions.Short = "List and judge hosts whose clients refuse interception"
	exceptions.Long = `Lists and judges hosts whose clients refuse interception.

Apps that know their server's certificate do not accept the CA's. A host that a
client refuses is tunnelled for that client alone, for inspect.pinned.for: after
one TLS alert, or after it has closed on two occasions at least 30 s apart. So is
a host that the client has a certificate of its own for. Only accept tunnels a
host for all clients. HOST may be a pattern such as '*.example.com', an address or
a CIDR block; the most specific one counts. Without a command below it, this lists
the hosts.`
	exceptions.AddCommand(
		listExceptions(dataDir),
		changeException(dataDir, api.AcceptException, "Never intercept a host, for any client", "%s is tunnelled from now on"),
		changeException(dataDir, api.RefuseException, "Never exempt a host, whatever clients do", "%s is intercepted from now on, whatever clients do"),
		changeException(dataDir, api.ForgetException, "Forget what is known of a host", "%s is as if it had never been refused"),
	)
	return group("inspect", "See to TLS interception in a running espalier", exceptions)
}

func listExceptions(dataDir dataDirOf) *cobra.Command {
	return showing(dataDir, &cobra.Command{Use: "list", Short: "List the hosts, the last refused first"},
		(*web.ControlClient).Exceptions, report.Exceptions)
}

func changeException(dataDir dataDirOf, do, short, done string) *cobra.Command {
	return &cobra.Command{
		Use:   do + " HOST",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: asking(dataDir, controlTimeout, func(ctx context.Context, c *web.ControlClient, cmd *cobra.Command, args []string) error {
			host, err := policy.ParsePattern(args[0])
			if err != nil {
				return usage(err)
			}
			if err := c.ChangeException(ctx, do, host); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), done+"\n", host)
			return err
		}),
	}
}
