package accesslog

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

const (
	// followInterval is how long a record that another process has written may wait,
	// and after how long what failed is tried again.
	followInterval = 5 * time.Second
	// gatherInterval is how long one that this process has written may wait, so that
	// those of a busy proxy are stored many at a time, which costs less for each.
	gatherInterval = 500 * time.Millisecond
	// lastRound bounds how long the end of the process waits for the store.
	lastRound = 3 * time.Second
)

// A fileState is what is known of a file of the log, so that one in which nothing
// has changed is not opened again.
type fileState struct {
	info   fs.FileInfo
	unread int64 // bytes
	broken bool  // it could not be read, which the operational log knows
}

// follow stores what the file at path and those it was rotated to hold, and then
// what is written to it, in a goroutine that Close ends.
func (s *Store) follow(path string) {
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	s.source = path
	go func() {
		defer close(s.done)
		for {
			err := s.round(ctx)
			if ctx.Err() != nil {
				break
			}
			s.report(err)
			wake := s.wake
			if err != nil && !s.damaged.Load() {
				wake = nil
			}
			pause(ctx, gatherInterval)
			select {
			case <-wake:
			case <-time.After(followInterval - gatherInterval):
			case <-ctx.Done():
			}
		}
		// What was written until the end of the process.
		last, cancel := context.WithTimeout(context.Background(), lastRound)
		defer cancel()
		if err := s.round(last); err != nil {
			s.log.Warn("the store of access records is not complete yet; it goes on at the next start", zap.Error(err))
		}
	}()
}

// report keeps how a round ended, and tells the operational log when storing begins to
// fail and when it is over, once each.
func (s *Store) report(err error) {
	var before error
	s.note(func(h *StoreHealth) {
		before, h.Err = h.Err, err
		switch {
		case err == nil:
			h.Since = time.Time{}
		case before == nil:
			h.Since = s.now()
		}
		if err != nil {
			h.Errors++
		}
	})
	switch {
	case err != nil && before == nil:
		s.log.Error("access records cannot be stored; they are in the access log, and stored from there later", zap.Error(err))
	case err == nil && before != nil:
		s.log.Warn("access records are stored again")
	}
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
	if !s.damaged.Load() {
		return s.open()
	}
	_ = s.close()
	clear(s.files)
	err := s.begin(errors.New("it is malformed"))
	if err == nil {
		s.damaged.Store(false)
	}
	return err
}

// catchUp reads all files of the log from where they were read to.
func (s *Store) catchUp(ctx context.Context) error {
	paths, err := logFiles(s.source)
	if err != nil {
		return err
	}
	maps.DeleteFunc(s.files, func(path string, _ fileState) bool { return !slices.Contains(paths, path) })
	for _, path := range paths {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // renamed or removed meanwhile
		}
		if err != nil {
			return err
		}
		before, known := s.files[path]
		if known && before.unread == 0 && os.SameFile(before.info, info) &&
			before.info.Size() == info.Size() && before.info.ModTime().Equal(info.ModTime()) {
			continue
		}
		if err := s.readFile(ctx, path, info); err != nil {
			return err
		}
	}
	return nil
}

// readFile stores what of a file is not stored yet. The error is one of the store.
func (s *Store) readFile(ctx context.Context, path string, info fs.FileInfo) error {
	told := s.files[path].broken
	broken := func(err error) error {
		if !told {
			s.log.Error("a file of the access log cannot be read by the store, which lacks the records in it",
				zap.String("file", path), zap.Error(err))
		}
		s.leftToRead(path, fileState{info: info, broken: true})
		return nil
	}
	in, err := OpenFile(path)
	if err != nil {
		return broken(err)
	}
	defer in.Close()
	first, err := in.first()
	if err != nil {
		return broken(err)
	}
	offset, complete, err := s.place(ctx, first)
	if err != nil {
		return err
	}
	if first == 0 || complete {
		s.leftToRead(path, fileState{info: info})
		return nil
	}
	if !in.compressed && offset > info.Size() { // cut; what is known is not stored twice
		offset = 0
	}
	progress := func(offset int64) {
		if !in.compressed {
			s.leftToRead(path, fileState{info: info, unread: max(info.Size()-offset, 0)})
		}
	}
	progress(offset)
	if err := in.skip(offset); err != nil {
		return broken(err)
	}
	ended, err := s.storeFrom(ctx, in, first, offset, progress)
	switch {
	case err != nil:
		return err
	case !errors.Is(ended, io.EOF):
		return broken(ended)
	}
	s.leftToRead(path, fileState{info: info}) // what lies behind is not a line yet
	return nil
}

// storeFrom stores the records of a file from an offset on. ended is why reading it ended.
func (s *Store) storeFrom(ctx context.Context, in *File, first, offset int64, progress func(offset int64)) (ended, err error) {
	for {
		began := time.Now()
		b, ended := nextBatch(in.Reader)
		whole := errors.Is(ended, io.EOF) && in.compressed
		if b.size > 0 || whole {
			offset += b.size
			_, err := s.insert(ctx, b, func(tx *sql.Tx) error {
				_, err := tx.Exec("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", first, offset, whole)
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		if ended != nil {
			return ended, nil
		}
		progress(offset)
		pause(ctx, time.Since(began)) // leave the processor to others half of the time
	}
}

// leftToRead notes the state of a file.
func (s *Store) leftToRead(path string, state fileState) {
	s.files[path] = state
	lag := int64(0)
	for _, f := range s.files {
		lag += f.unread
	}
	s.note(func(h *StoreHealth) { h.Lag = lag })
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// place is how far the file with a first line was read.
func (s *Store) place(ctx context.Context, first int64) (offset int64, complete bool, err error) {
	err = s.query(ctx, "SELECT offset, complete FROM files WHERE first = ?", []any{first}, func(scan func(...any) error) error {
		return scan(&offset, &complete)
	})
	return offset, complete, err
}

// StoreHealth is how it goes with storing.
type StoreHealth struct {
	Err   error     // why nothing can be stored; nil: it can
	Since time.Time // when that began
	// Lag is how many bytes of the log wait to be stored.
	Lag int64
	// Errors is how often storing has failed since the start.
	Errors uint64
	// Size is that of the store's files, in bytes.
	Size int64
	// Records says what became of the log's lines since the start.
	Records Imported
}

// note changes the health.
func (s *Store) note(change func(h *StoreHealth)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.health)
}

// Health says how it goes with storing now.
func (s *Store) Health() (h StoreHealth) {
	s.note(func(now *StoreHealth) { h = *now })
	for _, end := range []string{"", "-wal"} {
		if info, err := os.Stat(s.path + end); err == nil {
			h.Size += info.Size()
		}
	}
	return h
}

var (
	storedDesc = prometheus.NewDesc("espalier_store_records_total",
		"Lines of the access log by what became of them in the store: stored, known (they were there), old (of a time that is no longer kept) or bad (no records).",
		[]string{"result"}, nil)
	lagDesc = prometheus.NewDesc("espalier_store_lag_bytes",
		"Bytes of the access log that wait to be stored.", nil, nil)
	storeErrorsDesc = prometheus.NewDesc("espalier_store_errors_total",
		"How often storing has failed; it is tried again from the access log.", nil, nil)
	storeFailingDesc = prometheus.NewDesc("espalier_store_failing",
		"1 while access records cannot be stored.", nil, nil)
	storeSizeDesc = prometheus.NewDesc("espalier_store_size_bytes",
		"Size of the store's files.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Store) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(s, ch) }

// Collect implements prometheus.Collector.
func (s *Store) Collect(ch chan<- prometheus.Metric) {
	h := s.Health()
	for result, n := range map[string]uint64{
		"stored": h.Records.Stored, "known": h.Records.Known, "old": h.Records.Old, "bad": h.Records.Bad,
	} {
		ch <- prometheus.MustNewConstMetric(storedDesc, prometheus.CounterValue, float64(n), result)
	}
	ch <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, float64(h.Lag))
	ch <- prometheus.MustNewConstMetric(storeErrorsDesc, prometheus.CounterValue, float64(h.Errors))
	ch <- failingMetric(storeFailingDesc, h.Err)
	ch <- prometheus.MustNewConstMetric(storeSizeDesc, prometheus.GaugeValue, float64(h.Size))
}
