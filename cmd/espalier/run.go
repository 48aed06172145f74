package main

import (
	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/cmd/espalier/report"
)

func runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Start the proxy",
		Long: `Starts the proxy, the PAC server and the console. Without -c it runs on the
embedded default configuration and keeps its state in ./espalier-data.

SIGHUP, a change of the configuration file and "espalier reload" read the
configuration again. SIGTERM and SIGINT drain and stop; a second one stops at
once.

Sockets that systemd passes take the place of configured addresses: the same
address, or any by FileDescriptorName=proxy, proxy-tls, public or admin. A
process that has such sockets may be started while the one before runs, which is
then stopped: no client is refused, and whoever has connected is answered.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := app.Open(configOptions(cmd), programVersion())
			if err != nil {
				return err
			}
			return a.Run(cmd.Context(), func(s app.Summary) error {
				return report.Summary(report.NewScreen(cmd.OutOrStdout()), programVersion(), s)
			})
		},
	}
}
