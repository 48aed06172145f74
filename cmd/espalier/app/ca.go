package app

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"espalier/configs"
	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/inspect"
	"espalier/web/api"
	"espalier/web/profile"
	"espalier/web/signin"
)

// CADir is where the interception CA lives.
func CADir(cfg *configs.Config) string { return filepath.Join(cfg.Data, "ca") }

// compile is compile with the CA and the console's users, which only the process
// itself needs to read.
func (a *App) compile(l *configs.Loaded) (*Compiled, error) {
	cfg := l.Config
	made, err := compile(cfg, a.sockets.addrs(""), kept{a.exceptions, a.guard, a.lists}, a.log)
	if err != nil {
		return nil, err
	}
	made.loaded = l
	made.explainer = made.explain(cfg, a.sockets.addrs(forProxy))
	made.explainer.Up = a.health.Up
	ca := made.ca
	if made.caErr != nil && !errors.Is(made.caErr, fs.ErrNotExist) {
		return nil, fmt.Errorf("data: %w", made.caErr)
	}
	apple := made.State.Policy.Apple()
	if err := needCA(cfg); err != nil {
		return nil, err
	}
	if made.issuer, err = profile.NewIssuer(cfg.Web.Profile); err != nil {
		return nil, fmt.Errorf("web.profile.%w", err)
	}
	if ca != nil {
		if made.rootProfile, err = made.issuer.Make(profile.Request{Kind: profile.KindCA, Root: ca.Root()}); err != nil {
			return nil, fmt.Errorf("web.profile: %w", err)
		}
	}
	if intercepts(cfg) {
		made.State.Leaves, err = inspect.NewLeaves(ca, func(host string, addr netip.Addr) bool { return apple.Match(host, addr, 443).OK() })
		if err != nil {
			return nil, err
		}
	}
	made.State.Exceptions = a.exceptions
	if base, err := PublicURL(cfg.Web, a.sockets.addrs(forPublic)); err == nil && ca != nil {
		made.State.SetupURL = base + "/"
	}
	if made.users, err = signin.OpenUsers(cfg.UsersFile(), a.guard); err != nil {
		return nil, fmt.Errorf("web.users: %w", err)
	}
	return made, nil
}

// intercepts reports whether a configuration may want something intercepted.
func intercepts(cfg *configs.Config) bool {
	return cfg.Inspect.Mode != "" && cfg.Inspect.Mode != policy.InspectNone
}

// needCA is the error of a configuration that wants something intercepted where
// there is no CA.
func needCA(cfg *configs.Config) error {
	if !intercepts(cfg) {
		return nil
	}
	if _, err := os.Stat(CADir(cfg)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("inspect.mode: %s needs a CA that devices trust, and there is none in %s: make it with `espalier ca init`", cfg.Inspect.Mode, cfg.Data)
	}
	return nil
}

// Excluded is all that a CA made with cfg must not speak for: the advice for firewalls too
// where apple.wide is off, since that says what is tunnelled and not whose it is.
func Excluded(cfg *configs.Config) ([]catalog.Row, error) {
	apple, err := Apple(cfg)
	if err != nil {
		return nil, invalid(err)
	}
	return slices.Concat(apple.Rows(), catalog.Wide()), nil
}

// Root is the root of the interception CA, nil where there is none.
func Root(cfg *configs.Config) (*x509.Certificate, error) {
	ca, err := inspect.LoadCA(CADir(cfg))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ca.Root(), nil
}

// caRoot is what devices must trust, nil where there is no CA.
func (a *App) caRoot() *x509.Certificate {
	if ca := a.made.Load().ca; ca != nil {
		return ca.Root()
	}
	return nil
}

// rootProfile is the profile of caRoot.
func (a *App) rootProfile() []byte { return a.made.Load().rootProfile }

// profile makes a profile of the CA and script in force, which it sets in r.
func (a *App) profile(r profile.Request) ([]byte, error) {
	r.Root, r.PACURL = a.caRoot(), a.pacURL(r.Site)
	if r.PACURL == "" && r.Kind != profile.KindCA {
		return nil, errNoPublicURL
	}
	return a.made.Load().issuer.Make(r)
}

// caStatus is what the CA must not speak for, and what must be done about it; nil where
// there is none.
func (c *Compiled) caStatus(now time.Time) *api.CA {
	if c.ca == nil {
		return nil
	}
	rows := c.State.Policy.Apple().Rows()
	return &api.CA{NotAfter: c.ca.NotAfter(), Missing: c.ca.Missing(rows), Warnings: c.ca.Warnings(rows, now)}
}

func (a *App) warnOfCA() {
	if st := a.made.Load().caStatus(time.Now()); st != nil {
		for _, text := range st.Warnings {
			a.log.Warn(text)
		}
	}
}

// watchCA repeats the warnings every day.
func (a *App) watchCA(ctx context.Context) {
	tick := time.NewTicker(24 * time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			a.warnOfCA()
		case <-ctx.Done():
			return
		}
	}
}
