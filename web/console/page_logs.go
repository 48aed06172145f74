package console

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/accesslog"
	"espalier/web/api"
	"espalier/web/explain"
)

// logsPage is GET /logs: the filter is in the URL, so that it can be shared.
func (c pages) logsPage(r *http.Request, p *Page) (any, int) {
	if c.Store == nil {
		return noStore, http.StatusOK
	}
	q := r.URL.Query()
	filter, err := accesslog.ParseFilter(q.Get, p.Now)
	part := accesslog.Range{Limit: api.PageSize}
	if e := part.After.UnmarshalText([]byte(q.Get("cursor"))); e != nil {
		err = errors.Join(err, e)
	}
	view := Logs{Values: map[string]string{}, FirstPage: part.After == accesslog.Cursor{}}
	asked := url.Values{}
	for _, key := range accesslog.FilterKeys {
		if v := q.Get(key); v != "" {
			view.Values[key] = v
			asked.Set(key, v)
		}
	}
	view.Narrow = slices.ContainsFunc([]string{"until", "rule", "status", "error", "min_bytes", "min_duration"}, asked.Has)
	for _, s := range catalog.Services {
		view.Services = append(view.Services, s.ID)
	}
	ctx, cancel := pageTime(r)
	defer cancel()
	c.complete(ctx, p.Now, &view)
	if err != nil {
		view.Problems = strings.Split(err.Error(), "\n")
		return view, http.StatusOK
	}
	page, err := c.Store.Search(ctx, filter, part)
	if err != nil {
		return c.storeFailedOnPage(r, err)
	}
	view.Records = recordRows(page.Records)
	view.Events = "/api/v1/events?tail=1&" + asked.Encode()
	view.CSV, view.JSON = "/api/v1/logs?"+with(asked, "format", "csv"), "/api/v1/logs?"+with(asked, "format", "jsonl")
	view.Newest = "/logs?" + asked.Encode()
	if next := page.Next.String(); next != "" {
		view.Older = "/logs?" + with(asked, "cursor", next)
	}
	return view, http.StatusOK
}

// with is a query with one more value.
func with(q url.Values, key, value string) string {
	return url.Values{key: {value}}.Encode() + "&" + q.Encode()
}

// complete adds what the fields of the filter can be completed with: what was
// used most in a week. Without it the page still serves.
func (c pages) complete(ctx context.Context, now time.Time, view *Logs) {
	for by, into := range map[string]*[]string{accesslog.ByHost: &view.Hosts, accesslog.ByClient: &view.Clients} {
		t, err := c.Store.Traffic(ctx, accesslog.TrafficQuery{From: now.Add(-7 * 24 * time.Hour), By: by, Limit: 50})
		if err != nil {
			return
		}
		for _, r := range t.Rows {
			if r.Name != "" {
				*into = append(*into, r.Name)
			}
		}
	}
	for _, rule := range c.Explainer().Rules {
		view.Rules = append(view.Rules, rule.Name)
	}
	view.Rules = append(view.Rules, policy.RuleApple, policy.RuleDefault, policy.RuleAuth, policy.RuleInspect, policy.RuleException, policy.RuleClients, policy.RulePorts)
}

// recordPage is GET /logs/{id}: a record, and what the policy in force says about
// the same request.
func (c pages) recordPage(r *http.Request, p *Page) (any, int) {
	if c.Store == nil {
		return noStore, http.StatusNotFound
	}
	var id accesslog.ID
	if id.UnmarshalText([]byte(r.PathValue("id"))) != nil {
		return noSuchThing, http.StatusNotFound
	}
	ctx, cancel := pageTime(r)
	defer cancel()
	rec, err := c.Store.Get(ctx, id)
	if errors.Is(err, accesslog.ErrNoRecord) {
		return noSuchThing, http.StatusNotFound
	}
	if err != nil {
		return c.storeFailedOnPage(r, err)
	}
	p.Title = Locale(p.Lang).T(RequestFor, rec.Host)
	view := RecordView{Record: recordRows([]accesslog.Record{rec})[0]}
	target := net.JoinHostPort(rec.Host, strconv.Itoa(int(rec.Port)))
	if strings.HasPrefix(rec.URL, "http://") {
		target = "http://" + target + "/"
	}
	x, err := c.Explainer().Explain(explain.Question{Target: target, Client: rec.Client, User: rec.User})
	if err == nil {
		view.Now = x
		// An error is what became of a request that was permitted.
		view.Changed = x.Rule != rec.Rule && !(rec.Action == policy.Error && rec.Rule == "")
	}
	view.Similar = "/logs?" + url.Values{"host": {rec.Host}}.Encode()
	if rec.Client.IsValid() {
		view.Client = "/logs?" + url.Values{"client": {rec.Client.String()}}.Encode()
	}
	return view, http.StatusOK
}
