package accesslog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

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
