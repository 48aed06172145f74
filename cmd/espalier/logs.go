package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"espalier/policy"
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

// logsCommand is `espalier logs`.
func logsCommand(load configOf) *cobra.Command {
	var asJSON, asCSV, follow bool
	limit := 100
	values := map[string]*string{}
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Search the access log",
		Long: `Searches the access log, whether espalier runs or not. What is asked for by
several flags must hold together. Records stand with the newest last.

A time is how long ago (90s, 15m, 2h, 3d, 1w), today, yesterday, 14:30 (the last
time that it was), 2026-01-31, "2026-01-31 14:30", or RFC 3339. Actions are
tunnel, forward, inspect, deny, challenge and error.

The store is searched (log.store.path), or the log's JSON files where there is
none.`,
		Example: `  espalier logs --since 1h --host icloud.com
  espalier logs --since today --action deny --client 10.1.0.0/16
  espalier logs --since yesterday --status 5xx --limit 0 --csv >errors.csv
  espalier logs -f --service push`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return usage(errors.New("--limit: must not be negative"))
			}
			get := func(key string) string { return *values[key] }
			f, err := accesslog.ParseFilter(get, time.Now())
			if err != nil {
				return usage(flagErrors(err))
			}
			if follow && !f.To.IsZero() {
				return usage(errors.New("--until: cannot stand beside --follow"))
			}
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			if f, err = cfg.Log.Access.Anonymous(f, cfg.Data); err != nil {
				return usage(flagErrors(err))
			}
			r, err := openRecords(cfg)
			if err != nil {
				return err
			}
			defer r.close()
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			out := newRecordWriter(cmd.OutOrStdout(), asJSON, asCSV)
			err = showRecords(ctx, r, f, limit, follow, out, cmd.ErrOrStderr())
			if ctx.Err() != nil { // interrupted
				return nil
			}
			return err
		},
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

// showRecords writes the newest records of f, and new ones as they come where
// follow is set.
func showRecords(ctx context.Context, r *records, f accesslog.Filter, limit int, follow bool, out recordWriter, stderr io.Writer) error {
	if follow && r.store == nil {
		return errors.New("--follow needs the store (log.store.path), which has not been made yet")
	}
	var place accesslog.Place
	var err error
	if follow {
		if place, err = r.store.Last(ctx); err != nil {
			return err
		}
	}
	more := false
	if limit == 0 {
		for rec, err := range r.all(ctx, f) {
			if err != nil {
				return err
			}
			if err := out.write(rec); err != nil {
				return err
			}
		}
	} else {
		var list []accesslog.Record
		if list, more, err = r.newest(ctx, f, limit); err != nil {
			return err
		}
		for i := range list {
			if err := out.write(&list[i]); err != nil {
				return err
			}
		}
	}
	if err := out.flush(); err != nil {
		return err
	}
	if more && !follow {
		fmt.Fprintf(stderr, "these are the newest %d; --limit 0 shows all\n", limit)
	}
	for follow {
		list, next, err := r.store.Since(ctx, f, place)
		if err != nil {
			return err
		}
		for i := range list {
			if err := out.write(&list[i]); err != nil {
				return err
			}
		}
		if err := out.flush(); err != nil {
			return err
		}
		place = next
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// A recordWriter prints records.
type recordWriter interface {
	write(*accesslog.Record) error
	flush() error
}

func newRecordWriter(w io.Writer, asJSON, asCSV bool) recordWriter {
	switch {
	case asJSON:
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return jsonRecords{enc}
	case asCSV:
		return csvRecords{accesslog.NewCSVWriter(w)}
	}
	return &lineRecords{s: newScreen(w)}
}

type jsonRecords struct{ *json.Encoder }

func (j jsonRecords) write(r *accesslog.Record) error { return j.Encode(r) }
func (j jsonRecords) flush() error                    { return nil }

type csvRecords struct{ *accesslog.CSVWriter }

func (c csvRecords) write(r *accesslog.Record) error { return c.Write(r) }
func (c csvRecords) flush() error                    { return c.Flush() }

// lineRecords writes a line each, in columns of fixed width, so that those that
// come later fit below. The last one is never cut: it may be what matters.
type lineRecords struct {
	s     screen
	begun bool
}

var logColumns = []struct {
	name  string
	width int
	right bool
	least int // the width of a terminal from which it is shown
}{
	{name: "TIME", width: 14}, {name: "CLIENT", width: 15}, {name: "ACTION", width: 9}, {name: "CODE", width: 4, right: true},
	{name: "BYTES", width: 7, right: true}, {name: "TOOK", width: 6, right: true, least: 90}, {name: "SERVICE", width: 15, least: 110},
}

var actionStyles = map[policy.Action]style{
	policy.Tunnel: green, policy.Forward: green, policy.Inspect: plain,
	policy.Deny: yellow, policy.Challenge: yellow, policy.Error: red,
}

func (l *lineRecords) write(r *accesslog.Record) error {
	if !l.begun {
		l.begun = true
		var head []cell
		for _, c := range logColumns {
			head = append(head, cell{c.name, bold})
		}
		if err := l.line(append(head, cell{"DESTINATION", bold})); err != nil {
			return err
		}
	}
	client := ""
	if r.Client.IsValid() {
		client = r.Client.String()
	}
	to, why := destination(r)
	return l.line([]cell{
		{r.Time.Local().Format("01-02 15:04:05"), dim}, {client, plain}, {string(r.Action), actionStyles[r.Action]}, {strconv.Itoa(r.Status), plain},
		{english.Size(r.Up + r.Down), plain}, {durationText(r.Duration), plain}, {r.Service, plain}, {to, plain}, why,
	})
}

// destination is where a record went, and what else there is to say of it.
func destination(r *accesslog.Record) (to string, why cell) {
	to = r.URL
	if to == "" {
		to = r.Host
		if strings.Contains(to, ":") {
			to = "[" + to + "]"
		}
		to += ":" + strconv.Itoa(int(r.Port))
	}
	if r.User != "" {
		to += " by " + r.User
	}
	switch {
	case r.Error != "":
		return to, cell{r.Error, red}
	case !slices.Contains([]string{policy.RuleApple, policy.RuleDefault, policy.RuleAuth}, r.Rule):
		return to, cell{"rule " + r.Rule, dim}
	}
	return to, cell{}
}

// line writes the cells of logColumns, and behind them others.
func (l *lineRecords) line(cells []cell) error {
	var b strings.Builder
	for i, c := range cells {
		text := onLine(c.text)
		if i >= len(logColumns) {
			b.WriteString(l.s.paint(c.as, text) + "  ")
			continue
		}
		column := logColumns[i]
		if l.s.width > 0 && l.s.width < column.least {
			continue
		}
		blanks := strings.Repeat(" ", max(column.width-utf8.RuneCountInString(text), 0))
		if column.right {
			b.WriteString(blanks + l.s.paint(c.as, text))
		} else {
			b.WriteString(l.s.paint(c.as, text) + blanks)
		}
		b.WriteString("  ")
	}
	_, err := io.WriteString(l.s, strings.TrimRight(b.String(), " ")+"\n")
	return err
}

func (l *lineRecords) flush() error { return nil }

// onLine replaces what a terminal would act on: clients choose hosts and agents.
func onLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
