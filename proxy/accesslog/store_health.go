package accesslog

import (
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// StoreHealth is how it goes with storing.
type StoreHealth struct {
	Err   error     // why nothing can be stored; nil: it can
	Since time.Time // when that began
	// Lag is how many bytes of the log wait to be stored.
	Lag int64
	// Errors is how often storing has failed since the start.
	Errors uint64
	// Size is that of the store's files, in bytes.
	Size int64
	// Records says what became of the log's lines since the start.
	Records Imported
}

// storeCounters are those of one process. The zero value is ready.
type storeCounters struct {
	mu sync.Mutex
	h  StoreHealth
}

func (c *storeCounters) add(n Imported) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.h.Records.add(n)
}

func (c *storeCounters) failed(err error, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.h.Err == nil {
		c.h.Since = now
	}
	c.h.Err = err
	c.h.Errors++
}

func (c *storeCounters) succeeded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.h.Err, c.h.Since = nil, time.Time{}
}

func (c *storeCounters) lag(files fileStates) {
	var n int64
	for _, f := range files {
		n += f.unread
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.h.Lag = n
}

// Health says how it goes with storing now.
func (s *Store) Health() StoreHealth {
	s.counters.mu.Lock()
	h := s.counters.h
	s.counters.mu.Unlock()
	for _, end := range []string{"", "-wal"} {
		if info, err := os.Stat(s.path + end); err == nil {
			h.Size += info.Size()
		}
	}
	return h
}

var (
	storedDesc = prometheus.NewDesc("espalier_store_records_total",
		"Lines of the access log by what became of them in the store: stored, known (they were there), old (of a time that is no longer kept) or bad (no records).",
		[]string{"result"}, nil)
	lagDesc = prometheus.NewDesc("espalier_store_lag_bytes",
		"Bytes of the access log that wait to be stored.", nil, nil)
	storeErrorsDesc = prometheus.NewDesc("espalier_store_errors_total",
		"How often storing has failed; it is tried again from the access log.", nil, nil)
	storeFailingDesc = prometheus.NewDesc("espalier_store_failing",
		"1 while access records cannot be stored.", nil, nil)
	storeSizeDesc = prometheus.NewDesc("espalier_store_size_bytes",
		"Size of the store's files.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Store) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{storedDesc, lagDesc, storeErrorsDesc, storeFailingDesc, storeSizeDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Store) Collect(ch chan<- prometheus.Metric) {
	h := s.Health()
	failing := 0.0
	if h.Err != nil {
		failing = 1
	}
	for _, r := range []struct {
		result string
		n      uint64
	}{{"stored", h.Records.Stored}, {"known", h.Records.Known}, {"old", h.Records.Old}, {"bad", h.Records.Bad}} {
		ch <- prometheus.MustNewConstMetric(storedDesc, prometheus.CounterValue, float64(r.n), r.result)
	}
	ch <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, float64(h.Lag))
	ch <- prometheus.MustNewConstMetric(storeErrorsDesc, prometheus.CounterValue, float64(h.Errors))
	ch <- prometheus.MustNewConstMetric(storeFailingDesc, prometheus.GaugeValue, failing)
	ch <- prometheus.MustNewConstMetric(storeSizeDesc, prometheus.GaugeValue, float64(h.Size))
}
