package web

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"espalier/policy"
	"espalier/web/console"
	"espalier/web/explain"
)

// policyPage is GET /policy?url=URL&client=IP&user=NAME.
func (c Control) policyPage(r *http.Request, _ *console.Page) (any, int) {
	q := r.URL.Query()
	e := c.Explainer()
	view := console.Policy{URL: strings.TrimSpace(q.Get("url")), Client: strings.TrimSpace(q.Get("client")), User: strings.TrimSpace(q.Get("user"))}
	for _, rule := range e.Rules {
		view.Rules = append(view.Rules, ruleView(rule))
	}
	if view.URL == "" {
		return view, http.StatusOK
	}
	client, err := clientOf(map[string][]string{"client": {view.Client}})
	if err == nil {
		view.Answer, err = e.Explain(explain.Question{Target: view.URL, Client: client, User: view.User})
	}
	if err != nil {
		view.Problem = err.Error()
	}
	return view, http.StatusOK
}

// ruleView says what a rule asks for, in the order of the configuration.
func ruleView(r policy.Rule) console.Rule {
	v := console.Rule{Name: r.Name, Then: string(r.Then)}
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
			v.When = append(v.When, console.Condition{Key: part.key, Values: part.list[:min(len(part.list), 8)], More: max(0, len(part.list)-8)})
		}
	}
	return v
}

// inspectionPage is GET /inspection.
func (c Control) inspectionPage(_ *http.Request, _ *console.Page) (any, int) {
	view := console.Inspection{}
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

// changeExceptionOnPage is POST /inspection/{do} with the field host.
func (c Control) changeExceptionOnPage(w http.ResponseWriter, r *http.Request) {
	if p := c.decideException(r.PathValue("do"), r.PostFormValue("host")); p != nil && p.Status != http.StatusNotFound {
		http.Error(w, p.Detail, p.Status)
		return
	}
	http.Redirect(w, r, "/inspection", http.StatusSeeOther)
}

// settingsPage is GET /settings.
func (c Control) settingsPage(_ *http.Request, _ *console.Page) (any, int) {
	st := c.Status()
	view := console.Settings{File: st.Reload.File, Loaded: st.Reload.Loaded}
	for _, x := range st.TLS {
		view.TLS = append(view.TLS, console.Certificate{
			Names: x.Names, Source: x.Source, Issuer: x.Issuer, NotAfter: x.NotAfter, Fingerprint: x.Fingerprint, Warnings: x.Warnings,
		})
	}
	for _, s := range c.Settings() {
		name := s.Key
		if i := strings.IndexAny(name, ".["); i > 0 {
			name = name[:i]
		}
		i := slices.IndexFunc(view.Sections, func(x console.Section) bool { return x.Name == name })
		if i < 0 {
			i = len(view.Sections)
			view.Sections = append(view.Sections, console.Section{Name: name})
		}
		view.Sections[i].Settings = append(view.Sections[i].Settings, console.Setting{Key: s.Key, Value: s.Value, Origin: s.Origin, Default: s.Origin == "default"})
	}
	return view, http.StatusOK
}
