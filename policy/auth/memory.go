package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
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
	// trustBad is how long refused credentials are refused without another look.
	trustBad = 30 * time.Second
)

// A digest stands for credentials and for what they were checked against. It
// cannot be told from it what they are.
type digest string

// memory remembers what checking credentials has shown. It is safe for
// concurrent use.
type memory struct {
	key       [32]byte
	now       func() time.Time
	good, bad *cache.Cache[digest, remembered]
}

type remembered struct {
	user User
	at   time.Time // when it was shown
}

func newMemory() *memory {
	m := &memory{now: time.Now}
	keep := func(life time.Duration) *cache.Cache[digest, remembered] {
		return cache.New[digest](maxRemembered, func(*remembered) time.Duration { return life }, func() time.Time { return m.now() })
	}
	m.good, m.bad = keep(rememberGood), keep(rememberBad)
	rand.Read(m.key[:])
	return m
}

// digest is of several texts; their lengths keep those apart that read the same
// when they are put together.
func (m *memory) digest(texts ...string) digest {
	var b []byte
	for _, s := range texts {
		b = append(binary.BigEndian.AppendUint64(b, uint64(len(s))), s...)
	}
	mac := hmac.New(sha256.New, m.key[:])
	mac.Write(b) // a hash takes everything
	return digest(mac.Sum(b[:0]))
}

// confirmed returns whom d was last shown to be, and how long ago.
func (m *memory) confirmed(d digest) (u User, age time.Duration, ok bool) {
	r := m.good.Get(d)
	if r == nil {
		return User{}, 0, false
	}
	return r.user, m.now().Sub(r.at), true
}

// refused returns how long ago d was last shown to be wrong.
func (m *memory) refused(d digest) (age time.Duration, ok bool) {
	r := m.bad.Get(d)
	if r == nil {
		return 0, false
	}
	return m.now().Sub(r.at), true
}

func (m *memory) confirm(d digest, u User) {
	m.good.Set(d, &remembered{u, m.now()})
	m.bad.Delete(d)
}

func (m *memory) refuse(d digest) {
	m.bad.Set(d, &remembered{at: m.now()})
	m.good.Delete(d)
}
