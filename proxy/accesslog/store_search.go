package accesslog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"espalier/policy"
)

// A Cursor is a place between the records of a search, in the order of time. The
// zero Cursor is before the first.
type Cursor struct {
	time, seq int64
}

// String returns the text that UnmarshalText takes; empty for the zero Cursor.
func (c Cursor) String() string {
	if c == (Cursor{}) {
		return ""
	}
	return fmt.Sprintf("%d.%d", c.time, c.seq)
}

// MarshalText returns String.
func (c Cursor) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText parses what String has made.
func (c *Cursor) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*c = Cursor{}
		return nil
	}
	before, behind, _ := strings.Cut(string(text), ".")
	at, err := strconv.ParseInt(before, 10, 64)
	seq, err2 := strconv.ParseInt(behind, 10, 64)
	if err != nil || err2 != nil || seq <= 0 {
		return fmt.Errorf("%q is no cursor", text)
	}
	*c = Cursor{at, seq}
	return nil
}

// A Range is the part of a search's records that is wanted.
type Range struct {
	After  Cursor // where the page before ended
	Limit  int    // at most as many records; at most MaxPage, which 0 stands for
	Oldest bool   // the oldest first, not the newest
}

// MaxPage is the most records that one search returns.
const MaxPage = 1000

// A Page is an answer of Search.
type Page struct {
	Records []Record
	Next    Cursor // where to go on; zero where there are no more
}

// Search returns the records that f wants, in the order of their time, r.Limit of
// them.
func (s *Store) Search(ctx context.Context, f Filter, r Range) (Page, error) {
	if r.Limit <= 0 || r.Limit > MaxPage {
		r.Limit = MaxPage
	}
	list := f.conditions()
	index, err := s.chooseIndex(ctx, list)
	if err != nil {
		return Page{}, err
	}
	way, beyond := "DESC", "<"
	if r.Oldest {
		way, beyond = "ASC", ">"
	}
	if r.After != (Cursor{}) {
		list = append(list, condition{sql: "(time, seq) " + beyond + " (?, ?)", args: []any{r.After.time, r.After.seq}})
	}
	query, args := selectWhere("INDEXED BY "+index, list)
	query += fmt.Sprintf(" ORDER BY time %s, seq %s LIMIT %d", way, way, r.Limit+1)
	records, seqs, err := s.records(ctx, query, args)
	if err != nil {
		return Page{}, err
	}
	page := Page{Records: records}
	if len(records) > r.Limit {
		page.Records = records[:r.Limit]
		page.Next = Cursor{page.Records[r.Limit-1].Time.UnixMilli(), seqs[r.Limit-1]}
	}
	return page, nil
}

// All returns all records that f wants, in the order of their time, page by page.
// It ends with the first error.
func (s *Store) All(ctx context.Context, f Filter, oldest bool) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		r := Range{Oldest: oldest}
		for {
			page, err := s.Search(ctx, f, r)
			if err != nil {
				yield(nil, err)
				return
			}
			for i := range page.Records {
				if !yield(&page.Records[i], nil) {
					return
				}
			}
			if r.After = page.Next; r.After == (Cursor{}) {
				return
			}
		}
	}
}

// ErrNoRecord is returned by Get.
var ErrNoRecord = errors.New("there is no such record, or it is no longer kept")

// Get returns one record.
func (s *Store) Get(ctx context.Context, id ID) (Record, error) {
	query, args := selectWhere("", []condition{{sql: "id = ?", args: []any{int64(id)}}})
	list, _, err := s.records(ctx, query, args)
	if err == nil && len(list) == 0 {
		err = ErrNoRecord
	}
	if err != nil {
		return Record{}, err
	}
	return list[0], nil
}

// A Place is how far the records are known in the order in which they came.
type Place struct{ seq int64 }

// Last returns the place behind the newest record.
func (s *Store) Last(ctx context.Context) (p Place, err error) {
	p.seq, err = s.number(ctx, lastSeq)
	return p, err
}

const lastSeq = "SELECT coalesce(max(seq), 0) FROM records"

// Since returns the records that f wants and that came behind the place, in the
// order in which they came, and the place where they end: what is new for a
// reader that follows. At most MaxPage of them are returned.
func (s *Store) Since(ctx context.Context, f Filter, p Place) ([]Record, Place, error) {
	last, err := s.Last(ctx)
	if err != nil {
		return nil, p, err
	}
	query, args := selectWhere("NOT INDEXED", append(f.conditions(), condition{sql: "seq > ? AND seq <= ?", args: []any{p.seq, last.seq}}))
	list, seqs, err := s.records(ctx, query+fmt.Sprintf(" ORDER BY seq LIMIT %d", MaxPage), args)
	if err != nil {
		return nil, p, err
	}
	if len(list) == MaxPage {
		last.seq = seqs[MaxPage-1]
	}
	return list, last, nil
}

// A condition is a part of a search. One with an index selects what that index
// holds together; it is sorted if the index also gives the order of time. The text of
// those with a partial index repeats what the index is limited to, for SQLite to see that
// it may be used.
type condition struct {
	index  string
	sorted bool
	sql    string
	args   []any
}

// conditions are those of f.
func (f *Filter) conditions() (list []condition) {
	add := func(index string, sorted bool, sql string, args ...any) {
		list = append(list, condition{index, sorted, sql, args})
	}
	if !f.From.IsZero() || !f.To.IsZero() {
		add("records_time", true, "time >= ? AND time < ?", atOrAfter(f.From, -anyTime), atOrAfter(f.To, anyTime))
	}
	if f.Client.IsValid() {
		low, high := ends(f.Client)
		if slices.Equal(low, high) {
			add("records_client", true, "client = ?", low)
		} else {
			add("records_client", false, "client >= ? AND client <= ?", low, high)
		}
	}
	if f.Host != "" {
		from, below := storedPattern(f.Host)
		switch {
		case strings.HasPrefix(from, "!"):
			add("records_host", true, "host = ?", from)
		case below:
			add("records_host", false, "host > ? AND host < ?", from, from[:len(from)-1]+"/")
		default:
			add("records_host", false, "host >= ? AND host < ?", from, from[:len(from)-1]+"/")
		}
	}
	if f.Error != "" {
		add("records_error", true, "error <> ''")
		if f.Error != "*" {
			add("", false, "instr(lower(error), lower(?)) > 0", f.Error)
		}
	}
	return append(append(list, f.equalities()...), f.bounds()...)
}

// equalities are the conditions that a column has a value.
func (f *Filter) equalities() (list []condition) {
	for _, c := range []struct {
		column, value string
		partial       string   // what the index is limited to
		common        []string // the values that it leaves out
	}{
		{"user", f.User, " AND user <> ''", nil},
		{"service", f.Service, "", nil},
		{"action", string(f.Action), " AND action NOT IN ('tunnel', 'forward')", []string{string(policy.Tunnel), string(policy.Forward)}},
		{"rule", f.Rule, " AND rule NOT IN ('apple', 'default')", []string{policy.RuleApple, policy.RuleDefault}},
	} {
		switch {
		case c.value == "":
		case slices.Contains(c.common, c.value):
			list = append(list, condition{"", false, c.column + " = ?", []any{c.value}})
		default:
			list = append(list, condition{"records_" + c.column, true, c.column + " = ?" + c.partial, []any{c.value}})
		}
	}
	return list
}

// bounds are the conditions on numbers.
func (f *Filter) bounds() (list []condition) {
	for _, c := range []struct {
		index, what string
		least, from int64 // from which on the index has them
	}{
		{"records_bytes", "up + down", f.MinBytes, 1_000_000},
		{"records_duration", "duration", f.MinDuration.Microseconds(), 60_000_000},
	} {
		switch {
		case c.least <= 0:
		case c.least < c.from:
			list = append(list, condition{"", false, c.what + " >= ?", []any{c.least}})
		default:
			list = append(list, condition{c.index, false, fmt.Sprintf("%s >= ? AND %[1]s >= %d", c.what, c.from), []any{c.least}})
		}
	}
	low, high := f.StatusMin, cmp.Or(max(f.StatusMax, 0), 999)
	switch status := []any{low, high}; {
	case f.StatusMin <= 0 && f.StatusMax <= 0:
	case low <= 200 && 200 <= high:
		list = append(list, condition{"", false, "status >= ? AND status <= ?", status})
	case low == high:
		list = append(list, condition{"records_status", true, "status = ? AND status <> 200", status[:1]})
	default:
		list = append(list, condition{"records_status", false, "status >= ? AND status <= ? AND status <> 200", status})
	}
	return list
}

// atOrAfter is the first time that a record can have from t on; zero for the zero Time.
func atOrAfter(t time.Time, zero int64) int64 {
	if t.IsZero() {
		return zero
	}
	return t.Add(time.Millisecond - 1).UnixMilli()
}

// ends are the first and the last address of p, as stored.
func ends(p netip.Prefix) (low, high []byte) {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	low = storedAddr(p.Masked().Addr())
	high = slices.Clone(low)
	for i := bits; i < 128; i++ {
		high[i/8] |= 0x80 >> (i % 8)
	}
	return low, high
}

// Of indexes it is asked whether they give fewer records than this; where all
// give more, and several could be used, a second time.
const (
	many     = 10_000
	veryMany = 100_000
)

// chooseIndex asks the indexes how many records each would give, and returns the
// one that gives the fewest. Where all give many, it is one in the order of time,
// in which enough are found soon.
func (s *Store) chooseIndex(ctx context.Context, list []condition) (string, error) {
	list = slices.DeleteFunc(slices.Clone(list), func(c condition) bool { return c.index == "" })
	for _, limit := range []int{many, veryMany} {
		index, fewest := "", int64(limit)
		for _, c := range list {
			query := fmt.Sprintf("SELECT count(*) FROM (SELECT 1 FROM records INDEXED BY %s WHERE %s LIMIT %d)", c.index, c.sql, limit)
			n, err := s.number(ctx, query, c.args...)
			if err != nil {
				return "", err
			}
			if n < fewest {
				index, fewest = c.index, n
			}
		}
		if index != "" {
			return index, nil
		}
		if len(list) < 2 {
			break
		}
	}
	// Equality with a value is better than all records of a time.
	best := "records_time"
	for _, c := range list {
		if c.sorted && c.index != "records_time" {
			best = c.index
		}
	}
	return best, nil
}

// selectWhere selects the records that meet all conditions, for records.
func selectWhere(by string, list []condition) (query string, args []any) {
	var where []string
	for _, c := range list {
		where, args = append(where, "("+c.sql+")"), append(args, c.args...)
	}
	query = "SELECT " + columns + ", seq FROM records " + by
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	return query, args
}

// records returns the records that a query selects, each with its seq.
func (s *Store) records(ctx context.Context, query string, args []any) (list []Record, seqs []int64, err error) {
	err = s.query(ctx, query, args, func(scan func(...any) error) error {
		var r Record
		var seq int64
		err := r.scan(scan, &seq)
		list, seqs = append(list, r), append(seqs, seq)
		return err
	})
	return list, seqs, err
}

// A PortUse counts the requests of a client and user to a destination.
type PortUse struct {
	Client netip.Addr
	User   string
	Host   string
	Port   uint16
	Count  int
	Last   time.Time // of the latest request
}

// PortsBeyond returns the requests in a window of time, from inclusive and to
// exclusive, whose port is in none of ports. Requests by clients outside
// proxy.clients, and those whose destination was invalid, are left out. It reads
// every record of the window.
func (s *Store) PortsBeyond(ctx context.Context, from, to time.Time, ports []policy.PortRange) (list []PortUse, err error) {
	query := "SELECT client, user, host, port, count(*), max(time) FROM records INDEXED BY records_time" +
		" WHERE time >= ? AND time < ? AND port > 0 AND rule <> ?"
	args := []any{from.UnixMilli(), to.UnixMilli(), policy.RuleClients}
	for _, r := range ports {
		query += " AND port NOT BETWEEN ? AND ?"
		args = append(args, r.First, r.Last)
	}
	err = s.query(ctx, query+" GROUP BY 1, 2, 3, 4", args, func(scan func(...any) error) error {
		var u PortUse
		var client []byte
		var last int64
		err := scan(&client, &u.User, &u.Host, &u.Port, &u.Count, &last)
		u.Client, u.Host, u.Last = addrOf(client), hostOf(u.Host), time.UnixMilli(last).UTC()
		list = append(list, u)
		return err
	})
	return list, err
}
