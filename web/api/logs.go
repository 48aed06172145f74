package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"espalier/proxy/accesslog"
	"espalier/web/server"
)

// A LogPage is the answer of /api/v1/logs.
type LogPage struct {
	Records []accesslog.Record `json:"records"` // never null
	// Next is the cursor of the page behind; empty where there is none.
	Next accesslog.Cursor `json:"next"`
}

// PageSize is how many records a page has where nothing else is asked for.
const PageSize = 100

// logs is GET /logs: a page of what a filter wants, or all of it as JSON lines or
// CSV.
func (c Control) logs(w http.ResponseWriter, r *http.Request) {
	q, err := c.searchParams(r, append([]string{"format", "order", "limit", "cursor"}, accesslog.FilterKeys...)...)
	if err != nil {
		ProblemOf(err).Write(w)
		return
	}
	filter := q.filter()
	part := accesslog.Range{Oldest: q.oneOf("order", "newest", "oldest") == "oldest", Limit: q.limit()}
	if err := part.After.UnmarshalText([]byte(q.Get("cursor"))); err != nil {
		q.fail("cursor: %w", err)
	}
	format := q.oneOf("format", "json", "jsonl", "csv")
	whole := format == "jsonl" || format == "csv"
	if whole && (q.Has("limit") || q.Has("cursor")) {
		q.fail("format: %s has no pages (leave out limit and cursor)", format)
	}
	if whole && len(q.errs) == 0 {
		c.exportLogs(w, r, format, filter, part.Oldest)
		return
	}
	answer(func(r *http.Request) (any, error) {
		if err := q.problem(); err != nil {
			return nil, err
		}
		page, err := c.Store.Search(r.Context(), filter, part)
		if err != nil {
			return nil, c.storeFailed(r, err)
		}
		return LogPage{Records: filled(page.Records), Next: page.Next}, nil
	})(w, r)
}

// searchParams are the parameters of a request that needs the store.
func (c Control) searchParams(r *http.Request, keys ...string) (*params, error) {
	q, err := paramsOf(r, keys...)
	if err == nil && c.Store == nil {
		return nil, errNoStore
	}
	return q, err
}

// filter is that of accesslog.FilterKeys.
func (p *params) filter() accesslog.Filter {
	filter, err := accesslog.ParseFilter(p.Get, time.Now())
	if err != nil {
		p.errs = append(p.errs, err)
	}
	return filter
}

// exportLogs answers with every record that is wanted.
func (c Control) exportLogs(w http.ResponseWriter, r *http.Request, format string, filter accesslog.Filter, oldest bool) {
	buf := bufio.NewWriterSize(patient{w}, 64<<10)
	enc, table := json.NewEncoder(buf), accesslog.NewCSVWriter(buf)
	enc.SetEscapeHTML(false)
	write := func(r *accesslog.Record) error { return enc.Encode(r) }
	h := w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	if format == "csv" {
		write = table.Write
		h.Set("Content-Type", "text/csv; charset=utf-8")
	}
	h.Set("Content-Disposition", `attachment; filename="access-log.`+format+`"`)
	for rec, err := range c.Store.All(r.Context(), filter, oldest) {
		if err == nil {
			err = write(rec)
		}
		if err != nil { // the client sees that the answer is not whole
			if r.Context().Err() == nil {
				c.Log.Warn("an export of the access log came to no end", zap.Error(err))
			}
			panic(http.ErrAbortHandler)
		}
	}
	if format == "csv" {
		_ = table.Flush() // as buf has it
	}
	_ = buf.Flush()
}

// patient writes as long as the client reads, for a million records take their
// time.
type patient struct{ http.ResponseWriter }

func (p patient) Write(b []byte) (int, error) {
	_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(readPatience))
	return p.ResponseWriter.Write(b)
}

// record is GET /logs/{id}.
func (c Control) record(r *http.Request) (any, error) {
	var id accesslog.ID
	if err := id.UnmarshalText([]byte(r.PathValue("id"))); err != nil {
		return nil, server.NewProblem(http.StatusNotFound, err.Error())
	}
	if c.Store == nil {
		return nil, errNoStore
	}
	rec, err := c.Store.Get(r.Context(), id)
	switch {
	case errors.Is(err, accesslog.ErrNoRecord):
		return nil, server.NewProblem(http.StatusNotFound, err.Error())
	case err != nil:
		return nil, c.storeFailed(r, err)
	}
	return &rec, nil
}

// TrafficAnswer is the answer of /api/v1/traffic. Bytes of tunnels that are open
// are not in it before they close; /api/v1/services has them.
type TrafficAnswer struct {
	From        time.Time              `json:"from"` // what the sums cover: whole minutes, hours or days
	To          time.Time              `json:"to"`
	StepSeconds int64                  `json:"step_seconds"` // 0: the rows are sums of the whole time
	Rows        []accesslog.TrafficRow `json:"rows"`         // never null
}

// maxSteps bounds the parts that a time is divided into.
const maxSteps = 10_000

// traffic is GET /traffic.
func (c Control) traffic(r *http.Request) (any, error) {
	q, err := c.searchParams(r, "since", "until", "by", "step", "service", "action", "limit")
	if err != nil {
		return nil, err
	}
	filter, now := q.filter(), time.Now()
	ask := accesslog.TrafficQuery{
		From: filter.From, To: filter.To, Service: filter.Service, Action: filter.Action,
		By: q.oneOf("by", accesslog.Dimensions...), Limit: q.limit(),
	}
	if ask.From.IsZero() {
		ask.From = now.Add(-24 * time.Hour)
	}
	if ask.To.IsZero() {
		ask.To = now
	}
	if ask.By == "" {
		ask.By = accesslog.ByService
	}
	if v := q.Get("step"); v != "" {
		if ask.Step, err = accesslog.ParseDuration(v); err != nil {
			q.fail("step: %w", err)
		} else if ask.Step < time.Minute || ask.To.Sub(ask.From)/ask.Step > maxSteps {
			q.fail("step: %s is too short (allowed: a minute, and a part in %d of the time)", v, maxSteps)
		}
	}
	if err := q.problem(); err != nil {
		return nil, err
	}
	found, err := c.Store.Traffic(r.Context(), ask)
	if err != nil {
		return nil, c.storeFailed(r, err)
	}
	return TrafficAnswer{found.From, found.To, int64(found.Step / time.Second), filled(found.Rows)}, nil
}

// storeFailed logs why the store does not answer, and returns what the client is
// told.
func (c Control) storeFailed(r *http.Request, err error) error {
	c.LogStore(r, err)
	return server.NewProblem(http.StatusServiceUnavailable, "the store cannot be searched now; the log of the process says why")
}

// LogStore logs why the store does not answer, unless the client has gone.
func (c Control) LogStore(r *http.Request, err error) {
	if !errors.Is(r.Context().Err(), context.Canceled) {
		c.Log.Error("the store cannot be searched", zap.Error(err))
	}
}
