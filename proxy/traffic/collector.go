package traffic

import "github.com/prometheus/client_golang/prometheus"

var (
	bytesDesc = prometheus.NewDesc("espalier_bytes_total",
		"Bytes of payload, counted while they flow; up comes from clients, down goes to them.",
		[]string{"service", "direction"}, nil)
	requestsDesc = prometheus.NewDesc("espalier_requests_total",
		"Finished requests by what was done with them.",
		[]string{"service", "action"}, nil)
	tunnelsDesc = prometheus.NewDesc("espalier_tunnels",
		"Open tunnels.",
		[]string{"service"}, nil)
)

// Describe implements prometheus.Collector.
func (c *Counters) Describe(ch chan<- *prometheus.Desc) {
	ch <- bytesDesc
	ch <- requestsDesc
	ch <- tunnelsDesc
	c.connect.Describe(ch)
}

// Collect implements prometheus.Collector. Every service has every series from
// the start, so that rates over them need no first sample.
func (c *Counters) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.Snapshot() {
		ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.CounterValue, float64(s.Up), s.Service, "up")
		ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.CounterValue, float64(s.Down), s.Service, "down")
		for _, a := range Actions {
			ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(s.Requests[a]), s.Service, string(a))
		}
		ch <- prometheus.MustNewConstMetric(tunnelsDesc, prometheus.GaugeValue, float64(s.Tunnels), s.Service)
	}
	c.connect.Collect(ch)
}
