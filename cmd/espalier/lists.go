package main

import (
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"espalier/policy/lists"
	"espalier/web"
)

// listState says in a few words how it stands with a list.
func listState(s lists.Status) (string, style) {
	switch {
	case s.Loaded.IsZero() && s.Error == "":
		return "not loaded yet, matches nothing", yellow
	case s.Loaded.IsZero():
		return "not loaded, matches nothing: " + s.Error, red
	case s.Stale && s.Error == "":
		return "stale", yellow
	case s.Stale:
		return "stale: " + s.Error, yellow
	case s.Error != "":
		return "the last try failed: " + s.Error, yellow
	}
	return "ok", green
}

// listsCommand is `espalier lists`.
func listsCommand(dataDir dataDirOf) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "lists",
		Short: "Show the lists of a running espalier",
		Long: `Show the lists of a running espalier: their entries, lines that make no sense,
when they were loaded, and whether they are up to date.

The exit status is 1 where none runs with the data directory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd, dataDir, asJSON, listsInForce, writeLists)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	cmd.AddCommand(refreshCommand(dataDir))
	return cmd
}

func listsInForce(ctx context.Context, c *web.ControlClient) ([]lists.Status, error) {
	st, err := c.Status(ctx)
	return st.Lists, err
}

func writeLists(s screen, all []lists.Status) error {
	if len(all) == 0 {
		_, err := io.WriteString(s, "the configuration has no lists\n")
		return err
	}
	t := table{head: []string{"LIST", "ENTRIES", "BAD LINES", "LOADED", "CHECKED", "SOURCE", "STATE"}, right: []int{1, 2}}
	for _, l := range all {
		state, as := listState(l)
		bad := plain
		if l.BadLines > 0 {
			bad = yellow
		}
		t.add(cell{text: l.Name, as: bold}, cell{text: strconv.Itoa(l.Entries)}, cell{strconv.Itoa(l.BadLines), bad},
			cell{text: when(l.Loaded)}, cell{text: when(l.LastSuccess)}, cell{text: l.Source}, cell{state, as})
	}
	return t.write(s)
}

// when is local, and says that there is no time.
func when(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return local(t)
}

// plural is "1 row" or "2 rows".
func plural(n int, one, many string) string {
	if n == 1 {
		many = one
	}
	return strconv.Itoa(n) + " " + many
}

// refreshTimeout is longer than a list may take.
const refreshTimeout = 6 * time.Minute

func refreshCommand(dataDir dataDirOf) *cobra.Command {
	return &cobra.Command{
		Use:   "refresh [LIST]",
		Short: "Let a running espalier fetch a list anew, or all",
		Long: `Let a running espalier fetch a list anew, or all, whatever is due, and wait
for it. Where that fails the exit status is 1, and what was loaded before stays
in force.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := strings.Join(args, "")
			return controlWithin(cmd, dataDir, refreshTimeout, func(ctx context.Context, c *web.ControlClient) error {
				if err := c.RefreshLists(ctx, name); err != nil {
					return withProblems(err)
				}
				all, err := listsInForce(ctx, c)
				if err != nil {
					return err
				}
				all = slices.DeleteFunc(all, func(l lists.Status) bool { return name != "" && l.Name != name })
				return writeLists(newScreen(cmd.OutOrStdout()), all)
			})
		},
	}
}
