package accesslog

import (
	"context"
	"database/sql"
	"time"
)

const (
	// tidyInterval is how often records are removed that are no longer kept. Sums are
	// every hour.
	tidyInterval = time.Minute
	// removeAtOnce is how many records one transaction removes.
	removeAtOnce = 2000
	// maxFree is how much of the file may be free for new records; more is given
	// back to the disk.
	maxFree = 64 << 20
	// anyTime is a limit that no record reaches.
	anyTime = 1 << 62
)

// tidy removes what is no longer kept.
func (s *Store) tidy(ctx context.Context) error {
	now := s.now()
	err := slowly(ctx, func() (more bool, err error) {
		if s.cfg.Keep == 0 {
			return false, nil
		}
		return s.removeOldest(ctx, now.Add(-s.cfg.Keep).UnixMilli())
	})
	if err != nil {
		return err
	}
	if hour := spans[1].start(now); hour != s.summed {
		if err := s.tidySums(ctx, now); err != nil {
			return err
		}
		s.summed = hour
	}
	err = slowly(ctx, func() (more bool, err error) {
		if s.cfg.MaxSize == 0 {
			return false, nil
		}
		used, err := s.number(ctx, "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size")
		if err != nil || used <= int64(s.cfg.MaxSize) {
			return false, err
		}
		return s.removeOldest(ctx, anyTime)
	})
	if err != nil {
		return err
	}
	return slowly(ctx, func() (more bool, err error) { return s.shrink(ctx) })
}

// slowly calls step until there is no more to do, half of the time.
func slowly(ctx context.Context, step func() (more bool, err error)) error {
	for {
		began := time.Now()
		if more, err := step(); err != nil || !more {
			return err
		}
		pause(ctx, time.Since(began))
	}
}

// removeOldest removes some of the oldest records, as far as they are from before
// limit, and notes up to when records are removed. more is set if there may be
// more of them. By anyTime, the last ones stay.
func (s *Store) removeOldest(ctx context.Context, limit int64) (more bool, err error) {
	err = s.transact(ctx, func(tx *sql.Tx) error {
		var at int64
		err := tx.QueryRowContext(ctx, "SELECT coalesce((SELECT time FROM records ORDER BY time LIMIT 1 OFFSET ?), ?)", removeAtOnce, limit).Scan(&at)
		if err != nil {
			return err
		}
		if more = at < limit; more {
			limit = at + 1 // of records of the same moment all are removed
		} else if limit == anyTime {
			return nil
		}
		removed, err := tx.ExecContext(ctx, "DELETE FROM records WHERE time < ?", limit)
		if err != nil {
			return err
		}
		if n, _ := removed.RowsAffected(); n == 0 {
			return nil
		}
		return setMeta(tx, metaHorizon, limit)
	})
	return more, err
}

// tidySums removes old buckets, of those that have ended the small talkers, and
// the clients of buckets for which there are no records any more.
func (s *Store) tidySums(ctx context.Context, now time.Time) error {
	return s.transact(ctx, func(tx *sql.Tx) error {
		for _, span := range spans {
			before := span.start(now.Add(-span.keep))
			for _, table := range []string{"traffic", "talkers"} {
				if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE span = ? AND start < ?", span.seconds(), before); err != nil {
					return err
				}
			}
			if !span.talker {
				continue
			}
			if err := trim(ctx, tx, span, now, s.bounds.kept); err != nil {
				return err
			}
			if s.cfg.Keep > 0 {
				err := fold(ctx, tx, "start < ?2 AND kind = 'client'", span.seconds(), span.start(now.Add(-s.cfg.Keep)))
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// trim makes one sum of all but the largest talkers of each bucket that has ended.
func trim(ctx context.Context, tx *sql.Tx, span span, now time.Time, kept int) error {
	type bucket struct {
		start int64
		kind  string
	}
	var full []bucket
	err := eachRow(ctx, tx, "SELECT start, kind FROM talkers WHERE span = ? AND start < ? AND name <> 0 GROUP BY 1, 2 HAVING count(*) > ?",
		[]any{span.seconds(), span.start(now), kept}, func(scan func(...any) error) error {
			var b bucket
			err := scan(&b.start, &b.kind)
			full = append(full, b)
			return err
		})
	for _, b := range full {
		if err == nil {
			err = fold(ctx, tx, `start = ?2 AND kind = ?3 AND name NOT IN (
				SELECT name FROM talkers WHERE span = ?1 AND start = ?2 AND kind = ?3 AND name <> 0
				ORDER BY up + down DESC, requests DESC, name LIMIT ?4)`, span.seconds(), b.start, b.kind, kept)
		}
	}
	return err
}

// fold makes one sum of the talkers of a span that a condition selects, in each bucket. The
// span is its parameter ?1.
func fold(ctx context.Context, tx *sql.Tx, which string, args ...any) error {
	where := " FROM talkers WHERE span = ?1 AND name <> 0 AND " + which
	for _, query := range []string{
		"INSERT INTO talkers SELECT span, start, kind, 0, sum(requests), sum(errors), sum(up), sum(down)" + where +
			" GROUP BY span, start, kind ON CONFLICT (span, start, kind, name)" + addUp,
		"DELETE" + where,
	} {
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return err
		}
	}
	return nil
}

// shrink gives a part of what is free in the file back to the disk.
func (s *Store) shrink(ctx context.Context) (more bool, err error) {
	free, err := s.number(ctx, "SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size")
	if err != nil || free <= maxFree {
		return false, err
	}
	s.dbs.RLock()
	defer s.dbs.RUnlock()
	_, err = s.write.ExecContext(ctx, "PRAGMA incremental_vacuum(1000)")
	return err == nil, err
}
