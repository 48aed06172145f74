package web

import (
	"testing"
	"time"

	"espalier/policy/catalog"
	"espalier/proxy/doctor"
	"espalier/proxy/egress"
	"espalier/web/api"
	"espalier/web/server"
)

// An examination is started by one request, and its report stays to be had.
func TestDoctorAPI(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	a := newAPI(t, func(c *api.Control) {
		c.Doctor = doctor.NewRunner(func() (*doctor.Doctor, error) {
			entered <- struct{}{}
			<-leave
			// Nobody answers for names there.
			dialer, err := egress.New(egress.Config{DNS: []string{"127.0.0.1:1"}, ConnectTimeout: time.Second}, egress.Self{})
			return &doctor.Doctor{Rows: catalog.Embedded(), Services: []string{"dns", "icloud"}, Egress: dialer}, err
		})
	})
	var before, after doctor.Status
	a.ask("GET", "/doctor", nil, 200, &before)
	if before.Running || before.Report != nil {
		t.Errorf("at first: %+v", before)
	}
	var report doctor.Report
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.ask("POST", "/doctor", nil, 200, &report)
	}()
	<-entered
	a.ask("POST", "/doctor", nil, 409, &server.Problem{})
	close(leave)
	<-done
	a.ask("GET", "/doctor", nil, 200, &after)
	if report.Broken() != 2 || after.Running || after.Report == nil || !after.Report.Time.Equal(report.Time) {
		t.Errorf("%+v, then %+v", report, after)
	}
}
