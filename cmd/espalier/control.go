package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"espalier/web"
	"espalier/web/api"
	"espalier/web/server"
)

// controlTimeout bounds how long a running process may take to answer.
const controlTimeout = 30 * time.Second

// control calls f with a client of the running process. Whatever fails then is
// a negative answer.
func control(cmd *cobra.Command, dataDir dataDirOf, f func(context.Context, *web.ControlClient) error) error {
	return controlWithin(cmd, dataDir, controlTimeout, f)
}

// controlWithin is control with another timeout.
func controlWithin(cmd *cobra.Command, dataDir dataDirOf, timeout time.Duration, f func(context.Context, *web.ControlClient) error) error {
	dir, err := dataDir(cmd)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	if err := f(ctx, web.NewControlClient(dir)); err != nil {
		if file, _ := cmd.Flags().GetString("config"); errors.Is(err, web.ErrNotRunning) && file == "" {
			err = fmt.Errorf("%w (-c FILE names the configuration of one that does; that of the packages is /etc/espalier/espalier.yaml)", err)
		}
		return &exitError{exitNo, err}
	}
	return nil
}

// show asks the running process, and writes what it answers.
func show[T any](cmd *cobra.Command, dataDir dataDirOf, asJSON bool, ask func(context.Context, *web.ControlClient) (T, error), write func(screen, T) error) error {
	return control(cmd, dataDir, func(ctx context.Context, c *web.ControlClient) error {
		answer, err := ask(ctx, c)
		if err != nil {
			return err
		}
		return writeAnswer(cmd, asJSON, answer, write)
	})
}

// statusCommand is `espalier status`.
func statusCommand(dataDir dataDirOf) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running espalier does",
		Long: `Show what a running espalier does: the PAC URL for devices, its listeners, its
open tunnels, and whether its configuration is in force.

The exit status is 1 where none runs with the data directory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd, dataDir, asJSON, func(ctx context.Context, c *web.ControlClient) (api.Status, error) {
				return c.Status(ctx)
			}, writeStatus)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

func writeStatus(s screen, st api.Status) error {
	var b strings.Builder
	row := func(name string, as style, text string) {
		fmt.Fprintf(&b, "  %s  %s\n", s.paint(dim, fmt.Sprintf("%-13s", name)), s.paint(as, text))
	}
	state, as := "running", green
	if st.Draining {
		state, as = "draining", yellow
	} else if st.Overloaded != "" {
		state, as = "overloaded", yellow
	}
	up := time.Duration(st.UptimeSeconds) * time.Second
	fmt.Fprintf(&b, "%s  %s for %s  %s\n", s.paint(bold, st.Node), s.paint(as, state), up, s.paint(dim, st.Version))
	if st.PACURL != "" {
		row("PAC URL", bold, st.PACURL)
	} else {
		row("PAC URL", yellow, "none: web.public is empty, or listens on the loopback only")
	}
	if st.Proxy != "" {
		row("Proxy", plain, st.Proxy)
	}
	for _, p := range st.PACProxies {
		if !p.Up {
			row("", red, p.Proxy+" is not well since "+local(p.Since)+", so that it stands last: "+p.Error)
		}
	}
	for i, f := range st.PACFetches {
		row(first(i, "PAC fetched"), plain, fmt.Sprintf("%s by %s, site %s, last %s", plural(int(f.Count), "time", "times"), f.Agent, f.Site, local(f.Last)))
	}
	row("Open tunnels", plain, strconv.FormatInt(st.Tunnels, 10))
	if st.Overloaded != "" {
		row("Overloaded", yellow, "requests for what is not Apple's are refused: "+st.Overloaded)
	}
	width := 0
	for _, l := range st.Listeners {
		width = max(width, len(l.Purpose))
	}
	for i, l := range st.Listeners {
		row(first(i, "Listening"), plain, fmt.Sprintf("%-*s  %s", width, l.Purpose, l.Address))
	}
	file := st.Reload.File
	if file == "" {
		file = "built-in default"
	}
	row("Configuration", plain, file+", loaded "+local(st.Reload.Loaded))
	if !st.Reload.OK {
		row("", red, "the last reload, "+local(st.Reload.Time)+", failed; the configuration before it is in force")
		for _, p := range st.Reload.Problems {
			row("", red, p)
		}
	}
	if l := st.AccessLog; l.Error != "" {
		row("Access log", red, "cannot be written since "+local(l.Since)+": "+l.Error)
	}
	if n := st.AccessLog.Lost; n > 0 {
		row("Records lost", yellow, strconv.FormatUint(n, 10)+" since the start: the access log could not be written")
	}
	for i, l := range st.Lists {
		state, as := listState(l)
		text := l.Name
		if !l.Loaded.IsZero() {
			text += ", " + plural(l.Entries, "entry", "entries") + ", loaded " + local(l.Loaded)
		}
		if l.BadLines > 0 {
			text += ", " + plural(l.BadLines, "bad line", "bad lines")
		}
		row(first(i, "Lists"), as, text+": "+state)
	}
	if s := st.Store; s != nil && s.Error != "" {
		row("Store", red, "records wait in the access log since "+local(s.Since)+": "+s.Error)
	}
	if st.CA != nil {
		for _, w := range st.CA.Warnings {
			row("CA", yellow, w)
		}
	}
	for _, c := range st.TLS {
		for _, w := range c.Warnings {
			row("TLS", yellow, w)
		}
	}
	_, err := io.WriteString(s, b.String())
	return err
}

// first names the first of several rows.
func first(i int, name string) string {
	if i > 0 {
		return ""
	}
	return name
}

// local writes a time as the clock on the wall shows it.
func local(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// reloadCommand is `espalier reload`.
func reloadCommand(dataDir dataDirOf) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Let a running espalier read its configuration again",
		Long: `Let a running espalier read its configuration again.

Open tunnels are not touched. Where the configuration has mistakes they are
printed, the exit status is 1, and the one before stays in force.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return control(cmd, dataDir, func(ctx context.Context, c *web.ControlClient) error {
				if err := c.Reload(ctx); err != nil {
					return withProblems(err)
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "the configuration was read again and is in force")
				return err
			})
		},
	}
}

// withProblems adds to the answer of a running process what is wrong, one a line.
func withProblems(err error) error {
	if p, ok := errors.AsType[*server.Problem](err); ok && len(p.Problems) > 0 {
		return fmt.Errorf("%w\n%s", err, strings.Join(p.Problems, "\n"))
	}
	return err
}

// drainCommand is `espalier drain`.
func drainCommand(dataDir dataDirOf) *cobra.Command {
	return &cobra.Command{
		Use:   "drain",
		Short: "Let a running espalier end without cutting devices off",
		Long: `Let a running espalier end without cutting devices off.

It takes no new connections from now on, so that devices go to the next proxy of
their PAC script, and ends when its open tunnels have ended or
proxy.drain_timeout is over. The command does not wait for that.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return control(cmd, dataDir, func(ctx context.Context, c *web.ControlClient) error {
				if err := c.Drain(ctx); err != nil {
					return err
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "draining: no new connections are taken")
				return err
			})
		},
	}
}
