package accesslog

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
)

// A CSVWriter writes records as CSV, with the fields of the JSON form behind a
// line of their names. A text that a spreadsheet would take for a formula has an
// apostrophe in front: clients choose some of them. It is not safe for concurrent
// use.
type CSVWriter struct {
	w     *csv.Writer
	begun bool
}

// NewCSVWriter returns a writer to w.
func NewCSVWriter(w io.Writer) *CSVWriter { return &CSVWriter{w: csv.NewWriter(w)} }

// Write writes a record. It may wait in memory until Flush.
func (c *CSVWriter) Write(r *Record) error {
	if err := c.begin(); err != nil {
		return err
	}
	row := []string{
		r.Time.UTC().Format("2006-01-02T15:04:05.000Z"), r.ID.String(), r.Node, "", r.User, r.Method, r.Host,
		strconv.Itoa(int(r.Port)), r.URL, r.Service, string(r.Action), r.Rule, strconv.Itoa(r.Status),
		strconv.FormatInt(r.Up, 10), strconv.FormatInt(r.Down, 10),
		strconv.FormatFloat(float64(r.Duration.Microseconds())/1000, 'f', -1, 64),
		strconv.FormatFloat(float64(r.Connect.Microseconds())/1000, 'f', -1, 64), "", r.Agent, r.Error,
	}
	if r.Client.IsValid() {
		row[3] = r.Client.String()
	}
	if r.Upstream.IsValid() {
		row[17] = r.Upstream.String()
	}
	for i, text := range row {
		if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
			row[i] = "'" + text
		}
	}
	return c.w.Write(row)
}

func (c *CSVWriter) begin() error {
	if c.begun {
		return nil
	}
	c.begun = true
	return c.w.Write([]string{
		"time", "id", "node", "client", "user", "method", "host", "port", "url", "service", "action", "rule", "status",
		"up", "down", "duration_ms", "connect_ms", "upstream", "agent", "error",
	})
}

// Flush writes what waits in memory.
func (c *CSVWriter) Flush() error {
	if err := c.begin(); err != nil {
		return err
	}
	c.w.Flush()
	return c.w.Error()
}
