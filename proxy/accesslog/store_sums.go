package accesslog

import (
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

// Values of the column kind.
const (
	kindHost   = "host"
	kindClient = "client"
)

const (
	// bucketSums are those of records, of each span of a table spans.
	bucketSums = ` count(*) AS requests, sum(error <> '' AND action NOT IN ('deny', 'challenge')) AS errors,
		sum(up) AS up, sum(down) AS down`
	addUp = ` DO UPDATE SET requests = requests + excluded.requests, errors = errors + excluded.errors,
		up = up + excluded.up, down = down + excluded.down`

	// sumTraffic adds the records after ?1 to the sums of spans.
	sumTraffic = `WITH spans (span) AS (VALUES (60), (3600), (86400))
		INSERT INTO traffic SELECT span, time / 1000 / span * span, service, action,` + bucketSums + `
		FROM records, spans WHERE seq > ?1 GROUP BY 1, 2, 3, 4
		ON CONFLICT (span, start, service, action)` + addUp

	// sumTalkers does so by host and client, of at most ?2 names a bucket. The name 0 is of all
	// that are not listed.
	sumTalkers = `WITH spans (span) AS (VALUES (3600), (86400)), kinds (kind) AS (VALUES ('host'), ('client')),
		new AS MATERIALIZED (
			SELECT span, time / 1000 / span * span AS start, kind, iif(kind = 'host', host, client) AS name,` + bucketSums + `
			FROM records, spans, kinds WHERE seq > ?1 GROUP BY 1, 2, 3, 4),
		listed AS MATERIALIZED (
			SELECT span, start, kind, count(*) AS n FROM talkers
			WHERE (span, start, kind) IN (SELECT span, start, kind FROM new) GROUP BY 1, 2, 3),
		placed AS (
			SELECT new.*, old.name IS NOT NULL AS known, coalesce(n, 0) AS n,
				row_number() OVER (PARTITION BY span, start, kind, old.name IS NULL ORDER BY new.up + new.down DESC) AS place
			FROM new LEFT JOIN listed USING (span, start, kind) LEFT JOIN talkers AS old USING (span, start, kind, name))
		INSERT INTO talkers SELECT span, start, kind, iif(known OR n + place <= ?2, name, 0),
			sum(requests), sum(errors), sum(up), sum(down)
		FROM placed WHERE TRUE GROUP BY 1, 2, 3, 4
		ON CONFLICT (span, start, kind, name)` + addUp
)
