package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/report"
	"espalier/web"
	"espalier/web/server"
)

// How long a running process may take to answer.
const (
	controlTimeout = 30 * time.Second
	refreshTimeout = 6 * time.Minute  // longer than a list may take
	renewTimeout   = 15 * time.Minute // longer than an authority may take for a name, and its DNS
)

// A request asks the running process, and prints what it answers.
type request func(ctx context.Context, c *web.ControlClient, cmd *cobra.Command, args []string) error

// asking is how a command asks the running process. Whatever fails then is a negative
// answer, with all that is wrong.
func asking(dataDir dataDirOf, timeout time.Duration, r request) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		dir, err := dataDir(cmd)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		err = r(ctx, web.NewControlClient(dir), cmd, args)
		if file, _ := cmd.Flags().GetString("config"); errors.Is(err, web.ErrNotRunning) && file == "" {
			err = fmt.Errorf("%w (-c FILE names the configuration of one that does; that of the packages is /etc/espalier/espalier.yaml)", err)
		}
		if p, ok := errors.AsType[*server.Problem](err); ok && len(p.Problems) > 0 {
			err = fmt.Errorf("%w\n%s", err, strings.Join(p.Problems, "\n"))
		}
		if _, ok := errors.AsType[*exitError](err); err != nil && !ok {
			err = &exitError{exitNo, err}
		}
		return err
	}
}

// showing makes cmd a command that asks the running process, and writes what it answers.
func showing[T any](dataDir dataDirOf, cmd *cobra.Command, ask func(*web.ControlClient, context.Context) (T, error), write func(report.Screen, T) error) *cobra.Command {
	var asJSON bool
	cmd.Args = cobra.NoArgs
	cmd.RunE = asking(dataDir, controlTimeout, func(ctx context.Context, c *web.ControlClient, cmd *cobra.Command, _ []string) error {
		answer, err := ask(c, ctx)
		if err != nil {
			return err
		}
		return report.Answer(cmd.OutOrStdout(), asJSON, answer, write)
	})
	return withJSON(&asJSON, cmd)
}

// telling makes cmd a command that lets the running process do something, and says that it
// is done.
func telling(dataDir dataDirOf, cmd *cobra.Command, do func(*web.ControlClient, context.Context) error, done string) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = asking(dataDir, controlTimeout, func(ctx context.Context, c *web.ControlClient, cmd *cobra.Command, _ []string) error {
		err := do(c, ctx)
		if err == nil {
			_, err = fmt.Fprintln(cmd.OutOrStdout(), done)
		}
		return err
	})
	return cmd
}

// statusCommand is `espalier status`.
func statusCommand(dataDir dataDirOf) *cobra.Command {
	return showing(dataDir, &cobra.Command{
		Use:   "status",
		Short: "Show what a running espalier does",
		Long: `Show what a running espalier does: the PAC URL for devices, its listeners, its
open tunnels, and whether its configuration is in force.

The exit status is 1 where none runs with the data directory.`,
	}, (*web.ControlClient).Status, report.Status)
}

// reloadCommand is `espalier reload`.
func reloadCommand(dataDir dataDirOf) *cobra.Command {
	return telling(dataDir, &cobra.Command{
		Use:   "reload",
		Short: "Let a running espalier read its configuration again",
		Long: `Let a running espalier read its configuration again.

Open tunnels are not touched. Where the configuration has mistakes they are
printed, the exit status is 1, and the one before stays in force.`,
	}, (*web.ControlClient).Reload, "the configuration was read again and is in force")
}

// drainCommand is `espalier drain`.
func drainCommand(dataDir dataDirOf) *cobra.Command {
	return telling(dataDir, &cobra.Command{
		Use:   "drain",
		Short: "Let a running espalier end without cutting devices off",
		Long: `Let a running espalier end without cutting devices off.

It takes no new connections from now on, so that devices go to the next proxy of
their PAC script, and ends when its open tunnels have ended or
proxy.drain_timeout is over. The command does not wait for that.`,
	}, (*web.ControlClient).Drain, "draining: no new connections are taken")
}

// setupCommand is `espalier setup`.
func setupCommand(dataDir dataDirOf) *cobra.Command {
	return &cobra.Command{
		Use:   "setup",
		Short: "Print a link that makes the console's first user",
		Long: `Prints a link that makes the console's first user, an admin. It is good once,
for an hour, in a browser on this machine (or through an SSH tunnel to it). The
exit status is 1 where there are users already, or espalier does not run.`,
		Args: cobra.NoArgs,
		RunE: asking(dataDir, controlTimeout, func(ctx context.Context, c *web.ControlClient, cmd *cobra.Command, _ []string) error {
			link, err := c.SetupLink(ctx)
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), link.URL)
			}
			return err
		}),
	}
}
