package app

import (
	"net/netip"
	"strings"
	"time"

	"espalier/pac"
	"espalier/web/api"
)

// status is what the process says of itself.
func (a *App) status() api.Status {
	st := api.Status{
		Version: a.version, Node: a.node, Started: a.started,
		Draining: a.server.Draining(), Overloaded: a.server.Overloaded(), Tunnels: int64(a.server.Tunnels()),
		Reload: *a.reload.Load(), PACURL: a.pacURL(""), Proxy: a.proxyAddress(),
		CA: a.made.Load().caStatus(time.Now()), TLS: a.certs.Status(),
	}
	st.Lists, st.PACProxies, st.PACFetches = a.lists.Status(), a.health.Status(), a.fetches()
	h := a.access.Health()
	st.AccessLog = api.AccessLog{Since: h.Since, Lost: h.Lost}
	if h.Err != nil {
		st.AccessLog.Error = h.Err.Error()
	}
	if a.store != nil {
		h := a.store.Health()
		st.Store = &api.Store{Since: h.Since, Lag: h.Lag, Size: h.Size}
		if h.Err != nil {
			st.Store.Error = h.Err.Error()
		}
	}
	for _, on := range a.sockets {
		st.Listeners = append(st.Listeners, api.Listener{Purpose: on.purpose, Address: on.Addr().String()})
	}
	return st
}

// proxyAddress is the host:port that the PAC script names first to a device
// outside this machine; empty where there is none.
func (a *App) proxyAddress() string {
	fetched, _ := pac.Fetched(netip.Addr{}, a.sockets.addrs(forProxy))
	if list := a.made.Load().PAC.Proxies("", fetched); len(list) > 0 {
		return list[0]
	}
	return ""
}

// pacURL is what the MDM is given: the script where devices reach it; empty where
// that is not known.
func (a *App) pacURL(site string) string {
	base := a.publicURL()
	if base == "" {
		return ""
	}
	return base + a.made.Load().PAC.Path(site)
}

// publicURL is where devices reach the public listeners; empty if that is unknown.
func (a *App) publicURL() string {
	base, err := PublicURL(a.cfg().Web, a.sockets.addrs(forPublic))
	if err != nil {
		return ""
	}
	return base
}

// about is what people who open the proxy's own address are told.
func (a *App) about() (organization, contact string) {
	cfg := a.cfg()
	return cfg.Web.Profile.Organization, strings.TrimSpace(cfg.Proxy.Contact)
}
