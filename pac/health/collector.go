package health

import "github.com/prometheus/client_golang/prometheus"

var upDesc = prometheus.NewDesc("espalier_pac_proxy_up",
	"1 where a proxy of pac.proxies is well; one that is not stands last in the script.", []string{"proxy"}, nil)

// Describe implements prometheus.Collector.
func (p *Prober) Describe(ch chan<- *prometheus.Desc) { ch <- upDesc }

// Collect implements prometheus.Collector. There are as many series as proxies
// are watched.
func (p *Prober) Collect(ch chan<- prometheus.Metric) {
	for _, st := range p.Status() {
		up := 0.0
		if st.Up {
			up = 1
		}
		ch <- prometheus.MustNewConstMetric(upDesc, prometheus.GaugeValue, up, st.Proxy)
	}
}
