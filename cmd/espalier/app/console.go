package app

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"espalier/configs"
)

// consoleURL is where a browser on this machine finds the console; empty where
// there is none.
func (a *App) consoleURL() string {
	on := a.sockets.addrs(forAdmin)
	if len(on) == 0 {
		return ""
	}
	switch at := on[0]; {
	case at.Addr().IsUnspecified():
		return fmt.Sprintf("http://localhost:%d/", at.Port())
	case !at.Addr().IsLoopback():
		return "https://" + at.String() + "/"
	default:
		return "http://" + at.String() + "/"
	}
}

// consoleNames are the names that the console is reached by.
func (a *App) consoleNames() []string { return a.cfg().Web.HostNames() }

// setupLink is the URL that makes the console's first user.
func (a *App) setupLink() (string, time.Time, error) {
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
func encrypted(cfg *configs.Config, on []netip.AddrPort) error {
	for _, at := range on {
		if !cfg.TLS.Enabled() && !at.Addr().IsLoopback() {
			return fmt.Errorf("web.admin: %s reaches beyond loopback, where passwords must not go without TLS (configure tls, or listen on 127.0.0.1 and come through an SSH tunnel)", at)
		}
	}
	return nil
}
