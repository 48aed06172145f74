package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"espalier/configs"
	"espalier/pac"
	"espalier/pac/history"
)

func pacDiff(load configOf) *cobra.Command {
	var who pacClient
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW [URL|HOST[:PORT]...]",
		Short: "Say which hosts get another answer from another script",
		Long: `Say which hosts get another answer from another script. OLD and NEW each are a
configuration file (*.yaml, *.yml), a script of any make, or an ID of
"espalier pac history". Both are asked for every host of the catalogue, of the
configurations and of the arguments.

Scripts run here without network: names do not resolve, and it is no time of day.
The exit status is 1 where an answer differs.`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			urls := args[2:]
			samples, err := pacSamples(cfg)
			if err != nil {
				return err
			}
			var scripts [2]*pac.Evaluator
			for i, arg := range args[:2] {
				script, own, err := who.source(cmd, cfg, arg)
				if err != nil {
					return usage(err)
				}
				samples = append(samples, own...)
				if scripts[i], err = pac.NewBrowserEvaluator(script, who.address()); err != nil {
					return usage(fmt.Errorf("%s: %w", arg, err))
				}
			}
			changes, asked, err := pac.Compare(cmd.Context(), scripts[0], scripts[1], slices.Concat(urls, samples))
			if err != nil {
				return usage(err)
			}
			if err := writePACChanges(cmd, changes, asked, asJSON); err != nil {
				return err
			}
			if len(changes) > 0 {
				return &exitError{code: exitNo}
			}
			return nil
		},
	}
	who.addFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
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
		script, err = readScript(cmd, arg)
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
	if samples, err = pacSamples(loaded.Config); err != nil {
		return nil, nil, err
	}
	made, err := c.scriptOf(cmd, loaded.Config)
	if err != nil {
		return nil, nil, err
	}
	return made.Body, samples, nil
}

// address is the client's address, the zero Addr where it is not known.
func (c *pacClient) address() netip.Addr {
	a, _ := netip.ParseAddr(c.client)
	return a
}

func writePACChanges(cmd *cobra.Command, changes []pac.Change, asked int, asJSON bool) error {
	if asJSON {
		return writeJSON(cmd.OutOrStdout(), changes)
	}
	if len(changes) > 0 {
		t := table{head: []string{"URL", "OLD", "NEW"}}
		for _, c := range changes {
			t.add(cell{text: c.URL}, cell{text: c.Old}, cell{text: c.New})
		}
		if err := t.write(newScreen(cmd.OutOrStdout())); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d of %d URLs get another answer\n", len(changes), asked)
	return err
}
