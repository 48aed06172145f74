package accesslog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxLine bounds a line that Read takes for a record. The longest that Write
// makes, every byte escaped, is a third of it.
const maxLine = 64 << 10

// A line is one of a log.
type line struct {
	record *Record // nil if the line is blank or bad
	bad    bool    // the line is not a record
	size   int64   // bytes, with the newline
}

// nextLine reads a line. With an error, which is io.EOF at the end, it has no newline:
// its rest may be on the way.
func nextLine(in *bufio.Reader) (l line, err error) {
	var text []byte
	for {
		text, err = in.ReadSlice('\n')
		l.size += int64(len(text))
		if !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
		l.bad = true // too long
	}
	if text = bytes.TrimSpace(text); len(text) > 0 && !l.bad {
		l.record = new(Record)
		if l.record.UnmarshalJSON(text) != nil {
			l.record, l.bad = nil, true
		}
	}
	return l, err
}

// Read calls f with every record of an access log in JSON, in the order of the
// file. Lines that are no record, such as one that a crash tore, are passed
// over and counted in bad. Read returns the first error of f or r. The Record
// belongs to f.
func Read(r io.Reader, f func(*Record) error) (bad int, err error) {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		l, err := nextLine(in)
		if l.bad {
			bad++
		}
		if l.record != nil {
			if err := f(l.record); err != nil {
				return bad, err
			}
		}
		if errors.Is(err, io.EOF) {
			return bad, nil
		}
		if err != nil {
			return bad, err
		}
	}
}

// ReadAll calls f with every record of the access log in JSON at path, those in
// its rotated files first. The error is fs.ErrNotExist where there is none.
func ReadAll(path string, f func(*Record) error) error {
	paths, err := logFiles(path)
	if err != nil {
		return err
	}
	for _, p := range paths {
		in, err := OpenFile(p)
		if errors.Is(err, fs.ErrNotExist) && p != path {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
		_, err = Read(in, f)
		in.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

// UnmarshalJSON parses a line that Write made in the format json. Unknown fields
// are passed over.
func (r *Record) UnmarshalJSON(line []byte) error {
	type fields Record // without this method
	var w struct {
		fields
		Time       *time.Time `json:"time"`
		ID         *ID        `json:"id"`
		DurationMS float64    `json:"duration_ms"`
		ConnectMS  float64    `json:"connect_ms"`
	}
	if err := json.Unmarshal(line, &w); err != nil {
		return err
	}
	if w.Time == nil || w.ID == nil {
		return errors.New("no access record: time or id is missing")
	}
	*r = Record(w.fields)
	r.Time, r.ID, r.Duration, r.Connect = *w.Time, *w.ID, duration(w.DurationMS), duration(w.ConnectMS)
	return nil
}

// duration is the reverse of milliseconds.
func duration(ms float64) time.Duration {
	return time.Duration(math.Round(ms*1000)) * time.Microsecond
}

// logFiles returns a log's rotated files, the oldest first, and behind them the
// file itself.
func logFiles(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	ext := filepath.Ext(path)
	prefix := strings.TrimSuffix(filepath.Base(path), ext) + "-"
	var list []string
	for _, e := range entries { // sorted by name, which is by time
		name := strings.TrimSuffix(e.Name(), ".gz")
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, ext) && len(name) > len(prefix)+len(ext) {
			list = append(list, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	slices.Sort(list)
	return append(list, path), nil
}

// A File is an open file of the log. Read returns its lines, unpacked if it is compressed.
type File struct {
	*bufio.Reader
	f          *os.File
	compressed bool
}

// OpenFile opens a file of the log for reading.
func OpenFile(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	l := &File{f: f, compressed: strings.HasSuffix(path, ".gz")}
	var in io.Reader = f
	if l.compressed {
		if in, err = gzip.NewReader(f); err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	l.Reader = bufio.NewReaderSize(in, maxLine)
	return l, nil
}

// Close closes the file.
func (l *File) Close() error { return l.f.Close() }

// first is the sum of the first line, 0 while there is no whole one. Nothing must
// have been read yet.
func (l *File) first() (int64, error) {
	line, err := l.Peek(maxLine)
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	} else if errors.Is(err, io.EOF) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	sum := sha256.Sum256(line)
	return int64(binary.BigEndian.Uint64(sum[:])), nil
}

// skip goes to a place in what is read.
func (l *File) skip(offset int64) error {
	if l.compressed {
		_, err := io.CopyN(io.Discard, l, offset)
		return err
	}
	_, err := l.f.Seek(offset, io.SeekStart)
	l.Reset(l.f)
	return err
}
