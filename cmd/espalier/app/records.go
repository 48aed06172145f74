package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"time"

	"espalier/configs"
	"espalier/proxy/accesslog"
)

// Records are those of the store, or of the access log's files where there is no
// store. They are read beside a process that runs or without one.
type Records struct {
	Store *accesslog.Store // nil: none
	file  string
}

// OpenRecords opens what a configuration names.
func OpenRecords(cfg *configs.Config) (*Records, error) {
	access := cfg.Log.Access
	if cfg.Log.Store.Path != "" {
		store, err := accesslog.ReadStore(cfg.Log.Store, cfg.Data)
		if err == nil {
			return &Records{Store: store}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("log.store.path: %w", err)
		}
	}
	if access.File == "" || access.File == "-" || access.Format != "json" {
		return nil, errors.New("there is nothing to search: the store (log.store.path) has not been made yet, and log.access is no JSON file")
	}
	return &Records{file: access.File}, nil
}

// Close closes the store.
func (r *Records) Close() {
	if r.Store != nil {
		r.Store.Close()
	}
}

var errEnough = errors.New("enough")

// All yields what f wants, the oldest first.
func (r *Records) All(ctx context.Context, f accesslog.Filter) iter.Seq2[*accesslog.Record, error] {
	if r.Store != nil {
		return r.Store.All(ctx, f, true)
	}
	return func(yield func(*accesslog.Record, error) bool) {
		err := accesslog.ReadAll(r.file, func(rec *accesslog.Record) error {
			if f.Match(rec) && !yield(rec, nil) {
				return errEnough
			}
			return ctx.Err()
		})
		if err != nil && !errors.Is(err, errEnough) {
			yield(nil, fmt.Errorf("access log: %w", err))
		}
	}
}

// Newest returns the newest n of what f wants, the oldest first, and whether there
// are more.
func (r *Records) Newest(ctx context.Context, f accesslog.Filter, n int) (list []accesslog.Record, more bool, err error) {
	records := r.All(ctx, f)
	if r.Store != nil {
		records = r.Store.All(ctx, f, false)
	}
	for rec, err := range records {
		if err != nil {
			return nil, false, err
		}
		if more = len(list) == n; more && r.Store != nil {
			break
		}
		if list = append(list, *rec); len(list) > n {
			list = list[1:]
		}
	}
	if r.Store != nil {
		slices.Reverse(list)
	}
	return list, more, nil
}

// Show has the newest n of what f wants written, the oldest first, or all for 0, and then
// flushed. more reports whether there are others, older ones.
func (r *Records) Show(ctx context.Context, f accesslog.Filter, n int, write func(*accesslog.Record) error, flush func() error) (more bool, err error) {
	if n == 0 {
		for rec, err := range r.All(ctx, f) {
			if err == nil {
				err = write(rec)
			}
			if err != nil {
				return false, err
			}
		}
		return false, flush()
	}
	list, more, err := r.Newest(ctx, f, n)
	if err != nil {
		return false, err
	}
	return more, each(list, write, flush)
}

func each(list []accesslog.Record, write func(*accesslog.Record) error, flush func() error) error {
	for i := range list {
		if err := write(&list[i]); err != nil {
			return err
		}
	}
	return flush()
}

// Follow is Show that goes on with new records as they come, until ctx ends.
func (r *Records) Follow(ctx context.Context, f accesslog.Filter, n int, write func(*accesslog.Record) error, flush func() error) error {
	if r.Store == nil {
		return errors.New("--follow needs the store (log.store.path), which has not been made yet")
	}
	place, err := r.Store.Last(ctx)
	if err != nil {
		return err
	}
	if _, err := r.Show(ctx, f, n, write, flush); err != nil {
		return err
	}
	for {
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return nil
		}
		var list []accesslog.Record
		if list, place, err = r.Store.Since(ctx, f, place); err != nil {
			return err
		}
		if err := each(list, write, flush); err != nil {
			return err
		}
	}
}

// Traffic sums records up.
func (r *Records) Traffic(ctx context.Context, q accesslog.TrafficQuery) (*accesslog.Traffic, error) {
	if r.Store != nil {
		return r.Store.Traffic(ctx, q)
	}
	if q.To.IsZero() {
		q.To = time.Now()
	}
	return accesslog.SumUp(q, r.All(ctx, accesslog.Filter{From: q.From, To: q.To}))
}
