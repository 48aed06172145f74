package lists

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	entriesDesc = prometheus.NewDesc("espalier_list_entries",
		"Entries of a list; 0 where it is not loaded.", []string{"list"}, nil)
	successDesc = prometheus.NewDesc("espalier_list_last_success_timestamp_seconds",
		"When the source of a list last had what is in force: a URL was asked, or a file was read; 0 for never.", []string{"list"}, nil)
	badDesc = prometheus.NewDesc("espalier_list_bad_lines",
		"Lines of a list that make no sense.", []string{"list"}, nil)
	overdueDesc = prometheus.NewDesc("espalier_list_overdue",
		"1 if a list was never loaded, or its source was silent for two refreshes; 0 otherwise.", []string{"list"}, nil)
)

// Describe implements prometheus.Collector.
func (ls *Lists) Describe(ch chan<- *prometheus.Desc) {
	ch <- entriesDesc
	ch <- successDesc
	ch <- badDesc
	ch <- overdueDesc
}

// Collect implements prometheus.Collector. There are as many series as the
// configuration has lists.
func (ls *Lists) Collect(ch chan<- prometheus.Metric) {
	for _, s := range ls.Status() {
		gauge := func(desc *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, s.Name)
		}
		gauge(entriesDesc, float64(s.Entries))
		gauge(successDesc, seconds(s.LastSuccess))
		gauge(badDesc, float64(s.BadLines))
		overdue := 0.0
		if s.Overdue() {
			overdue = 1
		}
		gauge(overdueDesc, overdue)
	}
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
