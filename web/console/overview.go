package console

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/accesslog"
	"espalier/proxy/traffic"
)

// Overview is what the first page shows beside the page's Status.
type Overview struct {
	Interceptors []string // of TLS on the way to Apple
	StoreError   string   // why records cannot be searched; empty where they can

	// HasStore says that what follows is of the last day, and not since the start.
	HasStore bool
	accesslog.Sum
	Other    int64     // bytes of what is not Apple's
	Services []Service // those with traffic, the most bytes first
	Quiet    []string  // ids of the others
	Actions  []Action

	// These are of a store only.
	Chart          Chart
	Hosts, Clients []accesslog.TrafficRow
}

// Apple is Apple's part of Bytes.
func (o Overview) Apple() int64 { return o.Bytes() - o.Other }

// Action is what was done with requests, and with how many.
type Action struct {
	ID            policy.Action
	Count         int64
	Offset, Width float64 // of its part of the bar, in hundredths
}

// overviewPage is GET /. Figures are those of the last day where a store can tell
// them, so that a restart leaves them alone, and since the start elsewhere.
func (c pages) overviewPage(r *http.Request, p *Page) (any, int) {
	view := Overview{Interceptors: c.interceptors()}
	if c.Store != nil {
		if err := c.Store.Health().Err; err != nil {
			view.StoreError = err.Error()
		}
		err := c.lastDay(r.Context(), p, &view)
		if err == nil {
			return view, http.StatusOK
		}
		c.LogStore(r, err)
		view.StoreError = cmp.Or(view.StoreError, p.T(StoreFails))
	}
	sums, actions := map[string]accesslog.Sum{}, map[string]accesslog.Sum{}
	for _, s := range c.Services() {
		sums[s.Service] = accesslog.Sum{Up: s.Up, Down: s.Down, Requests: s.Total(), Errors: s.Requests[policy.Error]}
		for a, n := range s.Requests {
			sum := actions[string(a)]
			sum.Requests += n
			actions[string(a)] = sum
		}
	}
	c.figures(sums, actions, &view)
	return view, http.StatusOK
}

// lastDay adds what the store knows of the last day.
func (c pages) lastDay(ctx context.Context, p *Page, view *Overview) error {
	day := windowOf("24h")
	from := day.from(p.Now)
	chart, err1 := c.servicesChart(ctx, p, day)
	hosts, err2 := c.top(ctx, accesslog.ByHost, from)
	clients, err3 := c.top(ctx, accesslog.ByClient, from)
	sums, err4 := c.sums(ctx, accesslog.ByService, from)
	actions, err5 := c.sums(ctx, accesslog.ByAction, from)
	if err := cmp.Or(err1, err2, err3, err4, err5); err != nil {
		return err
	}
	view.HasStore, view.Chart, view.Hosts, view.Clients = true, chart, hosts, clients
	c.figures(sums, actions, view)
	return nil
}

// sums are those since a time, by name.
func (c pages) sums(ctx context.Context, by string, from time.Time) (map[string]accesslog.Sum, error) {
	t, err := c.Store.Traffic(ctx, accesslog.TrafficQuery{From: from, By: by})
	if err != nil {
		return nil, err
	}
	sums := map[string]accesslog.Sum{}
	for _, r := range t.Rows {
		sums[r.Name] = r.Sum
	}
	return sums, nil
}

// top returns the names with the most bytes, and the others behind them.
func (c pages) top(ctx context.Context, by string, from time.Time) ([]accesslog.TrafficRow, error) {
	t, err := c.Store.Traffic(ctx, accesslog.TrafficQuery{From: from, By: by, Limit: 6})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(t.Rows, func(a, b accesslog.TrafficRow) int {
		if (a.Name == "") != (b.Name == "") {
			return cmp.Compare(b.Name, a.Name)
		}
		return cmp.Or(cmp.Compare(b.Bytes(), a.Bytes()), cmp.Compare(b.Requests, a.Requests))
	})
	return t.Rows, nil
}

// figures adds what services have used, and how many requests there were by action.
func (c pages) figures(sums, actions map[string]accesslog.Sum, view *Overview) {
	for _, s := range c.services(sums) {
		view.Add(s.Sum)
		if s.ID == catalog.Other {
			view.Other = s.Bytes()
		}
		if s.Bytes() == 0 && s.Requests == 0 && s.Tunnels == 0 {
			view.Quiet = append(view.Quiet, s.ID)
		} else {
			view.Services = append(view.Services, s)
		}
	}
	offset := 0.0
	for _, a := range traffic.Actions {
		x := Action{ID: a, Count: actions[string(a)].Requests, Offset: offset}
		x.Width = width(x.Count, view.Requests)
		view.Actions = append(view.Actions, x)
		offset += x.Width
	}
}
