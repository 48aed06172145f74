package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/proxy/accesslog"
)

// trafficCommand is `espalier traffic`.
func trafficCommand(load configOf) *cobra.Command {
	var since, until, by string
	var asJSON bool
	limit := 30
	cmd := &cobra.Command{
		Use:   "traffic",
		Short: "Sum up what was used",
		Long: `Sums up what finished requests have used, whether espalier runs or not. A tunnel
counts when it ends; "espalier status" and /metrics show what flows now.

Sums are kept by the minute for two days (services and actions), by the hour for
90 days and by the day (UTC) for two years, of single clients no longer than
records (log.store.keep). The window is widened to whole ones.`,
		Example: `  espalier traffic --since 7d
  espalier traffic --since today --by host --limit 10
  espalier traffic --since 2026-01-01 --until 2026-02-01 --json`,
		Args: cobra.NoArgs,
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			f, err := accesslog.ParseFilter(func(key string) string {
				return map[string]string{"since": since, "until": until}[key]
			}, time.Now())
			if err != nil {
				return usage(flagErrors(err))
			}
			if err := oneOf("by", by, accesslog.Dimensions); err != nil {
				return err
			}
			if limit < 0 {
				return usage(errors.New("--limit: must not be negative"))
			}
			r, err := app.OpenRecords(cfg)
			if err != nil {
				return err
			}
			defer r.Close()
			t, err := r.Traffic(cmd.Context(), accesslog.TrafficQuery{From: f.From, To: f.To, By: by, Limit: limit})
			if err != nil {
				return err
			}
			return report.Answer(cmd.OutOrStdout(), asJSON, report.NewTraffic(t, by), report.WriteTraffic)
		}),
	}
	cmd.Flags().StringVar(&since, "since", "24h", "from a `TIME` on, as for espalier logs")
	cmd.Flags().StringVar(&until, "until", "", "up to a `TIME`")
	cmd.Flags().StringVar(&by, "by", accesslog.ByService, "`WHAT`: service, action, host or client")
	cmd.Flags().IntVar(&limit, "limit", limit, "list the largest `N`; 0 lists all")
	return withJSON(&asJSON, cmd)
}
