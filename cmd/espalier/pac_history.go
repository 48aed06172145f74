package main

import (
	"slices"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/pac/history"
)

func pacHistory(load configOf) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history [ID]",
		Short: "List the scripts that were in force, or print one",
		Long: `List the scripts that were in force, the newest first: for each site one whenever
it changed, up to a thousand. ID begins the digest of the script, as the ETag does
that it is served with; CONFIG begins the SHA-256 of the configuration file. An order
of proxies that is a client's own, or due to one that failed, makes no new script.

With an ID, the script is printed.`,
		Args: cobra.MaximumNArgs(1),
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, args []string) error {
			store := history.New(cfg.Data)
			if len(args) > 0 {
				script, err := store.Find(args[0])
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(script)
				return err
			}
			entries, err := store.List()
			if err != nil {
				return err
			}
			slices.Reverse(entries)
			return report.Answer(cmd.OutOrStdout(), asJSON, entries, report.Scripts)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}
