package lists

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"espalier/policy"
	"espalier/policy/hostset"
)

const (
	defaultRefresh = 24 * time.Hour
	// A URL that fails is asked again after firstRetry, then ever later, up to
	// lastRetry.
	firstRetry = 10 * time.Second
	lastRetry  = time.Hour
)

// list is one list with one source.
type list struct {
	name   string
	source policy.List // its Refresh does not count
	copy   string      // the file of the last good copy of a URL
	log    *zap.Logger

	set      atomic.Pointer[hostset.Set] // nil: not loaded
	required atomic.Bool

	mu        sync.Mutex
	state     state
	refresh   time.Duration
	transport Transport

	// Of a URL that is fetched; the first is guarded by the mutex of Lists.
	cancel  context.CancelFunc
	stopped chan struct{}   // closed when fetching has ended
	nudge   chan struct{}   // when to fetch next may have changed
	asked   chan chan error // to fetch now, and say how that went
}

// state is what is known of a list beside its set.
type state struct {
	report  hostset.Report
	loaded  time.Time   // when the entries came from the source
	success time.Time   // when it last had them
	err     error       // what is wrong with the source
	info    os.FileInfo // of the file that was read
	header  header      // of what was fetched
}

func newList(name string, source policy.List, dir string, log *zap.Logger) *list {
	l := &list{
		name: name, source: source, copy: filepath.Join(dir, name), log: log.With(zap.String("list", name)),
		stopped: make(chan struct{}), nudge: make(chan struct{}, 1), asked: make(chan chan error),
	}
	l.setRefresh(source.Refresh)
	l.required.Store(source.Required)
	return l
}

func (l *list) setRefresh(d time.Duration) {
	if l.refresh = d; d == 0 {
		l.refresh = defaultRefresh
	}
}

// Match implements policy.HostList.
func (l *list) Match(host string) (entry string, ok bool) { return l.set.Load().Match(host) }

// MatchURL implements policy.HostList.
func (l *list) MatchURL(host string, port uint16, path string) (entry string, ok bool) {
	return l.set.Load().MatchURL(host, port, path)
}

// Missing implements policy.HostList.
func (l *list) Missing() bool { return l.required.Load() && l.set.Load() == nil }

// get returns the state.
func (l *list) get() state {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// put puts a set into force, and its state.
func (l *list) put(set *hostset.Set, st state) {
	l.mu.Lock()
	l.state = st
	l.mu.Unlock()
	l.set.Store(set)
	fields := []zap.Field{
		zap.Int("entries", set.Len()), zap.Int("skipped_lines", st.report.Skipped), zap.Int("bad_lines", st.report.Bad),
	}
	if st.report.Bad == 0 {
		l.log.Info("list loaded", fields...)
	} else {
		l.log.Warn("list loaded, but for lines that make no sense", append(fields, zap.Stringers("first", st.report.First))...)
	}
}

// fail notes what is wrong with the source.
func (l *list) fail(err error) {
	l.mu.Lock()
	l.state.err = err
	l.mu.Unlock()
	if l.set.Load() == nil {
		l.log.Warn("the list cannot be loaded: rules that name it "+unloaded(l.required.Load()), zap.Error(err))
	} else {
		l.log.Warn("the list cannot be loaded anew: what it had before stays in force", zap.Error(err))
	}
}

func (l *list) status(now time.Time) Status {
	l.mu.Lock()
	st, refresh := l.state, l.refresh
	l.mu.Unlock()
	s := Status{
		Name: l.name, Source: l.source.File, Entries: l.set.Load().Len(), Paths: l.set.Load().Paths(),
		SkippedLines: st.report.Skipped, BadLines: st.report.Bad,
		Skipped: append([]hostset.BadLine{}, st.report.FirstSkipped...), Bad: append([]hostset.BadLine{}, st.report.First...),
		Required: l.required.Load(),
		Loaded:   st.loaded, LastSuccess: st.success,
	}
	if st.err != nil {
		s.Error = st.err.Error()
	}
	if l.source.URL == "" {
		s.Stale = st.err != nil && !st.loaded.IsZero()
		return s
	}
	if u, _, err := l.source.Target(); err == nil {
		s.Source = u.Scheme + "://" + u.Host + u.EscapedPath()
	}
	s.Stale = !st.loaded.IsZero() && now.Sub(st.success) > 2*refresh
	return s
}

// use puts what c says beside the source into force, and fetches from now on, if there is a URL.
func (l *list) use(c policy.List, transport Transport) {
	l.required.Store(c.Required)
	if l.source.URL == "" {
		return
	}
	l.mu.Lock()
	before := l.refresh
	l.setRefresh(c.Refresh)
	again := l.refresh != before
	l.transport = transport
	l.mu.Unlock()
	if l.cancel == nil {
		ctx, cancel := context.WithCancel(context.Background())
		l.cancel = cancel
		go l.run(ctx)
	} else if again {
		select {
		case l.nudge <- struct{}{}:
		default:
		}
	}
}

// stop ends fetching, for good.
func (l *list) stop() {
	if l.cancel != nil {
		l.cancel()
		<-l.stopped
	}
}

// run fetches when it is due or asked for.
func (l *list) run(ctx context.Context) {
	defer close(l.stopped)
	if l.set.Load() == nil {
		l.log.Warn("the list is not loaded yet: rules that name it " + unloaded(l.required.Load()))
	}
	failures := 0
	due := l.due(failures)
	for {
		timer := time.NewTimer(time.Until(due))
		var reply chan error
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-l.nudge:
			timer.Stop()
			if failures == 0 {
				due = l.due(failures)
			}
			continue
		case reply = <-l.asked:
		case <-timer.C:
		}
		timer.Stop()
		err := l.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		failures++
		if err == nil {
			failures = 0
		}
		due = l.due(failures)
		if reply != nil {
			reply <- err
		}
	}
}

// due says when to fetch next, after so many failures.
func (l *list) due(failures int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case failures > 0:
		return time.Now().Add(about(min(firstRetry<<min(failures-1, 20), lastRetry, l.refresh)))
	case l.state.header.Source != digest(l.source): // what there is came from elsewhere
		return time.Now()
	default:
		return l.state.success.Add(about(l.refresh))
	}
}

// about returns d, a tenth more or less, so that not everybody asks at a time.
func about(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// refreshNow reads the list from its source.
func (l *list) refreshNow(ctx context.Context) error {
	if l.source.URL == "" {
		return l.read()
	}
	reply := make(chan error, 1)
	select {
	case l.asked <- reply:
	case <-l.stopped:
		return errReplaced
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-reply:
		return err
	case <-l.stopped:
		return errReplaced
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errReplaced = errors.New("is no longer in force")

// moved reports whether the file is not the one that was read.
func (l *list) moved() bool {
	before := l.get().info
	info, err := os.Stat(l.source.File)
	return err != nil || before == nil || !os.SameFile(info, before) || !info.ModTime().Equal(before.ModTime()) || info.Size() != before.Size()
}

// read reads the file.
func (l *list) read() error {
	err := l.readFile()
	if err != nil {
		l.fail(err)
	}
	return err
}

func (l *list) readFile() error {
	info, err := os.Stat(l.source.File)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // one that is none might never end to open
		return fmt.Errorf("%s is no file", l.source.File)
	}
	f, err := os.Open(l.source.File)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return err
	}
	set, report, err := hostset.Parse(f, l.source.Member)
	if err == nil {
		err = l.nothing(report, set)
	}
	if err != nil {
		return fmt.Errorf("%s %w", l.source.File, err)
	}
	now := time.Now()
	l.put(set, state{report: report, loaded: now, success: now, info: info})
	return nil
}

// nothing says what is wrong with a set without entries: no line could be read, or the source
// was emptied, which is mostly an accident. One that is empty from the start, or has comments
// alone, is meant so.
func (l *list) nothing(report hostset.Report, set *hostset.Set) error {
	first := append(report.First, report.FirstSkipped...)
	switch had := l.set.Load().Len(); {
	case set.Len() > 0:
		return nil
	case len(first) > 0:
		return fmt.Errorf("names no host; line %s", first[0])
	case report.Lines == 0 && had > 0:
		return fmt.Errorf("is empty and had %d entries before (write a comment into it if it should be)", had)
	}
	return nil
}
