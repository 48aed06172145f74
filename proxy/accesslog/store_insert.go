package accesslog

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"io"
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

// A batch is some lines of a file.
type batch struct {
	records []Record
	bad     uint64 // lines that are none
	size    int64  // bytes, up to the last newline
}

// nextBatch returns the lines of about batchSize bytes. The error is io.EOF if there were
// no more behind them.
func nextBatch(in *bufio.Reader) (b batch, err error) {
	for b.size < batchSize {
		l, err := nextLine(in)
		if err != nil {
			return b, err
		}
		b.size += l.size
		if l.bad {
			b.bad++
		} else if l.record != nil {
			b.records = append(b.records, *l.record)
		}
	}
	return b, nil
}

// Import stores the records of r, an access log in JSON, that are not in the
// store.
func (s *Store) Import(ctx context.Context, r io.Reader) (total Imported, err error) {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		b, ended := nextBatch(in)
		n, err := s.insert(ctx, b, nil)
		if err != nil {
			return total, err
		}
		total.add(n)
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
		horizon, err := getMeta(tx, metaHorizon)
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
		sums := sums{at: map[sumKey]int{}}
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
		if n.Stored > 0 {
			if err := sums.store(ctx, tx, s.bounds.open); err != nil {
				return err
			}
		}
		if also == nil {
			return nil
		}
		return also(tx)
	})
	if err != nil {
		return Imported{}, err
	}
	s.note(func(h *StoreHealth) { h.Records.add(n) })
	return n, nil
}

// metaHorizon is the key of the time up to which records were removed.
const metaHorizon = "horizon"

// getMeta returns a single value, 0 if it was never set.
func getMeta(tx *sql.Tx, key string) (value int64, err error) {
	err = tx.QueryRow("SELECT coalesce((SELECT value FROM meta WHERE key = ?), 0)", key).Scan(&value)
	return value, err
}

func setMeta(tx *sql.Tx, key string, value int64) error {
	_, err := tx.Exec("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)
	return err
}
