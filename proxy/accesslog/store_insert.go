package accesslog

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"time"
)

// batchSize is how much of a file is stored in one transaction, in bytes.
const batchSize = 1 << 20

// Imported says what became of the lines of a file.
type Imported struct {
	Stored uint64 // records that were not in the store
	Known  uint64 // records that were
	Old    uint64 // records of a time whose records were removed
	Bad    uint64 // lines that are no records
}

func (i *Imported) add(o Imported) {
	i.Stored, i.Known, i.Old, i.Bad = i.Stored+o.Stored, i.Known+o.Known, i.Old+o.Old, i.Bad+o.Bad
}

// Import stores the records of r, an access log in JSON, that are not in the
// store.
func (s *Store) Import(ctx context.Context, r io.Reader) (Imported, error) {
	var total Imported
	lines := newLineReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		batch, ended := lines.next(batchSize)
		if batch.size > 0 {
			n, err := s.insert(ctx, batch, nil)
			if err != nil {
				return total, err
			}
			total.add(n)
		}
		if errors.Is(ended, io.EOF) {
			return total, nil
		}
		if ended != nil {
			return total, ended
		}
	}
}

// insert stores a batch in one transaction, with the sums of what is new in it,
// and with what also does.
func (s *Store) insert(ctx context.Context, b batch, also func(*sql.Tx) error) (Imported, error) {
	n := Imported{Bad: b.bad}
	err := s.transact(ctx, func(tx *sql.Tx) error {
		horizon, err := getMeta(tx, "horizon")
		if err != nil {
			return err
		}
		if horizon > s.now().UnixMilli() {
			horizon = 0 // set while the clock was ahead
		}
		statement, err := tx.PrepareContext(ctx, insertRecord)
		if err != nil {
			return err
		}
		defer statement.Close()
		sums := newSums()
		for i := range b.records {
			r := &b.records[i]
			if horizon != 0 && r.Time.UnixMilli() < horizon {
				n.Old++
				continue
			}
			done, err := statement.ExecContext(ctx, r.values()...)
			if err != nil {
				return err
			}
			if rows, _ := done.RowsAffected(); rows == 0 {
				n.Known++
				continue
			}
			n.Stored++
			sums.add(r)
		}
		if err := sums.store(ctx, tx, s.bounds.open); err != nil {
			return err
		}
		if also != nil {
			return also(tx)
		}
		return nil
	})
	if err != nil {
		return Imported{}, err
	}
	s.counters.add(n)
	return n, nil
}

// getMeta returns a single value, 0 where it was never set.
func getMeta(tx *sql.Tx, key string) (value int64, err error) {
	err = tx.QueryRow("SELECT value FROM meta WHERE key = ?", key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return value, err
}

func setMeta(tx *sql.Tx, key string, value int64) error {
	_, err := tx.Exec("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
	return err
}

// followInterval is how long a record that another process has written may wait,
// and after how long what failed is tried again. Those of this process are stored
// as soon as they are in the file.
const followInterval = 5 * time.Second
