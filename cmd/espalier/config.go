package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"espalier/configs"
)

// configOptions says what configuration a command was told to use.
func configOptions(cmd *cobra.Command) configs.Options {
	file, _ := cmd.Flags().GetString("config")
	set, _ := cmd.Flags().GetStringArray("set")
	return configs.Options{File: file, Environ: os.Environ(), Set: set}
}

// A configOf returns the configuration that a command was told to use, and a
// dataDirOf the data directory that it names.
type (
	configOf  func(*cobra.Command) (*configs.Config, error)
	dataDirOf func(*cobra.Command) (string, error)
)

// loadedConfig loads the configuration that a command was told to use. What is
// wrong with it ends the command as bad configuration.
func loadedConfig(cmd *cobra.Command) (*configs.Config, error) {
	l, err := configs.Load(configOptions(cmd))
	if err != nil {
		return nil, usage(err)
	}
	return l.Config, nil
}

// dataDir returns where the running process keeps its control socket.
func dataDir(cmd *cobra.Command) (string, error) {
	dir, err := configs.DataDir(configOptions(cmd))
	return dir, usage(err)
}

// group is a command that only has others below it.
func group(use, short string, below ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(below...)
	return cmd
}

// withJSON gives a command the flag --json.
func withJSON(asJSON *bool, cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(asJSON, "json", false, "write JSON")
	return cmd
}

// with is how a command runs that needs what load returns.
func with[T any](load func(*cobra.Command) (T, error), run func(*cobra.Command, T, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		v, err := load(cmd)
		if err != nil {
			return err
		}
		return run(cmd, v, args)
	}
}

// oneOf is the error of a flag's value that is not allowed.
func oneOf(flag, value string, allowed []string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return usage(fmt.Errorf("--%s: %q is unknown (allowed: %s)", flag, value, strings.Join(allowed, ", ")))
}
