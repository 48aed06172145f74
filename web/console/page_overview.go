package console

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"go.uber.org/zap"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/proxy/accesslog"
	"espalier/proxy/traffic"
	"espalier/web/api"
)

// overviewPage is GET /. Figures are those of the last day where a store can tell
// them, so that a restart leaves them alone, and since the start elsewhere.
func (c pages) overviewPage(r *http.Request, p *Page) (any, int) {
	view := overview(c.CompleteStatus())
	view.Interceptors = c.interceptors()
	live := c.Services()
	if c.Store != nil {
		if err := c.Store.Health().Err; err != nil {
			view.StoreError = err.Error()
		}
		ctx, cancel := pageTime(r)
		defer cancel()
		if err := c.lastDay(ctx, p, live, &view); err == nil {
			view.HasStore = true
			return view, http.StatusOK
		} else if r.Context().Err() == nil {
			c.Log.Error("the store cannot be searched", zap.Error(err))
		}
		view.StoreError = cmp.Or(view.StoreError, Locale(p.Lang).T(StoreFails))
	}
	sinceStart(live, &view)
	return view, http.StatusOK
}

// lastDay adds what the store knows of the last day.
func (c pages) lastDay(ctx context.Context, p *Page, live []traffic.Snapshot, view *Overview) error {
	from := windowOf("24h").from(p.Now)
	chart, err := c.servicesChart(ctx, p, "24h")
	if err != nil {
		return err
	}
	hosts, err := c.top(ctx, accesslog.ByHost, from, "host", 6)
	if err != nil {
		return err
	}
	clients, err := c.top(ctx, accesslog.ByClient, from, "client", 6)
	if err != nil {
		return err
	}
	byService, err := c.sums(ctx, accesslog.ByService, from)
	if err != nil {
		return err
	}
	byAction, err := c.sums(ctx, accesslog.ByAction, from)
	if err != nil {
		return err
	}
	view.Chart, view.Hosts, view.Clients = chart, hosts, clients
	var services []Service
	for _, x := range live {
		sum := byService[x.Service]
		services = append(services, Service{
			ID: x.Service, Apple: x.Service != catalog.Other, Up: sum.Up, Down: sum.Down,
			Requests: sum.Requests, Tunnels: x.Tunnels, Errors: sum.Errors,
		})
	}
	requests := map[policy.Action]int64{}
	for name, sum := range byAction {
		requests[policy.Action(name)] = sum.Requests
	}
	figures(services, requests, view)
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

// top returns the names with the most bytes, each with a link to its records,
// and the others behind them.
func (c pages) top(ctx context.Context, by string, from time.Time, key string, n int) ([]Share, error) {
	t, err := c.Store.Traffic(ctx, accesslog.TrafficQuery{From: from, By: by, Limit: n})
	if err != nil {
		return nil, err
	}
	var list []Share
	for _, r := range t.Rows {
		list = append(list, Share{
			Name: r.Name, Link: "/logs?" + url.Values{key: {r.Name}, "since": {"24h"}}.Encode(),
			Bytes: r.Bytes(), Requests: r.Requests,
		})
	}
	slices.SortStableFunc(list, func(a, b Share) int {
		if (a.Name == "") != (b.Name == "") {
			return cmp.Compare(b.Name, a.Name)
		}
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Requests, a.Requests))
	})
	return list, nil
}

// overview makes of the process's state what the first page shows.
func overview(st api.Status) Overview {
	page := Overview{
		Started: st.Started, PACURL: st.PACURL, Proxy: st.Proxy, Lists: st.Lists, Tunnels: st.Tunnels,
		Config: Config{
			File: st.Reload.File, OK: st.Reload.OK, Problems: st.Reload.Problems, Tried: st.Reload.Time, Loaded: st.Reload.Loaded,
		},
	}
	if l := st.AccessLog; l.Error != "" || l.Lost > 0 {
		page.AccessLog = &AccessLog{Error: l.Error, Since: l.Since, Lost: int64(l.Lost)}
	}
	if st.CA != nil {
		page.CA = st.CA.Warnings
	}
	for _, c := range st.TLS {
		page.TLS = append(page.TLS, c.Warnings...)
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
		page.Fetches = append(page.Fetches, Fetches{Site: f.Site, Agent: f.Agent, Count: f.Count, Last: f.Last})
	}
	for _, l := range st.Listeners {
		page.Listeners = append(page.Listeners, Listener(l))
	}
	return page
}

// sinceStart adds what was counted since the process started.
func sinceStart(live []traffic.Snapshot, view *Overview) {
	var services []Service
	requests := map[policy.Action]int64{}
	for _, s := range live {
		services = append(services, Service{
			ID: s.Service, Apple: s.Service != catalog.Other, Up: s.Up, Down: s.Down,
			Requests: s.Total(), Tunnels: s.Tunnels, Errors: s.Requests[policy.Error],
		})
		for a, n := range s.Requests {
			requests[a] += n
		}
	}
	figures(services, requests, view)
}

// figures adds what services have used, and how many requests there were by action.
func figures(services []Service, requests map[policy.Action]int64, view *Overview) {
	slices.SortStableFunc(services, func(a, b Service) int {
		return cmp.Or(cmp.Compare(b.Bytes(), a.Bytes()), cmp.Compare(b.Requests, a.Requests))
	})
	for _, s := range services {
		view.Up, view.Down = view.Up+s.Up, view.Down+s.Down
		view.Requests, view.Errors = view.Requests+s.Requests, view.Errors+s.Errors
		if !s.Apple {
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
		x := Action{ID: string(a), Count: requests[a], Offset: offset}
		if view.Requests > 0 {
			x.Width = 100 * float64(x.Count) / float64(view.Requests)
		}
		view.Actions = append(view.Actions, x)
		offset += x.Width
	}
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
func windowsFor(path string, now window) Windows {
	list := Windows{At: path, Now: now.name}
	for _, w := range windows {
		list.List = append(list.List, w.name)
	}
	return list
}

// charted is how many services a chart tells apart.
const charted = 6

// servicesChart is the traffic of the services with the most of it.
func (c pages) servicesChart(ctx context.Context, p *Page, name string) (Chart, error) {
	w := windowOf(name)
	t, err := c.Store.Traffic(ctx, accesslog.TrafficQuery{From: w.from(p.Now), By: accesslog.ByService, Step: w.step, Limit: charted})
	if err != nil {
		return Chart{}, err
	}
	l := Locale(p.Lang)
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
	chart := Chart{Label: l.T(TrafficOfAll), Unit: "bytes", Stacked: true, Times: steps(t)}
	for i, id := range names {
		series := Series{Name: l.T(api.ServiceName(id)), Colour: i + 1, Values: make([]int64, len(chart.Times))}
		if id == "" {
			series.Name, series.Colour = l.T(AllOthers), 0
		}
		for _, r := range t.Rows {
			if r.Name == id {
				series.Values[int(r.Time.Sub(t.From)/t.Step)] += r.Bytes()
			}
		}
		chart.Series = append(chart.Series, series)
	}
	return chart, nil
}

// steps are when those of an answer begin.
func steps(t *accesslog.Traffic) []time.Time {
	var list []time.Time
	for at := t.From; at.Before(t.To); at = at.Add(t.Step) {
		list = append(list, at)
	}
	return list
}
