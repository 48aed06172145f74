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
func (r *Runner) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// Run examines, and returns the report when it is done. The error is ErrRunning,
// what prepare says, or that ctx has ended before.
func (r *Runner) Run(ctx context.Context) (*Report, error) {
	d, err := r.begin()
	if err != nil {
		return nil, err
	}
	return r.examine(ctx, d)
}

// Start examines while the caller goes on; Status says how it goes. The error is
// ErrRunning, or what prepare says.
func (r *Runner) Start() error {
	d, err := r.begin()
	if err == nil {
		go func() { _, _ = r.examine(context.Background(), d) }() // which cannot end early
	}
	return err
}

// begin takes the turn, which examine gives back.
func (r *Runner) begin() (*Doctor, error) {
	r.mu.Lock()
	if r.now.Running {
		r.mu.Unlock()
		return nil, ErrRunning
	}
	r.now.Running, r.now.Done, r.now.Total = true, 0, 0
	r.mu.Unlock()
	d, err := r.prepare()
	if err != nil {
		r.end(nil)
		return nil, err
	}
	return d, nil
}

func (r *Runner) examine(ctx context.Context, d *Doctor) (*Report, error) {
	var report *Report
	defer func() { r.end(report) }()
	d.Progress = func(done, total int) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.now.Done, r.now.Total = done, total
	}
	examined := d.Run(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	report = examined
	return report, nil
}

// end gives the turn back, with a report where there is one.
func (r *Runner) end(report *Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Running = false
	if report != nil {
		r.now.Report = report
	}
}
