package accesslog

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

const (
	// tidyInterval is how often records and sums are removed that are no longer
	// kept.
	tidyInterval = time.Minute
	// removeAtOnce is how many records one transaction removes.
	removeAtOnce = 2000
	// maxFree is how much of the file may be free for new records; more is given
	// back to the disk.
	maxFree = 64 << 20
)

// tidy removes what is no longer kept.
func (s *Store) tidy(ctx context.Context) error {
	now := s.now()
	if s.cfg.Keep > 0 {
		for more := true; more; {
			began := time.Now()
			var err error
			if more, err = s.removeOldest(ctx, now.Add(-s.cfg.Keep).UnixMilli()); err != nil {
				return err
			}
			if more {
				pause(ctx, time.Since(began))
			}
		}
	}
	if err := s.tidySums(ctx, now); err != nil {
		return err
	}
	for s.cfg.MaxSize > 0 {
		used, err := s.used(ctx)
		if err != nil {
			return err
		}
		if used <= int64(s.cfg.MaxSize) {
			break
		}
		began := time.Now()
		more, err := s.removeOldest(ctx, 1<<62)
		if err != nil {
			return err
		}
		if !more {
			break
		}
		pause(ctx, time.Since(began))
	}
	return s.shrink(ctx)
}

// removeOldest removes some of the oldest records, as far as they are from before
// limit, and notes up to when records are removed. more is set where there may be
// more of them.
func (s *Store) removeOldest(ctx context.Context, limit int64) (more bool, err error) {
	err = s.transact(ctx, func(tx *sql.Tx) error {
		var at int64
		err := tx.QueryRowContext(ctx, "SELECT time FROM records ORDER BY time LIMIT 1 OFFSET ?", removeAtOnce).Scan(&at)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if more = err == nil && at < limit; more {
			limit = at + 1 // of records of the same moment all are removed
		}
		var first sql.NullInt64
		if err := tx.QueryRowContext(ctx, "SELECT min(time) FROM records").Scan(&first); err != nil {
			return err
		}
		if !first.Valid || first.Int64 >= limit || limit == 1<<62 {
			return nil
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM records WHERE time < ?", limit); err != nil {
			return err
		}
		return setMeta(tx, "horizon", limit)
	})
	return more, err
}

// tidySums removes old buckets, of those that have ended the small talkers, and
// who the clients were where no record tells that any more.
func (s *Store) tidySums(ctx context.Context, now time.Time) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		for _, span := range spans {
			before := span.start(now.Add(-span.keep))
			for _, query := range []string{"DELETE FROM traffic WHERE span = ? AND start < ?", "DELETE FROM talkers WHERE span = ? AND start < ?"} {
				if _, err := tx.ExecContext(ctx, query, span.seconds(), before); err != nil {
					return err
				}
			}
			if span.talker {
				if err := trim(ctx, tx, span, span.start(now), s.bounds.kept); err != nil {
					return err
				}
				if s.cfg.Keep > 0 {
					if err := forgetClients(ctx, tx, span, span.start(now.Add(-s.cfg.Keep))); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
}

// trim keeps so many of the largest talkers of the buckets that began before a time.
func trim(ctx context.Context, tx *sql.Tx, span span, before int64, kept int) error {
	key := trimmedKey(span.seconds())
	from, err := getMeta(tx, key)
	if err != nil || from == before {
		return err
	}
	rows, err := tx.QueryContext(ctx, "SELECT start, kind FROM talkers WHERE span = ? AND start >= ? AND start < ? GROUP BY start, kind HAVING count(*) > ?",
		span.seconds(), from, before, kept)
	if err != nil {
		return err
	}
	defer rows.Close()
	type group struct {
		start int64
		kind  string
	}
	var groups []group
	for rows.Next() {
		var g group
		if err := rows.Scan(&g.start, &g.kind); err != nil {
			return err
		}
		groups = append(groups, g)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, g := range groups {
		if err := trimBucket(ctx, tx, kept, span.seconds(), g.start, g.kind); err != nil {
			return err
		}
	}
	return setMeta(tx, key, before)
}

// trimBucket makes one sum of all but the largest talkers of a bucket.
func trimBucket(ctx context.Context, tx *sql.Tx, kept int, args ...any) error {
	const bucket = "span = ? AND start = ? AND kind = ? AND name <> 0"
	var least Sum
	var name any
	// The last one that is kept.
	err := tx.QueryRowContext(ctx, "SELECT up + down, requests, name FROM talkers WHERE "+bucket+
		" ORDER BY up + down DESC, requests DESC, name LIMIT 1 OFFSET ?", append(args, kept-1)...).Scan(&least.Up, &least.Requests, &name)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	small := bucket + " AND (up + down, requests) <= (?, ?) AND NOT (up + down = ? AND requests = ? AND name <= ?)"
	return fold(ctx, tx, small, append(args, least.Up, least.Requests, least.Up, least.Requests, name)...)
}

// forgetClients makes one sum of the clients of each bucket that began before a
// time, as do the records that named them.
func forgetClients(ctx context.Context, tx *sql.Tx, span span, before int64) error {
	key := forgottenKey(span.seconds())
	from, err := getMeta(tx, key)
	if err != nil || from == before {
		return err
	}
	err = fold(ctx, tx, "span = ? AND start >= ? AND start < ? AND kind = ? AND name <> 0", span.seconds(), from, before, kindClient)
	if err != nil {
		return err
	}
	return setMeta(tx, key, before)
}

// fold makes one sum a bucket of the talkers that a condition selects.
func fold(ctx context.Context, tx *sql.Tx, where string, args ...any) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO talkers
		SELECT span, start, kind, 0, sum(requests), sum(errors), sum(up), sum(down) FROM talkers
		WHERE `+where+` GROUP BY span, start, kind
		ON CONFLICT (span, start, kind, name)`+upsert, args...)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM talkers WHERE "+where, args...)
	return err
}

// used is how many bytes of the file are in use.
func (s *Store) used(ctx context.Context) (n int64, err error) {
	err = s.searching(func(db *sql.DB) error {
		return db.QueryRowContext(ctx, "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size").Scan(&n)
	})
	return n, err
}

// shrink gives what is free in the file back to the disk, in parts.
func (s *Store) shrink(ctx context.Context) error {
	for ctx.Err() == nil {
		var free, size int64
		err := s.searching(func(db *sql.DB) error {
			return db.QueryRowContext(ctx, "SELECT freelist_count, page_size FROM pragma_freelist_count, pragma_page_size").Scan(&free, &size)
		})
		if err != nil || free*size <= maxFree {
			return err
		}
		began := time.Now()
		s.dbs.RLock()
		_, err = s.write.ExecContext(ctx, "PRAGMA incremental_vacuum(1000)")
		s.dbs.RUnlock()
		if err != nil {
			return err
		}
		pause(ctx, time.Since(began))
	}
	return nil
}
