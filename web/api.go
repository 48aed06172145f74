package web

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"espalier/web/certs"
	"espalier/web/signin"
)

// An endpoint is something that a program can ask or do: below /api/v1 on the
// admin listeners, for those with the role, and at the root of the control
// socket, for whoever may open that.
type endpoint struct {
	method, path string // as http.ServeMux takes them
	role         signin.Role
	serve        http.HandlerFunc
}

const apiPrefix = "/api/v1"

func (c Control) endpoints() []endpoint {
	c.streams = newStreams()
	return []endpoint{
		{"GET", "/status", signin.Viewer, func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, "application/json", c.status())
		}},
		{"GET", "/services", signin.Viewer, func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, "application/json", c.services())
		}},
		{"GET", "/openapi.json", signin.Viewer, serveOpenAPI},
		{"GET", "/traffic", signin.Viewer, c.trafficSums},
		{"GET", "/logs", signin.Viewer, c.logs},
		{"GET", "/logs/{id}", signin.Viewer, c.logRecord},
		{"GET", "/events", signin.Viewer, c.events},
		{"GET", "/explain", signin.Viewer, c.explainURL},
		{"POST", "/explain", signin.Viewer, c.explainURL},
		{"GET", "/pac", signin.Viewer, c.pacScript},
		{"GET", "/pac/eval", signin.Viewer, c.evalPAC},
		{"GET", "/profiles/{file}", signin.Viewer, c.profile},
		{"GET", "/lists", signin.Viewer, func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, "application/json", Lists{c.status().Lists})
		}},
		{"GET", "/config", signin.Viewer, func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, "application/json", Settings{c.Status().Reload.File, c.Settings()})
		}},
		{"GET", "/inspect/exceptions", signin.Viewer, c.exceptions},
		{"POST", "/inspect/exceptions/{do}", signin.Admin, c.changeException},
		{"GET", "/doctor", signin.Viewer, c.doctorStatus},
		{"POST", "/doctor", signin.Admin, c.runDoctor},
		{"POST", "/reload", signin.Admin, func(w http.ResponseWriter, _ *http.Request) {
			if err := c.Reload(); err != nil {
				writeProblem(w, http.StatusUnprocessableEntity, "the configuration was not taken over; the one before stays in force",
					strings.Split(err.Error(), "\n")...)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		}},
		{"POST", "/lists/refresh", signin.Admin, c.refreshLists},
		{"POST", "/tls/renew", signin.Admin, c.renewTLS},
		{"POST", "/drain", signin.Admin, func(w http.ResponseWriter, _ *http.Request) {
			c.Drain()
			w.WriteHeader(http.StatusAccepted)
		}},
	}
}

// refreshLists is POST /lists/refresh?name=LIST.
func (c Control) refreshLists(w http.ResponseWriter, r *http.Request) {
	unhurried(w)
	if err := c.RefreshLists(r.Context(), r.URL.Query().Get("name")); err != nil {
		writeProblem(w, http.StatusBadGateway, "not every list was read anew; what was loaded before stays in force",
			strings.Split(err.Error(), "\n")...)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// renewTLS is POST /tls/renew?revoke=true.
func (c Control) renewTLS(w http.ResponseWriter, r *http.Request) {
	revoke := false
	if v := r.URL.Query().Get("revoke"); v != "" {
		var err error
		if revoke, err = strconv.ParseBool(v); err != nil {
			writeProblem(w, http.StatusBadRequest, "revoke: is neither true nor false")
			return
		}
	}
	unhurried(w)
	err := c.RenewTLS(r.Context(), revoke)
	switch {
	case errors.Is(err, certs.ErrNotACME):
		writeProblem(w, http.StatusConflict, err.Error())
	case err != nil:
		writeProblem(w, http.StatusBadGateway, "not every certificate was renewed; those before serve on", strings.Split(err.Error(), "\n")...)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// unhurried lets an answer take longer than others. The end of the time to read
// would be taken for the client's going away.
func unhurried(w http.ResponseWriter) {
	conn := http.NewResponseController(w)
	_, _ = conn.SetReadDeadline(time.Time{}), conn.SetWriteDeadline(time.Time{})
}

// A method answers one method of a path.
type method struct {
	name  string
	serve http.HandlerFunc
}

// handleAPI puts the endpoints behind a gate.
func handleAPI(mux *http.ServeMux, g *gate, endpoints []endpoint) {
	paths := map[string][]method{}
	for _, e := range endpoints {
		paths[e.path] = append(paths[e.path], method{e.method, g.require(e.role, e.serve)})
	}
	for path, methods := range paths {
		handle(mux, apiPrefix+path, methods...)
	}
}

// handle answers the methods of a path, HEAD where there is GET, and refuses
// every other.
func handle(mux *http.ServeMux, path string, methods ...method) {
	slices.SortFunc(methods, func(a, b method) int { return cmp.Compare(a.name, b.name) })
	var allow []string
	for _, m := range methods {
		allow = append(allow, m.name)
		if m.name == http.MethodGet {
			allow = append(allow, http.MethodHead)
		}
	}
	mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		for _, m := range methods {
			if m.name == r.Method || m.name == http.MethodGet && r.Method == http.MethodHead {
				m.serve(w, r)
				return
			}
		}
		w.Header().Set("Allow", strings.Join(allow, ", "))
		refuse(w, r, http.StatusMethodNotAllowed, "Only "+strings.Join(allow, " and ")+" are allowed here.")
	})
}
