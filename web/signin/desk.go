package signin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"espalier/policy/auth"
)

// A Desk is where people and scripts show who they are. It is safe for
// concurrent use.
type Desk struct {
	now    func() time.Time
	tokens tokenFile

	mu       sync.Mutex
	file     string // of users
	users    *auth.Auth
	sessions map[digest]*session
	link     link
}

// A digest stands for a secret, which is not kept.
type digest [sha256.Size]byte

func digestOf(secret string) digest { return sha256.Sum256([]byte(secret)) }

// newSecret returns 256 random bits, fit for URLs, cookies and headers.
func newSecret() string {
	b := make([]byte, 32)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// NewDesk returns a desk without users, who are set by SetUsers before anything
// else is asked but Users. Tokens are kept in the data directory; now is the clock.
func NewDesk(data string, now func() time.Time) *Desk {
	return &Desk{
		now: now, sessions: map[digest]*session{},
		tokens: tokenFile{path: filepath.Join(data, tokensName)},
	}
}

// SetUsers replaces the users, by what OpenUsers has read from file. Sessions of
// those whose password or role is another now, and of those who are gone, have
// ended with it.
func (d *Desk) SetUsers(file string, users *auth.Auth) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.setUsers(file, users)
}

func (d *Desk) setUsers(file string, users *auth.Auth) {
	d.file, d.users = file, users
	if users.Users() > 0 {
		d.link = link{}
	}
}

// Users are those in force, nil before SetUsers.
func (d *Desk) Users() *auth.Auth {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.users
}

// HasUsers reports whether anybody could sign in.
func (d *Desk) HasUsers() bool { return d.Users().Users() > 0 }

// SignIn checks a password and opens a session; id is the secret that continues
// it. The error is that of auth.Auth.SignIn.
func (d *Desk) SignIn(ctx context.Context, from netip.Addr, name, password string) (id string, w *Identity, err error) {
	users := d.Users()
	u, err := users.SignIn(ctx, from, name, password)
	if err != nil {
		return "", nil, err
	}
	entry, ok := users.Entry(u.Name)
	if !ok {
		return "", nil, auth.ErrWrong
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	id, w = d.open(u.Name, Role(u.Role), entry)
	return id, w, nil
}
