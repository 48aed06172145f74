package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/pac"
	"espalier/pac/history"
)

var diffHelp = `Compare the answers of two scripts. OLD and NEW each are a configuration file
(*.yaml, *.yml), a script of any make, or an ID of "espalier pac history". Both
are asked about every host of the catalogue, of the configurations, of the scripts
and of the arguments, with the functions of each engine that Espalier knows
(` + pac.EngineNames() + `): a change that only some of them see names the engine.

Scripts run here without network: names resolve as --resolve says, and localhost.
The exit status is 1 if an answer differs, and 2 if a script is too slow to be asked
about all URLs. --allow engine leaves it at 0 if only
changes differ that not all engines see.`

func pacDiff(load configOf) *cobra.Command {
	var who pacClient
	var browser pacBrowser
	var allow []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW [URL|HOST[:PORT]...]",
		Short: "Compare the answers of two scripts",
		Long:  diffHelp,
		Args:  cobra.MinimumNArgs(2),
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, args []string) error {
			if i := slices.IndexFunc(allow, func(kind string) bool { return kind != "engine" }); i >= 0 {
				return usage(fmt.Errorf("--allow: unknown kind %q (allowed: engine)", allow[i]))
			}
			in, engines, err := browser.open(&who, time.Now())
			if err != nil {
				return usage(err)
			}
			samples, err := app.PACSamples(cfg)
			if err != nil {
				return err
			}
			var scripts [2][]*pac.Evaluator
			for i, arg := range args[:2] {
				script, own, err := who.source(cmd, cfg, arg)
				if err != nil {
					return usage(err)
				}
				samples = append(samples, own...)
				if scripts[i], err = pac.NewPanel(script, in, engines...); err != nil {
					return usage(fmt.Errorf("%s: %w", arg, err))
				}
			}
			changes, asked, err := pac.Compare(cmd.Context(), scripts[0], scripts[1], slices.Concat(args[2:], samples))
			slow, stopped := errors.AsType[*pac.SlowError](err)
			if err != nil && !stopped {
				return usage(err)
			}
			if err := report.Answer(cmd.OutOrStdout(), asJSON, changes, func(s report.Screen, changes []pac.Change) error {
				return report.PACChanges(s, changes, asked)
			}); err != nil {
				return err
			}
			if stopped && slow.Old {
				return usage(fmt.Errorf("%s: %w", args[0], slow))
			} else if stopped {
				return usage(fmt.Errorf("%s: %w", args[1], slow))
			}
			return no(slices.ContainsFunc(changes, func(c pac.Change) bool { return c.Engine == "" || len(allow) == 0 }), nil)
		}),
	}
	who.addFlags(cmd)
	browser.addFlags(cmd)
	cmd.Flags().StringSliceVar(&allow, "allow", nil, "ignore changes of this `KIND` for the exit status: engine")
	return withJSON(&asJSON, cmd)
}

// source returns the script that an argument of diff means, and URLs that tell
// apart what it and its configuration do.
func (c *pacClient) source(cmd *cobra.Command, cfg *configs.Config, arg string) (script []byte, samples []string, err error) {
	if ext := filepath.Ext(arg); ext == ".yaml" || ext == ".yml" {
		script, samples, err = c.fromConfig(cmd, arg)
	} else if _, missing := os.Stat(arg); errors.Is(missing, fs.ErrNotExist) {
		script, err = history.New(cfg.Data).Find(arg)
		if errors.Is(err, history.ErrNone) {
			err = fmt.Errorf("%s: is neither a file nor a script of `espalier pac history`", arg)
		}
	} else {
		script, err = readInput(cmd, arg, pac.MaxInput)
	}
	return script, append(samples, pac.Samples(nil, pac.HostsIn(script))...), err
}

// fromConfig returns the script of a configuration file, and the URLs.
func (c *pacClient) fromConfig(cmd *cobra.Command, file string) (script []byte, samples []string, err error) {
	options := configOptions(cmd)
	options.File = file
	loaded, err := configs.Load(options)
	if err != nil {
		return nil, nil, err
	}
	if samples, err = app.PACSamples(loaded.Config); err != nil {
		return nil, nil, err
	}
	script, err = c.script(cmd, loaded.Config)
	return script, samples, err
}
