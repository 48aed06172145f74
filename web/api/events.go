package api

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"espalier/proxy/accesslog"
	"espalier/proxy/traffic"
	"espalier/web/server"
	"espalier/web/signin"
)

const (
	// maxStreams bounds the event streams, and MaxOwnStreams those of one user or
	// token.
	maxStreams    = 64
	MaxOwnStreams = 12
	// streamInterval is how often events are sent.
	streamInterval = time.Second
	// readPatience is how long a client may take to read a piece of an answer that
	// is long or without end.
	readPatience = 30 * time.Second
	// maxTail bounds the records that one interval tells of.
	maxTail = 200
)

// Throughput is an event "traffic": what flowed since the one before.
type Throughput struct {
	Time    time.Time `json:"time"`
	Seconds float64   `json:"seconds"` // since the one before
	Tunnels int64     `json:"tunnels"` // open now
	// Services are those with bytes, requests or open tunnels; never null.
	Services []ServiceThroughput `json:"services"`
}

// ServiceThroughput is what flowed of one service.
type ServiceThroughput struct {
	Service  string `json:"service"`
	Up       int64  `json:"up"`
	Down     int64  `json:"down"`
	Requests int64  `json:"requests"`
	Tunnels  int64  `json:"tunnels"` // open now
}

// Records is an event "records": what is new in the access log.
type Records struct {
	Records []accesslog.Record `json:"records"`
	// Skipped is how many more there were than are told of.
	Skipped int `json:"skipped"`
}

// streams counts the event streams that are open.
type streams struct {
	mu   sync.Mutex
	open []string // the name of each one's user or token
}

func (s *streams) enter(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := 0
	for _, n := range s.open {
		if n == name {
			own++
		}
	}
	if len(s.open) >= maxStreams || own >= MaxOwnStreams {
		return false
	}
	s.open = append(s.open, name)
	return true
}

func (s *streams) leave(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.open, name)
	s.open = slices.Delete(s.open, i, i+1)
}

// events is GET /events: server-sent events (HTML, section 9.2), one "traffic" a
// second and, with tail=1, "records" that a filter wants as they come.
func (c Control) events(open *streams) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tail, err := c.tail(r)
		if err != nil {
			ProblemOf(err).Write(w)
			return
		}
		who := signin.FromContext(r.Context())
		if !open.enter(who.Name) {
			w.Header().Set("Retry-After", "10")
			server.NewProblem(http.StatusServiceUnavailable, "too many event streams are open: close some of the pages that watch").Write(w)
			return
		}
		defer open.leave(who.Name)
		c.stream(w, r, tail, who.Valid)
	}
}

// tail returns what reads the new records that a request wants; nil: none. Of more
// than people can read, it returns the last.
func (c Control) tail(r *http.Request) (func() (Records, error), error) {
	q, err := paramsOf(r, append([]string{"tail"}, accesslog.FilterKeys...)...)
	if err != nil {
		return nil, err
	}
	filter := q.filter()
	wanted := q.oneOf("tail", "1") == "1"
	if err := q.problem(); err != nil || !wanted {
		return nil, err
	}
	if c.Store == nil {
		return nil, errNoStore
	}
	place, err := c.Store.Last(r.Context())
	if err != nil {
		return nil, c.storeFailed(r, err)
	}
	return func() (Records, error) {
		list, next, err := c.Store.Since(r.Context(), filter, place)
		if err != nil {
			return Records{}, err
		}
		place = next
		skipped := max(0, len(list)-maxTail)
		return Records{list[skipped:], skipped}, nil
	}, nil
}

// stream sends events until the client goes or may not look any more.
func (c Control) stream(w http.ResponseWriter, r *http.Request, tail func() (Records, error), valid func() bool) {
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Time{}) // its end would be taken for the client's going away
	send := func(text string) error {
		if _, err := io.WriteString(patient{w}, text); err != nil {
			return err
		}
		return conn.Flush()
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // for a reverse proxy that would wait for more
	before, at := c.Services(), time.Now()    // as of the moment that the client knows of
	if send("retry: 3000\n\n") != nil {
		return
	}
	tick := time.NewTicker(streamInterval)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
		if !valid() {
			return
		}
		snap, now := c.Services(), time.Now()
		text := event("traffic", throughput(before, snap, at, now))
		before, at = snap, now
		if tail != nil {
			found, err := tail()
			if err != nil && r.Context().Err() == nil {
				c.Log.Warn("the access log cannot be followed", zap.Error(err))
			}
			if len(found.Records) > 0 {
				text += event("records", found)
			}
		}
		if send(text) != nil {
			return
		}
	}
}

// event writes an event with data that is JSON, and so one line.
func event(name string, data any) string {
	text, err := json.Marshal(data)
	if err != nil {
		panic(err) // a mistake in the program
	}
	return "event: " + name + "\ndata: " + string(text) + "\n\n"
}

// throughput is the difference of two snapshots.
func throughput(before, now []traffic.Snapshot, at, until time.Time) Throughput {
	t := Throughput{Time: until.UTC(), Seconds: until.Sub(at).Seconds(), Services: []ServiceThroughput{}}
	for i, s := range now {
		x := ServiceThroughput{
			Service: s.Service, Up: s.Up - before[i].Up, Down: s.Down - before[i].Down,
			Requests: s.Total() - before[i].Total(), Tunnels: s.Tunnels,
		}
		t.Tunnels += x.Tunnels
		if x != (ServiceThroughput{Service: s.Service}) {
			t.Services = append(t.Services, x)
		}
	}
	return t
}
