package inspect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"espalier/policy"
)

// exceptionsFile is where exceptions are kept in the data directory. It names
// clients, so it is for its owner alone.
const exceptionsFile = "inspect-exceptions.json"

// maxExceptionsFile bounds what is read; a full one is smaller.
const maxExceptionsFile = 256 << 20

// OpenExceptions returns what the exceptions in the data directory are, none
// where there is no file. Changes are written to it by Keep.
func OpenExceptions(dataDir string) (*Exceptions, error) {
	e := newExceptions()
	path := filepath.Join(dataDir, exceptionsFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxExceptionsFile {
		return nil, fmt.Errorf("%s: has %d bytes, which cannot be: move it away", path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []Exception
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w (move it away to start anew)", path, err)
	}
	for _, x := range list {
		host, _, err := policy.ParseHost(x.Host)
		if err != nil || host != x.Host || !slices.Contains([]string{Automatic, Accepted, Refused}, x.State) {
			return nil, fmt.Errorf("%s: %q in state %q is no exception (move the file away to start anew)", path, x.Host, x.State)
		}
	}
	e.restore(list)
	return e, nil
}

// savePause is the least time between two writes.
const savePause = time.Second

// Keep writes every change to the data directory, within about a second, until
// ctx ends; it returns when the last is written. What cannot be written is told
// to failed. It must be called once at most.
func (e *Exceptions) Keep(ctx context.Context, dataDir string, failed func(error)) {
	path := filepath.Join(dataDir, exceptionsFile)
	write := func() {
		if err := writeExceptions(path, e.List()); err != nil {
			failed(err)
		}
	}
	for {
		select {
		case <-e.changed:
			write()
		case <-ctx.Done():
			select {
			case <-e.changed:
				write()
			default:
			}
			return
		}
		select {
		case <-time.After(savePause):
		case <-ctx.Done():
		}
	}
}

// writeExceptions replaces the file; whoever reads it finds the old or the new.
func writeExceptions(path string, list []Exception) error {
	text, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := renameio.WriteFile(path, append(text, '\n'), 0o600, renameio.WithTempDir(dir)); err != nil {
		return err
	}
	return syncDir(dir)
}
