package console

import (
	"errors"
	"net/http"
	"slices"
	"time"

	"espalier/proxy/doctor"
)

// Doctor is the page of the way to Apple's hosts.
type Doctor struct {
	doctor.Status
	Services []*Health // of Report
}

// Health is how it stands with a service.
type Health struct {
	*doctor.Service
	OK, Skipped int // checks
	Broken      []doctor.Check
	Time        time.Time // when that was looked at
}

// doctorPage is GET /doctor.
func (c pages) doctorPage(*http.Request, *Page) (any, int) {
	view := Doctor{Status: c.Doctor.Status()}
	if report := view.Report; report != nil {
		for i := range report.Services {
			view.Services = append(view.Services, examined(report, &report.Services[i]))
		}
	}
	return view, http.StatusOK
}

// startDoctor is POST /doctor/run.
func (c pages) startDoctor(w http.ResponseWriter, r *http.Request) {
	if err := c.Doctor.Start(); err != nil && !errors.Is(err, doctor.ErrRunning) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	http.Redirect(w, r, "/doctor", http.StatusSeeOther)
}

// examined is how it stands with a service of a report.
func examined(report *doctor.Report, s *doctor.Service) *Health {
	h := &Health{Service: s, Time: report.Time}
	for _, c := range s.Checks {
		switch c.State {
		case doctor.OK:
			h.OK++
		case doctor.Broken:
			h.Broken = append(h.Broken, c)
		default:
			h.Skipped++
		}
	}
	return h
}

// healthOf is how it stood with a service when that was last looked at; nil where
// it never was.
func (c pages) healthOf(service string) *Health {
	report := c.Doctor.Status().Report
	if report == nil {
		return nil
	}
	i := slices.IndexFunc(report.Services, func(s doctor.Service) bool { return s.ID == service })
	if i < 0 {
		return nil
	}
	return examined(report, &report.Services[i])
}

// interceptors are the issuers that were found to intercept TLS on the way to Apple.
func (c pages) interceptors() []string {
	var list []string
	if report := c.Doctor.Status().Report; report != nil {
		for _, s := range report.Services {
			for _, x := range s.Checks {
				if x.Problem == doctor.Intercepted && !slices.Contains(list, x.By) {
					list = append(list, x.By)
				}
			}
		}
	}
	return list
}
