package web

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"espalier/web/api"
)

// NewRegistry returns a registry of its own with more, the collectors of the Go
// runtime and the process, espalier_build_info and the state of the
// configuration. reload is called for each scrape. Two collectors with the same
// metric are a mistake in the program, and panic.
func NewRegistry(version string, reload func() api.Reload, more ...prometheus.Collector) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "espalier_build_info",
		Help:        "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()},
	})
	build.Set(1)
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "espalier_config_last_reload_successful",
			Help: "1 where the last reading of the configuration succeeded; otherwise the one before is in force.",
		}, func() float64 {
			if reload().OK {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "espalier_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration in force was read.",
		}, func() float64 { return float64(reload().Loaded.UnixMilli()) / 1000 }),
	)
	reg.MustRegister(more...)
	return reg
}
