package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"

	"espalier/configs"
	"espalier/web"
)

// consoleURL is where a browser on this machine finds the console; empty where
// there is none.
func (a *app) consoleURL() string {
	if len(a.adminOn) == 0 {
		return ""
	}
	at := a.adminOn[0].Addr().(*net.TCPAddr)
	switch {
	case at.IP.IsUnspecified():
		return fmt.Sprintf("http://localhost:%d/", at.Port)
	case !at.IP.IsLoopback():
		return "https://" + at.String() + "/"
	}
	return "http://" + at.String() + "/"
}

// consoleNames are the names that the console is reached by.
func (a *app) consoleNames() []string { return a.current.Load().Config.Web.HostNames() }

// setupLink is the URL that makes the console's first user.
func (a *app) setupLink() (string, time.Time, error) {
	at := a.consoleURL()
	if at == "" {
		return "", time.Time{}, errors.New("there is no console: web.admin is empty")
	}
	secret, until, err := a.desk.NewLink()
	if err != nil {
		return "", time.Time{}, err
	}
	return at + "setup?link=" + secret, until, nil
}

// encrypted is the error of listeners of the console that others than this machine
// can reach, where passwords would go there in the clear.
func encrypted(cfg *configs.Config, listeners []net.Listener) error {
	for _, l := range listeners {
		if !cfg.TLS.Enabled() && !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
			return fmt.Errorf("web.admin: %s reaches beyond loopback, where passwords must not go without TLS (configure tls, or listen on 127.0.0.1 and come through an SSH tunnel)", l.Addr())
		}
	}
	return nil
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			return control(cmd, dataDir, func(ctx context.Context, c *web.ControlClient) error {
				link, err := c.SetupLink(ctx)
				if err == nil {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), link.URL)
				}
				return err
			})
		},
	}
}
