package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

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
			var made *compiled
			if err == nil {
				made, err = compile(l.Config, nil, kept{lists: newLists(l.Config, zap.NewNop())}, nil)
				err = errors.Join(err, needCA(l.Config))
			}
			if err != nil {
				fmt.Fprintln(cmd.OutOrStdout(), err)
				return &exitError{code: exitNo}
			}
			for _, w := range l.Warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			for _, w := range listWarnings(l.Config, made.lists.Status()) {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", l.Problem(w))
			}
			ports, note := portWarnings(cmd.Context(), l.Config, made, time.Now())
			for _, w := range ports {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", l.Problem(w))
			}
			if note != "" {
				fmt.Fprintln(cmd.ErrOrStderr(), "note:", note)
			}
			name := o.File
			if name == "" {
				name = "the embedded default"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is valid\n", name)
			return nil
		},
	}
}
