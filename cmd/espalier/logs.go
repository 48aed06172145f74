package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"espalier/cmd/espalier/app"
	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/proxy/accesslog"
)

// logsFlags are the flags of `espalier logs` that make its filter.
var logsFlags = []struct{ name, key, usage string }{
	{"since", "since", "from a `TIME` on"},
	{"until", "until", "up to a `TIME`"},
	{"service", "service", "of a `SERVICE`, such as push"},
	{"client", "client", "of a `CLIENT`, address or CIDR block"},
	{"user", "user", "of a `USER`"},
	{"host", "host", "for a `HOST` and all below; *.HOST is only those"},
	{"action", "action", "with an `ACTION`, such as deny or error"},
	{"rule", "rule", "that a `RULE` decided"},
	{"status", "status", "with a `STATUS`: 404, 5xx, 400-499"},
	{"error", "error", "with an error that has a `TEXT`; * is any"},
	{"min-bytes", "min_bytes", "with at least a `SIZE` such as 10MB"},
	{"min-duration", "min_duration", "that took at least a `TIME` such as 30s"},
}

const logsHelp = `Searches the access log, whether espalier runs or not. What is asked for by
several flags must hold together. Records stand with the newest last.

A time is how long ago (90s, 15m, 2h, 3d, 1w), today, yesterday, 14:30 (the last
time that it was), 2026-01-31, "2026-01-31 14:30", or RFC 3339. Actions are
tunnel, forward, inspect, deny, challenge and error.

The store is searched (log.store.path), or the log's JSON files where there is
none.`

// logsCommand is `espalier logs`.
func logsCommand(load configOf) *cobra.Command {
	var asJSON, asCSV, follow bool
	limit, values := 100, map[string]*string{}
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Search the access log",
		Long:  logsHelp,
		Example: `  espalier logs --since 1h --host icloud.com
  espalier logs --since today --action deny --client 10.1.0.0/16
  espalier logs --since yesterday --status 5xx --limit 0 --csv >errors.csv
  espalier logs -f --service push`,
		Args: cobra.NoArgs,
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			if limit < 0 {
				return usage(errors.New("--limit: must not be negative"))
			}
			f, err := accesslog.ParseFilter(func(key string) string { return *values[key] }, time.Now())
			if err != nil {
				return usage(flagErrors(err))
			}
			if follow && !f.To.IsZero() {
				return usage(errors.New("--until: cannot stand beside --follow"))
			}
			if f, err = cfg.Log.Access.Anonymous(f, cfg.Data); err != nil {
				return usage(flagErrors(err))
			}
			r, err := app.OpenRecords(cfg)
			if err != nil {
				return err
			}
			defer r.Close()
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			out := report.NewRecords(cmd.OutOrStdout(), asJSON, asCSV)
			more := false
			if follow {
				err = r.Follow(ctx, f, limit, out.Write, out.Flush)
			} else {
				more, err = r.Show(ctx, f, limit, out.Write, out.Flush)
			}
			if more && err == nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "these are the newest %d; --limit 0 shows all\n", limit)
			}
			if ctx.Err() != nil {
				return nil // interrupted
			}
			return err
		}),
	}
	for _, flag := range logsFlags {
		values[flag.key] = cmd.Flags().String(flag.name, "", flag.usage)
	}
	cmd.Flags().IntVar(&limit, "limit", limit, "show the newest `N`; 0 shows all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON, a line for each record")
	cmd.Flags().BoolVar(&asCSV, "csv", false, "write CSV")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new records as they come")
	cmd.MarkFlagsMutuallyExclusive("json", "csv")
	cmd.AddCommand(logsImportCommand(load))
	return cmd
}

// flagErrors names flags in place of keys.
func flagErrors(err error) error {
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		key, rest, _ := strings.Cut(line, ":")
		lines[i] = "--" + strings.ReplaceAll(key, "_", "-") + ":" + rest
	}
	return errors.New(strings.Join(lines, "\n"))
}

// logsImportCommand is `espalier logs import`.
func logsImportCommand(load configOf) *cobra.Command {
	return &cobra.Command{
		Use:   "import FILE...",
		Short: "Put the records of JSON files into the store",
		Long: `Puts the records of access logs in JSON, packed with gzip or not, into the
store. Records that it has are passed over, so that a file may be imported
again. So are those from before the time up to which it has removed records:
they are in its sums already.

The log's own files need no import: the store reads them by itself. Others may
be imported while espalier runs.`,
		Args: cobra.MinimumNArgs(1),
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, args []string) error {
			if cfg.Log.Store.Path == "" {
				return usage(errors.New("log.store.path: is empty, so there is no store"))
			}
			store, err := accesslog.OpenStore(cfg.Log.Store, cfg.Data, zap.NewNop())
			if err != nil {
				return err
			}
			defer store.Close()
			for _, path := range args {
				in, err := accesslog.OpenFile(path)
				if err != nil {
					return err
				}
				n, err := store.Import(cmd.Context(), in)
				in.Close()
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %d imported, %d known, %d too old, %d no records\n", path, n.Stored, n.Known, n.Old, n.Bad)
			}
			return nil
		}),
	}
}
