package accesslog

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// A Log writes one line for each record. Its methods are safe for concurrent
// use. It is a prometheus.Collector of its own counters.
type Log struct {
	file      string        // the path of a regular file with JSON lines; empty where there is none
	anonymize func(*Record) // nil: nobody is hidden
	node      string
	log       *zap.Logger
	lines     sync.Pool // *[]byte
	sinks     []sink
	journal   *journal // nil: none is kept

	total atomic.Uint64
}

// A sink is where records are written to, and how.
type sink struct {
	enc encoder
	out *writer
}

// Open opens the access log of cfg. dir is the data directory, node the name of
// this instance as it stands in records, log the operational log that hears of
// trouble with the access log. With an empty cfg.File nothing is written.
func Open(cfg Config, dir, node string, log *zap.Logger) (*Log, error) {
	anonymize, err := newAnonymizer(cfg, dir, log)
	if err != nil {
		return nil, err
	}
	path := cfg.File
	var out io.WriteCloser
	switch {
	case path == "":
	case path == "-":
		out = stdout{}
	default:
		path = within(dir, path)
		if out, err = openFile(path, cfg, log); err != nil {
			return nil, fmt.Errorf("access log %s: %w", path, err)
		}
	}
	l := newLog(cfg, node, out, log)
	l.anonymize = anonymize
	if _, regular := out.(*rotating); regular && cfg.Format == "json" {
		l.file = path
	}
	return l, nil
}

func newLog(cfg Config, node string, out io.WriteCloser, log *zap.Logger) *Log {
	l := &Log{node: node, log: log}
	l.lines.New = func() any { return new([]byte) }
	switch {
	case out == nil:
	case cfg.Format == "squid":
		l.sinks = []sink{{squidEncoder{}, newWriter(out, log)}}
	default:
		l.sinks = []sink{{newJSONEncoder(node), newWriter(out, log)}}
	}
	return l
}

// spoolConfig is for the file that the store reads where the access log is none
// that it could.
var spoolConfig = Config{Format: "json", Rotate: 100e6, Keep: 24 * time.Hour}

// Feed lets s follow the log: what its files hold, and what is written from now
// on. Where the log is no file of JSON lines, records are written to such a file
// beside the store as well. Feed is called once, before anything is written; s is
// closed after the log.
func (l *Log) Feed(s *Store) error {
	if l.file == "" {
		l.file = s.path + ".spool.json"
		out, err := openFile(l.file, spoolConfig, l.log)
		if err != nil {
			return fmt.Errorf("spool of the store %s: %w", l.file, err)
		}
		l.sinks = append(l.sinks, sink{newJSONEncoder(l.node), newWriter(out, l.log)})
	}
	l.sinks[len(l.sinks)-1].out.tell(func() { signal(s.wake) })
	s.follow(l.file)
	return nil
}

// Write takes a record into memory, from where it reaches the file within half
// a second. It blocks only while several megabytes wait for a slow disk, for a
// second at most; a record that finds no room then, or while nothing can be
// written, is counted as lost. r is not kept.
func (l *Log) Write(r *Record) {
	if len(l.sinks) == 0 {
		return
	}
	if l.anonymize != nil {
		anonymous := *r
		l.anonymize(&anonymous)
		r = &anonymous
	}
	l.write(r)
}

// write is Write for a record that hides already what it is to hide.
func (l *Log) write(r *Record) {
	line := l.lines.Get().(*[]byte)
	l.total.Add(1)
	for _, s := range l.sinks {
		*line = s.enc.append((*line)[:0], r)
		s.out.add(*line)
	}
	l.lines.Put(line)
}

// Flush writes what waits in memory to the file.
func (l *Log) Flush() error { return l.each((*writer).flush) }

func (l *Log) each(do func(*writer) error) error {
	var errs []error
	for _, s := range l.sinks {
		errs = append(errs, do(s.out))
	}
	return errors.Join(errs...)
}

// Close flushes and closes the file. Records written later are lost.
func (l *Log) Close() error {
	if j := l.journal; j != nil {
		j.once.Do(func() { close(j.stop) })
		<-j.done
	}
	err := l.each((*writer).close)
	if l.journal != nil {
		l.journal.close(err == nil)
	}
	return err
}

// Health is how it goes with writing.
type Health struct {
	Err   error     // why nothing can be written; nil: it can
	Since time.Time // when that began
	Lost  uint64    // records that found no room meanwhile, since Open
}

// Health returns how it goes now.
func (l *Log) Health() Health {
	var all Health
	for _, s := range l.sinks {
		h := s.out.health()
		if all.Err == nil {
			all.Err, all.Since = h.Err, h.Since
		}
		all.Lost += h.Lost
	}
	return all
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
func (l *Log) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(l, ch) }

// Collect implements prometheus.Collector.
func (l *Log) Collect(ch chan<- prometheus.Metric) {
	h := l.Health()
	ch <- prometheus.MustNewConstMetric(totalDesc, prometheus.CounterValue, float64(l.total.Load()))
	ch <- prometheus.MustNewConstMetric(lostDesc, prometheus.CounterValue, float64(h.Lost))
	ch <- failingMetric(failingDesc, h.Err)
}

// failingMetric is 1 with an error, 0 without one.
func failingMetric(desc *prometheus.Desc, err error) prometheus.Metric {
	failing := 0.0
	if err != nil {
		failing = 1
	}
	return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, failing)
}

// stdout is standard output, which stays open.
type stdout struct{}

func (stdout) Write(p []byte) (int, error) { return os.Stdout.Write(p) }
func (stdout) Close() error                { return nil }
