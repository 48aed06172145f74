package console

import (
	"context"
	"errors"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"espalier/policy"
	"espalier/proxy/accesslog"
	"espalier/web/api"
	"espalier/web/explain"
)

// Logs is a page of the access log.
type Logs struct {
	Values    map[string]string // of the filter, by accesslog.FilterKeys
	Query     template.URL      // the same
	Narrow    bool              // a value is set that is not asked for at first
	Problems  []string          // why the filter is none, one each
	Records   []accesslog.Record
	FirstPage bool
	Next      string // cursor of the next page; empty: there is none
	// Hosts, Clients and Rules are offered to complete fields with.
	Hosts, Clients, Rules []string
}

// logsPage is GET /logs: the filter is in the URL, so that it can be shared.
func (c pages) logsPage(r *http.Request, p *Page) (any, int) {
	if c.Store == nil {
		return notice(NoStore), http.StatusOK
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
	view.Query = template.URL(asked.Encode())
	view.Narrow = slices.ContainsFunc([]string{"until", "rule", "status", "error", "min_bytes", "min_duration"}, asked.Has)
	c.complete(r.Context(), p.Now, &view)
	if err != nil {
		view.Problems = strings.Split(err.Error(), "\n")
		return view, http.StatusOK
	}
	page, err := c.Store.Search(r.Context(), filter, part)
	if err != nil {
		return c.storeFailed(r, err)
	}
	view.Records, view.Next = page.Records, page.Next.String()
	return view, http.StatusOK
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
	view.Rules = append(view.Rules, policy.RuleApple, policy.RuleDefault, policy.RuleAuth, policy.RuleInspect, policy.RuleException, policy.RuleKnownExempt, policy.RuleClientCertificate, policy.RuleWithoutCA, policy.RuleClients, policy.RulePorts)
}

// RecordView is the page of one record.
type RecordView struct {
	accesslog.Record
	Now     *explain.Explanation // what the policy in force says; nil: nothing
	Changed bool                 // it was decided by another rule
}

// recordPage is GET /logs/{id}: a record, and what the policy in force says about
// the same request.
func (c pages) recordPage(r *http.Request, p *Page) (any, int) {
	if c.Store == nil {
		return notice(NoStore), http.StatusNotFound
	}
	var id accesslog.ID
	if id.UnmarshalText([]byte(r.PathValue("id"))) != nil {
		return notice(NoSuchThing), http.StatusNotFound
	}
	rec, err := c.Store.Get(r.Context(), id)
	if errors.Is(err, accesslog.ErrNoRecord) {
		return notice(NoSuchThing), http.StatusNotFound
	}
	if err != nil {
		return c.storeFailed(r, err)
	}
	p.Title = p.T(RequestFor, rec.Host)
	view := RecordView{Record: rec}
	target := net.JoinHostPort(rec.Host, strconv.Itoa(int(rec.Port)))
	if strings.HasPrefix(rec.URL, "http://") {
		target = "http://" + target + "/"
	}
	if x, err := c.Explainer().Explain(explain.Question{Target: target, Client: rec.Client, User: rec.User}); err == nil {
		view.Now = x
		// An error is what became of a request that was permitted.
		view.Changed = x.Rule != rec.Rule && !(rec.Action == policy.Error && rec.Rule == "")
	}
	return view, http.StatusOK
}
