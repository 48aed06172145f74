package api

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"espalier/web/profile"
	"espalier/web/public"
	"espalier/web/server"
)

// profile is GET /profiles/KIND.mobileconfig?site=NAME&fallback=BOOL&captive_login=BOOL&locked=BOOL&remove_on=TIME,
// and for KIND dns ?dns_server=URL&dns_address=ADDRESS&dns_domain=DOMAIN&dns_locked=BOOL.
func (c Control) profile(w http.ResponseWriter, r *http.Request) {
	kind, ok := strings.CutSuffix(r.PathValue("file"), ".mobileconfig")
	// A network's password must not be part of a URL.
	served := slices.DeleteFunc(slices.Clone(profile.Kinds), func(k string) bool { return k == profile.KindWiFi })
	if !ok || !slices.Contains(served, kind) {
		server.Refuse(w, r, http.StatusNotFound, "unknown profile (available: "+strings.Join(served, ".mobileconfig, ")+".mobileconfig)")
		return
	}
	names := []string{}
	if kind == profile.KindDNS {
		names = []string{"dns_server", "dns_address", "dns_domain", "dns_locked"}
	}
	q, err := paramsOf(r, append(names, profileParams...)...)
	c.sendProfile(w, r, q, err, profile.Request{Kind: kind, Proxy: profile.ProxyOptions{CaptiveLogin: true}})
}

// MakeProfile is POST /pac/profile of the console: a profile with a choice, also for
// a wireless network, whose password must not be part of a URL.
func (c Control) MakeProfile(w http.ResponseWriter, r *http.Request) {
	q, err := paramsOf(r, append([]string{"kind", "ca", "ssid", "encryption", "password", "hidden", "fixed_mac"}, profileParams...)...)
	c.sendProfile(w, r, q, err, profile.Request{Kind: r.PostFormValue("kind")})
}

// profileParams are those of all kinds.
var profileParams = []string{"site", "fallback", "captive_login", "locked", "remove_on"}

// profileOf completes a profile of a kind by what the parameters say.
func (p *params) profileOf(wanted profile.Request) (profile.Request, error) {
	wanted.Site, wanted.Locked = p.Get("site"), p.flag("locked", false)
	wanted.Proxy.Fallback = p.flag("fallback", false)
	wanted.Proxy.CaptiveLogin = p.flag("captive_login", wanted.Proxy.CaptiveLogin)
	if v := p.Get("remove_on"); v != "" {
		at, err := profile.ParseTime(v)
		if err != nil {
			p.fail("remove_on: %w", err)
		}
		wanted.RemoveOn = at
	}
	switch wanted.Kind {
	case profile.KindDNS:
		wanted.DNS = &profile.DNS{
			Server: p.Get("dns_server"), Addresses: p.Values["dns_address"], Domains: p.Values["dns_domain"], Locked: p.flag("dns_locked", false),
		}
	case profile.KindWiFi:
		wanted.WiFi = &profile.WiFi{
			SSID: p.Get("ssid"), Encryption: cmp.Or(p.Get("encryption"), "WPA2"), Password: p.Get("password"),
			Hidden: p.flag("hidden", false), FixedMAC: p.flag("fixed_mac", false),
		}
	}
	if p.flag("ca", false) && (wanted.Kind == profile.KindGlobalProxy || wanted.Kind == profile.KindWiFi) {
		wanted.Kind = profile.KindBundle
	}
	return wanted, errors.Join(p.errs...)
}

// sendProfile answers with the profile that the parameters want, or with what is
// wrong with them.
func (c Control) sendProfile(w http.ResponseWriter, r *http.Request, q *params, err error, wanted profile.Request) {
	if err == nil {
		wanted, err = q.profileOf(wanted)
	}
	if err != nil {
		server.Refuse(w, r, http.StatusBadRequest, err.Error())
		return
	}
	if wanted.Site != "" && !c.Explainer().PAC.HasSite(wanted.Site) {
		server.Refuse(w, r, http.StatusNotFound, "site: there is none of that name")
		return
	}
	data, err := c.Profile(wanted)
	if err != nil {
		status := http.StatusConflict
		if errors.Is(err, profile.ErrNoRoot) {
			status = http.StatusNotFound
		} else if _, ok := errors.AsType[*profile.RequestError](err); ok {
			status = http.StatusBadRequest
		}
		server.Refuse(w, r, status, err.Error())
		return
	}
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", wanted.Kind+".mobileconfig"))
	public.ServeFile(w, r, profile.ContentType, data)
}
