package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"espalier/cmd/espalier/app"
	"espalier/cmd/espalier/report"
	"espalier/configs"
	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/doctor"
)

const doctorHelp = `Reach every host of the catalogue as devices do, from this machine and then
through the running proxy, and say what is in the way: names are looked up and
connected to as egress says, TLS certificates must be of a public CA or Apple's
own, plain HTTP and NTP must answer.

Wildcards are tried by a member that is known, and skipped otherwise. So is UDP
other than NTP, which passes no proxy.

The exit status is 1 where a service is broken, or time was over before all had
been tried.`

func doctorCommand() *cobra.Command {
	var services []string
	var asJSON, direct bool
	var through, roots string
	timeout := doctor.DefaultTimeout
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Reach Apple's hosts from here, and say what is in the way",
		Long:  doctorHelp,
		Example: `  espalier doctor
  espalier doctor --service push --service device-management
  espalier doctor --through proxy.example.org:3128 --json`,
		Args: cobra.NoArgs,
		RunE: with(loadedConfig, func(cmd *cobra.Command, cfg *configs.Config, _ []string) error {
			d, err := app.NewDoctor(cfg, nil)
			if err != nil {
				return usage(err)
			}
			if d.Timeout = timeout; timeout <= 0 {
				return usage(errors.New("--timeout: must be positive"))
			}
			for _, id := range services {
				if err := oneOf("service", id, catalog.ServiceIDs()); err != nil {
					return err
				}
			}
			d.Services = services
			if roots != "" {
				if d.Roots, err = os.ReadFile(roots); err != nil {
					return usage(fmt.Errorf("--roots: %w", err))
				}
				if !x509.NewCertPool().AppendCertsFromPEM(d.Roots) {
					return usage(fmt.Errorf("--roots: %s has no certificate in PEM form", roots))
				}
			}
			note := ""
			if d.Proxy, note, err = proxyToTry(cfg, direct, through); err != nil {
				return usage(err)
			}
			screen := report.NewScreen(cmd.ErrOrStderr())
			d.Progress = func(done, total int) { screen.Progress(fmt.Sprintf("trying Apple's hosts: %d of %d", done, total)) }
			r := d.Run(cmd.Context())
			screen.Progress("")
			r.ProxyNote = note
			return no(r.Broken() > 0 || !r.Complete, report.Answer(cmd.OutOrStdout(), asJSON, r, report.Doctor))
		}),
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&services, "service", nil, "try this `SERVICE` only; repeatable")
	flags.BoolVar(&direct, "direct", false, "do not try through a proxy")
	flags.StringVar(&through, "through", "", "the proxy to try, at `HOST:PORT`; else proxy.listen")
	flags.StringVar(&roots, "roots", "", "believe the CAs in `FILE` (PEM) beside the public ones")
	flags.DurationVar(&timeout, "timeout", timeout, "the time for all")
	cmd.MarkFlagsMutuallyExclusive("direct", "through")
	_ = cmd.RegisterFlagCompletionFunc("service", cobra.FixedCompletions(catalog.ServiceIDs(), cobra.ShellCompDirectiveNoFileComp))
	return withJSON(&asJSON, cmd)
}

// proxyToTry is the proxy that the flags name, or that runs here, or why there is none.
func proxyToTry(cfg *configs.Config, direct bool, through string) (at, note string, err error) {
	if direct {
		return "", "left out, as --direct says", nil
	}
	if through == "" {
		at, note = app.LocalProxy(cfg)
		return at, note, nil
	}
	t, err := policy.ParseTarget(through, 0)
	if err != nil {
		return "", "", fmt.Errorf("--through: %q: %w (wanted: host:port)", through, err)
	}
	return t.String(), "", nil
}
