// Package server holds what every HTTP server of Espalier shares: limits, panics
// answered with 500, and errors told as text or as Problems.
package server

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"go.uber.org/zap"
)

// New returns a server of h with limits on what a client may take. A panic of h is
// logged and answered with 500. Errors of connections are logged at the debug
// level, since any client can cause them.
func New(h http.Handler, log *zap.Logger) *http.Server {
	errors, err := zap.NewStdLogAt(log, zap.DebugLevel)
	if err != nil {
		panic(err) // only for an unknown level
	}
	return &http.Server{
		Handler: recovered(log, h), ErrorLog: errors, MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
	}
}

// recovered leaves http.ErrAbortHandler to the server.
func recovered(log *zap.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v)
			default:
				log.Error("a request to the console failed", zap.String("path", r.URL.Path), zap.Any("panic", v), zap.Stack("stack"))
				Refuse(w, r, http.StatusInternalServerError, "The console failed; the log of the process says why.")
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// Peer returns the client's address, the zero Addr if it has none.
func Peer(r *http.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr()
}

// APIPrefix begins the paths of the API on the admin listeners.
const APIPrefix = "/api/"

// Refuse answers with text, below APIPrefix as a Problem.
func Refuse(w http.ResponseWriter, r *http.Request, status int, text string) {
	if strings.HasPrefix(r.URL.Path, APIPrefix) {
		NewProblem(status, text).Write(w)
		return
	}
	http.Error(w, text, status)
}

// A Problem is an error as the API answers it (RFC 9457, without a type of its
// own: status and title are those of HTTP).
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Problems are the faults of a configuration or request, one each.
	Problems []string `json:"problems,omitempty"`
}

// NewProblem returns a problem with the title of its status.
func NewProblem(status int, detail string, problems ...string) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Detail: detail, Problems: problems}
}

// Error returns the detail, or the title if there is none.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}

// Write answers with p.
func (p *Problem) Write(w http.ResponseWriter) { writeJSON(w, p.Status, "application/problem+json", p) }

// WriteJSON answers with v, which must be such that it can be written as JSON.
func WriteJSON(w http.ResponseWriter, v any) { writeJSON(w, http.StatusOK, "application/json", v) }

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // a mistake in the program, answered with 500 by recovered
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}
