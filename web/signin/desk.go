package signin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"espalier/policy/auth"
)

// A Desk is where people and scripts show who they are. It is safe for
// concurrent use.
type Desk struct {
	now    func() time.Time
	guard  *auth.Guard
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
// else is asked but Users. Tokens are kept in the data directory; now is the clock. guard
// throttles guesses at passwords and tokens.
func NewDesk(data string, now func() time.Time, guard *auth.Guard) *Desk {
	return &Desk{
		now: now, guard: guard, sessions: map[digest]*session{},
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

// Guard throttles guesses at passwords and tokens.
func (d *Desk) Guard() *auth.Guard { return d.guard }

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

const (
	// idle is how long a session lives without a request.
	idle = time.Hour
	// lifetime is how long it lives at all: a working day.
	lifetime = 12 * time.Hour
	// maxSessions bounds the sessions; one more ends that which is idle longest.
	maxSessions = 1000
	// maxOwnSessions bounds those of one user, so that nobody ends those of others.
	maxOwnSessions = 20
)

// A session is kept in memory only: it ends with the process.
type session struct {
	who          Identity
	entry        string // of the user's file, when the session was opened
	opened, seen time.Time
}

// open begins a session. d.mu must be held.
func (d *Desk) open(name string, role Role, entry string) (id string, who *Identity) {
	now := d.now()
	maps.DeleteFunc(d.sessions, func(_ digest, s *session) bool { return !d.alive(s, now) })
	var own []digest
	for key, s := range d.sessions {
		if s.who.Name == name {
			own = append(own, key)
		}
	}
	if len(own) >= maxOwnSessions {
		d.endOldest(own)
	} else if len(d.sessions) >= maxSessions {
		d.endOldest(slices.Collect(maps.Keys(d.sessions)))
	}
	id = newSecret()
	key := digestOf(id)
	s := &session{entry: entry, opened: now, seen: now, who: Identity{Name: name, Role: role, CSRF: newSecret(), valid: func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		s := d.sessions[key]
		return s != nil && d.alive(s, d.now())
	}}}
	d.sessions[key] = s
	who = new(s.who)
	return id, who
}

// endOldest ends that one of some sessions that is idle longest.
func (d *Desk) endOldest(keys []digest) {
	delete(d.sessions, slices.MinFunc(keys, func(a, b digest) int { return d.sessions[a].seen.Compare(d.sessions[b].seen) }))
}

// alive reports whether a session has neither expired nor lost its user.
func (d *Desk) alive(s *session, now time.Time) bool {
	entry, ok := d.users.Entry(s.who.Name)
	return ok && entry == s.entry && now.Sub(s.seen) < idle && now.Sub(s.opened) < lifetime
}

// Continue returns whose session id continues, nil if there is none (any more). It
// counts as activity.
func (d *Desk) Continue(id string) *Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	s := d.sessions[digestOf(id)]
	if s == nil || !d.alive(s, now) {
		return nil
	}
	s.seen = now
	return new(s.who)
}

// SignOut ends a session, if there is one.
func (d *Desk) SignOut(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, digestOf(id))
}
