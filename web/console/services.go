package console

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"espalier/policy/catalog"
	"espalier/proxy/accesslog"
	"espalier/web/api"
)

// Service is what one service has used in a period.
type Service struct {
	ID string
	accesslog.Sum
	Tunnels int64  // open now
	Rows    int    // of the catalogue; 0 where that is not told
	Health  string // a doctor.State; empty where nobody has looked
}

// Apple reports whether the service is Apple's.
func (s Service) Apple() bool { return s.ID != catalog.Other }

// services are all of them with their sums, the most bytes first.
func (c pages) services(sums map[string]accesslog.Sum) []Service {
	var list []Service
	for _, s := range c.Services() { // in the order of the catalogue
		list = append(list, Service{ID: s.Service, Sum: sums[s.Service], Tunnels: s.Tunnels})
	}
	slices.SortStableFunc(list, func(a, b Service) int {
		return cmp.Or(cmp.Compare(b.Bytes(), a.Bytes()), cmp.Compare(b.Requests, a.Requests))
	})
	return list
}

// Services is the list of all services, with what they had in a period.
type Services struct {
	Window   window
	HasStore bool
	Chart    Chart
	All      int64 // bytes
	List     []Service
}

// servicesPage is GET /services?since=WINDOW.
func (c pages) servicesPage(r *http.Request, p *Page) (any, int) {
	view := Services{Window: windowOf(r.URL.Query().Get("since")), HasStore: c.Store != nil}
	var sums map[string]accesslog.Sum
	if c.Store != nil {
		chart, err1 := c.servicesChart(r.Context(), p, view.Window)
		found, err2 := c.sums(r.Context(), accesslog.ByService, view.Window.from(p.Now))
		if err := cmp.Or(err1, err2); err != nil {
			return c.storeFailed(r, err)
		}
		view.Chart, sums = chart, found
	}
	rows := map[string]int{}
	for _, row := range c.Explainer().Policy.Apple().Rows() {
		rows[row.Service]++
	}
	view.List = c.services(sums)
	for i := range view.List {
		s := &view.List[i]
		view.All += s.Bytes()
		s.Rows = rows[s.ID]
		if h := c.healthOf(s.ID); h != nil {
			s.Health = string(h.State)
		}
	}
	return view, http.StatusOK
}

// ServiceView is the page of one service.
type ServiceView struct {
	Service  // in the period; open tunnels now
	Window   window
	HasStore bool
	Chart    Chart
	Rows     []*catalog.Row
	Health   *Health            // nil: nobody has looked
	Failed   []accesslog.Record // the last ones, in the period
	Last     []accesslog.Record
}

// servicePage is GET /services/{id}?since=WINDOW.
func (c pages) servicePage(r *http.Request, p *Page) (any, int) {
	id := r.PathValue("id")
	if !catalog.IsService(id) {
		return notice(NoSuchThing), http.StatusNotFound
	}
	p.Title = p.T(api.ServiceName(id))
	view := ServiceView{Window: windowOf(r.URL.Query().Get("since")), HasStore: c.Store != nil, Health: c.healthOf(id)}
	for _, s := range c.services(nil) {
		if s.ID == id {
			view.Service = s
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
	if err := c.ofService(r.Context(), p, &view); err != nil {
		return c.storeFailed(r, err)
	}
	return view, http.StatusOK
}

// ofService adds what the store knows of a service.
func (c pages) ofService(ctx context.Context, p *Page, view *ServiceView) error {
	from := view.Window.from(p.Now)
	t, err1 := c.Store.Traffic(ctx, accesslog.TrafficQuery{From: from, By: accesslog.ByService, Service: view.ID, Step: view.Window.step})
	failed, err2 := c.Store.Search(ctx, accesslog.Filter{From: from, Service: view.ID, Error: "*"}, accesslog.Range{Limit: 10})
	last, err3 := c.Store.Search(ctx, accesslog.Filter{Service: view.ID}, accesslog.Range{Limit: 10})
	if err := cmp.Or(err1, err2, err3); err != nil {
		return err
	}
	view.Sum = t.Total()
	if len(t.Rows) > 0 {
		view.Chart = newChart(p.T(Traffic), t)
		view.Chart.add(p.T(ToDevices), 1, func(r accesslog.TrafficRow) int64 { return r.Down })
		view.Chart.add(p.T(FromDevices), 2, func(r accesslog.TrafficRow) int64 { return r.Up })
	}
	view.Failed, view.Last = failed.Records, last.Records
	return nil
}
