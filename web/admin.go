package web

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"espalier/policy"
	"espalier/web/console"
	"espalier/web/signin"
)

// NewAdmin returns the handler of the admin listeners: the console at /, the API
// below /api/v1, and /metrics, for whoever has signed in or sends a token. It
// answers for localhost, the listener's own address and the names of Hosts only,
// takes plain HTTP from this machine only, and lets no page of others change
// anything. /metrics needs no token where a program on this machine asks.
func NewAdmin(c Control) http.Handler {
	mux := http.NewServeMux()
	g := &gate{desk: c.Desk, log: c.Log}
	handleAPI(mux, g, c.endpoints())
	metrics := promhttp.HandlerFor(c.Metrics, promhttp.HandlerOpts{ErrorLog: zap.NewStdLog(c.Log)}).ServeHTTP
	handle(mux, "/metrics", method{"GET", func(w http.ResponseWriter, r *http.Request) {
		if fromHere(r) {
			metrics(w, r)
			return
		}
		g.require(signin.Viewer, metrics)(w, r)
	}})
	handle(mux, "/assets/{file}", method{"GET", console.ServeAsset})
	handle(mux, "/signin", method{"GET", g.showSignIn}, method{"POST", g.signIn})
	handle(mux, "/signout", method{"POST", g.require(signin.Viewer, g.signOut)})
	handle(mux, "/setup", method{"GET", g.showSetup}, method{"POST", g.setUp})
	c.handlePages(mux, g)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, http.StatusNotFound, "There is nothing at this path. The console is at /, the metrics are at /metrics.")
	})
	return recovered(c.Log, secured(ownHost(c.Hosts, encrypted(ownOrigin(bounded(mux))))))
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
			Service: x.Service, Name: console.ServiceName(x.Service),
			Up: x.Up, Down: x.Down, Tunnels: x.Tunnels, Requests: x.Requests,
		})
	}
	return answer
}
