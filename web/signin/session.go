package signin

import (
	"time"
)

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
func (d *Desk) open(name string, role Role, entry string) (id string, w *Identity) {
	now := d.now()
	own := 0
	for key, s := range d.sessions {
		if !d.alive(s, now) {
			delete(d.sessions, key)
		} else if s.who.Name == name {
			own++
		}
	}
	if own >= maxOwnSessions {
		d.endOldest(name)
	} else if len(d.sessions) >= maxSessions {
		d.endOldest("")
	}
	id = newSecret()
	key := digestOf(id)
	d.sessions[key] = &session{
		who: Identity{Name: name, Role: role, CSRF: newSecret(), valid: func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			s := d.sessions[key]
			return s != nil && d.alive(s, d.now())
		}},
		entry: entry, opened: now, seen: now,
	}
	return id, d.sessions[key].copy()
}

func (s *session) copy() *Identity {
	w := s.who
	return &w
}

// endOldest ends the session that is idle longest, of a user where one is given.
func (d *Desk) endOldest(name string) {
	var oldest *session
	var at digest
	for key, s := range d.sessions {
		if (name == "" || s.who.Name == name) && (oldest == nil || s.seen.Before(oldest.seen)) {
			oldest, at = s, key
		}
	}
	delete(d.sessions, at)
}

// alive reports whether a session has neither expired nor lost its user.
func (d *Desk) alive(s *session, now time.Time) bool {
	entry, ok := d.users.Entry(s.who.Name)
	return ok && entry == s.entry && now.Sub(s.seen) < idle && now.Sub(s.opened) < lifetime
}

// Continue returns whose session id continues, nil where there is none (any
// more). It counts as activity.
func (d *Desk) Continue(id string) *Identity {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := digestOf(id)
	s := d.sessions[key]
	if s == nil {
		return nil
	}
	now := d.now()
	if !d.alive(s, now) {
		delete(d.sessions, key)
		return nil
	}
	s.seen = now
	return s.copy()
}

// SignOut ends a session, if there is one.
func (d *Desk) SignOut(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, digestOf(id))
}
