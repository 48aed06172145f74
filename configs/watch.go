package configs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quiet is how long the files must have been left alone before they are
	// read: a slow writer writes in pieces.
	quiet = 250 * time.Millisecond
	// settle is the same where a file that had contents has none, or is gone,
	// which mostly is the first half of its replacement.
	settle = 2 * time.Second
	// poll is how often the files are looked at where nothing was heard of
	// them: network file systems do not tell.
	poll = time.Minute
)

// A Watcher tells when the contents of files are no longer what they were,
// however that comes about: written in place, renamed over, removed and created
// again, reached through a symbolic link that is swapped (as Kubernetes does),
// or in a directory that appears later. A file that is touched, or written with
// the same contents, has not changed.
type Watcher struct {
	notify *fsnotify.Watcher
	known  contents        // as of the last call of changed
	dirs   map[string]bool // watched
	steps  map[string]bool // names in dirs that lead to a file

	// What tests replace.
	after  func(time.Duration) <-chan time.Time
	heard  func(name string) // called after each event that concerns a file
	looked func()            // called after the files were read
}

// NewWatcher takes note of the contents of files, so that later changes are
// seen from now on; Run must follow, and lets go of what it holds.
func NewWatcher(names ...string) (*Watcher, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch configuration: %w", err)
	}
	w := &Watcher{
		notify: notify, dirs: map[string]bool{},
		after: time.After, heard: func(string) {}, looked: func() {},
	}
	w.Follow(names...)
	return w, nil
}

// Follow replaces the set of files. Those already in it keep the contents that
// are known of them. It may be called before Run and by changed, not beside
// them.
func (w *Watcher) Follow(names ...string) {
	before := w.known
	w.known = contents{}
	for _, name := range names {
		if abs, err := filepath.Abs(name); err == nil { // fails without a working directory
			w.known[abs] = before[abs]
		}
	}
	w.attach()
	for name := range w.known { // after attach, so that no change falls between
		if _, ok := before[name]; !ok {
			w.known[name], _ = digestOf(name)
		}
	}
}

// Run calls changed with the absolute names of files that have changed and then
// been left alone for a moment, one call at a time, until ctx is done.
func (w *Watcher) Run(ctx context.Context, changed func(names []string)) {
	defer w.notify.Close()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	var wait <-chan time.Time // nil: nothing was heard
	settled := false          // the wait is the long one
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-w.notify.Events:
			if !w.steps[event.Name] && !w.dirs[event.Name] {
				continue
			}
			if event.Has(fsnotify.Create | fsnotify.Remove | fsnotify.Rename) {
				w.detach(event.Name)
				w.attach()
			}
			wait, settled = w.after(quiet), false
			w.heard(event.Name)
		case <-w.notify.Errors: // events were lost
			wait, settled = w.after(quiet), false
		case <-ticker.C:
			if wait == nil {
				w.attach()
				wait = w.after(quiet)
			}
		case <-wait:
			wait = nil
			now := w.read()
			names := now.differ(w.known)
			switch {
			case len(names) == 0:
			case now.lost(w.known) && !settled:
				wait, settled = w.after(settle), true
			default:
				w.known = now
				changed(names)
			}
			w.looked()
		}
	}
}

// attach watches every directory on the way to a file. What cannot be watched
// is left to polling.
func (w *Watcher) attach() {
	for added := true; added; { // again where something may have appeared meanwhile
		added = false
		w.steps = map[string]bool{}
		for name := range w.known {
			addSteps(name, w.steps)
		}
		want := map[string]bool{}
		for step := range w.steps {
			want[filepath.Dir(step)] = true
		}
		for dir := range w.dirs {
			if !want[dir] {
				w.detach(dir)
			}
		}
		for dir := range want {
			if !w.dirs[dir] && w.notify.Add(dir) == nil {
				w.dirs[dir], added = true, true
			}
		}
	}
}

// detach forgets the directory of that name and those below it: something else
// may have the name now.
func (w *Watcher) detach(name string) {
	for dir := range w.dirs {
		if dir == name || strings.HasPrefix(dir, name+string(filepath.Separator)) {
			_ = w.notify.Remove(dir) // fails where the system has removed it
			delete(w.dirs, dir)
		}
	}
}

// addSteps adds every name that is looked up on the way to a file, through
// symbolic links and up to the first that is missing.
func addSteps(name string, steps map[string]bool) {
	const sep = string(filepath.Separator)
	root := filepath.VolumeName(name) + sep
	at, rest := root, strings.TrimPrefix(name, root)
	for links := 0; rest != ""; {
		part, tail, _ := strings.Cut(rest, sep)
		next := filepath.Join(at, part)
		if rest = tail; next == at { // "." and "//" in a link
			continue
		}
		if part == ".." {
			at = next // no link: at has been followed already
			continue
		}
		steps[next] = true
		info, err := os.Lstat(next)
		if err != nil {
			return
		}
		if info.Mode()&os.ModeSymlink == 0 {
			at = next
			continue
		}
		target, err := os.Readlink(next)
		if links++; err != nil || links > 40 {
			return
		}
		if filepath.IsAbs(target) {
			at = root
		}
		// Not Join, which would cut x/.. where x is a link.
		rest = strings.TrimPrefix(target, root) + sep + tail
	}
}

// contents are the digests of files by name; a file that is not there, or that
// holds nothing, has an empty one.
type contents map[string]string

// read reads the files. Of one that cannot be read for another reason than that
// it is not there, what was known is kept.
func (w *Watcher) read() contents {
	now := contents{}
	for name, before := range w.known {
		digest, err := digestOf(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			digest = before
		}
		now[name] = digest
	}
	return now
}

// digestOf returns the digest of a file's contents; an empty one for no
// contents and for what is no file.
func digestOf(name string) (string, error) {
	info, err := os.Stat(name)
	if err != nil || !info.Mode().IsRegular() {
		return "", err
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if n, err := io.Copy(h, f); err != nil || n == 0 {
		return "", err
	}
	return string(h.Sum(nil)), nil
}

// differ returns the names of files whose contents are not those of known, in
// order.
func (c contents) differ(known contents) []string {
	var names []string
	for name, digest := range c {
		if digest != known[name] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// lost reports whether a file has no contents any more.
func (c contents) lost(known contents) bool {
	for name, digest := range c {
		if digest == "" && known[name] != "" {
			return true
		}
	}
	return false
}
