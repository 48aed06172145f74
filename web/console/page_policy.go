package console

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"espalier/policy"
	"espalier/web/api"
	"espalier/web/explain"
	"espalier/web/server"
)

// policyPage is GET /policy?url=URL&client=IP&user=NAME.
func (c pages) policyPage(r *http.Request, _ *Page) (any, int) {
	q := r.URL.Query()
	e := c.Explainer()
	view := Policy{URL: strings.TrimSpace(q.Get("url")), Client: strings.TrimSpace(q.Get("client")), User: strings.TrimSpace(q.Get("user"))}
	for _, rule := range e.Rules {
		view.Rules = append(view.Rules, ruleView(rule))
	}
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

// ruleView says what a rule asks for, in the order of the configuration.
func ruleView(r policy.Rule) Rule {
	v := Rule{Name: r.Name, Then: string(r.Then)}
	ports := make([]string, len(r.When.Ports))
	for i, p := range r.When.Ports {
		ports[i] = fmt.Sprint(p)
	}
	for _, part := range []struct {
		key  string
		list []string
	}{
		{"hosts", r.When.Hosts}, {"lists", r.When.Lists}, {"services", r.When.Services}, {"clients", r.When.Clients},
		{"users", r.When.Users}, {"groups", r.When.Groups}, {"ports", ports}, {"hours", r.When.Hours},
	} {
		if len(part.list) > 0 {
			v.When = append(v.When, Condition{Key: part.key, Values: part.list[:min(len(part.list), 8)], More: max(0, len(part.list)-8)})
		}
	}
	return v
}

// inspectionPage is GET /inspection.
func (c pages) inspectionPage(_ *http.Request, _ *Page) (any, int) {
	view := Inspection{}
	for _, s := range c.Settings() {
		if s.Key == "inspect.mode" {
			view.Mode = s.Value
		}
	}
	if ca := c.Status().CA; ca != nil {
		view.HasCA, view.NotAfter, view.Warnings = true, ca.NotAfter, ca.Warnings
	}
	view.Exceptions = c.Exceptions.List()
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

// settingsPage is GET /settings.
func (c pages) settingsPage(_ *http.Request, _ *Page) (any, int) {
	st := c.Status()
	view := Settings{File: st.Reload.File, Loaded: st.Reload.Loaded}
	for _, x := range st.TLS {
		view.TLS = append(view.TLS, Certificate{
			Names: x.Names, Source: x.Source, Issuer: x.Issuer, NotAfter: x.NotAfter, Fingerprint: x.Fingerprint, Warnings: x.Warnings,
		})
	}
	for _, s := range c.Settings() {
		name := s.Key
		if i := strings.IndexAny(name, ".["); i > 0 {
			name = name[:i]
		}
		i := slices.IndexFunc(view.Sections, func(x Section) bool { return x.Name == name })
		if i < 0 {
			i = len(view.Sections)
			view.Sections = append(view.Sections, Section{Name: name})
		}
		view.Sections[i].Settings = append(view.Sections[i].Settings, Setting{Key: s.Key, Value: s.Value, Origin: s.Origin, Default: s.Origin == "default"})
	}
	return view, http.StatusOK
}
