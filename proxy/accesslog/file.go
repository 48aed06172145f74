package accesslog

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/DeRuina/timberjack"
	"go.uber.org/zap"
)

// openFile opens path for appending, and rotates it as cfg says where it is a
// regular file. A file whose last line was torn by a crash gets the newline
// that it lacks.
func openFile(path string, cfg Config, log *zap.Logger) (io.WriteCloser, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return f, err // a pipe or /dev/stdout
	}
	defer f.Close()
	r := &rotating{
		out: &timberjack.Logger{
			Filename:    path,
			FileMode:    0o600,
			MaxSize:     math.MaxInt32, // rotating decides
			MaxAge:      int((cfg.Keep + 24*time.Hour - 1) / (24 * time.Hour)),
			Compression: "gzip",
		},
		path:  path,
		limit: int64(cfg.Rotate),
		daily: cfg.Keep > 0,
		log:   log,
		now:   time.Now,
		size:  info.Size(),
		day:   day(info.ModTime()),
	}
	torn, err := isTorn(path, r.size)
	if err != nil {
		return nil, fmt.Errorf("its last line cannot be checked: %w", err)
	}
	if torn {
		if _, err := f.Write([]byte{'\n'}); err != nil {
			return nil, err
		}
		r.size++
		log.Warn("the access log ended amid a record, which is lost: the last run did not end cleanly", zap.String("file", path))
	}
	return r, nil
}

// isTorn reports whether the file has an end but no newline there.
func isTorn(path string, size int64) (bool, error) {
	if size == 0 {
		return false, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var last [1]byte
	_, err = f.ReadAt(last[:], size-1)
	return last[0] != '\n', err
}

// rotating is a log file that is rotated between lines. timberjack moves,
// compresses and removes; when is decided here, because it would also rotate
// between the two halves of a line that a full disk cut.
type rotating struct {
	out interface {
		io.WriteCloser
		RotateWithReason(string) error
	}
	path  string
	limit int64 // bytes; 0 means at no size
	daily bool
	log   *zap.Logger
	now   func() time.Time

	size  int64
	day   int64     // of the last write
	amid  bool      // the last write ended amid a line
	retry time.Time // rotating failed, and is tried again then
}

func day(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }

// Write writes p after rotating where that is due. Where rotating fails the old
// file goes on.
func (r *rotating) Write(p []byte) (int, error) {
	now := r.now()
	if r.size > 0 && r.removed() {
		r.log.Warn("the access log was removed while it was open, with what was written last; it is begun anew", zap.String("file", r.path))
		r.size, r.amid = 0, false
		_ = os.MkdirAll(filepath.Dir(r.path), 0o700) // timberjack would let everybody look into it
		if err := r.out.RotateWithReason("removed"); err != nil {
			return 0, err
		}
	}
	if r.size > 0 && !r.amid && now.After(r.retry) {
		switch {
		case r.limit > 0 && r.size+int64(len(p)) > r.limit:
			r.rotate("size", now)
		case r.daily && day(now) != r.day:
			r.rotate("time", now)
		}
	}
	n, err := r.out.Write(p)
	if n > 0 {
		r.size += int64(n)
		r.amid = p[n-1] != '\n'
		r.day = day(now)
	}
	return n, err
}

// removed reports whether somebody has removed or moved the file, which would
// otherwise take records that nobody can read.
func (r *rotating) removed() bool {
	_, err := os.Stat(r.path)
	return errors.Is(err, os.ErrNotExist)
}

func (r *rotating) rotate(reason string, now time.Time) {
	if err := r.out.RotateWithReason(reason); err != nil {
		r.retry = now.Add(time.Minute)
		r.log.Error("the access log cannot be rotated; the file goes on growing", zap.String("file", r.path), zap.Error(err))
		return
	}
	r.size = 0
}

func (r *rotating) Close() error { return r.out.Close() }
