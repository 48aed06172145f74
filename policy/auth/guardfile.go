package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"go.uber.org/zap"
)

const (
	// guardName is the file of a guard in the data directory.
	guardName = "sign-ins"
	// maxGuardFile bounds what is read of it.
	maxGuardFile = 64 << 20
	// soonSave and laterSave are how long after a change the file is written: known pairs and
	// failed binds soon, failures later, since guessing must not keep the disk busy.
	soonSave  = time.Second
	laterSave = 20 * time.Second
)

// guardState is what the file holds, in JSON.
type guardState struct {
	Key       []byte                 `json:"key"` // of all digests
	Pairs     map[digest]knownPair   `json:"known"`
	Seals     map[digest]seal        `json:"seals"`
	Binds     map[digest][]time.Time `json:"binds"`
	ByPair    map[digest]strikes     `json:"failures"`
	ByAddress map[digest]strikes     `json:"failures_by_address"`
	ByName    map[digest]strikes     `json:"failures_by_name"`
}

// A guardFile keeps a guard's state. The zero value keeps nothing. It is safe for concurrent
// use.
type guardFile struct {
	path  string // empty: none
	log   *zap.Logger
	guard *Guard

	writing sync.Mutex
	closed  bool // guarded by writing
	failing bool // the log says so; guarded by writing
	mu      sync.Mutex
	timer   *time.Timer // that writes; nil: nothing has changed
	due     time.Time
}

func (f *guardFile) open(g *Guard, data string, log *zap.Logger) {
	if log == nil {
		log = zap.NewNop()
	}
	f.path, f.guard, f.log = filepath.Join(data, guardName), g, log
	if err := f.read(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("cannot read the known sign-ins; starting without them", zap.Error(err))
	}
}

func (f *guardFile) read() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if info.Size() > maxGuardFile {
		return fmt.Errorf("%s is larger than %d MiB", f.path, maxGuardFile>>20)
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	var s guardState
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if len(s.Key) != len(f.guard.key) {
		return fmt.Errorf("%s: invalid key", f.path)
	}
	f.guard.load(&s)
	return nil
}

// load takes over a state. What is from the future, by a clock that was wrong, is left out,
// since it would not expire in time.
func (g *Guard) load(s *guardState) {
	g.key = digestKey(s.Key)
	now := g.now()
	for d, p := range s.Pairs {
		if !p.At.After(now) {
			g.known.pairs.Set(d, &p)
		}
	}
	for d, l := range s.Seals {
		if !l.At.After(now) {
			g.known.seals.Set(d, &l)
		}
	}
	for d, failed := range s.Binds {
		if len(failed) > 0 && !failed[len(failed)-1].After(now) {
			g.binds.users.Set(d, &failed)
		}
	}
	for t, all := range map[*strikeTable]map[digest]strikes{g.throttle.pairs: s.ByPair, g.throttle.addresses: s.ByAddress, g.throttle.names: s.ByName} {
		for d, l := range all {
			if !l.At.After(now) {
				t.set(d, &l)
			}
		}
	}
}

func (g *Guard) state() *guardState {
	s := &guardState{
		Key: g.key[:], Pairs: map[digest]knownPair{}, Seals: map[digest]seal{}, Binds: map[digest][]time.Time{},
		ByPair: g.throttle.pairs.all(), ByAddress: g.throttle.addresses.all(), ByName: g.throttle.names.all(),
	}
	for d, p := range g.known.pairs.All() {
		s.Pairs[d] = *p
	}
	for d, l := range g.known.seals.All() {
		s.Seals[d] = *l
	}
	for d, failed := range g.binds.users.All() {
		s.Binds[d] = *failed
	}
	return s
}

func (t *strikeTable) all() map[digest]strikes {
	all := map[digest]strikes{}
	for d, s := range t.few.All() {
		all[d] = *s
	}
	for d, s := range t.many.All() {
		all[d] = *s
	}
	return all
}

// changed has the file written within a time.
func (f *guardFile) changed(within time.Duration) {
	if f.path == "" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	due := time.Now().Add(within)
	switch {
	case f.timer == nil:
		f.timer = time.AfterFunc(within, f.save)
	case due.Before(f.due):
		f.timer.Reset(within)
	default:
		return
	}
	f.due = due
}

// save writes the file. The log says once that this fails.
func (f *guardFile) save() {
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.closed {
		return
	}
	err := f.replace()
	if err != nil && !f.failing {
		f.log.Error("cannot write the known sign-ins", zap.Error(err))
	}
	f.failing = err != nil
}

// replace writes the file, all or nothing, for its owner only. The caller holds f.writing.
func (f *guardFile) replace() error {
	f.mu.Lock()
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	f.mu.Unlock()
	text, err := json.Marshal(f.guard.state())
	if err != nil {
		return err
	}
	return renameio.WriteFile(f.path, text, 0o600, renameio.WithTempDir(filepath.Dir(f.path)))
}

func (f *guardFile) close() error {
	f.writing.Lock()
	defer f.writing.Unlock()
	f.mu.Lock()
	pending := f.timer != nil
	f.mu.Unlock()
	if f.closed = true; !pending {
		return nil
	}
	return f.replace()
}
