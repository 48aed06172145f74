package main

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/pac"
	"espalier/pac/history"
)

// pacCommand is `espalier pac`.
func pacCommand(load configOf) *cobra.Command {
	return group("pac", "Show the PAC script that devices get, and what it answers",
		pacShow(load), pacEval(load), pacURLs(load), pacCheck(load), pacHistory(load), pacDiff(load), pacDHCP(load))
}

func pacShow(load configOf) *cobra.Command {
	var who pacClient
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the PAC script",
		Args:  cobra.NoArgs,
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			script, err := who.script(cmd, cfg)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(script)
			return err
		}),
	}
	who.addFlags(cmd)
	return cmd
}

func pacEval(load configOf) *cobra.Command {
	var who pacClient
	var browser pacBrowser
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "eval URL|HOST[:PORT]...",
		Short: "Run the PAC script as a device would, and print its answers",
		Long: `Run the PAC script as a device would, and print its answers.

With --file, run any script with the functions that browsers offer, of each engine
that Espalier knows (` + pac.EngineNames() + `); where engines differ, each has a line.
Names resolve as --resolve says, and localhost; the script reads no files and has
no network.

The exit status is 1 if the script fails, and 2 if an argument is invalid; the
answers to the others are printed all the same.`,
		Example: `  espalier pac eval --client 10.1.2.3 gs.apple.com
  espalier pac eval --file old.pac --resolve intranet.example=10.0.0.1 http://intranet.example/`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			panel, err := who.evaluators(cmd, load, file, &browser)
			if err != nil {
				return err
			}
			answers, bad := pac.Ask(panel, args)
			if err := report.Answer(cmd.OutOrStdout(), asJSON, answers, report.PACAnswers); err != nil {
				return err
			}
			if bad != nil {
				return usage(bad)
			}
			return no(slices.ContainsFunc(answers, func(a pac.EngineAnswer) bool { return a.Error != "" }), nil)
		},
	}
	who.addFlags(cmd)
	browser.addFlags(cmd)
	cmd.Flags().StringVar(&file, "file", "", "run the script of `FILE` (- for standard input) instead of one's own")
	cmd.MarkFlagsMutuallyExclusive("file", "site")
	cmd.MarkFlagsMutuallyExclusive("file", "proxy")
	return withJSON(&asJSON, cmd)
}

// evaluators returns those of the script in file, or of the configuration's own if
// that is empty.
func (c *pacClient) evaluators(cmd *cobra.Command, load configOf, file string, browser *pacBrowser) ([]*pac.Evaluator, error) {
	if file == "" {
		for _, name := range []string{"engine", "at", "resolve"} {
			if cmd.Flags().Changed(name) {
				return nil, usage(fmt.Errorf("--%s: needs --file, since Espalier's scripts do not depend on it", name))
			}
		}
		cfg, err := load(cmd)
		if err != nil {
			return nil, err
		}
		script, err := c.script(cmd, cfg)
		if err != nil {
			return nil, err
		}
		e, err := pac.NewEvaluator(script)
		return []*pac.Evaluator{e}, err
	}
	in, engines, err := browser.open(c, time.Now())
	if err != nil {
		return nil, usage(err)
	}
	script, err := readInput(cmd, file, pac.MaxInput)
	if err != nil {
		return nil, usage(err)
	}
	panel, err := pac.NewPanel(script, in, engines...)
	if err != nil {
		return nil, usage(fmt.Errorf("%s: %w", file, err))
	}
	return panel, nil
}

func pacURLs(load configOf) *cobra.Command {
	return &cobra.Command{
		Use:   "urls",
		Short: "Print where the script of each site is to be had, secrets and all",
		Args:  cobra.NoArgs,
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			urls, err := app.ScriptURLs(cfg)
			if err != nil {
				return err
			}
			return report.ScriptURLs(report.NewScreen(cmd.OutOrStdout()), urls)
		}),
	}
}

// A pacClient says whose script is wanted.
type pacClient struct {
	site, client, proxy string
}

func (c *pacClient) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.site, "site", "", "the script of `SITE`")
	cmd.Flags().StringVar(&c.client, "client", "", "the script for the client with this `IP` address")
	cmd.Flags().StringVar(&c.proxy, "proxy", "", "name the proxy `HOST:PORT` in place of pac.proxies")
	cmd.MarkFlagsMutuallyExclusive("site", "client")
}

// script makes the script by a configuration, and says on standard error what is unusual.
func (c *pacClient) script(cmd *cobra.Command, cfg *configs.Config) ([]byte, error) {
	client, err := c.address()
	if err != nil {
		return nil, usage(err)
	}
	script, notes, err := app.Script(cfg, c.site, client, c.proxy)
	for _, note := range notes {
		fmt.Fprintln(cmd.ErrOrStderr(), "note:", note)
	}
	if err != nil {
		return nil, err
	}
	return script.Body, nil
}

// address is the client's address, the zero Addr if none is given.
func (c *pacClient) address() (netip.Addr, error) {
	if c.client == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(c.client)
	if err != nil {
		return a, fmt.Errorf("--client: invalid IP address %q", c.client)
	}
	return a, nil
}

func pacHistory(load configOf) *cobra.Command {
	var asJSON bool
	return withJSON(&asJSON, &cobra.Command{
		Use:   "history [ID]",
		Short: "List the scripts that were in force, or print one",
		Long: `List the scripts that were in force, the newest first: for each site one whenever
it changed, up to a thousand. ID begins the digest of the script, as the ETag does
that it is served with; CONFIG begins the SHA-256 of the configuration file. An order
of proxies that is a client's own, or due to one that failed, makes no new script.

With an ID, the script is printed.`,
		Args: cobra.MaximumNArgs(1),
		RunE: with(load, func(cmd *cobra.Command, cfg *configs.Config, args []string) error {
			store := history.New(cfg.Data)
			if len(args) > 0 {
				script, err := store.Find(args[0])
				if err != nil {
					return err
				}
				_, err = cmd.OutOrStdout().Write(script)
				return err
			}
			entries, err := store.List()
			if err != nil {
				return err
			}
			slices.Reverse(entries)
			return report.Answer(cmd.OutOrStdout(), asJSON, entries, report.Scripts)
		}),
	})
}
