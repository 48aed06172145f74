package lists

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"espalier/policy"
	"espalier/policy/hostset"
)

// header is the first line of a copy, behind headerMark; what was fetched
// follows as it came.
type header struct {
	Source       string    `json:"source"` // digest
	Fetched      time.Time `json:"fetched"`
	ETag         string    `json:"etag,omitempty"`
	LastModified string    `json:"last_modified,omitempty"`
}

const headerMark = "# espalier: "

// digest stands for the URL of a list, which may hold a password, and its member.
func digest(l policy.List) string {
	source := l.URL
	if l.Member != "" {
		source += "\x00" + l.Member
	}
	sum := sha256.Sum256([]byte(source))
	return hex.EncodeToString(sum[:])
}

// readCopy loads what was last fetched, if there is any.
func (l *list) readCopy() {
	if err := l.openCopy(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.fail(fmt.Errorf("the copy of what was fetched cannot be used: %w", err))
	}
}

func (l *list) openCopy() error {
	f, err := os.Open(l.copy)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	in := bufio.NewReaderSize(f, 64<<10)
	line, err := in.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("%s: %w", l.copy, err)
	}
	var h header
	text, ok := bytes.CutPrefix(line, []byte(headerMark))
	if !ok || json.Unmarshal(text, &h) != nil {
		return fmt.Errorf("%s is not written by espalier", l.copy)
	}
	set, report, err := hostset.Parse(in, l.source.Member)
	if err != nil {
		return fmt.Errorf("%s %w", l.copy, err)
	}
	success := info.ModTime()
	if now := time.Now(); success.After(now) { // the clock was put back
		success = now
	}
	l.put(set, state{report: report, loaded: h.Fetched, success: success, header: h})
	return nil
}

// inherit takes what a list with another URL has in force.
func (l *list) inherit(old *list) {
	st := old.get()
	st.err = nil
	l.state = st
	l.set.Store(old.set.Load())
}

// A copy is being written beside the one that it will replace. Writing does not
// fail, for a list is of use without a copy.
type newCopy struct {
	name string
	file *os.File
	err  error
}

// startCopy begins a copy with its header. It removes what a process that was
// killed has left of another.
func startCopy(name string, h header) *newCopy {
	c := &newCopy{name: name}
	dir := filepath.Dir(name)
	if c.err = os.MkdirAll(dir, 0o700); c.err != nil {
		return c
	}
	pattern := "." + filepath.Base(name) + ".*.part"
	left, _ := filepath.Glob(filepath.Join(dir, pattern))
	for _, old := range left {
		if info, err := os.Stat(old); err == nil && time.Since(info.ModTime()) > 2*fetchTime {
			_ = os.Remove(old)
		}
	}
	if c.file, c.err = os.CreateTemp(dir, pattern); c.err != nil { // of mode 0600
		return c
	}
	text, err := json.Marshal(h)
	if err != nil {
		panic(err) // texts and a time of this era
	}
	_, _ = c.Write([]byte(headerMark + string(text) + "\n"))
	return c
}

// Write writes what was fetched.
func (c *newCopy) Write(p []byte) (int, error) {
	if c.err == nil {
		_, c.err = c.file.Write(p)
	}
	return len(p), nil
}

// keep replaces the copy before, as of now.
func (c *newCopy) keep(now time.Time) error {
	if c.err == nil {
		c.err = c.file.Sync()
	}
	if c.file != nil {
		c.err = errors.Join(c.err, c.file.Close())
	}
	if c.err == nil {
		c.err = os.Chtimes(c.file.Name(), time.Time{}, now)
	}
	if c.err == nil {
		c.err = os.Rename(c.file.Name(), c.name)
	}
	return c.err
}

// discard removes what is left of a copy that was not kept.
func (c *newCopy) discard() {
	if c.file != nil {
		_ = c.file.Close()
		_ = os.Remove(c.file.Name())
	}
}
