package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/pac"
	"espalier/pac/lint"
)

func pacCheck(load configOf) *cobra.Command {
	var allow []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Find faults in a PAC script of any make",
		Long: `Find faults in a PAC script of any make: what old or strict engines do not take
(ES3 is what all take), functions that make devices wait for DNS, state that
outlives a call, answers that are invalid, and answers that depend on the engine
(` + pac.EngineNames() + `), tried with every host of the catalogue, the configuration
and the script. FILE is - for standard input, and has at most 10 MB. The script is
not trusted: it runs here without network, files or names, and for a limited time.

A finding that occurs several times is printed once, with its first places. The
exit status is 1 if there are errors that --allow does not name; warnings leave it
at 0. Kinds for --allow:

` + kindTable(),
		Example: `  espalier pac check proxy.pac
  espalier pac check --allow dns --allow client-ip proxy.pac`,
		Args: cobra.ExactArgs(1),
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, args []string) error {
			for _, kind := range allow {
				if lint.Kinds[kind] == "" {
					return usage(fmt.Errorf("--allow: unknown kind %q (allowed: %s)", kind, strings.Join(lint.KindNames(), ", ")))
				}
			}
			samples, err := app.PACSamples(cfg)
			if err != nil {
				return err
			}
			name := args[0]
			script, err := readInput(cmd, name, pac.MaxInput)
			if err != nil {
				return usage(err)
			}
			found := lint.Check(script, append(samples, pac.Samples(nil, pac.HostsIn(script))...))
			all := len(found)
			found = slices.DeleteFunc(found, func(f lint.Finding) bool { return slices.Contains(allow, f.Kind) })
			wrong := slices.ContainsFunc(found, func(f lint.Finding) bool { return f.Severity == lint.Error })
			return no(wrong, report.Answer(cmd.OutOrStdout(), asJSON, found, func(s report.Screen, found []lint.Finding) error {
				return report.Findings(s, name, found, all-len(found))
			}))
		}),
	}
	cmd.Flags().StringSliceVar(&allow, "allow", nil, "leave out findings of this `KIND`; repeatable")
	return withJSON(&asJSON, cmd)
}

// kindTable lists the kinds of findings, a line for each.
func kindTable() string {
	var b strings.Builder
	for _, name := range lint.KindNames() {
		fmt.Fprintf(&b, "  %-12s  %s\n", name, lint.Kinds[name])
	}
	return strings.TrimSuffix(b.String(), "\n")
}
