package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"espalier/pac"
	"espalier/pac/lint"
)

func pacCheck(load configOf) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Say what is wrong with a PAC script, whoever wrote it",
		Long: `Say what is wrong with a PAC script, whoever wrote it: what old or strict engines
do not take (ES3 is what all take), functions that make devices wait for DNS, state
that outlives a call, and answers that are none, tried with every host of the
catalogue and the configuration. FILE is - for standard input. The script is not
believed: it runs here without network, files or names.

The exit status is 1 where there are errors; warnings alone leave it at 0.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			samples, err := pacSamples(cfg)
			if err != nil {
				return err
			}
			name := args[0]
			script, err := readScript(cmd, name)
			if err != nil {
				return usage(err)
			}
			found := lint.Check(script, append(samples, pac.Samples(nil, pac.HostsIn(script))...))
			if err := writeFindings(cmd.OutOrStdout(), name, found, asJSON); err != nil {
				return err
			}
			for _, f := range found {
				if f.Severity == lint.Error {
					return &exitError{code: exitNo}
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	return cmd
}

// readScript reads a file, or standard input for "-", up to what lint.Check looks
// at.
func readScript(cmd *cobra.Command, name string) ([]byte, error) {
	return readInput(cmd, name, lint.MaxSize+1)
}

func writeFindings(w io.Writer, name string, found []lint.Finding, asJSON bool) error {
	if asJSON {
		if found == nil {
			found = []lint.Finding{}
		}
		return writeJSON(w, found)
	}
	s := newScreen(w)
	count := map[string]int{}
	for _, f := range found {
		count[f.Severity]++
		as := yellow
		if f.Severity == lint.Error {
			as = red
		}
		at := name
		if f.Line > 0 {
			at = fmt.Sprintf("%s:%d:%d", name, f.Line, f.Column)
		}
		if _, err := fmt.Fprintf(w, "%s: %s: %s\n", at, s.paint(as, f.Severity), f.Message); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%s: %s, %s\n", name,
		plural(count[lint.Error], "error", "errors"), plural(count[lint.Warning], "warning", "warnings"))
	return err
}
