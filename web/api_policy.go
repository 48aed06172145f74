package web

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"

	"espalier/pac"
	"espalier/policy/lists"
	"espalier/web/explain"
)

// explainURL is GET and POST /explain. POST keeps the URL out of logs.
func (s Source) explainURL(w http.ResponseWriter, r *http.Request) {
	q, err := formOrQuery(r, "url", "client", "user", "group")
	if err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	ask := explain.Question{Target: q.Get("url"), User: q.Get("user"), Groups: q["group"]}
	switch {
	case ask.Target == "":
		writeProblem(w, http.StatusBadRequest, "url: is missing (wanted: a URL, a host or host:port)")
		return
	case ask.User == "" && len(ask.Groups) > 0:
		writeProblem(w, http.StatusBadRequest, "group: needs user")
		return
	}
	if ask.Client, err = clientOf(q); err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	x, err := s.Explainer().Explain(ask)
	if err != nil {
		writeProblem(w, http.StatusBadRequest, "url: "+err.Error())
		return
	}
	writeJSON(w, http.StatusOK, "application/json", x)
}

// formOrQuery returns the parameters of a request, of the form where it has one.
// Its own field csrf is none.
func formOrQuery(r *http.Request, keys ...string) (url.Values, error) {
	if r.Method != http.MethodPost {
		return query(r, keys...)
	}
	if err := r.ParseForm(); err != nil {
		return nil, fmt.Errorf("the form cannot be read: %w", err)
	}
	r.PostForm.Del("csrf")
	return r.PostForm, onlyKeys(r.PostForm, keys)
}

// clientOf is the parameter client, the zero Addr where there is none.
func clientOf(q url.Values) (netip.Addr, error) {
	text := q.Get("client")
	if text == "" {
		return netip.Addr{}, nil
	}
	client, err := netip.ParseAddr(text)
	if err != nil {
		return client, fmt.Errorf("client: %q is no address", text)
	}
	return client.Unmap().WithZone(""), nil
}

// PACScript is the answer of /api/v1/pac.
type PACScript struct {
	Site    string   `json:"site"`    // empty outside sites
	Sites   []string `json:"sites"`   // all there are; never null
	Proxies []string `json:"proxies"` // in order; never null
	Bytes   int      `json:"bytes"`
	ETag    string   `json:"etag"`
	Script  string   `json:"script"`
}

// pacScript is GET /pac.
func (s Source) pacScript(w http.ResponseWriter, r *http.Request) {
	e := s.Explainer()
	_, site, script, proxies, ok := scriptOf(w, r, e, "site", "client")
	if !ok {
		return
	}
	answer := PACScript{
		Site: site, Sites: e.PAC.Sites(), Proxies: proxies,
		Bytes: len(script.Body), ETag: script.ETag, Script: string(script.Body),
	}
	if answer.Sites == nil {
		answer.Sites = []string{}
	}
	if answer.Proxies == nil {
		answer.Proxies = []string{}
	}
	writeJSON(w, http.StatusOK, "application/json", answer)
}

// PACAnswers is the answer of /api/v1/pac/eval.
type PACAnswers struct {
	Site    string      `json:"site"`
	Answers []PACAnswer `json:"answers"`
}

// A PACAnswer is what the script answers when called with URL and Host.
type PACAnswer struct {
	URL    string `json:"url"`
	Host   string `json:"host"`
	Answer string `json:"answer"`
}

// maxURLs bounds how many URLs are evaluated at once.
const maxURLs = 100

// evalPAC is GET /pac/eval.
func (s Source) evalPAC(w http.ResponseWriter, r *http.Request) {
	q, site, script, _, ok := scriptOf(w, r, s.Explainer(), "url", "site", "client")
	if !ok {
		return
	}
	if n := len(q["url"]); n == 0 || n > maxURLs {
		writeProblem(w, http.StatusBadRequest, fmt.Sprintf("url: there are %d (wanted: 1 to %d)", n, maxURLs))
		return
	}
	engine, err := pac.NewEvaluator(script.Body)
	if err != nil {
		panic(err) // a mistake in the script, answered with 500 by recovered
	}
	answer := PACAnswers{Site: site}
	for _, text := range q["url"] {
		url, host, _, err := pac.DeviceURL(text)
		if err != nil {
			writeProblem(w, http.StatusBadRequest, "url: "+err.Error())
			return
		}
		found, err := engine.FindProxy(url, host)
		if err != nil {
			panic(err)
		}
		answer.Answers = append(answer.Answers, PACAnswer{url, host, found})
	}
	writeJSON(w, http.StatusOK, "application/json", answer)
}

// scriptOf is the script that the parameters site or client choose. Where there
// is none it has answered why.
func scriptOf(w http.ResponseWriter, r *http.Request, e *explain.Explainer, keys ...string) (q url.Values, site string, script *pac.Script, proxies []string, ok bool) {
	q, err := query(r, keys...)
	if err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	client, err := clientOf(q)
	if err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	if site = q.Get("site"); site == "" && client.IsValid() {
		site = e.PAC.SiteFor(client)
	} else if site != "" && !e.PAC.HasSite(site) {
		writeProblem(w, http.StatusNotFound, fmt.Sprintf("there is no site %q in pac.sites", site))
		return
	}
	if script, proxies, err = e.Script(site, client); err != nil {
		writeProblem(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	return q, site, script, proxies, true
}

// Lists is the answer of /api/v1/lists.
type Lists struct {
	Lists []lists.Status `json:"lists"` // never null
}

// Settings is the answer of /api/v1/config: the configuration in force.
type Settings struct {
	File     string    `json:"file"` // empty for the embedded default
	Settings []Setting `json:"settings"`
}

// A Setting is the value of a key.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"` // as YAML has it, secrets as xxxxx
	// Origin is "default", "FILE:LINE", "environment NAME" or "flag --set KEY".
	Origin string `json:"origin"`
}
