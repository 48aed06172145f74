package web

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/boombuler/barcode/qr"

	"espalier/pac"
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

// pacPage is GET /pac?site=SITE&client=IP&urls=LINES: the script, and what it
// answers.
func (c Control) pacPage(r *http.Request, _ *console.Page) (any, int) {
	q := r.URL.Query()
	e := c.Explainer()
	site := q.Get("site")
	if site != "" && !e.PAC.HasSite(site) {
		return noSuchThing, http.StatusNotFound
	}
	view := console.PAC{Site: site, Sites: e.PAC.Sites(), URLs: q.Get("urls")}
	script, proxies, err := e.Script(site, netip.Addr{})
	if err != nil {
		view.Problem = err.Error()
		return view, http.StatusOK
	}
	view.Script, view.ETag, view.Proxies = string(script.Body), script.ETag, proxies
	view.HasCA = c.Status().CA != nil
	if at := c.Status().PACURL; at != "" {
		scheme, rest, _ := strings.Cut(at, "://")
		host, _, _ := strings.Cut(rest, "/")
		base := scheme + "://" + host
		view.URL = base + e.PAC.Path(site)
		if view.HasCA {
			view.CA = base + "/ca.mobileconfig"
		}
		view.QR, view.CAQR = code(view.URL), code(view.CA)
	}
	if view.URLs == "" {
		view.URLs = "https://gs.apple.com/\nhttps://www.icloud.com/\nhttps://example.com/"
		return view, http.StatusOK
	}
	view.Answers, view.TestProblem = answers(script.Body, strings.Fields(view.URLs))
	return view, http.StatusOK
}

// answers are those of a script to URLs.
func answers(script []byte, urls []string) (list []console.PACAnswer, problem string) {
	engine, err := pac.NewEvaluator(script)
	if err != nil {
		return nil, err.Error()
	}
	for _, text := range urls[:min(len(urls), maxURLs)] {
		a := console.PACAnswer{URL: text}
		url, host, _, err := pac.DeviceURL(text)
		if err == nil {
			a.Answer, err = engine.FindProxy(url, host)
		}
		if err != nil {
			a.Problem = err.Error()
		}
		list = append(list, a)
	}
	return list, ""
}

// downloadPAC is GET /pac/script?site=SITE.
func (c Control) downloadPAC(w http.ResponseWriter, r *http.Request) {
	_, site, script, _, ok := scriptOf(w, r, c.Explainer(), "site", "client")
	if !ok {
		return
	}
	name := "proxy.pac"
	if site != "" {
		name = site + ".pac"
	}
	w.Header().Set("Content-Type", "application/x-ns-proxy-autoconfig")
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name))
	w.Write(script.Body)
}

// code is a QR code of a text, as the path of an SVG with a margin; the zero Code
// for no text.
func code(text string) console.Code {
	if text == "" {
		return console.Code{}
	}
	made, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return console.Code{} // too long for any
	}
	const margin = 4
	size := made.Bounds().Dx()
	var path strings.Builder
	for y := range size {
		for x := range size {
			if red, _, _, _ := made.At(x, y).RGBA(); red == 0 {
				fmt.Fprintf(&path, "M%d %dh1v1h-1z", x+margin, y+margin)
			}
		}
	}
	return console.Code{Size: size + 2*margin, Path: path.String()}
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
	re := c.Status().Reload
	view := console.Settings{File: re.File, Loaded: re.Loaded}
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
