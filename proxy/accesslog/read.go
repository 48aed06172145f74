package accesslog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/netip"
	"time"

	"espalier/policy"
)

// maxLine bounds a line that Read takes for a record. The longest that Write
// makes, every byte escaped, is a third of it.
const maxLine = 64 << 10

// Read calls f with every record of an access log in JSON, in the order of the
// file. Lines that are no record, such as one that a crash tore, are passed
// over and counted in bad. Read returns the first error of f or r. The Record
// belongs to f.
func Read(r io.Reader, f func(*Record) error) (bad int, err error) {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			bad++
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n')
			}
		} else if line = bytes.TrimSpace(line); len(line) > 0 {
			rec := new(Record)
			if rec.UnmarshalJSON(line) != nil {
				bad++
			} else if err := f(rec); err != nil {
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

// OpenFile opens a file of the log for reading, one that was compressed too.
func OpenFile(path string) (io.ReadCloser, error) {
	l, err := openLog(path)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// UnmarshalJSON parses a line that Write made in the format json. Unknown fields
// are passed over.
func (r *Record) UnmarshalJSON(line []byte) error {
	var w struct {
		Time       *time.Time     `json:"time"`
		ID         *ID            `json:"id"`
		Node       string         `json:"node"`
		Client     netip.Addr     `json:"client"`
		User       string         `json:"user"`
		Method     string         `json:"method"`
		Host       string         `json:"host"`
		Port       uint16         `json:"port"`
		URL        string         `json:"url"`
		Service    string         `json:"service"`
		Action     policy.Action  `json:"action"`
		Rule       string         `json:"rule"`
		Status     int            `json:"status"`
		Up         int64          `json:"up"`
		Down       int64          `json:"down"`
		DurationMS float64        `json:"duration_ms"`
		ConnectMS  float64        `json:"connect_ms"`
		Upstream   netip.AddrPort `json:"upstream"`
		Agent      string         `json:"agent"`
		Error      string         `json:"error"`
	}
	if err := json.Unmarshal(line, &w); err != nil {
		return err
	}
	if w.Time == nil || w.ID == nil {
		return errors.New("no access record: time or id is missing")
	}
	*r = Record{
		Time: *w.Time, ID: *w.ID, Client: w.Client, User: w.User,
		Method: w.Method, Host: w.Host, Port: w.Port, URL: w.URL,
		Service: w.Service, Action: w.Action, Rule: w.Rule, Status: w.Status,
		Up: w.Up, Down: w.Down,
		Duration: duration(w.DurationMS), Connect: duration(w.ConnectMS),
		Upstream: w.Upstream, Agent: w.Agent, Error: w.Error, Node: w.Node,
	}
	return nil
}

// duration is the reverse of milliseconds.
func duration(ms float64) time.Duration {
	return time.Duration(math.Round(ms*1000)) * time.Microsecond
}
