package web

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/accesslog"
	"espalier/proxy/traffic"
	"espalier/web/console"
)

// overviewPage is GET /.
func (c Control) overviewPage(r *http.Request, p *console.Page) (any, int) {
	view := overview(c.status(), c.Services())
	view.Interceptors = c.interceptors()
	if c.Store == nil {
		return view, http.StatusOK
	}
	view.HasStore = true
	if err := c.Store.Health().Err; err != nil {
		view.StoreError = err.Error()
	}
	ctx, cancel := pageTime(r)
	defer cancel()
	if err := c.lastDay(ctx, p, &view); err != nil {
		return c.storeFailedOnPage(r, err)
	}
	return view, http.StatusOK
}

// lastDay adds what the store knows.
func (s Source) lastDay(ctx context.Context, p *console.Page, view *console.Overview) (err error) {
	if view.Chart, err = s.servicesChart(ctx, p, "24h"); err != nil {
		return err
	}
	from := p.Now.Add(-24 * time.Hour)
	if view.Hosts, err = s.top(ctx, accesslog.ByHost, from, "host", 6); err != nil {
		return err
	}
	view.Clients, err = s.top(ctx, accesslog.ByClient, from, "client", 6)
	return err
}

// top returns the names with the most bytes, each with a link to its records,
// and the others behind them.
func (s Source) top(ctx context.Context, by string, from time.Time, key string, n int) ([]console.Share, error) {
	t, err := s.Store.Traffic(ctx, accesslog.TrafficQuery{From: from, By: by, Limit: n})
	if err != nil {
		return nil, err
	}
	var list []console.Share
	for _, r := range t.Rows {
		list = append(list, console.Share{
			Name: r.Name, Link: "/logs?" + url.Values{key: {r.Name}, "since": {"24h"}}.Encode(),
			Bytes: r.Bytes(), Requests: r.Requests,
		})
	}
	slices.SortStableFunc(list, func(a, b console.Share) int {
		if (a.Name == "") != (b.Name == "") {
			return cmp.Compare(b.Name, a.Name)
		}
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Requests, a.Requests))
	})
	return list, nil
}

// overview makes of the process's state what the first page shows.
func overview(st Status, services []traffic.Snapshot) console.Overview {
	page := console.Overview{
		Started: st.Started, PACURL: st.PACURL, Proxy: st.Proxy, Lists: st.Lists, Tunnels: st.Tunnels,
		Config: console.Config{
			File: st.Reload.File, OK: st.Reload.OK, Problems: st.Reload.Problems, Tried: st.Reload.Time, Loaded: st.Reload.Loaded,
		},
	}
	if l := st.AccessLog; l.Error != "" || l.Lost > 0 {
		page.AccessLog = &console.AccessLog{Error: l.Error, Since: l.Since, Lost: int64(l.Lost)}
	}
	if st.CA != nil {
		page.CA = st.CA.Warnings
	}
	for _, l := range st.Lists {
		if l.Stale {
			page.Stale = append(page.Stale, l.Name)
		}
	}
	for _, x := range st.PACProxies {
		if !x.Up {
			page.ProxiesDown = append(page.ProxiesDown, x)
		}
	}
	for _, f := range st.PACFetches {
		page.Fetches = append(page.Fetches, console.Fetches{Site: f.Site, Agent: f.Agent, Count: f.Count, Last: f.Last})
	}
	for _, l := range st.Listeners {
		page.Listeners = append(page.Listeners, console.Listener(l))
	}

	byAction := map[policy.Action]int64{}
	for _, s := range services {
		page.Up, page.Down, page.Requests = page.Up+s.Up, page.Down+s.Down, page.Requests+s.Total()
		if s.Service == catalog.Other {
			page.Other = s.Bytes()
		}
		for a, n := range s.Requests {
			byAction[a] += n
		}
	}
	services = slices.Clone(services)
	slices.SortStableFunc(services, func(a, b traffic.Snapshot) int {
		return cmp.Or(cmp.Compare(b.Bytes(), a.Bytes()), cmp.Compare(b.Total(), a.Total()))
	})
	for _, s := range services {
		if s.Bytes() == 0 && s.Total() == 0 && s.Tunnels == 0 {
			page.Quiet = append(page.Quiet, s.Service)
			continue
		}
		page.Services = append(page.Services, console.Service{
			ID: s.Service, Apple: s.Service != catalog.Other, Up: s.Up, Down: s.Down,
			Requests: s.Total(), Tunnels: s.Tunnels, Errors: s.Requests[policy.Error],
		})
	}
	offset := 0.0
	for _, a := range traffic.Actions {
		view := console.Action{ID: string(a), Count: byAction[a], Offset: offset}
		if page.Requests > 0 {
			view.Width = 100 * float64(view.Count) / float64(page.Requests)
		}
		page.Actions = append(page.Actions, view)
		offset += view.Width
	}
	return page
}

// A window is a period that pages show.
type window struct {
	name       string
	long, step time.Duration
}

var windows = []window{
	{"1h", time.Hour, time.Minute},
	{"24h", 24 * time.Hour, 30 * time.Minute},
	{"7d", 7 * 24 * time.Hour, 3 * time.Hour},
	{"30d", 30 * 24 * time.Hour, 12 * time.Hour},
	{"1y", 365 * 24 * time.Hour, 7 * 24 * time.Hour},
}

// windowOf is the window of that name, that of a day for others.
func windowOf(name string) window {
	for _, w := range windows {
		if w.name == name {
			return w
		}
	}
	return windows[1]
}

// from is when a window that ends now begins, at a step's end.
func (w window) from(now time.Time) time.Time {
	return now.Add(-w.long).Truncate(min(w.step, time.Hour)).Add(min(w.step, time.Hour))
}

// windowsFor offers windows on a page.
func windowsFor(path string, now window) console.Windows {
	list := console.Windows{At: path, Now: now.name}
	for _, w := range windows {
		list.List = append(list.List, w.name)
	}
	return list
}

// charted is how many services a chart tells apart.
const charted = 6

// servicesChart is the traffic of the services with the most of it.
func (s Source) servicesChart(ctx context.Context, p *console.Page, name string) (console.Chart, error) {
	w := windowOf(name)
	t, err := s.Store.Traffic(ctx, accesslog.TrafficQuery{From: w.from(p.Now), By: accesslog.ByService, Step: w.step, Limit: charted})
	if err != nil {
		return console.Chart{}, err
	}
	l := console.Locale(p.Lang)
	totals := map[string]int64{}
	for _, r := range t.Rows {
		totals[r.Name] += r.Bytes()
	}
	var names []string
	for _, x := range catalog.Services {
		if _, ok := totals[x.ID]; ok {
			names = append(names, x.ID)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(totals[b], totals[a]) })
	if _, ok := totals[""]; ok {
		names = append(names, "")
	}
	c := console.Chart{Label: l.T(console.TrafficOfAll), Unit: "bytes", Stacked: true, Times: steps(t)}
	for i, id := range names {
		series := console.Series{Name: l.T(console.ServiceName(id)), Colour: i + 1, Values: make([]int64, len(c.Times))}
		if id == "" {
			series.Name, series.Colour = l.T(console.AllOthers), 0
		}
		for _, r := range t.Rows {
			if r.Name == id {
				series.Values[int(r.Time.Sub(t.From)/t.Step)] += r.Bytes()
			}
		}
		c.Series = append(c.Series, series)
	}
	return c, nil
}

// steps are when those of an answer begin.
func steps(t *accesslog.Traffic) []time.Time {
	var list []time.Time
	for at := t.From; at.Before(t.To); at = at.Add(t.Step) {
		list = append(list, at)
	}
	return list
}
