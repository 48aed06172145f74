package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"
)

// A User is somebody who has signed in.
type User struct {
	// Name is the user's own name: as it stands in the file, or in the
	// directory, whatever case it was typed in.
	Name   string
	Groups []string // must not be modified
	Role   string   // empty where users have none; see OpenRoles
}

// ErrWrong says that there is no such user, or that the password is wrong; which
// of both is not told.
var ErrWrong = errors.New("wrong user or password")

// An UnavailableError says that it cannot be told now who somebody is.
type UnavailableError struct{ Err error }

func (e *UnavailableError) Error() string { return e.Err.Error() }
func (e *UnavailableError) Unwrap() error { return e.Err }

const (
	// Longer names and passwords are nobody's.
	maxName     = 256
	maxPassword = 1024
	// trustFile is how long a confirmed password is taken without computing its
	// hash again. It ends at once where the file has another hash.
	trustFile = 6 * time.Hour
	// maxWait bounds the wait for others' sign-ins to be checked.
	maxWait = 10 * time.Second
	// maxHashes bounds the memory that hashing takes: maxMemory for each.
	maxHashes = 4
)

// An Auth knows who may sign in. It is immutable, but for what it remembers, and
// safe for concurrent use.
type Auth struct {
	challenge string
	users     *htpasswd  // nil: none
	groups    groups     // nil: none
	directory *directory // nil: none
	*shared
}

// shared is what outlives a configuration.
type shared struct {
	memory   *memory
	damper   *damper
	hashing  chan struct{} // one for each hash that may be computed at a time
	flight   singleflight.Group
	outcomes *prometheus.CounterVec
}

func newShared() *shared {
	s := &shared{
		memory: newMemory(), damper: newDamper(),
		// Hashing never takes all of the processor from traffic.
		hashing: make(chan struct{}, min(maxHashes, max(1, runtime.GOMAXPROCS(0)/2))),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "espalier_auth_total",
			Help: "Sign-ins that were looked at, by what came of them; remembered ones needed no check.",
		}, []string{"result"}),
	}
	for _, o := range []string{"ok", "remembered", "wrong", "damped", "unavailable"} {
		s.outcomes.WithLabelValues(o)
	}
	return s
}

// Open reads the files of cfg, which must be valid, and the roots of a
// directory; it connects to nothing. What before has learnt stays known, as far
// as it holds for cfg; before is nil at the start. log may be nil. Errors begin with the key and
// name file and line, joined.
func Open(cfg Config, before *Auth, log *zap.Logger) (*Auth, error) {
	a := &Auth{challenge: cfg.challenge()}
	if log == nil {
		log = zap.NewNop()
	}
	var errs []error
	open := func(key, file string, read func(file string) error) {
		if file == "" {
			return
		}
		for _, err := range split(read(file)) {
			errs = append(errs, fmt.Errorf("auth.%s: %w", key, err))
		}
	}
	open("htpasswd", cfg.HTPasswd, func(file string) (err error) {
		a.users, err = openHTPasswd(file)
		return err
	})
	open("groups", cfg.Groups, func(file string) (err error) {
		a.groups, err = openGroups(file)
		return err
	})
	if cfg.LDAP.URL != "" {
		var err error
		a.directory, err = openDirectory(cfg.LDAP, log)
		for _, err := range split(err) {
			errs = append(errs, fmt.Errorf("auth.ldap.%w", err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	a.share(before)
	return a, nil
}

// OpenRoles reads a file of "name:hash[:role]" lines. Who has no role there has
// the first of roles. before is as with Open. Errors name file and line, joined.
func OpenRoles(file string, roles []string, before *Auth) (*Auth, error) {
	users, err := openHTPasswd(file, roles...)
	if err != nil {
		return nil, err
	}
	a := &Auth{users: users}
	a.share(before)
	return a, nil
}

// share takes over what before has learnt; nil is nothing.
func (a *Auth) share(before *Auth) {
	if before != nil {
		a.shared = before.shared
	} else {
		a.shared = newShared()
	}
}

// Users is how many stand in the file.
func (a *Auth) Users() int {
	if a.users == nil {
		return 0
	}
	return len(a.users.users)
}

// Entry is what the file has behind a user's name. Where that changes, so has the
// password or the role.
func (a *Auth) Entry(name string) (entry string, ok bool) {
	if !a.users.has(name) {
		return "", false
	}
	return a.users.users[name].text, true
}

// split takes joined errors apart.
func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// Close lets go of connections that wait for the next sign-in. Those under way
// come to their end.
func (a *Auth) Close() {
	if a.directory != nil {
		a.directory.close()
	}
}

// Enabled reports whether anybody may be able to sign in.
func (a *Auth) Enabled() bool { return a.users != nil || a.directory != nil }

// Challenge is the value of the header that asks for a password.
func (a *Auth) Challenge() string { return a.challenge }

// FileGroups are the groups that the group file has for a user.
func (a *Auth) FileGroups(name string) []string { return a.groups[name] }

// Collector counts sign-ins. It is the same after a reload.
func (a *Auth) Collector() prometheus.Collector { return a.outcomes }

// SignIn says who signs in by name and password from an address. The error is
// ErrWrong, a *DampedError, an *UnavailableError, or why ctx has ended.
//
// Credentials that were confirmed a short while ago are not checked again, and
// never damped; the same wrong ones again are no further guess. Who is in a
// group is told by the group file at once, by a directory when it was asked last.
func (a *Auth) SignIn(ctx context.Context, from netip.Addr, name, password string) (User, error) {
	u, fresh, err := a.signIn(ctx, from, name, password)
	count := func(outcome string) { a.outcomes.WithLabelValues(outcome).Inc() }
	switch {
	case err == nil && fresh:
		count("ok")
	case err == nil:
		count("remembered")
	case errors.Is(err, ErrWrong):
		count("wrong")
	case isA[*DampedError](err):
		count("damped")
	case isA[*UnavailableError](err):
		count("unavailable")
	}
	if err != nil {
		return User{}, err
	}
	if more := a.groups[u.Name]; len(more) > 0 {
		u.Groups = slices.Concat(u.Groups, more)
	}
	return u, nil
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// signIn is SignIn without the group file; fresh tells that credentials were
// checked.
func (a *Auth) signIn(ctx context.Context, from netip.Addr, name, password string) (_ User, fresh bool, _ error) {
	if name == "" || len(name) > maxName || len(password) > maxPassword {
		return User{}, false, ErrWrong
	}
	c := a.check(from, name, password)
	if u, err, ok := c.remembered(); ok {
		return u, false, err
	}
	if err := c.allow(name); err != nil {
		return User{}, false, err
	}
	// Devices present the same credentials on many connections at once. What is
	// found serves all of them, so it does not end with any of them.
	done := a.flight.DoChan(from.String()+string(c.digest), func() (any, error) { return c.run() })
	select {
	case r := <-done:
		u, _ := r.Val.(User)
		return u, true, r.Err
	case <-ctx.Done():
		return User{}, false, ctx.Err()
	}
}

// A check is one name and password on the way to an answer.
type check struct {
	*Auth
	from           netip.Addr
	name, password string
	inFile         bool
	digest         digest
	trust          time.Duration // how long the answer yes is taken
}

func (a *Auth) check(from netip.Addr, name, password string) *check {
	c := &check{Auth: a, from: from, name: name, password: password, trust: trustFile}
	c.inFile = a.users.has(name) || a.directory == nil
	if c.inFile {
		// With the hash, so that another password or none ends what is known.
		text := ""
		if a.users.has(name) {
			text = a.users.users[name].text
		}
		c.digest = a.memory.digest("file", text, name, password)
	} else {
		c.digest = a.memory.digest("ldap", a.directory.identity, name, password)
		c.trust = a.directory.cfg.Cache
	}
	return c
}

// remembered is the answer that needs no check.
func (c *check) remembered() (User, error, bool) {
	if u, age, ok := c.memory.confirmed(c.digest); ok && age < c.trust {
		return u, nil, true
	}
	if age, ok := c.memory.refused(c.digest); ok && age < trustBad {
		return User{}, ErrWrong, true
	}
	return User{}, nil, false
}

// isGuess reports whether these credentials were not presented before.
func (c *check) isGuess() bool {
	_, _, good := c.memory.confirmed(c.digest)
	_, bad := c.memory.refused(c.digest)
	return !good && !bad
}

// allow returns a *DampedError where a guess has to wait.
func (c *check) allow(name string) error {
	if !c.isGuess() {
		return nil
	}
	return c.damper.allow(c.from, name)
}

// run waits for its turn and checks the credentials. It notes what comes of it.
func (c *check) run() (u User, err error) {
	defer func() {
		if fault := recover(); fault != nil { // nobody above would stop it
			err = &UnavailableError{fmt.Errorf("panic while a password was checked: %v", fault)}
		}
	}()
	turns := c.hashing
	if !c.inFile {
		turns = c.directory.turns
	}
	timeout := time.NewTimer(maxWait)
	defer timeout.Stop()
	select {
	case turns <- struct{}{}:
		defer func() { <-turns }()
	case <-timeout.C:
		return User{}, &UnavailableError{errors.New("auth: too many sign-ins wait to be checked")}
	}
	// What others have shown meanwhile counts.
	if u, err, ok := c.remembered(); ok {
		return u, err
	}
	if err := c.allow(c.name); err != nil {
		return User{}, err
	}
	names := []string{c.name}
	if c.inFile {
		u = User{Name: c.name}
		if c.users.has(c.name) {
			u.Role = c.users.users[c.name].role
		}
		if c.users == nil || !c.users.verify(c.name, c.password) {
			err = ErrWrong
		}
	} else {
		u, err = c.directory.verify(c.name, c.password, func(account string) error {
			if c.users.has(account) {
				return ErrWrong // the name is somebody else's
			}
			names = append(names, account)
			return c.allow(account)
		})
	}
	guess := c.isGuess()
	switch {
	case err == nil:
		c.memory.confirm(c.digest, u)
		c.damper.succeeded(names...)
	case errors.Is(err, ErrWrong):
		c.memory.refuse(c.digest)
		if guess {
			c.damper.failed(c.from, names...)
		}
	case isA[*UnavailableError](err):
		if known, age, ok := c.memory.confirmed(c.digest); ok && age < c.directory.cfg.Outage {
			return known, nil
		}
	}
	return u, err
}
