package console

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"espalier/policy/catalog"
	"espalier/proxy/accesslog"
	"espalier/web/api"
)

// servicesPage is GET /services?since=WINDOW.
func (c pages) servicesPage(r *http.Request, p *Page) (any, int) {
	w := windowOf(r.URL.Query().Get("since"))
	view := Services{Windows: windowsFor("/services", w), HasStore: c.Store != nil}
	sums := map[string]accesslog.Sum{}
	if c.Store != nil {
		ctx, cancel := pageTime(r)
		defer cancel()
		var err error
		if view.Chart, err = c.servicesChart(ctx, p, w.name); err != nil {
			return c.storeFailedOnPage(r, err)
		}
		if sums, err = c.sums(ctx, accesslog.ByService, w.from(p.Now)); err != nil {
			return c.storeFailedOnPage(r, err)
		}
		for _, x := range sums {
			view.All += x.Bytes()
		}
	}
	rows := map[string]int{}
	for _, row := range c.Explainer().Policy.Apple().Rows() {
		rows[row.Service]++
	}
	health := map[string]string{}
	if report := c.Doctor.Status().Report; report != nil {
		for _, x := range report.Services {
			health[x.ID] = string(x.State)
		}
	}
	for _, s := range c.Services() { // in the order of the catalogue
		sum := sums[s.Service]
		view.List = append(view.List, Service{
			ID: s.Service, Apple: s.Service != catalog.Other, Up: sum.Up, Down: sum.Down,
			Requests: sum.Requests, Tunnels: s.Tunnels, Errors: sum.Errors,
			Rows: rows[s.Service], Health: health[s.Service],
		})
	}
	slices.SortStableFunc(view.List, func(a, b Service) int { return cmp.Compare(b.Bytes(), a.Bytes()) })
	return view, http.StatusOK
}

// servicePage is GET /services/{id}?since=WINDOW.
func (c pages) servicePage(r *http.Request, p *Page) (any, int) {
	id := r.PathValue("id")
	if !catalog.IsService(id) {
		return noSuchThing, http.StatusNotFound
	}
	p.Title = Locale(p.Lang).T(api.ServiceName(id))
	w := windowOf(r.URL.Query().Get("since"))
	view := ServiceView{Windows: windowsFor("/services/"+id, w), HasStore: c.Store != nil}
	view.ID, view.Apple, view.Health = id, id != catalog.Other, c.healthOf(id)
	for _, s := range c.Services() {
		if s.Service == id {
			view.Tunnels = s.Tunnels
		}
	}
	for _, row := range c.Explainer().Policy.Apple().Rows() {
		if row.Service == id {
			view.Rows = append(view.Rows, &row)
		}
	}
	if c.Store == nil {
		return view, http.StatusOK
	}
	ctx, cancel := pageTime(r)
	defer cancel()
	if err := c.ofService(ctx, p, w, &view); err != nil {
		return c.storeFailedOnPage(r, err)
	}
	return view, http.StatusOK
}

// ofService adds what the store knows of a service.
func (c pages) ofService(ctx context.Context, p *Page, w window, view *ServiceView) error {
	from := w.from(p.Now)
	t, err := c.Store.Traffic(ctx, accesslog.TrafficQuery{From: from, By: accesslog.ByService, Service: view.ID, Step: w.step})
	if err != nil {
		return err
	}
	sum := t.Total()
	view.Up, view.Down, view.Requests, view.Errors = sum.Up, sum.Down, sum.Requests, sum.Errors
	l := Locale(p.Lang)
	if len(t.Rows) > 0 {
		view.Chart = directions(l, t)
	}
	page, err := c.Store.Search(ctx, accesslog.Filter{From: from, Service: view.ID, Error: "*"}, accesslog.Range{Limit: 10})
	if err != nil {
		return err
	}
	view.Failed = recordRows(page.Records)
	page, err = c.Store.Search(ctx, accesslog.Filter{Service: view.ID}, accesslog.Range{Limit: 10})
	view.Last = recordRows(page.Records)
	return err
}

// directions draws both directions of an answer.
func directions(l Locale, t *accesslog.Traffic) Chart {
	c := Chart{Label: l.T(Traffic), Unit: "bytes", Times: steps(t)}
	down := Series{Name: l.T(ToDevices), Colour: 1, Values: make([]int64, len(c.Times))}
	up := Series{Name: l.T(FromDevices), Colour: 2, Values: make([]int64, len(c.Times))}
	for _, r := range t.Rows {
		i := int(r.Time.Sub(t.From) / max(t.Step, time.Second))
		down.Values[i] += r.Down
		up.Values[i] += r.Up
	}
	c.Series = []Series{down, up}
	return c
}

// recordRows are records as pages list them.
func recordRows(records []accesslog.Record) []Record {
	list := make([]Record, len(records))
	for i, r := range records {
		list[i] = Record{Record: r, Bytes: r.Up + r.Down, Action: string(r.Action)}
	}
	return list
}
