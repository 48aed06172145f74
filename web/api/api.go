// Package api is what programs can ask of a running process, and have it do: JSON
// below /api/v1 on the admin listeners and at the root of the control socket.
package api

import (
	_ "embed"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml"

	"espalier/proxy/doctor"
	"espalier/web/certs"
	"espalier/web/server"
	"espalier/web/signin"
)

// An Endpoint is something that a program or a person can ask or do, if they have
// the role.
type Endpoint struct {
	Method, Path string // as http.ServeMux takes them; GET answers HEAD too
	Role         signin.Role
	Serve        http.HandlerFunc
}

// Prefix begins the paths of Endpoints on the admin listeners.
const Prefix = server.APIPrefix + "v1"

// Endpoints are all of the API.
func (c Control) Endpoints() []Endpoint {
	return []Endpoint{
		{"GET", "/status", signin.Viewer, answer(func(*http.Request) (any, error) { return c.CompleteStatus(), nil })},
		{"GET", "/services", signin.Viewer, answer(func(*http.Request) (any, error) { return c.services(), nil })},
		{"GET", "/openapi.json", signin.Viewer, serveOpenAPI},
		{"GET", "/traffic", signin.Viewer, answer(c.traffic)},
		{"GET", "/logs", signin.Viewer, c.logs},
		{"GET", "/logs/{id}", signin.Viewer, answer(c.record)},
		{"GET", "/events", signin.Viewer, c.events(new(streams))},
		{"GET", "/explain", signin.Viewer, answer(c.explain)},
		{"POST", "/explain", signin.Viewer, answer(c.explain)},
		{"GET", "/pac", signin.Viewer, answer(c.pac)},
		{"GET", "/pac/eval", signin.Viewer, answer(c.evalPAC)},
		{"GET", "/profiles/{file}", signin.Viewer, c.profile},
		{"GET", "/lists", signin.Viewer, answer(func(*http.Request) (any, error) { return Lists{c.CompleteStatus().Lists}, nil })},
		{"GET", "/config", signin.Viewer, answer(func(*http.Request) (any, error) {
			return Settings{c.Status().Reload.File, c.Settings()}, nil
		})},
		{"GET", "/inspect/exceptions", signin.Viewer, answer(func(*http.Request) (any, error) {
			return ExceptionList{c.Exceptions.List()}, nil
		})},
		{"POST", "/inspect/exceptions/{do}", signin.Admin, answer(func(r *http.Request) (any, error) {
			return nil, c.ChangeException(r.PathValue("do"), r.URL.Query().Get("host"))
		})},
		{"GET", "/doctor", signin.Viewer, answer(func(*http.Request) (any, error) { return c.Doctor.Status(), nil })},
		{"POST", "/doctor", signin.Admin, unhurried(c.runDoctor)},
		{"POST", "/reload", signin.Admin, answer(func(*http.Request) (any, error) {
			return nil, problems(http.StatusUnprocessableEntity, "the configuration was not taken over; the one before stays in force", c.Reload())
		})},
		{"POST", "/lists/refresh", signin.Admin, unhurried(func(r *http.Request) (any, error) {
			err := c.RefreshLists(r.Context(), r.URL.Query().Get("name"))
			return nil, problems(http.StatusBadGateway, "not every list was read anew; what was loaded before stays in force", err)
		})},
		{"POST", "/tls/renew", signin.Admin, unhurried(c.renewTLS)},
		{"POST", "/drain", signin.Admin, func(w http.ResponseWriter, _ *http.Request) {
			c.Drain()
			w.WriteHeader(http.StatusAccepted)
		}},
	}
}

// Setup is what makes a setup link, for the control socket only.
func (c Control) Setup() Endpoint {
	return Endpoint{"POST", "/setup", signin.Admin, answer(func(*http.Request) (any, error) {
		url, until, err := c.SetupLink()
		if err != nil {
			return nil, server.NewProblem(http.StatusConflict, err.Error())
		}
		return SetupLink{url, until}, nil
	})}
}

// answer answers with what f returns as JSON, 204 for nil. Errors are
// *server.Problem; others are faults in the request. A client that has gone gets no
// answer.
func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		switch {
		case err != nil && r.Context().Err() != nil:
		case err != nil:
			ProblemOf(err).Write(w)
		case v == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			server.WriteJSON(w, v)
		}
	}
}

// unhurried is answer for what takes longer than others. The end of the time to
// read would be taken for the client's going away.
func unhurried(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn := http.NewResponseController(w)
		_, _ = conn.SetReadDeadline(time.Time{}), conn.SetWriteDeadline(time.Time{})
		answer(f)(w, r)
	}
}

// ProblemOf is err as the client is told it.
func ProblemOf(err error) *server.Problem {
	if p, ok := errors.AsType[*server.Problem](err); ok {
		return p
	}
	return server.NewProblem(http.StatusBadRequest, err.Error())
}

// problems is a problem with one for each line of err; nil if err is.
func problems(status int, detail string, err error) error {
	if err == nil {
		return nil
	}
	return server.NewProblem(status, detail, strings.Split(err.Error(), "\n")...)
}

// renewTLS is POST /tls/renew?revoke=true.
func (c Control) renewTLS(r *http.Request) (any, error) {
	revoke := false
	if v := r.URL.Query().Get("revoke"); v != "" {
		var err error
		if revoke, err = strconv.ParseBool(v); err != nil {
			return nil, errors.New("revoke: is neither true nor false")
		}
	}
	err := c.RenewTLS(r.Context(), revoke)
	if errors.Is(err, certs.ErrNotACME) {
		return nil, server.NewProblem(http.StatusConflict, err.Error())
	}
	return nil, problems(http.StatusBadGateway, "not every certificate was renewed; those before serve on", err)
}

// runDoctor is POST /doctor. The answer comes when the examination is over.
func (c Control) runDoctor(r *http.Request) (any, error) {
	report, err := c.Doctor.Run(r.Context())
	switch {
	case errors.Is(err, doctor.ErrRunning):
		return nil, server.NewProblem(http.StatusConflict, err.Error())
	case err != nil:
		return nil, server.NewProblem(http.StatusInternalServerError, err.Error())
	}
	return report, nil
}

//go:embed openapi.yaml
var openAPIYAML []byte

// OpenAPI is the document of the API (OpenAPI 3.1), as JSON.
var OpenAPI = sync.OnceValue(func() []byte {
	text, err := yaml.YAMLToJSON(openAPIYAML)
	if err != nil {
		panic(err) // a mistake in the file, which the tests read
	}
	return text
})

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(OpenAPI())
}
