package web

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"espalier/web/profile"
)

// profile is GET /profiles/KIND.mobileconfig?site=NAME&fallback=BOOL&captive_login=BOOL&locked=BOOL&remove_on=TIME,
// and for KIND dns ?dns_server=URL&dns_address=ADDRESS&dns_domain=DOMAIN&dns_locked=BOOL.
func (s Source) profile(w http.ResponseWriter, r *http.Request) {
	kind, ok := strings.CutSuffix(r.PathValue("file"), ".mobileconfig")
	// A network's password must not be part of a URL.
	served := slices.DeleteFunc(slices.Clone(profile.Kinds), func(k string) bool { return k == profile.KindWiFi })
	if !ok || !slices.Contains(served, kind) {
		refuse(w, r, http.StatusNotFound, "unknown profile (available: "+strings.Join(served, ".mobileconfig, ")+".mobileconfig)")
		return
	}
	wanted := profile.Request{Kind: kind, Proxy: profile.ProxyOptions{CaptiveLogin: true}}
	names := []string{"site", "fallback", "captive_login", "locked", "remove_on"}
	if kind == profile.KindDNS {
		wanted.DNS = &profile.DNS{}
		names = append(names, "dns_server", "dns_address", "dns_domain", "dns_locked")
	}
	q, err := query(r, names...)
	options := map[string]*bool{
		"fallback": &wanted.Proxy.Fallback, "captive_login": &wanted.Proxy.CaptiveLogin, "locked": &wanted.Locked,
	}
	if d := wanted.DNS; d != nil && err == nil {
		options["dns_locked"] = &d.Locked
		d.Server, d.Addresses, d.Domains = q.Get("dns_server"), q["dns_address"], q["dns_domain"]
	}
	for key, option := range options {
		if err == nil && q.Has(key) {
			if *option, err = strconv.ParseBool(q.Get(key)); err != nil {
				err = fmt.Errorf("%s: %q is neither true nor false", key, q.Get(key))
			}
		}
	}
	if err == nil && q.Has("remove_on") {
		if wanted.RemoveOn, err = profile.ParseTime(q.Get("remove_on")); err != nil {
			err = fmt.Errorf("remove_on: %w", err)
		}
	}
	if err != nil {
		refuse(w, r, http.StatusBadRequest, err.Error())
		return
	}
	wanted.Site = q.Get("site")
	s.sendProfile(w, r, wanted)
}

// makeProfile is POST /pac/profile: the one with a choice, also for a wireless
// network, whose password must not stand in a URL.
func (s Source) makeProfile(w http.ResponseWriter, r *http.Request) {
	set := func(name string) bool { return r.PostFormValue(name) != "" }
	wanted := profile.Request{
		Kind: r.PostFormValue("kind"), Site: r.PostFormValue("site"), Locked: set("locked"),
		Proxy: profile.ProxyOptions{Fallback: set("fallback"), CaptiveLogin: set("captive_login")},
	}
	if set("remove_on") {
		var err error
		if wanted.RemoveOn, err = profile.ParseTime(r.PostFormValue("remove_on")); err != nil {
			refuse(w, r, http.StatusBadRequest, "remove_on: "+err.Error())
			return
		}
	}
	if wanted.Kind == profile.KindWiFi {
		wanted.WiFi = &profile.WiFi{
			SSID: r.PostFormValue("ssid"), Encryption: cmp.Or(r.PostFormValue("encryption"), "WPA2"),
			Password: r.PostFormValue("password"), Hidden: set("hidden"), FixedMAC: set("fixed_mac"),
		}
	}
	if !slices.Contains(profile.Kinds, wanted.Kind) {
		refuse(w, r, http.StatusBadRequest, "kind: unknown kind")
		return
	}
	if set("ca") && (wanted.Kind == profile.KindGlobalProxy || wanted.Kind == profile.KindWiFi) {
		wanted.Kind = profile.KindBundle
	}
	s.sendProfile(w, r, wanted)
}

func (s Source) sendProfile(w http.ResponseWriter, r *http.Request, wanted profile.Request) {
	if wanted.Site != "" && !s.Explainer().PAC.HasSite(wanted.Site) {
		refuse(w, r, http.StatusNotFound, "site: there is none of that name")
		return
	}
	data, err := s.Profile(wanted)
	var invalid *profile.RequestError
	switch {
	case errors.Is(err, profile.ErrNoRoot):
		refuse(w, r, http.StatusNotFound, err.Error())
		return
	case errors.As(err, &invalid):
		refuse(w, r, http.StatusBadRequest, err.Error())
		return
	case err != nil:
		refuse(w, r, http.StatusConflict, err.Error())
		return
	}
	w.Header().Set("Content-Disposition", `attachment; filename="`+wanted.Kind+`.mobileconfig"`)
	serveFile(w, r, profile.ContentType, data)
}
