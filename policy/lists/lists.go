// Package lists keeps the named lists of a configuration, `lists`, ready for
// rules: read from files, or fetched from URLs again and again.
//
// What a list last had that was good stays in force until there is something
// better: while its source is away or damaged, over a reload and, as a copy on
// disk, over a restart. A list that has never been loaded matches nothing.
package lists

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"espalier/policy"
	"espalier/policy/hostset"
)

// A Transport returns what fetches from target, the one of a list's URL. It may
// be asked for others then, where target redirects to them.
type Transport func(target policy.Target) http.RoundTripper

// Lists are the lists in force. They are safe for concurrent use.
type Lists struct {
	dir string // of copies
	log *zap.Logger

	mu      sync.Mutex
	version *Version // in force
}

// A Version is the lists of one configuration, ready to be used.
type Version struct {
	lists  map[string]*list
	config map[string]policy.List
}

// New returns Lists without any list. Copies of what was fetched are kept in
// dir, which is created when the first is written.
func New(dir string, log *zap.Logger) *Lists {
	return &Lists{dir: dir, log: log, version: &Version{}}
}

// Prepare makes the lists of a valid configuration. Those whose source has not
// changed are the ones in force. Files are read; from a URL nothing is fetched
// yet, but its copy on disk is read, or what the list of that name has in force
// is taken. A list that cannot be read says so in its Status and matches
// nothing. Prepare changes nothing that is in force.
func (ls *Lists) Prepare(config map[string]policy.List) *Version {
	ls.mu.Lock()
	now := ls.version
	ls.mu.Unlock()
	v := &Version{lists: map[string]*list{}, config: config}
	for name, c := range config {
		c = c.Source()
		old := now.lists[name]
		if old != nil && old.source.File == c.File && old.source.URL == c.URL && old.source.Member == c.Member {
			v.lists[name] = old
			continue
		}
		l := newList(name, c, ls.dir, ls.log)
		switch {
		case c.File != "":
			_ = l.read() // its status says what is wrong
		case old != nil && old.source.URL != "" && old.source.Member == c.Member && old.set.Load() != nil:
			l.inherit(old)
		default:
			l.readCopy()
		}
		v.lists[name] = l
	}
	return v
}

// HostLists returns the lists for rules, by name.
func (v *Version) HostLists() map[string]policy.HostList {
	out := map[string]policy.HostList{}
	for name, l := range v.lists {
		out[name] = l
	}
	return out
}

// Status returns what is to be said of each list, by name in order.
func (v *Version) Status() []Status {
	now := time.Now()
	out := make([]Status, 0, len(v.lists))
	for _, name := range slices.Sorted(maps.Keys(v.lists)) {
		out = append(out, v.lists[name].status(now))
	}
	return out
}

// Use puts v, which Prepare has made of the Lists as they are, into force, and
// fetches from now on what it has URLs of.
func (ls *Lists) Use(v *Version, transport Transport) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	old := ls.version
	ls.version = v
	for name, l := range old.lists {
		if v.lists[name] != l {
			l.stop()
		}
	}
	for name, l := range v.lists {
		l.use(v.config[name], transport)
	}
}

// Close ends fetching. What is loaded keeps answering.
func (ls *Lists) Close() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.version.lists {
		l.stop()
	}
}

// Reread reads the files that have changed since they were read.
func (ls *Lists) Reread() {
	for _, l := range ls.now().lists {
		if l.source.File != "" && l.moved() {
			_ = l.read() // its status says what is wrong
		}
	}
}

// Refresh reads the list of that name from its source now, whatever is due; all
// lists where name is empty. Errors name the list, joined.
func (ls *Lists) Refresh(ctx context.Context, name string) error {
	v := ls.now()
	if name != "" && v.lists[name] == nil {
		return fmt.Errorf("there is no list %q", name)
	}
	errs := make([]error, len(v.lists))
	var all sync.WaitGroup
	for i, n := range slices.Sorted(maps.Keys(v.lists)) {
		if name != "" && n != name {
			continue
		}
		all.Go(func() {
			if err := v.lists[n].refreshNow(ctx); err != nil {
				errs[i] = fmt.Errorf("list %s: %w", n, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// Status is that of the lists in force.
func (ls *Lists) Status() []Status { return ls.now().Status() }

func (ls *Lists) now() *Version {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.version
}

// Status is what is to be said of a list.
type Status struct {
	Name string `json:"name"`
	// Source is the file, or the URL without password and query.
	Source  string `json:"source"`
	Entries int    `json:"entries"`
	// Paths are the entries with a path: they match plain and intercepted requests, and no
	// tunnels.
	Paths int `json:"paths"`
	// SkippedLines are rules about more or other than hosts; BadLines make no
	// sense. Skipped and Bad are the first of them.
	SkippedLines int               `json:"skipped_lines"`
	BadLines     int               `json:"bad_lines"`
	Skipped      []hostset.BadLine `json:"skipped"`
	Bad          []hostset.BadLine `json:"bad"`
	// Required says that rules which name the list deny until it is loaded.
	Required bool `json:"required"`
	// Loaded is when the entries came from the source; zero where there are
	// none and the list matches nothing.
	Loaded time.Time `json:"loaded,omitzero"`
	// LastSuccess is when the source last had these entries: of a URL that it
	// was asked, of a file that it was read.
	LastSuccess time.Time `json:"last_success,omitzero"`
	// Error says what is wrong with the source; empty where nothing is.
	Error string `json:"error"`
	// Stale says that the entries may be out of date: those of a file that
	// cannot be read any more, or of a URL that was silent for two refreshes.
	Stale bool `json:"stale"`
}

// Unloaded says what rules that name a list do while it is not loaded.
func (s Status) Unloaded() string { return unloaded(s.Required) }

func unloaded(required bool) string {
	if required {
		return "deny until it is loaded"
	}
	return "match nothing"
}

// Overdue reports whether the list was never loaded, or its source was silent for two
// refreshes.
func (s Status) Overdue() bool { return s.Loaded.IsZero() || s.Stale }

// Remarks are what to know about the entries: lines that were skipped, with examples, and
// entries that match some requests only.
func (s Status) Remarks() []string {
	var remarks []string
	if s.Paths > 0 {
		remarks = append(remarks, fmt.Sprintf("entries with a path: %d; they match plain and inspected requests, not tunnels", s.Paths))
	}
	for _, line := range s.Skipped {
		remarks = append(remarks, "skipped line "+line.String())
	}
	return remarks
}
