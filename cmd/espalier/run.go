package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
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
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd) },
	}
}

func run(cmd *cobra.Command) error {
	a, err := app.Open(configOptions(cmd), programVersion())
	if err != nil {
		return err
	}
	return a.Run(cmd.Context(), func(s app.Summary) error { return writeSummary(newScreen(cmd.OutOrStdout()), s) })
}

func writeSummary(to screen, s app.Summary) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s is running\n\n", to.paint(bold, "Espalier"), programVersion())
	row := func(name string, as style, value string) {
		fmt.Fprintf(&b, "  %s  %s\n", to.paint(dim, fmt.Sprintf("%-13s", name)), to.paint(as, value))
	}
	if s.PAC != "" {
		row("PAC URL", bold, s.PAC)
		row("", dim, "give it to your MDM: Global HTTP Proxy, type Automatic")
		if s.Secret {
			row("", dim, "with pac.token for TOKEN, as `espalier status` shows it")
		}
	} else {
		row("PAC URL", yellow, "none: "+s.Why)
	}
	if s.Proxy != "" {
		row("Proxy", plain, s.Proxy)
		row("", dim, "what the PAC script sends devices to")
	}
	if s.Console != "" {
		row("Console", plain, s.Console)
	}
	if s.Setup != "" {
		row("", bold, s.Setup)
		row("", dim, "open this once, within the hour, to make the console's first user")
	}
	row("Configuration", plain, s.Config)
	row("State", plain, s.Data)
	b.WriteByte('\n')
	_, err := io.WriteString(to, b.String())
	return err
}
