package console

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"espalier/policy"
	"espalier/proxy/inspect"
	"espalier/web/api"
	"espalier/web/explain"
	"espalier/web/server"
)

// Policy is the page that explains decisions.
type Policy struct {
	URL, Client, User string // as asked
	Problem           string // why that cannot be answered
	Answer            *explain.Explanation
	Rules             []policy.Rule
}

// policyPage is GET /policy?url=URL&client=IP&user=NAME.
func (c pages) policyPage(r *http.Request, _ *Page) (any, int) {
	asked := func(key string) string { return strings.TrimSpace(r.URL.Query().Get(key)) }
	e := c.Explainer()
	view := Policy{URL: asked("url"), Client: asked("client"), User: asked("user"), Rules: e.Rules}
	if view.URL == "" {
		return view, http.StatusOK
	}
	client, err := api.ParseClient(view.Client)
	if err == nil {
		view.Answer, err = e.Explain(explain.Question{Target: view.URL, Client: client, User: view.User})
	}
	if err != nil {
		view.Problem = err.Error()
	}
	return view, http.StatusOK
}

// Condition is a part of what a rule asks for.
type Condition struct {
	Key    string
	Values []string
	More   int // values that are left out
}

// conditions are those of a rule, in the order of the configuration; none: always.
func conditions(w policy.When) (list []Condition) {
	add := func(key string, values []string) {
		if len(values) > 0 {
			list = append(list, Condition{key, values[:min(len(values), 8)], max(0, len(values)-8)})
		}
	}
	ports := make([]string, len(w.Ports))
	for i, p := range w.Ports {
		ports[i] = fmt.Sprint(p)
	}
	add("hosts", w.Hosts)
	add("lists", w.Lists)
	add("services", w.Services)
	add("clients", w.Clients)
	add("users", w.Users)
	add("groups", w.Groups)
	add("ports", ports)
	add("hours", w.Hours)
	return list
}

// Inspection is the page of TLS interception.
type Inspection struct {
	Mode       string
	CA         *api.CA // nil: there is none
	Exceptions []inspect.Exception
}

// inspectionPage is GET /inspection.
func (c pages) inspectionPage(_ *http.Request, p *Page) (any, int) {
	view := Inspection{CA: p.Status.CA, Exceptions: c.Exceptions.List()}
	for _, s := range c.Settings() {
		if s.Key == "inspect.mode" {
			view.Mode = s.Value
		}
	}
	return view, http.StatusOK
}

// changeException is POST /inspection/{do} with the field host.
func (c pages) changeException(w http.ResponseWriter, r *http.Request) {
	err := c.ChangeException(r.PathValue("do"), r.PostFormValue("host"))
	if p, ok := errors.AsType[*server.Problem](err); ok && p.Status != http.StatusNotFound {
		http.Error(w, p.Detail, p.Status)
		return
	}
	http.Redirect(w, r, "/inspection", http.StatusSeeOther)
}

// A Section are the settings below a first name.
type Section struct {
	Name     string
	Settings []api.Setting
}

// settingsPage is GET /settings.
func (c pages) settingsPage(*http.Request, *Page) (any, int) {
	var sections []Section
	for _, s := range c.Settings() {
		name := s.Key
		if i := strings.IndexAny(name, ".["); i > 0 {
			name = name[:i]
		}
		i := slices.IndexFunc(sections, func(x Section) bool { return x.Name == name })
		if i < 0 {
			i = len(sections)
			sections = append(sections, Section{Name: name})
		}
		sections[i].Settings = append(sections[i].Settings, s)
	}
	return sections, http.StatusOK
}

// reload is POST /settings/reload. How it went is shown by every page.
func (c pages) reload(w http.ResponseWriter, r *http.Request) {
	to := "/settings"
	if c.Reload() != nil {
		to = "/" // which says what is wrong
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}
