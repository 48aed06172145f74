package console

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"time"

	"espalier/web/api"
	"espalier/web/signin"
)

// pages are those of a process.
type pages struct{ api.Control }

// A view is one page: what its template shows, and the status it is answered with.
type view struct {
	path, area, name string // the name is the template's
	data             func(r *http.Request, p *Page) (data any, status int)
}

// Endpoints are the pages and what their forms do.
func Endpoints(process api.Control) []api.Endpoint {
	c := pages{process}
	var list []api.Endpoint
	add := func(method, path string, role signin.Role, serve http.HandlerFunc) {
		list = append(list, api.Endpoint{Method: method, Path: path, Role: role, Serve: serve})
	}
	add("GET", "/pac/script", signin.Viewer, c.downloadPAC)
	add("POST", "/pac/profile", signin.Viewer, c.MakeProfile)
	add("POST", "/inspection/{do}", signin.Admin, c.changeException)
	add("POST", "/doctor/run", signin.Admin, c.startDoctor)
	add("POST", "/settings/reload", signin.Admin, c.reload)
	for _, v := range []view{
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
		add("GET", v.path, signin.Viewer, func(w http.ResponseWriter, r *http.Request) { c.show(w, r, v) })
	}
	return list
}

func (c pages) show(w http.ResponseWriter, r *http.Request, v view) {
	who := signin.FromContext(r.Context())
	p := Page{
		Look: LookOf(r), Area: v.area, Path: r.URL.RequestURI(), User: User{*who, who.Role.May(signin.Admin)},
		Status: c.CompleteStatus(), Now: time.Now(),
	}
	ctx, cancel := context.WithTimeout(r.Context(), pageTime)
	defer cancel()
	data, status := v.data(r.WithContext(ctx), &p)
	p.Data = data
	if text, ok := data.(notice); ok {
		v.name, p.Data = "notice", p.T(string(text))
	}
	write(w, status, func(text io.Writer) error { return Render(text, v.name, p) })
}

// write answers with a page.
func write(w http.ResponseWriter, status int, render func(io.Writer) error) {
	var text bytes.Buffer
	if err := render(&text); err != nil {
		panic(err) // a mistake in the program, answered with 500
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Vary", "Accept-Language, Cookie")
	w.WriteHeader(status)
	w.Write(text.Bytes())
}

// A notice takes the place of a page that has nothing to show.
type notice string

// storeFailed is the page in place of one that the store did not answer.
func (c pages) storeFailed(r *http.Request, err error) (any, int) {
	c.LogStore(r, err)
	return notice(StoreFails), http.StatusServiceUnavailable
}

// pageTime bounds what a page asks the store for.
const pageTime = 20 * time.Second

// SignIn is the page for whoever has not signed in.
type SignIn struct {
	Look
	Next    string // where to go on to
	Name    string // as it was typed
	Problem string // why it was refused, as the locale has it; empty before the first try
	NoUsers bool   // nobody could sign in yet
	Setup   string // secret of the setup link that makes the first user; empty for others
	Path    string // to come back to when the language is changed
}

// Write answers with the page.
func (s SignIn) Write(w http.ResponseWriter, status int) {
	write(w, status, func(text io.Writer) error { return render(text, "signin", s.Lang, "signin", s) })
}
