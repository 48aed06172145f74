package web

import (
	"errors"
	"net/http"
	"time"

	"espalier/proxy/doctor"
)

// doctorStatus is GET /doctor.
func (s Source) doctorStatus(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, "application/json", s.Doctor.Status())
}

// runDoctor is POST /doctor. The answer comes when the examination is over.
func (c Control) runDoctor(w http.ResponseWriter, r *http.Request) {
	conn := http.NewResponseController(w)
	_, _ = conn.SetReadDeadline(time.Time{}), conn.SetWriteDeadline(time.Time{}) // as in refreshLists
	report, err := c.Doctor.Run(r.Context())
	switch {
	case errors.Is(err, doctor.ErrRunning):
		writeProblem(w, http.StatusConflict, err.Error())
	case err != nil:
		writeProblem(w, http.StatusInternalServerError, err.Error())
	default:
		writeJSON(w, http.StatusOK, "application/json", report)
	}
}
