package auth

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"espalier/policy/cache"
)

const (
	// maxRemembered bounds the confirmed and the refused credentials that are
	// remembered, each.
	maxRemembered = 20_000
	// rememberGood and rememberBad are how long credentials are remembered at
	// all. As long as they are, presenting them again is no guess.
	rememberGood = 24 * time.Hour
	rememberBad  = time.Hour
	// recheckBad is the least time until a directory is asked about refused credentials
	// again: the password may have been changed, or the user unlocked. Within rememberBad
	// it is asked twice at most.
	recheckBad = 5 * time.Minute
)

// A digest stands for what it was made of, which cannot be told from it without the key. The
// zero digest is of nothing.
type digest [16]byte

// MarshalText makes a digest the key of a JSON object.
func (d digest) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, d[:]), nil
}

// UnmarshalText is the reverse of MarshalText.
func (d *digest) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.DecodeString(string(text))
	if err == nil && len(b) != len(d) {
		err = fmt.Errorf("invalid digest %q", text)
	}
	copy(d[:], b)
	return err
}

// A digestKey makes digests. It is safe for concurrent use.
type digestKey [32]byte

// digest is of several texts; their lengths keep those apart that read the same when they are
// put together. It is the half of a hash that begins with the key, so that nobody without
// the key can continue or repeat it. It does not allocate for short texts.
func (k *digestKey) digest(texts ...string) digest {
	var short [512]byte
	b := append(short[:0], k[:]...)
	for _, s := range texts {
		b = append(binary.BigEndian.AppendUint64(b, uint64(len(s))), s...)
	}
	sum := sha256.Sum256(b)
	return digest(sum[:16])
}

// memory remembers what checking credentials has shown, until the process ends. It is safe
// for concurrent use.
type memory struct {
	digestKey // of this process only
	now       func() time.Time
	good      *cache.Cache[digest, confirmation]
	bad       *cache.Cache[digest, refusal]
}

type confirmation struct {
	user User
	at   time.Time // when it was shown
}

type refusal struct {
	at, before time.Time // when it was shown last, and the time before; zero: never
}

func newMemory(now func() time.Time) *memory {
	return &memory{
		digestKey: digestKey(randomBytes(32)), now: now,
		good: cache.New[digest](maxRemembered, func(*confirmation) time.Duration { return rememberGood }, now),
		bad:  cache.New[digest](maxRemembered, func(*refusal) time.Duration { return rememberBad }, now),
	}
}

// confirmed returns whom d was last shown to be, and how long ago.
func (m *memory) confirmed(d digest) (u User, age time.Duration, ok bool) {
	c := m.good.Get(d)
	if c == nil {
		return User{}, 0, false
	}
	return c.user, m.now().Sub(c.at), true
}

// refused reports whether d was shown to be wrong, and whether a directory may be asked about
// it again.
func (m *memory) refused(d digest) (refused, recheck bool) {
	r := m.bad.Get(d)
	if r == nil {
		return false, true
	}
	now := m.now()
	return true, now.Sub(r.at) >= recheckBad && now.Sub(r.before) >= rememberBad
}

func (m *memory) confirm(d digest, u User) {
	m.good.Set(d, &confirmation{u, m.now()})
	m.bad.Delete(d)
}

func (m *memory) refuse(d digest) {
	m.bad.Update(d, func(old *refusal) *refusal {
		r := &refusal{at: m.now()}
		if old != nil {
			r.before = old.at
		}
		return r
	})
	m.good.Delete(d)
}
