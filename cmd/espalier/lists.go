package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/report"
	"espalier/policy/lists"
	"espalier/web"
)

// listsCommand is `espalier lists`.
func listsCommand(dataDir dataDirOf) *cobra.Command {
	cmd := showing(dataDir, &cobra.Command{
		Use:   "lists",
		Short: "Show the lists of a running espalier",
		Long: `Show the lists of a running espalier: their entries, lines that were skipped and
that are bad, with examples, when they were loaded, and whether they are up to date.

The exit status is 1 where none runs with the data directory.`,
	}, listsInForce, report.Lists)
	cmd.AddCommand(&cobra.Command{
		Use:   "refresh [LIST]",
		Short: "Let a running espalier fetch a list anew, or all",
		Long: `Let a running espalier fetch a list anew, or all, whatever is due, and wait
for it. Where that fails the exit status is 1, and what was loaded before stays
in force.`,
		Args: cobra.MaximumNArgs(1),
		RunE: asking(dataDir, refreshTimeout, func(ctx context.Context, c *web.ControlClient, cmd *cobra.Command, args []string) error {
			name := strings.Join(args, "")
			if err := c.RefreshLists(ctx, name); err != nil {
				return err
			}
			all, err := listsInForce(c, ctx)
			if err != nil {
				return err
			}
			all = slices.DeleteFunc(all, func(l lists.Status) bool { return name != "" && l.Name != name })
			return report.Lists(report.NewScreen(cmd.OutOrStdout()), all)
		}),
	})
	return cmd
}

func listsInForce(c *web.ControlClient, ctx context.Context) ([]lists.Status, error) {
	st, err := c.Status(ctx)
	return st.Lists, err
}
