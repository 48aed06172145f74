package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/proxy/accesslog"
	"espalier/web/explain"
)

func explainCommand() *cobra.Command {
	var client, user, at string
	var groups []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain URL|HOST:PORT...",
		Short: "Say what happens to a destination, and why",
		Example: `  espalier explain https://gs.apple.com/
  espalier explain --client 10.1.2.3 --user alice example.com:443
  espalier explain --at 14:30 https://game.example/`,
		Long: `Say what happens to a destination, and why.

Every destination is explained; the exit status is 2 if one of them is invalid.`,
		Args: cobra.MinimumNArgs(1),
		RunE: with(loadedConfig, func(cmd *cobra.Command, cfg *configs.Config, args []string) error {
			if len(groups) > 0 && user == "" {
				return usage(errors.New("--group: needs --user"))
			}
			q := explain.Question{User: user, Groups: groups}
			var err error
			if client != "" {
				if q.Client, err = netip.ParseAddr(client); err != nil {
					return usage(fmt.Errorf("--client: %q is no address", client))
				}
			}
			if q.At, err = timeOf(at); err != nil {
				return usage(fmt.Errorf("--at: %w", err))
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
	cmd.Flags().StringVar(&at, "at", "", "ask rules with hours about `TIME`; default now")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, a line for each destination")
	return cmd
}

// timeOf parses a time as accesslog.ParseTime does, but for a time of the day, which is
// today's. It is zero if s is empty.
func timeOf(s string) (time.Time, error) {
	now := time.Now()
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse("15:04", s); err == nil {
		return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), 0, 0, now.Location()), nil
	}
	return accesslog.ParseTime(s, now)
}
