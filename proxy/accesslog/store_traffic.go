package accesslog

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"espalier/policy"
)

// What traffic is summed by.
const (
	ByService = "service"
	ByAction  = "action"
	ByHost    = "host"
	ByClient  = "client"
)

// Dimensions are the values of TrafficQuery.By.
var Dimensions = []string{ByService, ByAction, ByHost, ByClient}

// A TrafficQuery says which sums are wanted.
//
// Sums are kept by the minute for 48 h (services and actions only), by the hour
// for 90 days and by the day (UTC) for two years; the finest that reaches back to
// From is used; for hosts and clients of more than eight days, the day. Clients are
// told apart as long as records are kept (StoreConfig.Keep).
type TrafficQuery struct {
	// From and To are widened to whole buckets. A zero To is now.
	From, To time.Time
	By       string
	// Step divides the window into parts of at least this length, for a chart; 0
	// makes one sum of it.
	Step time.Duration
	// Service and Action limit sums by service or action to one of them.
	Service string
	Action  policy.Action
	// Limit is how many names are listed, those with the most bytes in the window
	// and then the most requests; the others become one. 0 lists all.
	Limit int
}

// Traffic is the answer to a TrafficQuery.
type Traffic struct {
	From, To time.Time // what the sums cover
	Step     time.Duration
	Rows     []TrafficRow // by time, then by name; without those that would be zero
}

// A TrafficRow is the sum of a name, in one step.
type TrafficRow struct {
	Time time.Time `json:"time"` // when the step begins
	Name string    `json:"name"` // empty for all that are not listed one by one
	Sum
}

// Total is the sum of all rows.
func (t *Traffic) Total() Sum {
	var total Sum
	for _, r := range t.Rows {
		total.Add(r.Sum)
	}
	return total
}

// Traffic returns sums of the records in a window of time, those of removed
// records too.
func (s *Store) Traffic(ctx context.Context, q TrafficQuery) (*Traffic, error) {
	if !slices.Contains(Dimensions, q.By) {
		return nil, fmt.Errorf("traffic by %q is unknown (allowed: %s)", q.By, strings.Join(Dimensions, ", "))
	}
	now := s.now()
	if q.To.IsZero() {
		q.To = now
	}
	talkers := q.By == ByHost || q.By == ByClient
	span := chooseSpan(now, q.From, q.Step, talkers)
	t := &Traffic{From: time.Unix(span.start(q.From), 0).UTC(), To: time.Unix(span.start(q.To), 0).UTC()}
	if t.To.Before(q.To) {
		t.To = t.To.Add(span.length)
	}
	if q.Step > 0 {
		t.Step = (q.Step + span.length - 1) / span.length * span.length
	}
	query, args := trafficSQL(q, span, t)
	err := s.query(ctx, query, args, func(scan func(...any) error) error {
		var at int64
		var name any
		var r TrafficRow
		err := scan(&at, &name, &r.Requests, &r.Errors, &r.Up, &r.Down)
		r.Time, r.Name = time.Unix(at, 0).UTC(), nameOf(name, q.By)
		t.Rows = append(t.Rows, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	t.limit(q.Limit)
	return t, nil
}

// SumUp makes of records, which are those of the window, what Traffic would of a
// store. There are no steps.
func SumUp(q TrafficQuery, records iter.Seq2[*Record, error]) (*Traffic, error) {
	sums := map[TrafficRow]*Sum{} // by a row without sum
	for r, err := range records {
		if err != nil {
			return nil, err
		}
		name := r.Service
		switch q.By {
		case ByAction:
			name = string(r.Action)
		case ByHost:
			name = r.Host
		case ByClient:
			if name = ""; r.Client.IsValid() {
				name = r.Client.String()
			}
		}
		addTo(sums, TrafficRow{Time: q.From, Name: name}, sumOf(r))
	}
	t := &Traffic{From: q.From, To: q.To, Rows: rowsOf(sums)}
	t.limit(q.Limit)
	return t, nil
}

// nameOf reads a name as stored: a text, the bytes of an address, or a number for
// the others.
func nameOf(stored any, by string) string {
	switch x := stored.(type) {
	case string:
		if by == ByHost {
			return hostOf(x)
		}
		return x
	case []byte:
		if a := addrOf(x); a.IsValid() {
			return a.String()
		}
	}
	return ""
}

// longTalkers is from which time on hosts and clients are summed up by the day:
// each hour has other ones.
const longTalkers = 8 * 24 * time.Hour

// chooseSpan returns the finest buckets that are kept from a time on, and no finer
// than is of use.
func chooseSpan(now, from time.Time, step time.Duration, talkers bool) span {
	for i, s := range spans {
		if talkers && (!s.talker || s.length < 24*time.Hour && from.Before(now.Add(-longTalkers))) || from.Before(now.Add(-s.keep)) {
			continue
		}
		if i+1 < len(spans) && step >= spans[i+1].length && step%spans[i+1].length == 0 && from.Equal(from.Truncate(spans[i+1].length)) {
			continue
		}
		return s
	}
	return spans[len(spans)-1]
}

// trafficSQL selects the sums of each name in each step, with the time when that begins.
func trafficSQL(q TrafficQuery, span span, t *Traffic) (query string, args []any) {
	table, name, where := "traffic", q.By, "span = ? AND start >= ? AND start < ?"
	from, step := t.From.Unix(), int64(t.Step/time.Second)
	if step == 0 {
		step = anyTime
	}
	args = []any{from, step, span.seconds(), from, t.To.Unix()}
	also := func(column, value string) {
		if value != "" {
			where, args = where+" AND "+column+" = ?", append(args, value)
		}
	}
	if q.By == ByHost || q.By == ByClient {
		table, name = "talkers", "name"
		also("kind", q.By)
	} else {
		also("service", q.Service)
		also("action", string(q.Action))
	}
	return "SELECT start - (start - ?) % ?, " + name + ", sum(requests), sum(errors), sum(up), sum(down) FROM " + table +
		" WHERE " + where + " GROUP BY 1, 2 ORDER BY 1, 2", args
}

// limit keeps the n largest names, and sums up the others.
func (t *Traffic) limit(n int) {
	total := map[string]*Sum{}
	for _, r := range t.Rows {
		if r.Name != "" {
			addTo(total, r.Name, r.Sum)
		}
	}
	if n <= 0 || len(total) <= n {
		return
	}
	names := slices.SortedFunc(maps.Keys(total), func(a, b string) int {
		x, y := total[a], total[b]
		return cmp.Or(cmp.Compare(y.Bytes(), x.Bytes()), cmp.Compare(y.Requests, x.Requests), cmp.Compare(a, b))
	})
	for _, name := range names[n:] {
		delete(total, name)
	}
	merged := map[TrafficRow]*Sum{} // by a row without sum
	for _, r := range t.Rows {
		if total[r.Name] == nil {
			r.Name = ""
		}
		addTo(merged, TrafficRow{Time: r.Time, Name: r.Name}, r.Sum)
	}
	t.Rows = rowsOf(merged)
}

// rowsOf are rows with their sums, in order.
func rowsOf(sums map[TrafficRow]*Sum) (rows []TrafficRow) {
	for r, sum := range sums {
		r.Sum = *sum
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b TrafficRow) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Name, b.Name))
	})
	return rows
}

// A span is a length of the buckets that traffic is summed in.
type span struct {
	length time.Duration
	keep   time.Duration // for how long
	talker bool          // hosts and clients are summed too
}

// spans stand with the shortest first.
var spans = []span{
	{time.Minute, 48 * time.Hour, false},
	{time.Hour, 90 * 24 * time.Hour, true},
	{24 * time.Hour, 2 * 365 * 24 * time.Hour, true},
}

func (s span) seconds() int64 { return int64(s.length / time.Second) }

// start is when the bucket begins that a time is in, in seconds.
func (s span) start(t time.Time) int64 { return t.UnixMilli() / 1000 / s.seconds() * s.seconds() }

// bounds are those of the names in a bucket: `open` are listed, those that came first; once
// its time is over, the `kept` of them with the most bytes stay. All others are one sum.
type bounds struct{ open, kept int }

var defaultBounds = bounds{open: 4096, kept: 100}

// A Sum is what some records sum up to.
type Sum struct {
	Requests int64 `json:"requests"`
	Errors   int64 `json:"errors"` // of them, with an error although they were not refused
	Up       int64 `json:"up"`     // bytes from clients
	Down     int64 `json:"down"`   // bytes to clients
}

// Bytes is the sum of both directions.
func (s Sum) Bytes() int64 { return s.Up + s.Down }

// Add adds other to s.
func (s *Sum) Add(other Sum) {
	s.Requests += other.Requests
	s.Errors += other.Errors
	s.Up += other.Up
	s.Down += other.Down
}

func sumOf(r *Record) Sum {
	s := Sum{Requests: 1, Up: bounded(r.Up), Down: bounded(r.Down)}
	if r.Error != "" && r.Action != policy.Deny && r.Action != policy.Challenge {
		s.Errors = 1
	}
	return s
}

func addTo[K comparable](m map[K]*Sum, key K, sum Sum) {
	if have, ok := m[key]; ok {
		have.Add(sum)
	} else {
		m[key] = &sum
	}
}

// A bucket is where sums of one kind are kept: by the service and the action if kind is
// empty, by ByHost or by ByClient.
type bucket struct {
	span, start int64
	kind        string
}

// A sumKey has the name as stored, of a client the bytes.
type sumKey struct {
	bucket
	name, action string
}

// sums are those of a batch, in the order in which they came up.
type sums struct {
	at   map[sumKey]int // in keys and sums
	keys []sumKey
	sums []Sum
}

// add adds a record to its sums.
func (s *sums) add(r *Record) {
	sum := sumOf(r)
	add := func(span span, kind, name, action string) {
		k := sumKey{bucket{span.seconds(), span.start(r.Time), kind}, name, action}
		i, known := s.at[k]
		if !known {
			i = len(s.keys)
			s.at[k], s.keys, s.sums = i, append(s.keys, k), append(s.sums, Sum{})
		}
		s.sums[i].Add(sum)
	}
	service, action := clean(r.Service, maxUser), clean(string(r.Action), maxUser)
	host, client := storedHost(clean(r.Host, maxHost)), string(storedAddr(r.Client))
	for _, span := range spans {
		add(span, "", service, action)
		if span.talker {
			add(span, ByHost, host, "")
			add(span, ByClient, client, "")
		}
	}
}

const (
	addUp = ` DO UPDATE SET requests = requests + excluded.requests, errors = errors + excluded.errors,
		up = up + excluded.up, down = down + excluded.down`
	addTraffic   = "INSERT INTO traffic VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (span, start, service, action)" + addUp
	addTalker    = "INSERT INTO talkers VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (span, start, kind, name)" + addUp
	updateTalker = `UPDATE talkers SET requests = requests + ?5, errors = errors + ?6, up = up + ?7, down = down + ?8
		WHERE span = ?1 AND start = ?2 AND kind = ?3 AND name = ?4`
	countTalkers = "SELECT count(*) FROM talkers WHERE span = ? AND start = ? AND kind = ?"
)

// store adds the sums to those in the store. A bucket lists at most so many names; the name 0
// is of all others.
func (s *sums) store(ctx context.Context, tx *sql.Tx, most int) error {
	prepared := map[string]*sql.Stmt{}
	for _, query := range []string{addTraffic, addTalker, updateTalker} {
		statement, err := tx.PrepareContext(ctx, query)
		if err != nil {
			return err
		}
		prepared[query] = statement
	}
	room := map[bucket]int{}
	for i, k := range s.keys {
		sum := s.sums[i]
		args := []any{k.span, k.start, k.kind, k.name, sum.Requests, sum.Errors, sum.Up, sum.Down}
		query := addTalker
		switch k.kind {
		case "":
			query, args[2], args[3] = addTraffic, k.name, k.action
		case ByClient:
			args[3] = []byte(k.name)
		}
		if query == addTalker {
			done, err := prepared[updateTalker].ExecContext(ctx, args...)
			if err != nil {
				return err
			}
			if rows, _ := done.RowsAffected(); rows > 0 {
				continue
			}
			left, counted := room[k.bucket]
			if !counted {
				if err := tx.QueryRowContext(ctx, countTalkers, args[:3]...).Scan(&left); err != nil {
					return err
				}
				left = most - left
			}
			if left <= 0 {
				args[3] = 0
			}
			room[k.bucket] = left - 1
		}
		if _, err := prepared[query].ExecContext(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}
