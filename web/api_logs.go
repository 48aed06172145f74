package web

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"espalier/proxy/accesslog"
)

// A LogPage is the answer of /api/v1/logs.
type LogPage struct {
	Records []*accesslog.Record `json:"records"` // never null
	// Next is the cursor of the page behind; empty where there is none.
	Next accesslog.Cursor `json:"next"`
}

// pageSize is how many records a page has where nothing else is asked for.
const pageSize = 100

// logs is GET /logs: a page of what a filter wants, or all of it as JSON lines or
// CSV.
func (s Source) logs(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, append([]string{"format", "order", "limit", "cursor"}, accesslog.FilterKeys...)...)
	if err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	if !s.hasStore(w) {
		return
	}
	filter, errs := accesslog.ParseFilter(q.Get, time.Now())
	part := accesslog.Range{Limit: pageSize, Oldest: q.Get("order") == "oldest"}
	if v := q.Get("order"); v != "" && v != "oldest" && v != "newest" {
		errs = errors.Join(errs, fmt.Errorf("order: %q is unknown (allowed: newest, oldest)", v))
	}
	if v := q.Get("limit"); v != "" {
		if part.Limit, err = strconv.Atoi(v); err != nil || part.Limit < 1 || part.Limit > accesslog.MaxPage {
			errs = errors.Join(errs, fmt.Errorf("limit: %q is not between 1 and %d", v, accesslog.MaxPage))
		}
	}
	if err := part.After.UnmarshalText([]byte(q.Get("cursor"))); err != nil {
		errs = errors.Join(errs, fmt.Errorf("cursor: %w", err))
	}
	format := q.Get("format")
	if format != "" && format != "json" && format != "jsonl" && format != "csv" {
		errs = errors.Join(errs, fmt.Errorf("format: %q is unknown (allowed: json, jsonl, csv)", format))
	}
	whole := format == "jsonl" || format == "csv"
	if whole && (q.Has("limit") || q.Has("cursor")) {
		errs = errors.Join(errs, fmt.Errorf("format: %s has no pages (leave out limit and cursor)", format))
	}
	if errs != nil {
		badRequest(w, errs)
		return
	}
	if whole {
		s.exportLogs(w, r, format, filter, part.Oldest)
		return
	}
	page, err := s.Store.Search(r.Context(), filter, part)
	if err != nil {
		s.storeFailed(w, r, err)
		return
	}
	answer := LogPage{Records: []*accesslog.Record{}, Next: page.Next}
	for i := range page.Records {
		answer.Records = append(answer.Records, &page.Records[i])
	}
	writeJSON(w, http.StatusOK, "application/json", answer)
}

// exportLogs answers with every record that is wanted.
func (s Source) exportLogs(w http.ResponseWriter, r *http.Request, format string, filter accesslog.Filter, oldest bool) {
	buf := bufio.NewWriterSize(patient{w}, 64<<10)
	enc, table := json.NewEncoder(buf), accesslog.NewCSVWriter(buf)
	enc.SetEscapeHTML(false)
	h := w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	if format == "csv" {
		h.Set("Content-Type", "text/csv; charset=utf-8")
	}
	h.Set("Content-Disposition", `attachment; filename="access-log.`+format+`"`)
	for rec, err := range s.Store.All(r.Context(), filter, oldest) {
		switch {
		case err != nil:
		case format == "csv":
			err = table.Write(rec)
		default:
			err = enc.Encode(rec)
		}
		if err != nil { // the client sees that the answer is not whole
			if r.Context().Err() == nil {
				s.Log.Warn("an export of the access log came to no end", zap.Error(err))
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

// logRecord is GET /logs/{id}.
func (s Source) logRecord(w http.ResponseWriter, r *http.Request) {
	var id accesslog.ID
	if err := id.UnmarshalText([]byte(r.PathValue("id"))); err != nil {
		writeProblem(w, http.StatusNotFound, err.Error())
		return
	}
	if !s.hasStore(w) {
		return
	}
	rec, err := s.Store.Get(r.Context(), id)
	switch {
	case errors.Is(err, accesslog.ErrNoRecord):
		writeProblem(w, http.StatusNotFound, err.Error())
	case err != nil:
		s.storeFailed(w, r, err)
	default:
		writeJSON(w, http.StatusOK, "application/json", &rec)
	}
}

// TrafficAnswer is the answer of /api/v1/traffic. Bytes of tunnels that are open
// are not in it before they close; /api/v1/services has them.
type TrafficAnswer struct {
	From        time.Time    `json:"from"` // what the sums cover: whole minutes, hours or days
	To          time.Time    `json:"to"`
	StepSeconds int64        `json:"step_seconds"` // 0: the rows are sums of the whole time
	Rows        []TrafficSum `json:"rows"`         // never null
}

// A TrafficSum is what a service, host, client or action had in a step.
type TrafficSum struct {
	Time     time.Time `json:"time"` // when the step begins
	Name     string    `json:"name"` // empty for all that are not listed by name
	Requests int64     `json:"requests"`
	Errors   int64     `json:"errors"`
	Up       int64     `json:"up"`
	Down     int64     `json:"down"`
}

// maxSteps bounds the parts that a time is divided into.
const maxSteps = 10_000

// trafficSums is GET /traffic.
func (s Source) trafficSums(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "since", "until", "by", "step", "service", "action", "limit")
	if err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	if !s.hasStore(w) {
		return
	}
	now := time.Now()
	filter, errs := accesslog.ParseFilter(q.Get, now)
	ask := accesslog.TrafficQuery{
		From: filter.From, To: filter.To, Service: filter.Service, Action: filter.Action,
		By: q.Get("by"), Limit: pageSize,
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
	if !slices.Contains(accesslog.Dimensions, ask.By) {
		errs = errors.Join(errs, fmt.Errorf("by: %q is unknown (allowed: %s)", ask.By, strings.Join(accesslog.Dimensions, ", ")))
	}
	if v := q.Get("step"); v != "" {
		if ask.Step, err = accesslog.ParseDuration(v); err != nil {
			errs = errors.Join(errs, fmt.Errorf("step: %w", err))
		} else if ask.Step < time.Minute || ask.To.Sub(ask.From)/ask.Step > maxSteps {
			errs = errors.Join(errs, fmt.Errorf("step: %s is too short (allowed: a minute, and a part in %d of the time)", v, maxSteps))
		}
	}
	if v := q.Get("limit"); v != "" {
		if ask.Limit, err = strconv.Atoi(v); err != nil || ask.Limit < 1 || ask.Limit > accesslog.MaxPage {
			errs = errors.Join(errs, fmt.Errorf("limit: %q is not between 1 and %d", v, accesslog.MaxPage))
		}
	}
	if errs != nil {
		badRequest(w, errs)
		return
	}
	found, err := s.Store.Traffic(r.Context(), ask)
	if err != nil {
		s.storeFailed(w, r, err)
		return
	}
	answer := TrafficAnswer{From: found.From, To: found.To, StepSeconds: int64(found.Step / time.Second), Rows: []TrafficSum{}}
	for _, x := range found.Rows {
		answer.Rows = append(answer.Rows, TrafficSum{x.Time, x.Name, x.Requests, x.Errors, x.Up, x.Down})
	}
	writeJSON(w, http.StatusOK, "application/json", answer)
}

// hasStore refuses where there is no store to ask.
func (s Source) hasStore(w http.ResponseWriter) bool {
	if s.Store == nil {
		writeProblem(w, http.StatusNotFound, "there is no store to search: log.store.path is empty")
	}
	return s.Store != nil
}

func (s Source) storeFailed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil { // nobody waits for the answer
		return
	}
	s.Log.Error("the store cannot be searched", zap.Error(err))
	writeProblem(w, http.StatusServiceUnavailable, "the store cannot be searched now; the log of the process says why")
}

// badRequest names what is wrong with parameters, one each.
func badRequest(w http.ResponseWriter, err error) {
	writeProblem(w, http.StatusBadRequest, "the request has parameters that are not understood", strings.Split(err.Error(), "\n")...)
}

// query returns the parameters of a request. One that is not among keys is an
// error: what it was meant to leave out would be in the answer.
func query(r *http.Request, keys ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("the query cannot be read: %w", err)
	}
	return q, onlyKeys(q, keys)
}

func onlyKeys(q url.Values, keys []string) error {
	for key := range q {
		if !slices.Contains(keys, key) {
			return fmt.Errorf("there is no parameter %q (there are: %s)", key, strings.Join(keys, ", "))
		}
	}
	return nil
}
