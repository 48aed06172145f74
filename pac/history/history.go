// Package history keeps the PAC scripts that were in force, so that what a device
// was given last week can be seen and compared.
package history

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// Dir is the directory in the data directory; one file a script, for its owner
// alone.
const Dir = "pac-history"

// maxEntries bounds what is kept; the oldest go first.
const maxEntries = 1000

// minPrefix is the least of an ID that Find takes.
const minPrefix = 4

// An Entry is a script that was in force.
type Entry struct {
	// ID begins the digest of the script, as the entity tag that it is served
	// with does. The same script has the same ID every time.
	ID string `json:"id"`
	// Time is when it came into force.
	Time time.Time `json:"time"`
	Site string    `json:"site"`
	// Config begins the SHA-256 of the configuration file.
	Config string `json:"config"`
	Size   int64  `json:"size"` // bytes

	name string
}

// idDigits are how many hexadecimal digits stand for a digest.
const idDigits = 12

// A Store is the history in a data directory. Several processes may use it.
type Store struct{ dir string }

// New returns the history in a data directory. The directory is made when
// something is first kept.
func New(dataDir string) Store { return Store{filepath.Join(dataDir, Dir)} }

const timeLayout = "20060102T150405.000Z"

// Keep keeps the script that has come into force for site, unless it is what was
// so before; config is the SHA-256 of the configuration file in hexadecimal. It
// reports whether the script is a new entry.
func (s Store) Keep(now time.Time, site, config string, script []byte) (bool, error) {
	entries, err := s.List()
	if err != nil {
		return false, err
	}
	id := idOf(script)
	for _, e := range slices.Backward(entries) {
		if e.Site == site {
			if e.ID == id {
				return false, nil
			}
			break
		}
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return false, err
	}
	name := strings.Join([]string{now.UTC().Format(timeLayout), site, config[:min(len(config), idDigits)], id}, "_") + ".pac"
	if err := renameio.WriteFile(filepath.Join(s.dir, name), script, 0o600, renameio.WithTempDir(s.dir)); err != nil {
		return false, err
	}
	var errs []error
	for _, e := range entries[:max(0, len(entries)+1-maxEntries)] {
		errs = append(errs, os.Remove(filepath.Join(s.dir, e.name)))
	}
	return true, errors.Join(errs...)
}

func idOf(script []byte) string {
	sum := sha256.Sum256(script)
	return hex.EncodeToString(sum[:])[:idDigits]
}

// List returns what is kept, the oldest first; nothing where no history is.
func (s Store) List() ([]Entry, error) {
	files, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for _, f := range files { // sorted, and names begin with the time
		info, err := f.Info()
		e, ok := parseName(f.Name())
		if err != nil || !ok {
			continue // removed meanwhile, or somebody else's
		}
		e.Size = info.Size()
		entries = append(entries, e)
	}
	return entries, nil
}

func parseName(name string) (Entry, bool) {
	stem, ok := strings.CutSuffix(name, ".pac")
	parts := strings.Split(stem, "_")
	if !ok || len(parts) != 4 {
		return Entry{}, false
	}
	at, err := time.Parse(timeLayout, parts[0])
	return Entry{ID: parts[3], Time: at, Site: parts[1], Config: parts[2], name: name}, err == nil
}

// ErrNone is returned, wrapped, where no script has an ID.
var ErrNone = errors.New("is in no history")

// Find returns the script whose ID begins with id, of which four digits are
// needed at least. Two scripts that fit are an error.
func (s Store) Find(id string) ([]byte, error) {
	entries, err := s.List()
	if err != nil {
		return nil, err
	}
	var found *Entry
	for i, e := range entries {
		if len(id) < minPrefix || !strings.HasPrefix(e.ID, id) {
			continue
		}
		if found != nil && found.ID != e.ID {
			return nil, fmt.Errorf("%s: %s and %s begin so; write more of it", id, found.ID, e.ID)
		}
		found = &entries[i]
	}
	if found == nil {
		return nil, fmt.Errorf("%s: %w at %s", id, ErrNone, s.dir)
	}
	script, err := os.ReadFile(filepath.Join(s.dir, found.name))
	if err == nil && idOf(script) != found.ID {
		err = fmt.Errorf("%s is not what was written there", filepath.Join(s.dir, found.name))
	}
	return script, err
}
