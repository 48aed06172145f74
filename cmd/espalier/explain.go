package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/web/explain"
)

func explainCommand() *cobra.Command {
	var client, user string
	var groups []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain URL|HOST:PORT...",
		Short: "Say what happens to a destination, and why",
		Example: `  espalier explain https://gs.apple.com/
  espalier explain --client 10.1.2.3 --user alice example.com:443`,
		Long: `Say what happens to a destination, and why.

Every destination is explained; the exit status is 2 if one of them is invalid.`,
		Args: cobra.MinimumNArgs(1),
		RunE: with(loadedConfig, func(cmd *cobra.Command, cfg *configs.Config, args []string) error {
			if len(groups) > 0 && user == "" {
				return usage(errors.New("--group: needs --user"))
			}
			q := explain.Question{User: user, Groups: groups}
			if client != "" {
				var err error
				if q.Client, err = netip.ParseAddr(client); err != nil {
					return usage(fmt.Errorf("--client: %q is no address", client))
				}
			}
			e, err := app.NewExplainer(cfg)
			if err != nil {
				return err
			}
			var bad []error
			first := true
			for _, arg := range args {
				q.Target = arg
				x, err := e.Explain(q)
				if err != nil {
					bad = append(bad, fmt.Errorf("%s: %w", arg, err))
					continue
				}
				if asJSON {
					err = report.JSONLine(cmd.OutOrStdout(), x)
				} else {
					if !first {
						fmt.Fprintln(cmd.OutOrStdout())
					}
					err = report.Explanation(report.NewScreen(cmd.OutOrStdout()), x)
				}
				if err != nil {
					return err
				}
				first = false
			}
			return usage(errors.Join(bad...))
		}),
	}
	cmd.Flags().StringVar(&client, "client", "", "the client's `ADDRESS`; without it one that is allowed")
	cmd.Flags().StringVar(&user, "user", "", "`USER` who has signed in")
	cmd.Flags().StringArrayVar(&groups, "group", nil, "`GROUP` of that user, beside auth.groups; repeatable")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, a line for each destination")
	return cmd
}
