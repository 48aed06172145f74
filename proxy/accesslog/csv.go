package accesslog

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
)

// A CSVWriter writes records as CSV, with the fields of the JSON form after a line of
// their names. A text that a spreadsheet would take for a formula gets an apostrophe in
// front: clients choose some of them. It is not safe for concurrent use.
type CSVWriter struct {
	w     *csv.Writer
	begun bool
}

// NewCSVWriter returns a writer to w.
func NewCSVWriter(w io.Writer) *CSVWriter { return &CSVWriter{w: csv.NewWriter(w)} }

// Write writes a record. It may wait in memory until Flush.
func (c *CSVWriter) Write(r *Record) error {
	row := newCSVRow(r)
	if !c.begun {
		c.begun = true
		if err := c.w.Write(row.names); err != nil {
			return err
		}
	}
	return c.w.Write(row.values)
}

// Flush writes what waits in memory.
func (c *CSVWriter) Flush() error {
	if !c.begun {
		c.begun = true
		_ = c.w.Write(newCSVRow(&Record{}).names) // Error has the error
	}
	c.w.Flush()
	return c.w.Error()
}

// A csvRow takes the fields that jsonLine writes.
type csvRow struct {
	zapcore.ObjectEncoder // nil: for types that no field has
	names, values         []string
}

func newCSVRow(r *Record) *csvRow {
	row := new(csvRow)
	_ = (&jsonLine{Record: r, node: clean(r.Node, maxHost)}).MarshalLogObject(row) // returns none
	return row
}

func (c *csvRow) AddString(name, text string) {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		text = "'" + text
	}
	c.names, c.values = append(c.names, name), append(c.values, text)
}

func (c *csvRow) AddByteString(name string, text []byte) { c.AddString(name, string(text)) }
func (c *csvRow) AddTime(name string, t time.Time)       { c.AddString(name, t.Format(timeLayout)) }
func (c *csvRow) AddUint16(name string, n uint16)        { c.AddInt64(name, int64(n)) }
func (c *csvRow) AddInt(name string, n int)              { c.AddInt64(name, int64(n)) }
func (c *csvRow) AddInt64(name string, n int64)          { c.AddString(name, strconv.FormatInt(n, 10)) }
func (c *csvRow) AddFloat64(name string, x float64) {
	c.AddString(name, strconv.FormatFloat(x, 'f', -1, 64))
}
