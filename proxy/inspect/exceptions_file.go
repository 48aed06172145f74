package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"github.com/prometheus/client_golang/prometheus"

	"espalier/policy"
)

// exceptionsFile is where exceptions are kept in the data directory. It names
// clients, so it is for its owner alone.
const exceptionsFile = "inspect-exceptions.json"

// maxExceptionsFile bounds what is read; a full one is smaller.
const maxExceptionsFile = 256 << 20

// OpenExceptions returns what the exceptions in the data directory are, none
// if there is no file. Changes are written to it by Keep.
func OpenExceptions(dataDir string) (*Exceptions, error) {
	e := newExceptions()
	path := filepath.Join(dataDir, exceptionsFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxExceptionsFile {
		return nil, fmt.Errorf("%s: has %d bytes, which cannot be: move it away", path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []Exception
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w (move it away to start anew)", path, err)
	}
	for _, x := range list {
		if !x.valid() {
			return nil, fmt.Errorf("%s: invalid exception %q in state %q (move the file away to start anew)",
				path, x.Host, x.State)
		}
	}
	e.restore(list)
	return e, nil
}

// valid reports whether x is as List returns it, in this version or one before.
func (x *Exception) valid() bool {
	parse := policy.ParsePattern
	if x.State == Automatic {
		parse = func(s string) (string, error) { host, _, err := policy.ParseHost(s); return host, err }
	}
	host, err := parse(x.Host)
	if err != nil || host != x.Host || !slices.Contains([]string{Automatic, Accepted, Refused}, x.State) {
		return false
	}
	name, _, err := policy.ParseHost(x.Name)
	return x.Name == "" || err == nil && name == x.Name
}

// savePause is the least time between two writes.
const savePause = time.Second

// Keep writes every change to the data directory, within about a second, until
// ctx ends; it returns when the last is written. failed is told what cannot be
// written. It must be called once at most.
func (e *Exceptions) Keep(ctx context.Context, dataDir string, failed func(error)) {
	path := filepath.Join(dataDir, exceptionsFile)
	write := func() {
		if err := writeExceptions(path, e.List()); err != nil {
			failed(err)
		}
	}
	for {
		select {
		case <-e.changed:
			write()
		case <-ctx.Done():
			select {
			case <-e.changed:
				write()
			default:
			}
			return
		}
		select {
		case <-time.After(savePause):
		case <-ctx.Done():
		}
	}
}

// writeExceptions replaces the file; a reader finds the old or the new one.
func writeExceptions(path string, list []Exception) error {
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, append(text, '\n'), 0o600, renameio.WithTempDir(dir)); err != nil {
		return err
	}
	return syncDir(dir)
}

var exceptionsDesc = prometheus.NewDesc("espalier_inspect_exceptions",
	"Hosts whose clients refuse interception, by what an administrator has said: automatic (nothing yet), accepted, refused.",
	[]string{"state"}, nil)

// Collector counts the exceptions by state.
func (e *Exceptions) Collector() prometheus.Collector { return exceptionsCollector{e} }

type exceptionsCollector struct{ e *Exceptions }

func (c exceptionsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- exceptionsDesc }

func (c exceptionsCollector) Collect(ch chan<- prometheus.Metric) {
	for state, n := range c.e.Count() {
		ch <- prometheus.MustNewConstMetric(exceptionsDesc, prometheus.GaugeValue, float64(n), state)
	}
}
