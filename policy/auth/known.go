package auth

import (
	"crypto/rand"
	"crypto/subtle"
	"time"

	"golang.org/x/crypto/argon2"

	"espalier/policy/cache"
)

const (
	// maxKnown bounds the pairs of name and client address that are known to be good, and
	// the users of a directory among them.
	maxKnown = 20_000
	// rememberKnown is how long a pair is known after its last sign-in, noted once a day.
	rememberKnown = 60 * 24 * time.Hour
	knownStep     = 24 * time.Hour
)

// known remembers at which client addresses users have signed in with the password that
// they have now. It is safe for concurrent use.
type known struct {
	now   func() time.Time
	pairs *cache.Cache[digest, knownPair]
	seals *cache.Cache[digest, seal]
	// sealed are the digests of the passwords that this process has seen match seals.
	sealed *cache.Cache[digest, digest]
}

// A knownPair has signed in; not modified.
type knownPair struct {
	// Seal is the user in seals, for one of a directory.
	Seal digest `json:"seal,omitzero"`
	// Password is the ID of the seal, or a digest of the hash in the file. Where that is
	// another now, so is the password, and the pair is not known.
	Password digest    `json:"password"`
	At       time.Time `json:"at"`
}

// A seal tells whether a password of a directory is the one from before. It is two bytes
// of a slow hash: of the passwords that somebody with the file tries, one in 65,536
// matches, so that the file does not tell the password.
type seal struct {
	ID   digest    `json:"id"`
	Salt []byte    `json:"salt"`
	Tag  []byte    `json:"tag"`
	At   time.Time `json:"at"`
}

func newKnown(now func() time.Time) *known {
	life := func(at time.Time) time.Duration { return rememberKnown - now().Sub(at) }
	return &known{
		now:    now,
		pairs:  cache.New[digest](maxKnown, func(p *knownPair) time.Duration { return life(p.At) }, now),
		seals:  cache.New[digest](maxKnown, func(s *seal) time.Duration { return life(s.At) }, now),
		sealed: cache.New[digest](maxKnown, func(*digest) time.Duration { return rememberKnown }, now),
	}
}

// is reports whether a pair is known. password is that of a user of the file, zero for one of
// the directory.
func (k *known) is(pair, password digest) bool {
	p := k.pairs.Get(pair)
	if p == nil {
		return false
	}
	if p.Seal != (digest{}) {
		if s := k.seals.Get(p.Seal); s != nil && password == (digest{}) {
			password = s.ID
		}
	}
	return password != (digest{}) && p.Password == password
}

// add notes a sign-in of a pair, and reports whether that is new.
func (k *known) add(pair digest, p knownPair) (changed bool) {
	p.At = k.now()
	old := k.pairs.Get(pair)
	if old != nil && old.Seal == p.Seal && old.Password == p.Password && p.At.Sub(old.At) < knownStep {
		return false
	}
	k.pairs.Set(pair, &p)
	return true
}

// seal returns the ID of the seal of a directory's user whose right password is password,
// and once is its digest in this process. If the password is another than before, so is
// the ID. It computes a slow hash once in a process.
func (k *known) seal(user, once digest, password string) digest {
	old := k.seals.Get(user)
	if old != nil && (k.isSealed(user, once) || old.matches(password)) {
		if k.now().Sub(old.At) >= knownStep {
			k.seals.Set(user, &seal{old.ID, old.Salt, old.Tag, k.now()})
		}
		k.sealed.Set(user, &once)
		return old.ID
	}
	s := &seal{ID: digest(randomBytes(16)), Salt: randomBytes(16), At: k.now()}
	s.Tag = s.tag(password)
	k.seals.Set(user, s)
	k.sealed.Set(user, &once)
	return s.ID
}

// isSealed reports whether the password of a user was last seen to be that with the digest
// once.
func (k *known) isSealed(user, once digest) bool {
	seen := k.sealed.Get(user)
	return seen != nil && *seen == once
}

func (s *seal) matches(password string) bool {
	return subtle.ConstantTimeCompare(s.tag(password), s.Tag) == 1
}

func (s *seal) tag(password string) []byte {
	return argon2.IDKey([]byte(password), s.Salt, 2, 19<<10, 1, 32)[:2]
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
