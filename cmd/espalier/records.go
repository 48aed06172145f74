package main

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
	"espalier/web/console"
)

// records are those of the store, or of the access log's files where there is no
// store.
type records struct {
	store *accesslog.Store // nil: none
	file  string
}

// openRecords opens what a configuration names, beside a process that runs or
// without one.
func openRecords(cfg *configs.Config) (*records, error) {
	access := cfg.Log.Access
	if path := cfg.Log.Store.Path; path != "" {
		store, err := accesslog.ReadStore(cfg.Log.Store, cfg.Data)
		if err == nil {
			return &records{store: store}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("log.store.path: %w", err)
		}
	}
	if access.File == "" || access.File == "-" || access.Format != "json" {
		return nil, errors.New("there is nothing to search: the store (log.store.path) has not been made yet, and log.access is no JSON file")
	}
	return &records{file: access.File}, nil
}

func (r *records) close() {
	if r.store != nil {
		r.store.Close()
	}
}

var errEnough = errors.New("enough")

// all yields what f wants, the oldest first.
func (r *records) all(ctx context.Context, f accesslog.Filter) iter.Seq2[*accesslog.Record, error] {
	if r.store != nil {
		return r.store.All(ctx, f, true)
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

// newest returns the newest n of what f wants, the oldest first, and whether there
// are more.
func (r *records) newest(ctx context.Context, f accesslog.Filter, n int) (list []accesslog.Record, more bool, err error) {
	if r.store == nil {
		for rec, err := range r.all(ctx, f) {
			if err != nil {
				return nil, false, err
			}
			if list = append(list, *rec); len(list) >= 2*n+1 {
				list, more = append(list[:0], list[len(list)-n:]...), true
			}
		}
		if len(list) > n {
			list, more = list[len(list)-n:], true
		}
		return list, more, nil
	}
	for rec, err := range r.store.All(ctx, f, false) {
		if err != nil {
			return nil, false, err
		}
		if len(list) == n {
			more = true
			break
		}
		list = append(list, *rec)
	}
	slices.Reverse(list)
	return list, more, nil
}

// english writes figures as the console does.
const english = console.Locale("en")

// durationText writes a duration in six characters.
func durationText(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%.0fms", float64(d)/1e6)
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < 10*time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	case d < 10*time.Hour:
		return fmt.Sprintf("%.0fm", d.Minutes())
	case d < 10*24*time.Hour:
		return fmt.Sprintf("%.0fh", d.Hours())
	}
	return fmt.Sprintf("%.0fd", d.Hours()/24)
}
