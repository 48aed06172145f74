package api

import (
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
	wanted, err := profileOf(r, kind)
	if err != nil {
		ProblemOf(err).Write(w)
		return
	}
	c.SendProfile(w, r, wanted)
}

// profileOf is the profile of a kind that the parameters describe.
func profileOf(r *http.Request, kind string) (profile.Request, error) {
	names := []string{"site", "fallback", "captive_login", "locked", "remove_on"}
	if kind == profile.KindDNS {
		names = append(names, "dns_server", "dns_address", "dns_domain", "dns_locked")
	}
	q, err := paramsOf(r, names...)
	if err != nil {
		return profile.Request{}, err
	}
	wanted := profile.Request{
		Kind: kind, Site: q.Get("site"), Locked: q.flag("locked", false),
		Proxy: profile.ProxyOptions{Fallback: q.flag("fallback", false), CaptiveLogin: q.flag("captive_login", true)},
	}
	if kind == profile.KindDNS {
		wanted.DNS = &profile.DNS{
			Server: q.Get("dns_server"), Addresses: q.Values["dns_address"], Domains: q.Values["dns_domain"],
			Locked: q.flag("dns_locked", false),
		}
	}
	if q.Has("remove_on") {
		if wanted.RemoveOn, err = profile.ParseTime(q.Get("remove_on")); err != nil {
			q.fail("remove_on: %w", err)
		}
	}
	if len(q.errs) > 0 {
		return wanted, q.errs[0]
	}
	return wanted, nil
}

// SendProfile answers with the profile that is wanted.
func (c Control) SendProfile(w http.ResponseWriter, r *http.Request, wanted profile.Request) {
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
