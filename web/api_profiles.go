package web

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"espalier/web/profile"
)

// profile is GET /profiles/KIND.mobileconfig?site=NAME.
func (s Source) profile(w http.ResponseWriter, r *http.Request) {
	kind, ok := strings.CutSuffix(r.PathValue("file"), ".mobileconfig")
	if !ok || kind == profile.KindWiFi || !slices.Contains(profile.Kinds, kind) {
		writeProblem(w, http.StatusNotFound, "there is no such profile (there are global-proxy.mobileconfig, ca.mobileconfig, bundle.mobileconfig)")
		return
	}
	q, err := query(r, "site")
	if err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	site := q.Get("site")
	if site != "" && !slices.Contains(s.Explainer().PAC.Sites(), site) {
		writeProblem(w, http.StatusNotFound, "site: there is none of that name")
		return
	}
	data, err := s.Profile(kind, site)
	switch {
	case errors.Is(err, profile.ErrNoRoot):
		writeProblem(w, http.StatusNotFound, err.Error())
		return
	case err != nil:
		writeProblem(w, http.StatusConflict, err.Error())
		return
	}
	w.Header().Set("Content-Disposition", `attachment; filename="`+kind+`.mobileconfig"`)
	serveFile(w, r, profile.ContentType, data)
}
