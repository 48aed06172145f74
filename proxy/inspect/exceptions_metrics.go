package inspect

import "github.com/prometheus/client_golang/prometheus"

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
