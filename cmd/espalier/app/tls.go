package app

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"espalier/configs"
	"espalier/pac"
	"espalier/policy"
	"espalier/proxy/hello"
)

// applyTLS puts the certificates of a configuration into force.
func (a *App) applyTLS(cfg *configs.Config) error {
	var names []string
	if a.usesTLS(cfg) {
		names = a.tlsNames(cfg)
	}
	if err := a.certs.Apply(cfg.TLS, names); err != nil {
		return fmt.Errorf("tls.%w", err)
	}
	return nil
}

// usesTLS reports whether anything is served with TLS.
func (a *App) usesTLS(cfg *configs.Config) bool { return cfg.TLS.Enabled() || a.sockets.has(forTLS) }

// tlsNames are the names by which clients may know this machine, for a
// certificate that is signed here.
func (a *App) tlsNames(cfg *configs.Config) []string {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, cfg.Web.HostNames()...)
	names = append(names, cfg.TLS.ACME.Names()...)
	if host, err := os.Hostname(); err == nil {
		if name, _, err := policy.ParseHost(host); err == nil { // it may be anything
			names = append(names, name)
		}
	}
	for _, at := range a.sockets.addrs("") {
		if !at.Addr().IsUnspecified() {
			names = append(names, at.Addr().WithZone("").String())
		}
	}
	if at, err := pac.Fetched(netip.Addr{}, a.sockets.addrs("")); err == nil {
		if host, _, err := net.SplitHostPort(at); err == nil {
			names = append(names, host)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// speaksTLS takes TLS beside plain HTTP where there is a certificate, and
// otherwise refuses it.
func (a *App) speaksTLS(l net.Listener) net.Listener {
	if !a.cfg().TLS.Enabled() {
		return hello.NewListener(l)
	}
	return hello.NewMux(l, a.certs.TLS("h2", "http/1.1"), a.server.Room().ConnState)
}
