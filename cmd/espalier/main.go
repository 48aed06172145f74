// Command espalier is the egress proxy for fleets of Apple devices.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	_ "time/tzdata" // rules name time zones, and a container may have no zone files

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
)

func main() { os.Exit(execute(rootCommand())) }

// execute runs the command line and returns the exit status: 0 done, 1 a
// negative answer or a failure, 2 bad usage or configuration.
func execute(root *cobra.Command) int {
	err := root.Execute()
	if err == nil {
		return 0
	}
	if msg := err.Error(); msg != "" {
		fmt.Fprintln(root.ErrOrStderr(), msg)
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit.code
	}
	return exitUsage // no command has run
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "espalier",
		Short: "Egress proxy for fleets of Apple devices",
		Long: `Espalier carries Apple's own services untouched, applies your policy to
everything else, and gives devices the PAC script that sends them here.

Start it with "espalier run"; without a configuration file it runs on defaults.`,
		Version:       programVersion(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(fmt.Errorf("%w (see `%s --help`)", err, cmd.CommandPath()))
	})
	root.PersistentFlags().StringP("config", "c", "", "configuration `FILE`; without it the embedded default")
	root.PersistentFlags().StringArray("set", nil, "set one `KEY=VALUE` over the file and the environment")
	root.AddCommand(
		runCommand(), validateCommand(), explainCommand(), doctorCommand(), passwdCommand(), versionCommand(),
		catalogCommand(), pacCommand(loadedConfig), caCommand(loadedConfig), profileCommand(loadedConfig), inspectCommand(dataDir),
		logsCommand(loadedConfig), trafficCommand(loadedConfig),
		statusCommand(dataDir), listsCommand(dataDir), reloadCommand(dataDir), drainCommand(dataDir),
		setupCommand(dataDir), tokenCommand(dataDir), tlsCommand(dataDir), manCommand(),
	)
	setExits(root)
	return root
}

// setExits gives what can go wrong with c and the commands below it an exit
// status: wrong arguments are bad usage, what fails later is a failure.
func setExits(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usage(fmt.Errorf("%w (see `%s --help`)", err, cmd.CommandPath()))
			}
			return nil
		}
	}
	if run := c.RunE; run != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			err := run(cmd, args)
			if _, ok := errors.AsType[*exitError](err); ok || err == nil {
				return err
			}
			if _, ok := errors.AsType[*app.ConfigError](err); ok {
				return usage(err)
			}
			return &exitError{exitNo, err}
		}
	}
	for _, sub := range c.Commands() {
		setExits(sub)
	}
}

// Exit statuses, the same for every command.
const (
	exitNo    = 1 // a negative answer
	exitUsage = 2 // bad usage or configuration
)

// An exitError ends the process with code. Its err is printed; nil prints
// nothing, for answers that have been given on standard output.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// no is a negative answer if that holds, which has been given on standard output, without
// an error of writing it.
func no(holds bool, err error) error {
	if err == nil && holds {
		return &exitError{code: exitNo}
	}
	return err
}

// usage marks err as bad usage or configuration; nil stays nil.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitUsage, err}
}

// version is set by the release build; otherwise it comes from the build's own
// record.
var version = ""

func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "espalier %s (%s, %s/%s)\n", programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
