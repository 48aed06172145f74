package console

import (
	"cmp"
	"context"
	"slices"
	"time"

	"espalier/policy/catalog"
	"espalier/proxy/accesslog"
	"espalier/web/api"
)

// A Chart shows bytes over time. It is drawn by a script from the table that it is
// without one.
type Chart struct {
	Label   string // what is shown, as the locale has it
	Stacked bool
	Times   []time.Time // when steps begin
	Series  []Series    // none: there is nothing to show

	from *accesslog.Traffic
}

// Series are the bytes of a name, as many as there are times.
type Series struct {
	Name   string // as the locale has it
	Colour int    // from 1; 0 is that of what is not listed by name
	Values []int64
}

func newChart(label string, t *accesslog.Traffic) Chart {
	c := Chart{Label: label, from: t}
	for at := t.From; at.Before(t.To); at = at.Add(t.Step) {
		c.Times = append(c.Times, at)
	}
	return c
}

// add adds the sums of what bytes says of each row.
func (c *Chart) add(name string, colour int, bytes func(accesslog.TrafficRow) int64) {
	s := Series{name, colour, make([]int64, len(c.Times))}
	for _, r := range c.from.Rows {
		s.Values[int(r.Time.Sub(c.from.From)/max(c.from.Step, time.Second))] += bytes(r)
	}
	c.Series = append(c.Series, s)
}

// A window is a period that pages show.
type window struct {
	Name       string
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
	if i := slices.IndexFunc(windows, func(w window) bool { return w.Name == name }); i >= 0 {
		return windows[i]
	}
	return windows[1]
}

// from is when a window that ends now begins, at a step's end.
func (w window) from(now time.Time) time.Time {
	return now.Add(-w.long).Truncate(min(w.step, time.Hour)).Add(min(w.step, time.Hour))
}

// charted is how many services a chart tells apart.
const charted = 6

// servicesChart is the traffic of the services with the most of it.
func (c pages) servicesChart(ctx context.Context, p *Page, w window) (Chart, error) {
	t, err := c.Store.Traffic(ctx, accesslog.TrafficQuery{From: w.from(p.Now), By: accesslog.ByService, Step: w.step, Limit: charted})
	if err != nil {
		return Chart{}, err
	}
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
	chart := newChart(p.T(TrafficOfAll), t)
	chart.Stacked = true
	of := func(id string) func(accesslog.TrafficRow) int64 {
		return func(r accesslog.TrafficRow) int64 {
			if r.Name != id {
				return 0
			}
			return r.Bytes()
		}
	}
	for i, id := range names {
		chart.add(p.T(api.ServiceName(id)), i+1, of(id))
	}
	if _, ok := totals[""]; ok {
		chart.add(p.T(AllOthers), 0, of(""))
	}
	return chart, nil
}
