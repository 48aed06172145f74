package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/policy"
	"espalier/policy/exempt"
	"espalier/web"
	"espalier/web/api"
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
		changeException(dataDir, api.RefuseException, "Never exempt a host, whatever clients do", "no client is exempt at %s from now on, whatever it does"),
		changeException(dataDir, api.ForgetException, "Forget what is known of a host", "%s is as if it had never been refused"),
	)
	return group("inspect", "List and judge what TLS interception leaves alone", exceptions, listExempt())
}

// listExempt is `espalier inspect exempt`.
func listExempt() *cobra.Command {
	var asJSON bool
	return withJSON(&asJSON, &cobra.Command{
		Use:   "exempt",
		Short: "List hosts that are never intercepted, each with its source",
		Long: `Lists the hosts that inspect.mode all leaves alone: those that are known not to bear
interception (inspect.known_exempt), each with its public source and the day when that was
read, and those of inspect.exempt. Apple's hosts are never intercepted; ` + "`espalier catalog list`" + `
has them.`,
		Args: cobra.NoArgs,
		RunE: with(loadedConfig, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			rows := []exempt.Row{}
			if cfg.Inspect.KnownExempt {
				rows = append(rows, exempt.Rows()...)
			}
			for _, host := range cfg.Inspect.Exempt {
				rows = append(rows, exempt.Row{Host: host, Source: "inspect.exempt"})
			}
			return report.Answer(cmd.OutOrStdout(), asJSON, rows, report.Exempt)
		}),
	})
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
