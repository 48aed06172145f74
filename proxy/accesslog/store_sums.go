package accesslog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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
	Requests int64
	Errors   int64 // of them, with an error although they were not refused
	Up, Down int64 // bytes, from and to clients
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

func (s Sum) values() []any { return []any{s.Requests, s.Errors, s.Up, s.Down} }

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

func newSums() *sums {
	return &sums{map[serviceKey]*Sum{}, map[talkerKey]*Sum{}}
}

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
	upsert      = " DO UPDATE SET requests = requests + excluded.requests, errors = errors + excluded.errors, up = up + excluded.up, down = down + excluded.down"
	addTraffic  = "INSERT INTO traffic VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (span, start, service, action)" + upsert
	addTalker   = "INSERT INTO talkers VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (span, start, kind, name)" + upsert
	countTalker = "SELECT count(*) FROM talkers WHERE span = ? AND start = ? AND kind = ?"
	hasTalker   = "SELECT 1 FROM talkers WHERE span = ? AND start = ? AND kind = ? AND name = ?"
)

// otherName stands for the names that are not listed.
const otherName = 0

// store adds the sums to those in the store, of at most so many names a bucket.
func (s *sums) store(ctx context.Context, tx *sql.Tx, most int) error {
	traffic, err := tx.PrepareContext(ctx, addTraffic)
	if err != nil {
		return err
	}
	defer traffic.Close()
	for k, sum := range s.services {
		if _, err := traffic.ExecContext(ctx, append([]any{k.span, k.start, k.service, k.action}, sum.values()...)...); err != nil {
			return err
		}
	}
	talker, err := tx.PrepareContext(ctx, addTalker)
	if err != nil {
		return err
	}
	defer talker.Close()
	listed, err := tx.PrepareContext(ctx, hasTalker)
	if err != nil {
		return err
	}
	defer listed.Close()
	room := map[talkerKey]int{} // by a key without name
	for k := range s.talkers {
		k.name = ""
		room[k]--
	}
	for k := range room {
		var n int
		if err := tx.QueryRowContext(ctx, countTalker, k.span, k.start, k.kind).Scan(&n); err != nil {
			return err
		}
		if room[k] += most - n; room[k] < 0 { // perhaps not for all
			room[k] = max(most-n, 0)
		} else {
			delete(room, k)
		}
	}
	for k, sum := range s.talkers {
		var name any = k.name
		if k.kind == kindClient {
			name = []byte(k.name)
		}
		group := k
		group.name = ""
		if left, bounded := room[group]; bounded {
			is := 0
			err := listed.QueryRowContext(ctx, k.span, k.start, k.kind, name).Scan(&is)
			switch {
			case err == nil:
			case !errors.Is(err, sql.ErrNoRows):
				return err
			case left > 0:
				room[group]--
			default:
				name = otherName
			}
		}
		if _, err := talker.ExecContext(ctx, append([]any{k.span, k.start, k.kind, name}, sum.values()...)...); err != nil {
			return err
		}
	}
	return s.reopen(tx)
}

// reopen notes which buckets must be tidied again, because they have grown after
// their time.
func (s *sums) reopen(tx *sql.Tx) error {
	first := map[int64]int64{}
	for k := range s.talkers {
		if at, ok := first[k.span]; !ok || k.start < at {
			first[k.span] = k.start
		}
	}
	for length, start := range first {
		if _, err := tx.Exec("UPDATE meta SET value = min(value, ?) WHERE key IN (?, ?)", start, trimmedKey(length), forgottenKey(length)); err != nil {
			return err
		}
	}
	return nil
}

// trimmedKey and forgottenKey name the times up to which buckets of a length were
// trimmed, and their clients forgotten.
func trimmedKey(seconds int64) string   { return fmt.Sprintf("trimmed.%d", seconds) }
func forgottenKey(seconds int64) string { return fmt.Sprintf("forgotten.%d", seconds) }
