package accesslog

import (
	"os"
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

// note changes the health.
func (s *Store) note(change func(h *StoreHealth)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.health)
}

// Health says how it goes with storing now.
func (s *Store) Health() (h StoreHealth) {
	s.note(func(now *StoreHealth) { h = *now })
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
func (s *Store) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(s, ch) }

// Collect implements prometheus.Collector.
func (s *Store) Collect(ch chan<- prometheus.Metric) {
	h := s.Health()
	for result, n := range map[string]uint64{
		"stored": h.Records.Stored, "known": h.Records.Known, "old": h.Records.Old, "bad": h.Records.Bad,
	} {
		ch <- prometheus.MustNewConstMetric(storedDesc, prometheus.CounterValue, float64(n), result)
	}
	ch <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, float64(h.Lag))
	ch <- prometheus.MustNewConstMetric(storeErrorsDesc, prometheus.CounterValue, float64(h.Errors))
	ch <- failingMetric(storeFailingDesc, h.Err)
	ch <- prometheus.MustNewConstMetric(storeSizeDesc, prometheus.GaugeValue, float64(h.Size))
}
