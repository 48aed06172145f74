package console

import (
	"errors"
	"net/http"

	"espalier/proxy/doctor"
)

// doctorPage is GET /doctor.
func (c pages) doctorPage(*http.Request, *Page) (any, int) {
	st := c.Doctor.Status()
	view := Doctor{Running: st.Running, Done: st.Done, Total: st.Total}
	if st.Report != nil {
		view.Report = st.Report
		for i := range st.Report.Services {
			view.Services = append(view.Services, healthView(&st.Report.Services[i]))
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

// healthView is how it stands with a service.
func healthView(s *doctor.Service) Health {
	h := Health{ID: s.ID, State: string(s.State)}
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
	if report := c.Doctor.Status().Report; report != nil {
		for i := range report.Services {
			if report.Services[i].ID == service {
				h := healthView(&report.Services[i])
				h.Time = report.Time
				return &h
			}
		}
	}
	return nil
}

// interceptors are those who were found to intercept TLS on the way to Apple.
func (c pages) interceptors() []string {
	var list []string
	seen := map[string]bool{}
	if report := c.Doctor.Status().Report; report != nil {
		for _, x := range report.Services {
			for _, c := range x.Checks {
				if c.Problem == doctor.Intercepted && !seen[c.By] {
					seen[c.By] = true
					list = append(list, c.By)
				}
			}
		}
	}
	return list
}
