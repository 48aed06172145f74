package configs

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A watch is a running Watcher whose waits end when the test says so.
type watch struct {
	*Watcher
	t       *testing.T
	tick    chan time.Time
	waits   chan time.Duration // every wait that began
	heard   chan string
	looked  chan struct{}
	changed chan struct{}
}

func startWatch(t *testing.T, names ...string) *watch {
	t.Helper()
	w, err := NewWatcher(names...)
	if err != nil {
		t.Fatal(err)
	}
	x := &watch{
		Watcher: w, t: t,
		tick: make(chan time.Time), waits: make(chan time.Duration, 1000),
		heard: make(chan string, 1000), looked: make(chan struct{}, 1000), changed: make(chan struct{}, 1000),
	}
	w.after = func(d time.Duration) <-chan time.Time { x.waits <- d; return x.tick }
	w.heard = func(name string) { x.heard <- name }
	w.looked = func() { x.looked <- struct{}{} }
	return x
}

// run starts it; it ends with the test.
func (x *watch) run(changed func(names []string)) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.Run(ctx, func(names []string) {
			if changed != nil {
				changed(names)
			}
			x.changed <- struct{}{}
		})
	}()
	x.t.Cleanup(func() { cancel(); <-done })
}

const patience = 20 * time.Second // only ever waited for by a test that fails

func receive[T any](t *testing.T, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: nothing came", what)
		panic("unreachable")
	}
}

// elapse ends the wait that the last event began, and says whether changed was
// called. Without any event it fails.
func (x *watch) elapse() bool {
	x.t.Helper()
	select {
	case x.tick <- time.Time{}:
	case <-time.After(patience):
		x.t.Fatal("no event was heard")
	}
	receive(x.t, x.looked, "looked")
	select {
	case <-x.changed: // happens before looked
		return true
	default:
		return false
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// kubernetes lays out dir as a mounted ConfigMap, or swaps it for a new
// version.
func kubernetes(t *testing.T, dir, version, text string) {
	t.Helper()
	must(t, os.Mkdir(filepath.Join(dir, version), 0o755))
	write(t, filepath.Join(dir, version, "espalier.yaml"), text)
	must(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
	old, err := os.Readlink(filepath.Join(dir, "..data"))
	must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	if err == nil {
		must(t, os.RemoveAll(filepath.Join(dir, old)))
	} else {
		must(t, os.Symlink("..data/espalier.yaml", filepath.Join(dir, "espalier.yaml")))
	}
}

// However the file is replaced, three times in a row, changed is called once for
// each.
func TestWatchReplacements(t *testing.T) {
	atomically := func(t *testing.T, name, text string) {
		write(t, name+".new", text)
		must(t, os.Rename(name+".new", name))
	}
	for _, x := range []struct {
		name    string
		file    string
		prepare func(t *testing.T, dir string)
		replace func(t *testing.T, dir, text string)
	}{
		{
			name: "written in place", file: "a.yaml",
			prepare: func(t *testing.T, dir string) { write(t, filepath.Join(dir, "a.yaml"), "0") },
			replace: func(t *testing.T, dir, text string) { write(t, filepath.Join(dir, "a.yaml"), text) },
		},
		{
			name: "renamed over", file: "a.yaml",
			prepare: func(t *testing.T, dir string) { write(t, filepath.Join(dir, "a.yaml"), "0") },
			replace: func(t *testing.T, dir, text string) { atomically(t, filepath.Join(dir, "a.yaml"), text) },
		},
		{
			name: "removed and created again", file: "a.yaml",
			prepare: func(t *testing.T, dir string) { write(t, filepath.Join(dir, "a.yaml"), "0") },
			replace: func(t *testing.T, dir, text string) {
				must(t, os.Remove(filepath.Join(dir, "a.yaml")))
				write(t, filepath.Join(dir, "a.yaml"), text)
			},
		},
		{
			name: "kept as a backup", file: "a.yaml",
			prepare: func(t *testing.T, dir string) { write(t, filepath.Join(dir, "a.yaml"), "0") },
			replace: func(t *testing.T, dir, text string) {
				must(t, os.Rename(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "a.yaml~")))
				write(t, filepath.Join(dir, "a.yaml"), text)
			},
		},
		{
			name: "Kubernetes", file: "espalier.yaml",
			prepare: func(t *testing.T, dir string) { kubernetes(t, dir, "..v0", "0") },
			replace: func(t *testing.T, dir, text string) { kubernetes(t, dir, "..v"+text, text) },
		},
		{
			name: "link to a file elsewhere that is renamed over", file: "a.yaml",
			prepare: func(t *testing.T, dir string) {
				must(t, os.Mkdir(filepath.Join(dir, "there"), 0o755))
				write(t, filepath.Join(dir, "there", "b.yaml"), "0")
				must(t, os.Symlink("there/b.yaml", filepath.Join(dir, "a.yaml")))
			},
			replace: func(t *testing.T, dir, text string) { atomically(t, filepath.Join(dir, "there", "b.yaml"), text) },
		},
		{
			name: "absolute link swapped", file: "a.yaml",
			prepare: func(t *testing.T, dir string) {
				write(t, filepath.Join(dir, "0.yaml"), "0")
				must(t, os.Symlink(filepath.Join(dir, "0.yaml"), filepath.Join(dir, "a.yaml")))
			},
			replace: func(t *testing.T, dir, text string) {
				write(t, filepath.Join(dir, text+".yaml"), text)
				must(t, os.Symlink(filepath.Join(dir, text+".yaml"), filepath.Join(dir, "new")))
				must(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "a.yaml")))
			},
		},
		{
			name: "link to a directory through ..", file: "etc/a.yaml",
			prepare: func(t *testing.T, dir string) {
				must(t, os.MkdirAll(filepath.Join(dir, "releases", "0"), 0o755))
				must(t, os.Mkdir(filepath.Join(dir, "x"), 0o755))
				write(t, filepath.Join(dir, "releases", "0", "a.yaml"), "0")
				must(t, os.Symlink("x/../releases/0", filepath.Join(dir, "etc")))
			},
			replace: func(t *testing.T, dir, text string) {
				must(t, os.Mkdir(filepath.Join(dir, "releases", text), 0o755))
				write(t, filepath.Join(dir, "releases", text, "a.yaml"), text)
				must(t, os.Symlink("x/../releases/"+text, filepath.Join(dir, "new")))
				must(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "etc")))
			},
		},
		{
			name: "directory above exchanged", file: "etc/espalier/a.yaml",
			prepare: func(t *testing.T, dir string) {
				must(t, os.MkdirAll(filepath.Join(dir, "etc", "espalier"), 0o755))
				write(t, filepath.Join(dir, "etc", "espalier", "a.yaml"), "0")
			},
			replace: func(t *testing.T, dir, text string) {
				must(t, os.MkdirAll(filepath.Join(dir, "new", "espalier"), 0o755))
				write(t, filepath.Join(dir, "new", "espalier", "a.yaml"), text)
				must(t, os.Rename(filepath.Join(dir, "etc"), filepath.Join(dir, "old"+text)))
				must(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "etc")))
			},
		},
		{
			name: "directory that appears later", file: "etc/espalier/a.yaml",
			prepare: func(t *testing.T, dir string) {},
			replace: func(t *testing.T, dir, text string) {
				must(t, os.MkdirAll(filepath.Join(dir, "etc", "espalier"), 0o755))
				write(t, filepath.Join(dir, "etc", "espalier", "a.yaml"), text)
			},
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir := t.TempDir()
			x.prepare(t, dir)
			file := filepath.Join(dir, x.file)
			w := startWatch(t, file)
			var seen []byte
			w.run(func([]string) { seen, _ = os.ReadFile(file) })
			for _, text := range []string{"1", "2", "3"} {
				x.replace(t, dir, text)
				for !w.elapse() { // some of its events were heard only afterwards
				}
				if string(seen) != text {
					t.Fatalf("changed saw %q, want %q", seen, text)
				}
				if text != "3" {
					continue
				}
				// What is heard late is no change.
				must(t, os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0)))
				if w.elapse() {
					t.Error("changed was called twice")
				}
			}
		})
	}
}

func TestWatchSlowWriter(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	write(t, file, "before")
	w := startWatch(t, file)
	var seen []byte
	w.run(func([]string) { seen, _ = os.ReadFile(file) })
	f, err := os.Create(file)
	must(t, err)
	for range 5 {
		_, err := f.WriteString("piece ")
		must(t, err)
		receive(t, w.waits, "a new wait for each piece")
		receive(t, w.heard, "event")
	}
	must(t, f.Close())
	if len(w.changed) > 0 {
		t.Error("changed was called while the file was written")
	}
	for !w.elapse() {
	}
	if string(seen) != "piece piece piece piece piece " {
		t.Errorf("changed saw %q", seen)
	}
}

// A file that is emptied or removed is given more time before that counts.
func TestWatchLostContents(t *testing.T) {
	for name, lose := range map[string]func(string) error{
		"emptied": func(file string) error { return os.Truncate(file, 0) },
		"removed": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "a.yaml")
			write(t, file, "before")
			w := startWatch(t, file)
			w.run(nil)

			must(t, lose(file))
			if w.elapse() {
				t.Fatal("changed was called at once")
			}
			longer := false
			for len(w.waits) > 0 {
				longer = <-w.waits == settle || longer
			}
			if !longer {
				t.Error("it was given no more time")
			}
			write(t, file, "before") // back again: no change
			receive(t, w.heard, "event")
			if w.elapse() {
				t.Fatal("changed was called for the same contents")
			}

			must(t, lose(file))
			for range 100 { // an event heard late begins the waits anew
				if w.elapse() {
					return
				}
			}
			t.Error("changed was not called for contents that stay lost")
		})
	}
}

// Touched, written again with the same contents, linked to the same: no change.
func TestWatchSameContents(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.yaml")
	write(t, file, "same")
	w := startWatch(t, file)
	w.run(nil)
	for name, do := range map[string]func(){
		"touched":      func() { must(t, os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0))) },
		"written":      func() { write(t, file, "same") },
		"renamed over": func() { write(t, file+"2", "same"); must(t, os.Rename(file+"2", file)) },
	} {
		do()
		if w.elapse() {
			t.Errorf("%s: changed was called", name)
		}
	}
}

// Other files in the directory, such as a log, neither count nor put off what
// does.
func TestWatchOtherFiles(t *testing.T) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "access.log")
	write(t, file, "before")
	w := startWatch(t, file)
	w.run(nil)
	for range 20 {
		write(t, other, "noise")
	}
	write(t, file, "after")
	for !w.elapse() {
	}
	for len(w.heard) > 0 {
		if <-w.heard == other {
			t.Error("another file was heard")
		}
	}
}

// Follow, called by changed, adds files whose changes count from then on. changed
// is told which they were.
func TestWatchFollow(t *testing.T) {
	dir := t.TempDir()
	file, users := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "sub", "users")
	write(t, file, "before")
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	write(t, users, "before")
	w := startWatch(t, file)
	var told []string
	w.run(func(names []string) {
		told = names
		w.Follow(file, users)
	})
	for _, name := range []string{file, users, file} {
		write(t, name, "after "+name+strings.Join(told, ""))
		for !w.elapse() {
		}
		if !slices.Equal(told, []string{name}) {
			t.Errorf("%v changed, told %v", name, told)
		}
	}
}

// A change between NewWatcher and Run is seen.
func TestWatchBeforeRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.yaml")
	write(t, file, "before")
	w := startWatch(t, file)
	write(t, file, "after")
	w.run(nil)
	for !w.elapse() {
	}
}

// With real time, and nothing to watch but what never comes, Run ends with its
// context.
func TestWatchEnds(t *testing.T) {
	w, err := NewWatcher(filepath.Join(t.TempDir(), "not", "there"))
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx, func([]string) { t.Error("changed was called") }) }()
	cancel()
	receive(t, done, "the end of Run")
}
