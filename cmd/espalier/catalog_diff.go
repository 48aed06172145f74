package main

import (
	"github.com/spf13/cobra"

	"espalier/cmd/espalier/report"
	"espalier/policy/catalog"
)

func catalogDiff(load func() ([]catalog.Row, error)) *cobra.Command {
	var asJSON bool
	return withJSON(&asJSON, &cobra.Command{
		Use:   "diff FILE",
		Short: "Show what an edition of Apple's article changes in the catalogue",
		Long: `Show what FILE has and the catalogue has not, and the reverse.

FILE is Apple's article in any form that import reads, or a catalogue as import
writes it; - is standard input. A row with the same host, ports, protocols,
systems and proxy mark below another heading has moved. The exit status is 0 if
they are the same, 1 if they differ.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			old, err := load()
			if err != nil {
				return err
			}
			data, err := readInput(cmd, args[0], maxArticle)
			if err != nil {
				return usage(err)
			}
			rows, err := catalog.Read(args[0], data, old)
			if err != nil {
				return usage(err)
			}
			changes := catalog.Diff(old, rows)
			return no(len(changes) > 0, report.Answer(cmd.OutOrStdout(), asJSON, changes, func(s report.Screen, changes []catalog.Change) error {
				return report.Changes(s, changes, args[0])
			}))
		},
	})
}
