package accesslog

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"go.uber.org/zap"
)

// A fileState is what is known of a file of the log, so that one in which nothing
// has changed is not opened again.
type fileState struct {
	info   fs.FileInfo
	unread int64 // bytes
	broken bool  // it could not be read, which the operational log knows
}

type fileStates map[string]fileState

// follow stores what the file at path and those it was rotated to hold, and then
// what is written to it, in a goroutine that Close ends.
func (s *Store) follow(path string) {
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	s.source = path
	go func() {
		defer close(s.done)
		failing := false
		for {
			err := s.round(ctx)
			if ctx.Err() != nil {
				break
			}
			s.report(err, &failing)
			timer := time.NewTimer(followInterval)
			wake := s.wake
			if err != nil && !s.damaged.Load() {
				wake = nil
			}
			select {
			case <-wake:
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
		}
		// What was written until the end of the process.
		last, cancel := context.WithTimeout(context.Background(), lastRound)
		defer cancel()
		if err := s.round(last); err != nil {
			s.log.Warn("the store of access records is not complete yet; it goes on at the next start", zap.Error(err))
		}
	}()
}

// lastRound bounds how long the end of the process waits for the store.
const lastRound = 3 * time.Second

// report tells the operational log when storing begins to fail and when it is
// over, once each.
func (s *Store) report(err error, failing *bool) {
	if err != nil {
		s.counters.failed(err, s.now())
	} else {
		s.counters.succeeded()
	}
	switch {
	case err != nil && !*failing:
		s.log.Error("access records cannot be stored; they are in the access log, and stored from there later", zap.Error(err))
	case err == nil && *failing:
		s.log.Warn("access records are stored again")
	}
	*failing = err != nil
}

// round stores what is not stored yet, and removes what is no longer kept.
func (s *Store) round(ctx context.Context) error {
	err := s.reopen()
	if err == nil {
		err = s.catchUp(ctx)
	}
	if err == nil && s.now().Sub(s.tidied) >= tidyInterval {
		if err = s.tidy(ctx); err == nil {
			s.tidied = s.now()
		}
	}
	if isDamage(err) {
		s.damaged.Store(true)
		signal(s.wake)
	}
	return err
}

// reopen opens a store that could not be opened, and begins a new one in the place
// of a damaged one.
func (s *Store) reopen() error {
	s.dbs.RLock()
	good := s.write != nil && !s.damaged.Load()
	s.dbs.RUnlock()
	if good {
		return nil
	}
	s.dbs.Lock()
	defer s.dbs.Unlock()
	if s.damaged.Load() {
		_ = s.close()
		s.files = nil
		if err := s.begin(errors.New("it is malformed")); err != nil {
			return err
		}
		s.damaged.Store(false)
	}
	if s.write != nil {
		return nil
	}
	err := s.open()
	if isDamage(err) {
		err = s.begin(err)
	}
	return err
}

// catchUp reads all files of the log from where they were read to.
func (s *Store) catchUp(ctx context.Context) error {
	paths, err := logFiles(s.source)
	if err != nil {
		return err
	}
	known := s.files
	s.files = fileStates{}
	for _, path := range paths {
		if state, ok := known[path]; ok {
			s.files[path] = state
		}
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // renamed or removed meanwhile
		}
		if err != nil {
			return err
		}
		if before, ok := s.files[path]; ok && before.unread == 0 && os.SameFile(before.info, info) &&
			before.info.Size() == info.Size() && before.info.ModTime().Equal(info.ModTime()) {
			continue
		}
		err = s.readFile(ctx, path, info)
		if broken := (*fileError)(nil); errors.As(err, &broken) {
			if !known[path].broken {
				s.log.Error("a file of the access log cannot be read by the store, which lacks the records in it", zap.Error(err))
			}
			s.files[path] = fileState{info: info, broken: true}
		} else if err != nil {
			return err
		}
	}
	return nil
}

// A fileError is trouble with a file of the log, as opposed to the store.
type fileError struct{ error }

func (e *fileError) Unwrap() error { return e.error }

// readFile stores what of a file is not stored yet.
func (s *Store) readFile(ctx context.Context, path string, info fs.FileInfo) error {
	in, err := openLog(path)
	if err != nil {
		return &fileError{err}
	}
	defer in.Close()
	first, err := in.first()
	if err != nil {
		return &fileError{fmt.Errorf("%s: %w", path, err)}
	}
	if first == 0 {
		s.files[path] = fileState{info: info}
		return nil
	}
	offset, complete, err := s.place(ctx, first)
	if err != nil {
		return err
	}
	known := offset // in the store
	switch {
	case complete:
		s.files[path] = fileState{info: info}
		return nil
	case !in.compressed && offset > info.Size(): // cut; what is known is not stored twice
		offset = 0
	}
	if !in.compressed {
		s.files[path] = fileState{info: info, unread: info.Size() - offset}
		s.counters.lag(s.files)
	}
	if err := in.skip(offset); err != nil {
		return &fileError{fmt.Errorf("%s: %w", path, err)}
	}
	lines := newLineReader(in.Reader)
	for ended := false; !ended; {
		began := time.Now()
		b, err := lines.next(batchSize)
		var broken error
		if err != nil && !errors.Is(err, io.EOF) {
			broken = &fileError{fmt.Errorf("%s: %w", path, err)}
		}
		ended = err != nil
		whole := ended && broken == nil && in.compressed
		if b.size > 0 || whole {
			offset += b.size
			_, err := s.insert(ctx, b, func(tx *sql.Tx) error {
				return setPlace(tx, first, known, offset, whole)
			})
			if errors.Is(err, errMoved) { // by another process; go on from there next time
				return nil
			}
			if err != nil {
				return err
			}
			known = offset
		}
		if broken != nil {
			return broken
		}
		unread := int64(0)
		if !in.compressed {
			unread = max(info.Size()-offset, 0)
		}
		s.files[path] = fileState{info: info, unread: unread}
		s.counters.lag(s.files)
		if !ended { // much is to be stored: leave the processor to others half of the time
			pause(ctx, time.Since(began))
		}
	}
	state := s.files[path]
	state.unread = 0 // what lies behind is no line yet
	s.files[path] = state
	s.counters.lag(s.files)
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// place is how far the file with a first line was read.
func (s *Store) place(ctx context.Context, first int64) (offset int64, complete bool, err error) {
	err = s.searching(func(db *sql.DB) error {
		err := db.QueryRowContext(ctx, "SELECT offset, complete FROM files WHERE first = ?", first).Scan(&offset, &complete)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return offset, complete, err
}

var errMoved = errors.New("another process has read on")

// setPlace notes how far a file was read. Where another process has done so
// meanwhile, which has changed what is known of that, nothing is stored.
func setPlace(tx *sql.Tx, first, known, to int64, complete bool) error {
	var now int64
	err := tx.QueryRow("SELECT offset FROM files WHERE first = ?", first).Scan(&now)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if now != known {
		return errMoved
	}
	_, err = tx.Exec("INSERT INTO files VALUES (?, ?, ?) ON CONFLICT (first) DO UPDATE SET offset = excluded.offset, complete = excluded.complete", first, to, complete)
	return err
}
