package web

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"espalier/web/console"
	"espalier/web/signin"
)

// A consolePage is one page of the console: what its template shows, and the status it is
// answered with.
type consolePage struct {
	path, area, name string // the name is the template's
	data             func(r *http.Request, p *console.Page) (data any, status int)
}

// handlePages serves the console's pages to whoever may look.
func (c Control) handlePages(mux *http.ServeMux, g *gate) {
	for _, x := range []consolePage{
		{"/{$}", "overview", "overview", c.overviewPage},
		{"/services", "services", "services", c.servicesPage},
		{"/services/{id}", "services", "service", c.servicePage},
		{"/logs", "logs", "logs", c.logsPage},
		{"/logs/{id}", "logs", "record", c.recordPage},
		{"/policy", "policy", "policy", c.policyPage},
		{"/pac", "pac", "pac", c.pacPage},
		{"/inspection", "inspection", "inspection", c.inspectionPage},
		{"/doctor", "doctor", "doctor", c.doctorPage},
		{"/settings", "settings", "settings", c.settingsPage},
	} {
		handle(mux, x.path, method{"GET", g.require(signin.Viewer, func(w http.ResponseWriter, r *http.Request) { c.show(w, r, x) })})
	}
	handle(mux, "/pac/script", method{"GET", g.require(signin.Viewer, c.downloadPAC)})
	handle(mux, "/pac/profile", method{"POST", g.require(signin.Viewer, c.makeProfile)})
	handle(mux, "/inspection/{do}", method{"POST", g.require(signin.Admin, c.changeExceptionOnPage)})
	handle(mux, "/doctor/run", method{"POST", g.require(signin.Admin, c.startDoctor)})
	handle(mux, "/settings/reload", method{"POST", g.require(signin.Admin, c.reloadOnPage)})
	handle(mux, "/preferences", method{"POST", setPreferences})
}

func (c Control) show(w http.ResponseWriter, r *http.Request, x consolePage) {
	st := c.status()
	p := console.Page{
		Look: console.LookOf(r), Area: x.area, Path: r.URL.RequestURI(), User: user(r),
		Node: st.Node, Version: st.Version, Now: time.Now(),
		Draining: st.Draining, Overloaded: st.Overloaded, ConfigOK: st.Reload.OK,
	}
	data, status := x.data(r, &p)
	if n, ok := data.(console.Notice); ok {
		x.name, n.Text = "notice", console.Locale(p.Lang).T(n.Text)
		data = n
	}
	p.Data = data
	var text bytes.Buffer
	if err := console.Render(&text, x.name, p); err != nil {
		panic(err) // a mistake in the program, answered with 500 by recovered
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Vary", "Accept-Language, Cookie")
	w.WriteHeader(status)
	w.Write(text.Bytes())
}

// Texts of pages that have nothing to show.
var (
	noStore     = console.Notice{Text: console.NoStore}
	storeFails  = console.Notice{Text: console.StoreFails}
	noSuchThing = console.Notice{Text: console.NoSuchThing}
)

// storeFailedOnPage is the page in place of one that the store did not answer.
func (s Source) storeFailedOnPage(r *http.Request, err error) (any, int) {
	if r.Context().Err() == nil {
		s.Log.Error("the store cannot be searched", zap.Error(err))
	}
	return storeFails, http.StatusServiceUnavailable
}

// user is who looks at a page.
func user(r *http.Request) console.User {
	who := whoAsks(r)
	return console.User{Name: who.Name, Role: string(who.Role), Admin: who.Role.May(signin.Admin), CSRF: who.CSRF}
}

// setPreferences is POST /preferences: how this browser wants pages. It changes
// nothing here, so that whoever has not signed in may do it too.
func setPreferences(w http.ResponseWriter, r *http.Request) {
	keep := func(name, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			return
		}
		http.SetCookie(w, &http.Cookie{
			Name: name, Value: value, Path: "/", MaxAge: 365 * 24 * 60 * 60,
			HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil,
		})
	}
	keep(console.LangCookie, r.PostFormValue("lang"), console.Languages...)
	keep(console.ThemeCookie, r.PostFormValue("theme"), "light", "dark", "system")
	http.Redirect(w, r, ownPath(r.PostFormValue("next")), http.StatusSeeOther)
}

// reloadOnPage is POST /settings/reload. How it went is shown by every page.
func (c Control) reloadOnPage(w http.ResponseWriter, r *http.Request) {
	if c.Reload() != nil {
		http.Redirect(w, r, "/", http.StatusSeeOther) // which says what is wrong
		return
	}
	http.Redirect(w, r, "/settings", http.StatusSeeOther)
}

// pageTime bounds what a page asks the store for.
func pageTime(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), 20*time.Second)
}
