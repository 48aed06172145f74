package web

import (
	"bytes"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/web/console"
)

// NewAdmin returns the handler of the admin listeners: the console at /, the
// API below /api/v1/, and /metrics. It changes nothing and answers only to GET
// and HEAD, for localhost or the listener's own address.
func NewAdmin(s Source) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{ErrorLog: zap.NewStdLog(s.Log)}))
	mux.HandleFunc("/api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, "application/json", s.status())
	})
	mux.HandleFunc("/api/v1/services", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, "application/json", s.services())
	})
	mux.HandleFunc("/api/v1/inspect/exceptions", s.exceptions)
	mux.HandleFunc("/assets/{file}", console.ServeAsset)
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		var page bytes.Buffer
		if err := console.Render(&page, overview(s.status(), s.Services(), time.Now())); err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write(page.Bytes())
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, http.StatusNotFound, "There is nothing at this path. The console is at /, the metrics are at /metrics.")
	})
	return recovered(s.Log, secured(ownHost(readOnly(mux))))
}

// Services is the answer of /api/v1/services: what was counted since the
// process started.
type Services struct {
	Since    time.Time `json:"since"`
	Services []Service `json:"services"`
}

// Service is what one service has used. Bytes are payload, from (up) and to
// (down) clients.
type Service struct {
	Service  string                  `json:"service"`
	Name     string                  `json:"name"`
	Up       int64                   `json:"up"`
	Down     int64                   `json:"down"`
	Tunnels  int64                   `json:"tunnels"`
	Requests map[policy.Action]int64 `json:"requests"`
}

func (s Source) services() Services {
	answer := Services{Since: s.Status().Started, Services: []Service{}}
	for _, x := range s.Services() {
		answer.Services = append(answer.Services, Service{
			Service: x.Service, Name: serviceName(x.Service),
			Up: x.Up, Down: x.Down, Tunnels: x.Tunnels, Requests: x.Requests,
		})
	}
	return answer
}

// serviceName is how people call a service.
func serviceName(id string) string {
	for _, s := range catalog.Services {
		if s.ID == id {
			return s.Section
		}
	}
	return id
}
