package accesslog

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// A Log writes one line for each record. Its methods are safe for concurrent
// use. It is a prometheus.Collector of its own counters.
type Log struct {
	enc       encoder // nil: nothing is written
	anonymize bool
	lines     sync.Pool // *[]byte
	out       *writer

	total atomic.Uint64
}

// Open opens the access log of cfg. dir is the data directory, node the name of
// this instance as it stands in records, log the operational log that hears of
// trouble with the access log. With an empty cfg.File nothing is written.
func Open(cfg Config, dir, node string, log *zap.Logger) (*Log, error) {
	var out io.WriteCloser
	switch path := cfg.File; path {
	case "":
		return &Log{}, nil
	case "-":
		out = stdout{}
	default:
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		var err error
		if out, err = openFile(path, cfg, log); err != nil {
			return nil, fmt.Errorf("access log %s: %w", path, err)
		}
	}
	return newLog(cfg, node, out, log), nil
}

func newLog(cfg Config, node string, out io.WriteCloser, log *zap.Logger) *Log {
	l := &Log{anonymize: cfg.Anonymize, out: newWriter(out, log)}
	l.lines.New = func() any { return new([]byte) }
	if cfg.Format == "squid" {
		l.enc = squidEncoder{}
	} else {
		l.enc = newJSONEncoder(node)
	}
	return l
}

// Write takes a record into memory, from where it reaches the file within half
// a second. It blocks only while several megabytes wait for a slow disk, for a
// second at most; a record that finds no room then, or while nothing can be
// written, is counted as lost. r is not kept.
func (l *Log) Write(r *Record) {
	if l.enc == nil {
		return
	}
	line := l.lines.Get().(*[]byte)
	if l.anonymize {
		anonymous := *r
		anonymous.Client, anonymous.User = network(r.Client), ""
		*line = l.enc.append((*line)[:0], &anonymous)
	} else {
		*line = l.enc.append((*line)[:0], r)
	}
	l.total.Add(1)
	l.out.add(*line)
	l.lines.Put(line)
}

// Flush writes what waits in memory to the file.
func (l *Log) Flush() error {
	if l.enc == nil {
		return nil
	}
	return l.out.flush()
}

// Close flushes and closes the file. Records written later are lost.
func (l *Log) Close() error {
	if l.enc == nil {
		return nil
	}
	return l.out.close()
}

// Health is how it goes with writing.
type Health struct {
	Err   error     // why nothing can be written; nil: it can
	Since time.Time // when that began
	Lost  uint64    // records that found no room meanwhile, since Open
}

// Health returns how it goes now.
func (l *Log) Health() Health {
	if l.out == nil {
		return Health{}
	}
	l.out.mu.Lock()
	defer l.out.mu.Unlock()
	h := Health{Err: l.out.trouble, Lost: l.out.lost.Load()}
	if h.Err != nil {
		h.Since = l.out.since
	}
	return h
}

// network cuts an address to the network that an anonymous record names.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap()
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Addr{} // the zero Addr has no network
	}
	return p.Addr()
}

var (
	totalDesc = prometheus.NewDesc("espalier_access_records_total",
		"Records given to the access log.", nil, nil)
	lostDesc = prometheus.NewDesc("espalier_access_records_lost_total",
		"Records that the access log could not write and had no room to keep.", nil, nil)
	failingDesc = prometheus.NewDesc("espalier_access_log_failing",
		"1 while the access log cannot be written; records are kept in memory then, as far as there is room.", nil, nil)
)

// Describe implements prometheus.Collector.
func (l *Log) Describe(ch chan<- *prometheus.Desc) {
	ch <- totalDesc
	ch <- lostDesc
	ch <- failingDesc
}

// Collect implements prometheus.Collector.
func (l *Log) Collect(ch chan<- prometheus.Metric) {
	h := l.Health()
	failing := 0.0
	if h.Err != nil {
		failing = 1
	}
	ch <- prometheus.MustNewConstMetric(totalDesc, prometheus.CounterValue, float64(l.total.Load()))
	ch <- prometheus.MustNewConstMetric(lostDesc, prometheus.CounterValue, float64(h.Lost))
	ch <- prometheus.MustNewConstMetric(failingDesc, prometheus.GaugeValue, failing)
}

// stdout is standard output, which stays open.
type stdout struct{}

func (stdout) Write(p []byte) (int, error) { return os.Stdout.Write(p) }
func (stdout) Close() error                { return nil }
