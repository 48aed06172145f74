package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
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

// An Auth knows who may sign in. It is immutable, but for its Guard, and safe for
// concurrent use.
type Auth struct {
	source    Source
	challenge string
	users     *htpasswd  // nil: none
	groups    groups     // nil: none
	folded    groups     // the same by the folded names of a directory's users
	directory *directory // nil: none
	*Guard
}

// Open reads the files of cfg, which must be valid, and the roots of a
// directory; it connects to nothing. What guard has learnt counts as far as it holds for
// cfg; nil is a new one. log may be nil. Errors begin with the key and name file and line,
// joined.
func Open(cfg Config, guard *Guard, log *zap.Logger) (*Auth, error) {
	a := &Auth{source: Proxy, challenge: cfg.challenge(), Guard: guardOr(guard)}
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
	if a.directory != nil {
		a.folded = a.groups.fold()
	}
	return a, nil
}

// OpenRoles reads the console's users, a file of "name:hash[:role]" lines. A user without
// role has the first of roles. guard is as with Open. Errors name file and line, joined.
func OpenRoles(file string, roles []string, guard *Guard) (*Auth, error) {
	users, err := openHTPasswd(file, roles...)
	if err != nil {
		return nil, err
	}
	return &Auth{source: Console, users: users, Guard: guardOr(guard)}, nil
}

func guardOr(g *Guard) *Guard {
	if g == nil {
		return NewGuard(time.Now)
	}
	return g
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

// FoldUser returns the key by which names of a directory's users are compared, in any case
// and with any spaces. It returns false for users of the file, whose names are compared as
// written.
func (a *Auth) FoldUser(name string) (key string, ok bool) {
	if a.directory == nil || a.users.has(name) {
		return "", false
	}
	return foldName(name), true
}

// Respelled returns how the file of users writes a name that it has in another case or with
// other spaces only, so that it is not that user's.
func (a *Auth) Respelled(name string) (as string, ok bool) {
	if a.users == nil || a.users.has(name) {
		return "", false
	}
	as, ok = a.users.folded[foldName(name)]
	return as, ok
}

// Members are all users that the group file names, sorted.
func (a *Auth) Members() []string { return slices.Sorted(maps.Keys(a.groups)) }

// FileGroups are the groups that the group file has for a user.
func (a *Auth) FileGroups(name string) []string {
	if key, ok := a.FoldUser(name); ok {
		return a.folded[key]
	}
	return a.groups[name]
}

// SignIn says who signs in by name and password from an address. The error is
// ErrWrong, a *ThrottledError, an *UnavailableError, or why ctx has ended.
//
// The throttle comes first and does not look at the password. Credentials that were
// confirmed a short while ago are then not checked again; the same wrong ones again are no
// further guess. Who is in a group is told by the group file at once, by a directory when
// it was asked last.
func (a *Auth) SignIn(ctx context.Context, from netip.Addr, name, password string) (User, error) {
	u, err := a.signIn(ctx, from, name, password)
	a.count(a.source, err)
	if err != nil {
		return User{}, err
	}
	if more := a.FileGroups(u.Name); len(more) > 0 {
		u.Groups = slices.Concat(u.Groups, more)
	}
	return u, nil
}

func isA[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// signIn is SignIn without the group file.
func (a *Auth) signIn(ctx context.Context, from netip.Addr, name, password string) (User, error) {
	if name == "" || len(name) > maxName || len(password) > maxPassword {
		return User{}, ErrWrong
	}
	c := a.check(from, name, password)
	if err := c.allow(c.attempt); err != nil {
		return User{}, err
	}
	if u, err, ok := c.remembered(); ok {
		return u, err
	}
	// Devices present the same credentials on many connections at once. What is
	// found serves all of them, so it does not end with any of them.
	done := a.flight.DoChan(string(c.attempt.pair[:])+string(c.digest[:]), func() (any, error) { return c.run() })
	select {
	case r := <-done:
		u, _ := r.Val.(User)
		return u, r.Err
	case <-ctx.Done():
		return User{}, ctx.Err()
	}
}

// A check is one name and password on the way to an answer.
type check struct {
	*Auth
	from           netip.Addr
	name, password string
	inFile         bool
	digest         digest
	hash           digest        // of the user's hash in the file; zero: of a directory
	attempt        attempt       // by the name as typed
	own            attempt       // by the directory's own name, if it is another; else zero
	trust          time.Duration // how long the answer yes is taken
}

func (a *Auth) check(from netip.Addr, name, password string) *check {
	c := &check{Auth: a, from: from, name: name, password: password, trust: trustFile, attempt: a.Guard.attempt(a.source, from, name)}
	c.inFile = a.users.has(name) || a.directory == nil
	if c.inFile {
		// With the hash, so that another password or none ends what is known.
		text := ""
		if a.users.has(name) {
			text = a.users.users[name].text
			c.hash = a.key.digest("hash", text)
		}
		c.digest = a.memory.digest(string(a.source), "file", text, name, password)
	} else {
		c.digest = a.memory.digest(string(a.source), "ldap", a.directory.identity, name, password)
		c.trust = a.directory.cfg.Cache
	}
	return c
}

// allow returns a *ThrottledError if an attempt has to wait.
func (c *check) allow(by attempt) error {
	return c.throttle.allow(by, func() bool { return c.isKnown(by) })
}

func (c *check) isKnown(by attempt) bool { return c.known.is(by.pair, c.hash) }

// remembered is the answer that needs no check. Wrong passwords for a hash stay wrong.
func (c *check) remembered() (User, error, bool) {
	if u, age, ok := c.memory.confirmed(c.digest); ok && age < c.trust {
		c.note(u, false)
		return u, nil, true
	}
	if wrong, recheck := c.memory.refused(c.digest); wrong && (c.inFile || !recheck) {
		return User{}, ErrWrong, true
	}
	return User{}, nil, false
}

// note remembers that u signs in from here. fresh is set if the password was checked now.
func (c *check) note(u User, fresh bool) {
	p := knownPair{Password: c.hash}
	if !c.inFile {
		p.Seal = c.account(u.Name)
		once := c.memory.digest("seal", string(p.Seal[:]), c.password)
		if !fresh && !c.known.isSealed(p.Seal, once) {
			return // the user has another password meanwhile
		}
		p.Password = c.known.seal(p.Seal, once, c.password)
		c.known.sealed.Set(c.account(c.name), &once)
	}
	changed := c.known.add(c.attempt.pair, p)
	if c.own != (attempt{}) {
		changed = c.known.add(c.own.pair, p) || changed
	}
	if changed {
		c.file.changed(soonSave)
	}
}

// account is the digest of a directory's user.
func (c *check) account(name string) digest {
	return c.key.digest("account", c.directory.cfg.URL, c.directory.cfg.Base, foldName(name))
}

// isGuess reports whether these credentials were not presented before.
func (c *check) isGuess() bool {
	_, _, good := c.memory.confirmed(c.digest)
	bad, _ := c.memory.refused(c.digest)
	return !good && !bad
}

// run waits for its turn and checks the credentials. It notes what comes of it.
func (c *check) run() (u User, err error) {
	defer func() {
		if fault := recover(); fault != nil { // nobody above would stop it
			err = &UnavailableError{fmt.Errorf("panic while a password was checked: %v", fault)}
		}
	}()
	// One guess at a time, so that each counts before the next is tried. A directory's user has
	// one bind at a time, since devices that wait for it need none of their own.
	key, slots := c.attempt.pair, c.hashing
	if !c.inFile {
		key, slots = c.attempt.name, c.directory.turns
	}
	timeout := time.NewTimer(maxWait)
	defer timeout.Stop()
	defer c.turns.take(key)()
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-timeout.C:
		return User{}, &UnavailableError{errors.New("auth: too many sign-ins wait to be checked")}
	}
	// What others have shown meanwhile counts.
	if err := c.allow(c.attempt); err != nil {
		return User{}, err
	}
	if u, err, ok := c.remembered(); ok {
		return u, err
	}
	guess := c.isGuess()
	if c.inFile {
		u, err = c.verifyFile()
	} else {
		u, err = c.directory.verify(c.name, c.password, c.tryBind)
	}
	switch {
	case err == nil:
		c.memory.confirm(c.digest, u)
		c.note(u, true)
		c.eachAttempt(c.throttle.succeeded)
	case err == errStale:
		return User{}, ErrWrong
	case errors.Is(err, ErrWrong):
		c.memory.refuse(c.digest)
		if guess {
			c.eachAttempt(c.throttle.failed)
			c.file.changed(laterSave)
		}
	case isA[*ThrottledError](err):
		c.throttle.refused(c.attempt)
		c.file.changed(laterSave)
	case isA[*UnavailableError](err):
		if guess && !c.inFile && c.known.sealed.Get(c.account(c.name)) != nil {
			c.throttle.failed(c.attempt) // it was a guess at what the memory has
		}
		if known, age, ok := c.memory.confirmed(c.digest); ok && age < c.directory.cfg.Outage {
			return known, nil
		}
	}
	return u, err
}

func (c *check) eachAttempt(f func(attempt)) {
	f(c.attempt)
	if c.own != (attempt{}) {
		f(c.own)
	}
}

func (c *check) verifyFile() (User, error) {
	if c.users == nil || !c.users.verify(c.name, c.password) {
		return User{}, ErrWrong
	}
	return User{Name: c.name, Role: c.users.users[c.name].role}, nil
}

// errStale is ErrWrong for credentials that were wrong a while ago and are not tried again.
var errStale = fmt.Errorf("%w", ErrWrong)

// tryBind calls bind, which tries the password of the directory's user name, unless too
// many guesses or binds of the user have failed.
func (c *check) tryBind(name string, bind func() error) error {
	if c.users.hasFolded(name) {
		return ErrWrong // the name is that of a user of the file
	}
	if own := c.Guard.attempt(c.source, c.from, name); own.name != c.attempt.name {
		c.own = own
		c.own.address = digest{} // counted by the name as typed
		if err := c.allow(own); err != nil {
			return err
		}
	}
	most := c.directory.cfg.MaxFailures
	if most == 0 {
		return bind()
	}
	stale, _ := c.memory.refused(c.digest)
	switch {
	case stale: // leaves one for another password
		most--
	case (c.isKnown(c.attempt) || c.isKnown(c.own)) && !c.throttle.hasFailed(c.attempt):
		most += bindReserve
	}
	user := c.account(name)
	if wait := c.binds.begin(user, most); wait > 0 && stale {
		return errStale
	} else if wait > 0 {
		return &ThrottledError{"too many binds of this name have failed (auth.ldap.max_failures)", wait}
	}
	err := bind()
	switch {
	case err == nil:
		c.binds.succeeded(user)
	case !errors.Is(err, ErrWrong):
		c.binds.cancel(user)
	}
	c.file.changed(soonSave)
	return err
}
