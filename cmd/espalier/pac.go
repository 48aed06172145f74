package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/pac"
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			script, err := who.script(cmd, load)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(script.Body)
			return err
		},
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
that Espalier knows (` + engineNames() + `); where engines differ, each has a line.
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
			return no(slices.ContainsFunc(answers, func(a pac.EngineAnswer) bool { return a.Error != "" }))
		},
	}
	who.addFlags(cmd)
	browser.addFlags(cmd)
	cmd.Flags().StringVar(&file, "file", "", "run the script of `FILE` (- for standard input) instead of one's own")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write JSON")
	cmd.MarkFlagsMutuallyExclusive("file", "site")
	cmd.MarkFlagsMutuallyExclusive("file", "proxy")
	return cmd
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
		script, err := c.script(cmd, load)
		if err != nil {
			return nil, err
		}
		e, err := pac.NewEvaluator(script.Body)
		if err != nil {
			return nil, err
		}
		return []*pac.Evaluator{e}, nil
	}
	client, err := c.address()
	if err != nil {
		return nil, usage(err)
	}
	script, err := readInput(cmd, file, pac.MaxInput)
	if err != nil {
		return nil, usage(err)
	}
	panel, err := browser.panel(script, client, time.Now())
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
			compiled, err := app.CompilePAC(cfg)
			if err != nil {
				return err
			}
			base, err := app.PublicURL(cfg.Web, app.Addresses(cfg.Web.Public))
			if err != nil {
				return usage(err)
			}
			t := report.NewTable("SITE", "URL")
			t.Add("by address", base+compiled.Path(""))
			for _, site := range compiled.Sites() {
				t.Add(site, base+compiled.Path(site))
			}
			return t.Write(report.NewScreen(cmd.OutOrStdout()))
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

// script makes the script of the configuration that load returns.
func (c *pacClient) script(cmd *cobra.Command, load configOf) (*pac.Script, error) {
	cfg, err := load(cmd)
	if err != nil {
		return nil, err
	}
	return c.scriptOf(cmd, cfg)
}

// scriptOf makes the script. Where it names this machine's address for want of
// another, it says so on standard error.
func (c *pacClient) scriptOf(cmd *cobra.Command, cfg *configs.Config) (*pac.Script, error) {
	compiled, err := app.CompilePAC(cfg)
	if err != nil {
		return nil, err
	}
	site := c.site
	var client netip.Addr
	if c.client != "" {
		if client, err = c.address(); err != nil {
			return nil, usage(err)
		}
		site = compiled.SiteFor(client)
	} else if err := checkSite(compiled, site); err != nil {
		return nil, usage(err)
	}
	proxies := compiled.Proxies(site, "")
	switch {
	case c.proxy != "":
		proxies = []string{c.proxy}
	case proxies == nil:
		fetched, err := fetchedProxy(cfg)
		if err != nil {
			return nil, usage(fmt.Errorf("%w, or give --proxy", err))
		}
		proxies = compiled.Proxies(site, fetched)
		fmt.Fprintf(cmd.ErrOrStderr(), "note: pac.proxies is empty, so devices are given the address that they fetch the script from; here that is %s\n", fetched)
	}
	script, err := compiled.Script(site, compiled.Order(proxies, client, nil))
	if err != nil {
		return nil, usage(err)
	}
	if n := len(script.Body); n > pac.MaxSize {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: the script has %d bytes; keep it below %d, for devices have hung on large ones\n", n, pac.MaxSize)
	}
	return script, nil
}

// checkSite is the error of a --site that the configuration has not; the empty one
// is none in particular.
func checkSite(compiled *pac.PAC, site string) error {
	if site != "" && !compiled.HasSite(site) {
		return fmt.Errorf("--site: there is no %q under pac.sites (there are: %q)", site, compiled.Sites())
	}
	return nil
}

// pacSamples are URLs that tell apart what cfg does.
func pacSamples(cfg *configs.Config) ([]string, error) {
	apple, err := app.Apple(cfg)
	if err != nil {
		return nil, usage(err)
	}
	patterns := slices.Concat(cfg.PAC.Internal, slices.Sorted(maps.Keys(cfg.PAC.Routes.Hosts)))
	for _, name := range slices.Sorted(maps.Keys(cfg.PAC.Sites)) {
		site := cfg.PAC.Sites[name]
		patterns = slices.Concat(patterns, site.Internal, slices.Sorted(maps.Keys(site.Routes.Hosts)))
	}
	for _, r := range cfg.Rules {
		patterns = append(patterns, r.When.Hosts...)
	}
	return pac.Samples(apple.Rows(), patterns), nil
}

// fetchedProxy is the host:port of the proxy for a client that fetches the
// script at this machine's first address.
func fetchedProxy(cfg *configs.Config) (string, error) {
	return pac.Fetched(netip.Addr{}, app.Addresses(cfg.Proxy.Listen))
}
