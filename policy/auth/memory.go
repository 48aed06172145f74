package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"
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
type digest [sha256.Size]byte

// memory remembers what checking credentials has shown. It is safe for
// concurrent use.
type memory struct {
	key [32]byte
	now func() time.Time

	mu        sync.Mutex
	good, bad map[digest]remembered
}

type remembered struct {
	user User
	at   time.Time // when it was shown
}

func newMemory() *memory {
	m := &memory{now: time.Now, good: map[digest]remembered{}, bad: map[digest]remembered{}}
	rand.Read(m.key[:])
	return m
}

// digest is of several texts; their lengths keep those apart that read the same
// when they are put together.
func (m *memory) digest(texts ...string) digest {
	mac := hmac.New(sha256.New, m.key[:])
	for _, s := range texts {
		_ = binary.Write(mac, binary.BigEndian, uint64(len(s))) // a hash takes everything
		mac.Write([]byte(s))
	}
	return digest(mac.Sum(nil))
}

// confirmed returns whom d was last shown to be, and how long ago.
func (m *memory) confirmed(d digest) (u User, age time.Duration, ok bool) {
	r, age, ok := m.get(m.good, d, rememberGood)
	return r.user, age, ok
}

// refused returns how long ago d was last shown to be wrong.
func (m *memory) refused(d digest) (age time.Duration, ok bool) {
	_, age, ok = m.get(m.bad, d, rememberBad)
	return age, ok
}

func (m *memory) get(from map[digest]remembered, d digest, keep time.Duration) (remembered, time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := from[d]
	age := m.now().Sub(r.at)
	if !ok || age >= keep {
		delete(from, d)
		return remembered{}, 0, false
	}
	return r, age, true
}

func (m *memory) confirm(d digest, u User) { m.put(m.good, m.bad, d, u) }
func (m *memory) refuse(d digest)          { m.put(m.bad, m.good, d, User{}) }

func (m *memory) put(to, from map[digest]remembered, d digest, u User) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(from, d)
	if _, ok := to[d]; !ok && len(to) >= maxRemembered {
		for other := range to { // any: to forget one costs a check
			delete(to, other)
			break
		}
	}
	to[d] = remembered{u, m.now()}
}
