package web

import (
	"net/http"
	"runtime"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"espalier/web/api"
	"espalier/web/console"
	"espalier/web/server"
	"espalier/web/signin"
)

// AdminServer returns a server of the admin listeners: the console at /, the API
// below /api/v1, and /metrics, for identities that have signed in or send a token.
// It answers for localhost, the listener's own address and the names of Hosts only,
// takes plain HTTP from this machine only, and lets no page of others change
// anything. /metrics needs no token from a program on this machine. The listeners
// should be wrapped by hello.NewListener, or hello.NewMux where there is a
// certificate.
func AdminServer(c api.Control) *http.Server {
	return server.New(guarded(c.Hosts, adminPaths(c)), c.Log)
}

// ControlServer returns a server of the control socket: the endpoints of the API,
// and POST /setup. Whoever may open the socket may use all of it.
func ControlServer(c api.Control) *http.Server {
	mux := http.NewServeMux()
	for _, e := range append(c.Endpoints(), c.Setup()) {
		mux.HandleFunc(e.Method+" "+e.Path, e.Serve)
	}
	return server.New(mux, c.Log)
}

// methods are the handlers of a path by method.
type methods map[string]http.HandlerFunc

func adminPaths(c api.Control) *http.ServeMux {
	g := &gate{desk: c.Desk, log: c.Log}
	paths := map[string]methods{
		"/metrics":       {"GET": g.metrics(promhttp.HandlerFor(c.Metrics, promhttp.HandlerOpts{ErrorLog: zap.NewStdLog(c.Log)}).ServeHTTP)},
		"/assets/{file}": {"GET": console.ServeAsset},
		"/signin":        {"GET": g.showSignIn, "POST": g.signIn},
		"/signout":       {"POST": g.require(signin.Viewer, g.signOut)},
		"/setup":         {"GET": g.showSetup, "POST": g.setUp},
		"/preferences":   {"POST": setPreferences},
	}
	add := func(prefix string, list []api.Endpoint) {
		for _, e := range list {
			if paths[prefix+e.Path] == nil {
				paths[prefix+e.Path] = methods{}
			}
			paths[prefix+e.Path][e.Method] = g.require(e.Role, e.Serve)
		}
	}
	add(api.Prefix, c.Endpoints())
	add("", console.Endpoints(c))
	mux := http.NewServeMux()
	for path, m := range paths {
		mux.HandleFunc(path, m.serve)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		server.Refuse(w, r, http.StatusNotFound, "There is nothing at this path. The console is at /, the metrics are at /metrics.")
	})
	return mux
}

// serve answers HEAD as GET, and refuses every other method.
func (m methods) serve(w http.ResponseWriter, r *http.Request) {
	var allow []string
	for name := range m {
		allow = append(allow, name)
		if name == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	slices.Sort(allow)
	switch {
	case m[r.Method] != nil:
		m[r.Method](w, r)
	case slices.Contains(allow, r.Method):
		m[http.MethodGet](w, r)
	default:
		w.Header().Set("Allow", strings.Join(allow, ", "))
		server.Refuse(w, r, http.StatusMethodNotAllowed, "Only "+strings.Join(allow, " and ")+" are allowed here.")
	}
}

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
