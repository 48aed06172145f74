package web

import (
	"encoding/json"
	"net/http"
)

// A Problem is an error as the API answers it (RFC 9457, without a type of its
// own: status and title are those of HTTP).
type Problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Problems are the faults of a configuration, one each.
	Problems []string `json:"problems,omitempty"`
}

// Error returns the detail, or the title where there is none.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}

func writeProblem(w http.ResponseWriter, status int, detail string, problems ...string) {
	writeJSON(w, status, "application/problem+json", &Problem{
		Title: http.StatusText(status), Status: status, Detail: detail, Problems: problems,
	})
}

// writeJSON writes v, which must be such that it can be written as JSON.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // a mistake in the program, answered with 500 by recovered
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}
