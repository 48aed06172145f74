package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"espalier/web"
)

// setupCommand is `espalier setup`.
func setupCommand(dataDir dataDirOf) *cobra.Command {
	return &cobra.Command{
		Use:   "setup",
		Short: "Print a link that makes the console's first user",
		Long: `Prints a link that makes the console's first user, an admin. It is good once,
for an hour, in a browser on this machine (or through an SSH tunnel to it). The
exit status is 1 where there are users already, or espalier does not run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return control(cmd, dataDir, func(ctx context.Context, c *web.ControlClient) error {
				link, err := c.SetupLink(ctx)
				if err == nil {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), link.URL)
				}
				return err
			})
		},
	}
}
