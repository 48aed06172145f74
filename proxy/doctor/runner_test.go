package doctor

import (
	"context"
	"errors"
	"testing"

	"espalier/proxy/doctor/doctortest"
)

// There is one examination at a time, and one that was given up leaves the last
// report alone.
func TestRunner(t *testing.T) {
	d := newDoctor(t, map[string]doctortest.Fault{"silent.apple.com": doctortest.Silent}, row("fine.apple.com", 443))
	r := NewRunner(func() (*Doctor, error) { c := *d; return &c, nil })
	if s := r.Status(); s.Running || s.Report != nil {
		t.Errorf("at first: %+v", s)
	}
	report, err := r.Run(t.Context())
	if s := r.Status(); err != nil || s.Report != report || s.Running || s.Done != 1 || s.Total != 1 {
		t.Fatalf("%v, %+v", err, s)
	}

	d.Rows = append(d.Rows, row("silent.apple.com", 443))
	ctx, cancel := context.WithCancel(t.Context())
	began, ended := make(chan struct{}), make(chan error)
	r.prepare = func() (*Doctor, error) { close(began); c := *d; return &c, nil }
	go func() {
		_, err := r.Run(ctx)
		ended <- err
	}()
	<-began
	if _, err := r.Run(t.Context()); !errors.Is(err, ErrRunning) || !r.Status().Running {
		t.Errorf("beside another: %v", err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || r.Status().Running || r.Status().Report != report {
		t.Errorf("given up: %v, %+v", err, r.Status())
	}

	wrong := errors.New("egress: wrong")
	r.prepare = func() (*Doctor, error) { return nil, wrong }
	if _, err := r.Run(t.Context()); err != wrong || r.Status().Running {
		t.Errorf("not to be prepared: %v", err)
	}
}
