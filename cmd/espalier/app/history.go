package app

import (
	"cmp"
	"errors"
	"net/netip"
	"time"

	"espalier/pac"
	"espalier/pac/history"
)

// keepScripts keeps the script of each site in the history, with the proxies in
// the order of the configuration. config is Loaded.Hash.
func keepScripts(store history.Store, from *pac.PAC, listen []netip.AddrPort, config string) error {
	fetched, _ := pac.Fetched(netip.Addr{}, listen)
	var errs []error
	for _, site := range append(from.Sites(), "") {
		script, err := from.Script(site, from.Proxies(site, fetched))
		if errors.Is(err, pac.ErrNoProxy) {
			continue // there is no address that devices reach
		}
		if err == nil {
			_, err = store.Keep(time.Now(), cmp.Or(site, pac.General), config, script.Body)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
