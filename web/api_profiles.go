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

// profile is GET /profiles/KIND.mobileconfig?site=NAME&fallback=BOOL&captive_login=BOOL&locked=BOOL.
func (s Source) profile(w http.ResponseWriter, r *http.Request) {
	kind, ok := strings.CutSuffix(r.PathValue("file"), ".mobileconfig")
	if !ok || kind == profile.KindWiFi || !slices.Contains(profile.Kinds, kind) {
		refuse(w, r, http.StatusNotFound, "there is no such profile (there are global-proxy.mobileconfig, ca.mobileconfig, bundle.mobileconfig)")
		return
	}
	wanted := profile.Request{Kind: kind, Proxy: profile.ProxyOptions{CaptiveLogin: true}}
	q, err := query(r, "site", "fallback", "captive_login", "locked")
	for key, option := range map[string]*bool{
		"fallback": &wanted.Proxy.Fallback, "captive_login": &wanted.Proxy.CaptiveLogin, "locked": &wanted.Locked,
	} {
		if err == nil && q.Has(key) {
			if *option, err = strconv.ParseBool(q.Get(key)); err != nil {
				err = fmt.Errorf("%s: %q is neither true nor false", key, q.Get(key))
			}
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
	if wanted.Kind == profile.KindWiFi {
		wanted.WiFi = &profile.WiFi{
			SSID: r.PostFormValue("ssid"), Encryption: cmp.Or(r.PostFormValue("encryption"), "WPA2"),
			Password: r.PostFormValue("password"), Hidden: set("hidden"),
		}
	}
	if !slices.Contains(profile.Kinds, wanted.Kind) {
		refuse(w, r, http.StatusBadRequest, "kind: there is none of that name")
		return
	}
	if wanted.WiFi != nil {
		if err := wanted.WiFi.Validate(); err != nil {
			refuse(w, r, http.StatusBadRequest, err.Error())
			return
		}
	}
	if set("ca") {
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
	switch {
	case errors.Is(err, profile.ErrNoRoot):
		refuse(w, r, http.StatusNotFound, err.Error())
		return
	case err != nil:
		refuse(w, r, http.StatusConflict, err.Error())
		return
	}
	w.Header().Set("Content-Disposition", `attachment; filename="`+wanted.Kind+`.mobileconfig"`)
	serveFile(w, r, profile.ContentType, data)
}
