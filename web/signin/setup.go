package signin

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/google/renameio/v2"

	"espalier/policy/auth"
)

// linkLifetime is how long a setup link is good for.
const linkLifetime = time.Hour

// minPassword is the fewest characters that a password made here may have.
const minPassword = 12

// link lets whoever has its secret make the first user, once.
type link struct {
	secret digest
	until  time.Time // the zero time: there is none
}

var (
	// ErrUsers says that there are users already, so that there is nothing to set up.
	ErrUsers = errors.New("the console has users already")
	// ErrLink says that a setup link is none, was used, or is too old.
	ErrLink = errors.New("this setup link is not valid any more")
)

// NewLink returns the secret of a setup link, good once and until the time that
// is returned; a link before it is good no longer. The error is ErrUsers where
// there is nothing to set up.
func (d *Desk) NewLink() (secret string, until time.Time, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users.Users() > 0 {
		return "", time.Time{}, ErrUsers
	}
	secret = newSecret()
	d.link = link{digestOf(secret), d.now().Add(linkLifetime)}
	return secret, d.link.until, nil
}

// CheckLink returns ErrLink where a setup link would not be taken.
func (d *Desk) CheckLink(secret string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.checkLink(secret)
}

func (d *Desk) checkLink(secret string) error {
	got := digestOf(secret)
	if d.users.Users() > 0 || !d.now().Before(d.link.until) || subtle.ConstantTimeCompare(got[:], d.link.secret[:]) == 0 {
		return ErrLink
	}
	return nil
}

// SetUp makes the first user, an admin, writes the users' file and opens a
// session. The link is used up where that succeeds. The error is ErrLink, or
// says what is wrong with name or password or why the file cannot be written.
func (d *Desk) SetUp(secret, name, password string) (id string, w *Identity, err error) {
	if err := d.CheckLink(secret); err != nil { // before the work of hashing
		return "", nil, err
	}
	if utf8.RuneCountInString(password) < minPassword {
		return "", nil, fmt.Errorf("the password is too short: %d characters at least", minPassword)
	}
	line, err := auth.Line(name, password, false)
	if err != nil {
		return "", nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.checkLink(secret); err != nil { // another has used it meanwhile
		return "", nil, err
	}
	if err := addLine(d.file, line+":"+string(Admin)); err != nil {
		return "", nil, fmt.Errorf("the users' file cannot be written: %w", err)
	}
	users, err := OpenUsers(d.file, d.guard)
	if err != nil {
		return "", nil, err
	}
	d.setUsers(d.file, users)
	entry, _ := users.Entry(name)
	id, w = d.open(name, Admin, entry)
	return id, w, nil
}

// addLine adds a line to a file that may not be there.
func addLine(file, line string) error {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target
	}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if s := string(text); s != "" && !strings.HasSuffix(s, "\n") {
		line = "\n" + line
	}
	return replaceFile(file, append(text, line+"\n"...))
}

// replaceFile writes a file that only its owner can read, all or nothing. It
// belongs to whom the directory belongs to: root may write it for a process that
// runs as somebody else.
func replaceFile(file string, text []byte) error {
	dir := filepath.Dir(file)
	f, err := renameio.NewPendingFile(file, renameio.WithTempDir(dir), renameio.WithPermissions(0o600))
	if err != nil {
		return err
	}
	defer f.Cleanup()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := giveTo(f.File, dir); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close()) // the name survives a power failure
}

func giveTo(f *os.File, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Geteuid() {
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
	return nil
}
