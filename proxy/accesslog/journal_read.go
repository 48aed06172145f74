package accesslog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// takeOver writes the records that other processes have left to be written. It reports
// whether it is to be called again: there are others that live, or records on their way.
func (j *journal) takeOver(recovered func(*Record)) (others bool) {
	dir := filepath.Dir(j.path)
	names, _ := fs.Glob(os.DirFS(dir), journalPrefix+"*"+journalSuffix) // the pattern is valid
	for _, name := range names {
		path := filepath.Join(dir, name)
		if path == j.path {
			continue
		}
		switch err := j.adopt(path, recovered); {
		case errors.Is(err, syscall.EWOULDBLOCK), errors.Is(err, os.ErrNotExist):
			others = true
		case err != nil:
			j.log.log.Error("tunnels that were open when the last process ended may have no record", zap.String("file", path), zap.Error(err))
		}
	}
	return others
}

// adopt writes the records of a file whose process is gone; the file stays until they have
// reached the disk. The error is EWOULDBLOCK if the process lives, and os.ErrNotExist if it
// has just written its file anew.
func (j *journal) adopt(path string, recovered func(*Record)) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	var info, now os.FileInfo
	if err = lock(f); err == nil {
		info, err = f.Stat()
	}
	if err == nil {
		now, err = os.Stat(path)
	}
	if err == nil && !os.SameFile(info, now) {
		err = os.ErrNotExist
	}
	if err != nil {
		f.Close()
		return err
	}
	os.Remove(path + ".tmp")
	open, bad, err := readJournal(f)
	l := leftover{File: f}
	if err != nil || bad > 0 {
		l.aside = path + ".damaged"
		j.log.log.Warn("the journal of open tunnels is damaged and moved aside; some tunnels may have no record",
			zap.String("file", l.aside), zap.Int("lines", bad), zap.Error(err))
	}
	if len(open) > 0 {
		j.log.forget(open, info.ModTime())
	}
	for _, id := range slices.Sorted(maps.Keys(open)) {
		r := open[id]
		r.interrupt(info.ModTime())
		j.log.write(r)
		recovered(r)
	}
	if len(open) > 0 {
		j.log.log.Warn("tunnels were open when the last process ended; their records say that they were interrupted", zap.Int("tunnels", len(open)))
	}
	j.writing.Lock()
	j.left = append(j.left, l)
	j.writing.Unlock()
	return nil
}

// A leftover is the open file of a process that is gone.
type leftover struct {
	*os.File
	aside string // where it is moved to; empty: it is removed
}

// clearLeft closes the files of others. If good is set, their records are on the disk,
// and they are removed. writing is held.
func (j *journal) clearLeft(good bool) {
	for _, l := range j.left {
		switch {
		case !good:
		case l.aside == "":
			os.Remove(l.Name())
		default:
			_ = os.Rename(l.Name(), l.aside) // read again at the next start otherwise
		}
		l.Close()
	}
	j.left = nil
}

// forget removes from open what the access log has. Nothing was written to the journal
// after the time last.
func (l *Log) forget(open map[ID]*Record, last time.Time) {
	if l.file == "" {
		return
	}
	paths, err := logFiles(l.file)
	for _, path := range paths {
		info, serr := os.Stat(path)
		if serr != nil || info.ModTime().Before(last.Add(-time.Minute)) {
			continue
		}
		in, oerr := OpenFile(path)
		if oerr == nil {
			_, oerr = Read(in, func(r *Record) error { delete(open, r.ID); return nil })
			in.Close()
		}
		err = errors.Join(err, oerr)
	}
	if err != nil {
		l.log.Warn("the access log cannot be read; tunnels that were interrupted may have two records", zap.Error(err))
	}
}

// readJournal returns the tunnels that are open at the end of a journal. A last line
// without its end is passed over, as a crash leaves it; lines that are not valid are
// too, and counted in bad. The error is one of r, or says that nothing could be read.
func readJournal(r io.Reader) (open map[ID]*Record, bad int, err error) {
	in := bufio.NewReaderSize(r, maxLine)
	header, err := in.ReadSlice('\n')
	if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
		return nil, 0, err
	}
	if string(header) != journalHeader {
		return nil, 0, fmt.Errorf("unknown version %.40q", header)
	}
	open = map[ID]*Record{}
	long := false
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case err == bufio.ErrBufferFull:
			long = true
			continue
		case err == io.EOF:
			return open, bad, nil
		case err != nil:
			return open, bad, err
		case long || !readLine(open, bytes.TrimSuffix(line, []byte("\n"))):
			bad++
		}
		long = false
	}
}

// readLine applies a line to open. It reports whether it is valid.
func readLine(open map[ID]*Record, line []byte) bool {
	if len(line) == 0 {
		return false
	}
	kind, rest := line[0], line[1:]
	if kind == '+' {
		r := new(Record)
		if r.UnmarshalJSON(rest) != nil {
			return false
		}
		open[r.ID] = r
		return true
	}
	fields := strings.Split(string(rest), " ")
	var id ID
	if id.UnmarshalText([]byte(fields[0])) != nil {
		return false
	}
	switch {
	case kind == '-' && len(fields) == 1:
		delete(open, id)
		return true
	case kind == '=' && len(fields) == 3:
		up, uerr := strconv.ParseUint(fields[1], 10, 63)
		down, derr := strconv.ParseUint(fields[2], 10, 63)
		if r := open[id]; r != nil && uerr == nil && derr == nil {
			r.Up, r.Down = int64(up), int64(down)
		}
		return uerr == nil && derr == nil
	}
	return false
}
