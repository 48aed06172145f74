package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/configs"
)

func validateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate",
		Short: "Check the configuration and say all that is wrong with it",
		Long: `Checks the configuration without starting anything.

If there is a store of access records, its last 30 days are checked, too: a
warning names each port that requests had and that proxy.ports refuses.

Exit status 0: it is valid; warnings may stand on standard error.
Exit status 1: every mistake stands on a line of its own, as
file:line:column: key: what is wrong.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := configOptions(cmd)
			l, err := configs.Load(o)
			var warnings configs.Problems
			var notes []string
			if err == nil {
				warnings, notes, err = app.Check(cmd.Context(), l)
			}
			if err != nil {
				fmt.Fprintln(cmd.OutOrStdout(), err)
				return &exitError{code: exitNo}
			}
			for _, w := range warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			for _, note := range notes {
				fmt.Fprintln(cmd.ErrOrStderr(), "note:", note)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is valid\n", cmp.Or(o.File, "the embedded default"))
			return nil
		},
	}
}
