package proxy

import "github.com/prometheus/client_golang/prometheus"

var (
	overloadedDesc = prometheus.NewDesc("espalier_overloaded",
		"1 while new requests for what is not Apple's are turned away because a limit is near.", nil, nil)
	shedDesc = prometheus.NewDesc("espalier_shed_total",
		"Requests, and for the reason waiting connections without one, that were turned away because of a limit.",
		[]string{"reason"}, nil)
)

// Describe implements prometheus.Collector.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	ch <- overloadedDesc
	ch <- shedDesc
	ch <- panicsDesc
}

// Collect implements prometheus.Collector.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	on := 0.0
	if s.Overloaded() != "" {
		on = 1
	}
	ch <- prometheus.MustNewConstMetric(overloadedDesc, prometheus.GaugeValue, on)
	for i, reason := range shedReasons {
		ch <- prometheus.MustNewConstMetric(shedDesc, prometheus.CounterValue, float64(s.limits.shed[i].Load()), reason)
	}
	ch <- prometheus.MustNewConstMetric(panicsDesc, prometheus.CounterValue, float64(s.panics.Load()))
}
