package accesslog

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// A batch is some lines of a file.
type batch struct {
	records []Record
	bad     uint64 // lines that are none
	size    int64  // bytes, up to the last newline
}

// lineReader reads records and knows how many bytes they took. A last line
// without newline is left alone: its rest may be on the way.
type lineReader struct{ in *bufio.Reader }

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{bufio.NewReaderSize(r, maxLine)}
}

// next returns the lines of about size bytes. The error is io.EOF where there
// were no more behind them.
func (l *lineReader) next(size int64) (b batch, err error) {
	var part int64 // of a line that is too long to be a record
	for b.size < size {
		line, err := l.in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			part += int64(len(line))
			continue
		}
		if err != nil {
			return b, err
		}
		b.size += part + int64(len(line))
		tooLong := part > 0
		part = 0
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		var r Record
		if tooLong || r.UnmarshalJSON(line) != nil {
			b.bad++
			continue
		}
		b.records = append(b.records, r)
	}
	return b, nil
}
