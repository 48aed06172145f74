package doctor

import (
	"context"
	"errors"
	"sync"
)

// ErrRunning says that an examination is under way.
var ErrRunning = errors.New("an examination is under way")

// A Runner examines for a process, once at a time, and remembers the last
// report. It is safe for concurrent use.
type Runner struct {
	prepare func() (*Doctor, error)

	mu  sync.Mutex
	now Status
}

// Status is how it stands with a Runner. Its JSON is stable.
type Status struct {
	// Running is set while an examination is under way: Done of Total attempts
	// are.
	Running bool `json:"running"`
	Done    int  `json:"done"`
	Total   int  `json:"total"`
	// Report is the last one, not to be modified; nil where there is none.
	Report *Report `json:"report"`
}

// NewRunner returns a Runner that examines by the Doctor that prepare returns
// each time. Its Progress is replaced.
func NewRunner(prepare func() (*Doctor, error)) *Runner { return &Runner{prepare: prepare} }

// Status says how it stands.
func (r *Runner) Status() (now Status) {
	r.update(func(s *Status) { now = *s })
	return now
}

func (r *Runner) update(change func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.now)
}

// Run examines, and returns the report when it is done. The error is ErrRunning,
// what prepare says, or that ctx has ended before.
func (r *Runner) Run(ctx context.Context) (*Report, error) {
	examine, err := r.begin()
	if err != nil {
		return nil, err
	}
	return examine(ctx)
}

// Start examines while the caller goes on; Status says how it goes. The error is
// ErrRunning, or what prepare says.
func (r *Runner) Start() error {
	examine, err := r.begin()
	if err == nil {
		go func() { _, _ = examine(context.Background()) }() // which cannot end early
	}
	return err
}

// begin takes the turn, which examine gives back.
func (r *Runner) begin() (examine func(context.Context) (*Report, error), err error) {
	r.update(func(s *Status) {
		if s.Running {
			err = ErrRunning
		} else {
			*s = Status{Running: true, Report: s.Report}
		}
	})
	if err != nil {
		return nil, err
	}
	d, err := r.prepare()
	if err != nil {
		r.update(func(s *Status) { s.Running = false })
		return nil, err
	}
	d.Progress = func(done, total int) {
		r.update(func(s *Status) { s.Done, s.Total = done, total })
	}
	return func(ctx context.Context) (*Report, error) {
		report := d.Run(ctx)
		err := ctx.Err()
		r.update(func(s *Status) {
			if s.Running = false; err == nil {
				s.Report = report
			}
		})
		if err != nil {
			return nil, err
		}
		return report, nil
	}, nil
}
