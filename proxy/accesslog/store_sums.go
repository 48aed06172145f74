package accesslog

import (
	"context"
	"database/sql"
	"time"

	"espalier/policy"
)

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

// bounds are those of the names in a bucket. The first `open` of a bucket are
// listed; once its time is over, the `kept` of them with the most bytes stay. All
// others are one sum.
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

// row is the sum as a row of a table.
func (s Sum) row(at bucket, what, name any) []any {
	return []any{at.span, at.start, what, name, s.Requests, s.Errors, s.Up, s.Down}
}

func sumOf(r *Record) Sum {
	s := Sum{Requests: 1, Up: bounded(r.Up), Down: bounded(r.Down)}
	if r.Error != "" && r.Action != policy.Deny && r.Action != policy.Challenge {
		s.Errors = 1
	}
	return s
}

type bucket struct{ span, start int64 }

type serviceKey struct {
	bucket
	service, action string
}

// talkerKey has the name as stored; a client's bytes as a string.
type talkerKey struct {
	bucket
	kind, name string
}

// Values of the column kind.
const (
	kindHost   = "host"
	kindClient = "client"
)

// sums are those of a batch.
type sums struct {
	services map[serviceKey]*Sum
	talkers  map[talkerKey]*Sum
}

func newSums() *sums { return &sums{map[serviceKey]*Sum{}, map[talkerKey]*Sum{}} }

func (s *sums) add(r *Record) {
	sum := sumOf(r)
	for _, span := range spans {
		at := bucket{span.seconds(), span.start(r.Time)}
		addTo(s.services, serviceKey{at, clean(r.Service, maxUser), clean(string(r.Action), maxUser)}, sum)
		if span.talker {
			addTo(s.talkers, talkerKey{at, kindHost, storedHost(clean(r.Host, maxHost))}, sum)
			addTo(s.talkers, talkerKey{at, kindClient, string(storedAddr(r.Client))}, sum)
		}
	}
}

func addTo[K comparable](m map[K]*Sum, key K, sum Sum) {
	if have, ok := m[key]; ok {
		have.Add(sum)
	} else {
		m[key] = &sum
	}
}

const (
	upsert = " DO UPDATE SET requests = requests + excluded.requests, errors = errors + excluded.errors," +
		" up = up + excluded.up, down = down + excluded.down"
	addTraffic   = "INSERT INTO traffic VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (span, start, service, action)" + upsert
	addTalker    = "INSERT INTO talkers VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (span, start, kind, name)" + upsert
	updateTalker = "UPDATE talkers SET requests = requests + ?5, errors = errors + ?6, up = up + ?7, down = down + ?8" +
		" WHERE span = ?1 AND start = ?2 AND kind = ?3 AND name = ?4"
	countTalkers = "SELECT count(*) FROM talkers WHERE span = ? AND start = ? AND kind = ?"
)

// otherName is the name of all that are not listed.
const otherName = 0

// store adds the sums to those in the store, of at most so many names a bucket.
func (s *sums) store(ctx context.Context, tx *sql.Tx, most int) error {
	for k, sum := range s.services {
		if _, err := tx.ExecContext(ctx, addTraffic, sum.row(k.bucket, k.service, k.action)...); err != nil {
			return err
		}
	}
	update, err := tx.PrepareContext(ctx, updateTalker)
	if err != nil {
		return err
	}
	add, err := tx.PrepareContext(ctx, addTalker)
	if err != nil {
		return err
	}
	room := map[talkerKey]int{} // for names, by a key without one
	for k, sum := range s.talkers {
		var name any = k.name
		if k.kind == kindClient {
			name = []byte(k.name)
		}
		k.name = ""
		if _, counted := room[k]; !counted {
			listed := 0
			if err := tx.QueryRowContext(ctx, countTalkers, k.span, k.start, k.kind).Scan(&listed); err != nil {
				return err
			}
			room[k] = most - listed
		}
		updated, err := update.ExecContext(ctx, sum.row(k.bucket, k.kind, name)...)
		if err != nil {
			return err
		}
		if n, _ := updated.RowsAffected(); n > 0 {
			continue
		}
		if room[k]--; room[k] < 0 {
			name = otherName
		}
		if _, err := add.ExecContext(ctx, sum.row(k.bucket, k.kind, name)...); err != nil {
			return err
		}
	}
	return nil
}
