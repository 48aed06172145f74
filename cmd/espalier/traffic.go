package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"espalier/configs"
	"espalier/proxy/accesslog"
)

// trafficReport is what `espalier traffic --json` prints.
type trafficReport struct {
	From  time.Time   `json:"from"`
	To    time.Time   `json:"to"`
	By    string      `json:"by"`
	Rows  []trafficOf `json:"rows"`
	Total trafficOf   `json:"total"`
}

// trafficOf is the traffic of a name; the empty one are all that are not listed.
type trafficOf struct {
	Name     string `json:"name"`
	Requests int64  `json:"requests"`
	Errors   int64  `json:"errors"`
	Up       int64  `json:"up"`
	Down     int64  `json:"down"`
}

func newTrafficOf(name string, s accesslog.Sum) trafficOf {
	return trafficOf{name, s.Requests, s.Errors, s.Up, s.Down}
}

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
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := accesslog.ParseFilter(func(key string) string {
				return map[string]string{"since": since, "until": until}[key]
			}, time.Now())
			if err != nil {
				return usage(flagErrors(err))
			}
			if !slices.Contains(accesslog.Dimensions, by) {
				return usage(fmt.Errorf("--by: %q is unknown (allowed: %s)", by, strings.Join(accesslog.Dimensions, ", ")))
			}
			if limit < 0 {
				return usage(errors.New("--limit: must not be negative"))
			}
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			t, err := sumUp(cmd.Context(), cfg, accesslog.TrafficQuery{From: f.From, To: f.To, By: by, Limit: limit})
			if err != nil {
				return err
			}
			return writeAnswer(cmd, asJSON, newTrafficReport(t, by), writeTraffic)
		},
	}
	cmd.Flags().StringVar(&since, "since", "24h", "from a `TIME` on, as for espalier logs")
	cmd.Flags().StringVar(&until, "until", "", "up to a `TIME`")
	cmd.Flags().StringVar(&by, "by", accesslog.ByService, "`WHAT`: service, action, host or client")
	cmd.Flags().IntVar(&limit, "limit", limit, "list the largest `N`; 0 lists all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

// sumUp asks the store, or where there is none sums up the log's files.
func sumUp(ctx context.Context, cfg *configs.Config, q accesslog.TrafficQuery) (*accesslog.Traffic, error) {
	r, err := openRecords(cfg)
	if err != nil {
		return nil, err
	}
	defer r.close()
	if r.store != nil {
		return r.store.Traffic(ctx, q)
	}
	if q.To.IsZero() {
		q.To = time.Now()
	}
	return accesslog.SumUp(q, r.all(ctx, accesslog.Filter{From: q.From, To: q.To}))
}

func newTrafficReport(t *accesslog.Traffic, by string) *trafficReport {
	report := &trafficReport{From: t.From, To: t.To, By: by, Rows: []trafficOf{}, Total: newTrafficOf("total", t.Total())}
	for _, r := range t.Rows {
		report.Rows = append(report.Rows, newTrafficOf(r.Name, r.Sum))
	}
	slices.SortStableFunc(report.Rows, func(a, b trafficOf) int {
		if (a.Name == "") != (b.Name == "") { // the others stand last
			return strings.Compare(b.Name, a.Name)
		}
		return cmp.Or(cmp.Compare(b.Up+b.Down, a.Up+a.Down), cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Name, b.Name))
	})
	return report
}

// writeTraffic makes a table, with bars where there is a terminal.
func writeTraffic(s screen, t *trafficReport) error {
	if _, err := fmt.Fprintf(s, "%s  %s to %s\n\n", s.paint(bold, "Traffic by "+t.By), local(t.From), local(t.To)); err != nil {
		return err
	}
	if len(t.Rows) == 0 {
		_, err := io.WriteString(s, "No request has finished in this time.\n")
		return err
	}
	total := t.Total.Up + t.Total.Down
	tab := table{head: []string{t.By, "down", "up", "requests", "errors", "share"}, right: []int{1, 2, 3, 4, 5}}
	if s.width > 0 {
		tab.head = append(tab.head, "")
	}
	row := func(r trafficOf, name cell, bar string) {
		errs := cell{strconv.FormatInt(r.Errors, 10), plain}
		if r.Errors > 0 {
			errs.as = yellow
		}
		cells := []cell{name, {english.Size(r.Down), plain}, {english.Size(r.Up), plain}, {strconv.FormatInt(r.Requests, 10), plain}, errs, {english.Percent(r.Up+r.Down, total), plain}}
		if s.width > 0 {
			cells = append(cells, cell{bar, green})
		}
		tab.add(cells...)
	}
	largest := int64(1)
	for _, r := range t.Rows {
		largest = max(largest, r.Up+r.Down)
	}
	room := s.width - t.columns()
	for _, r := range t.Rows {
		name := cell{cut(onLine(r.Name), maxName), plain}
		if r.Name == "" {
			name = cell{"all others", dim}
		}
		row(r, name, bar(float64(r.Up+r.Down)/float64(largest), min(room, 40)))
	}
	row(t.Total, cell{"total", bold}, "")
	return tab.write(s)
}

// maxName bounds the first column.
const maxName = 48

// columns is how wide the table is without its bars.
func (t *trafficReport) columns() int {
	widths := [6]int{len(t.By), 8, 8, len("requests"), len("errors"), len("> 99.9 %")}
	for _, r := range append(t.Rows, t.Total) {
		widths[0] = max(widths[0], min(len([]rune(r.Name)), maxName), len("all others"))
		widths[3] = max(widths[3], len(strconv.FormatInt(r.Requests, 10)))
	}
	sum := 0
	for _, w := range widths {
		sum += w + gutter
	}
	return sum
}

// bar draws a part of width in eighths of a character; something is never nothing.
func bar(part float64, width int) string {
	if width < 1 || part <= 0 {
		return ""
	}
	eighths := max(int(part*float64(width)*8+0.5), 1)
	b := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		b += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return b
}
