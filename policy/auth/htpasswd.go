package auth

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// Users knows who may sign in. It is immutable, but for what it remembers, and
// safe for concurrent use. A nil *Users knows nobody.
type Users struct {
	hashes map[string][]byte
	decoy  []byte        // compared against where the user is unknown
	slots  chan struct{} // one for each bcrypt that may run at a time

	key   [32]byte
	mu    sync.RWMutex
	known map[[32]byte]struct{} // keyed digests of what bcrypt has confirmed
}

const (
	// maxKnown bounds the memory of confirmed passwords.
	maxKnown = 20_000
	// maxCost is the highest cost that htpasswd writes, some 10 s of computing.
	maxCost = 17
)

// bcryptHash is a hash as htpasswd (2y), OpenBSD (2b) and older tools (2a) write
// it. All three are the same function.
var bcryptHash = regexp.MustCompile(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

// Open reads the users of cfg. It returns nil where nobody can sign in. Errors
// name the file and line, joined.
func Open(cfg Config) (*Users, error) {
	if cfg.HTPasswd == "" {
		return nil, nil
	}
	f, err := os.Open(cfg.HTPasswd)
	if err != nil {
		return nil, fmt.Errorf("auth.htpasswd: %w", err)
	}
	defer f.Close()
	u := &Users{
		hashes: map[string][]byte{},
		// bcrypt never takes all of the processor from traffic.
		slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		known: map[[32]byte]struct{}{},
	}
	rand.Read(u.key[:])
	var errs []error
	highest := 0
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\uFEFF"))
		if line == "" || line[0] == '#' {
			continue
		}
		fail := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("auth.htpasswd: %s:%d: "+format, append([]any{cfg.HTPasswd, n}, args...)...))
		}
		name, hash, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			fail("is no \"name:hash\" line")
			continue
		}
		cost, err := bcrypt.Cost([]byte(hash))
		switch {
		case err != nil || !bcryptHash.MatchString(hash):
			fail("user %q has no bcrypt hash (`htpasswd -B` makes one)", name)
		case cost > maxCost:
			fail("user %q has a hash of cost %d, too slow to check (allowed: %d at most)", name, cost, maxCost)
		case u.hashes[name] != nil:
			fail("user %q stands twice", name)
		default:
			u.hashes[name] = []byte(hash)
			if cost > highest {
				highest, u.decoy = cost, u.hashes[name]
			}
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("auth.htpasswd: read %s: %w", cfg.HTPasswd, err))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return u, nil
}

// Verify reports whether name signs in with password. bcrypt is paid once for
// each pair that is right, and only a part of the processors computes it at a
// time. Where all hashes have the same cost, a wrong password takes as long for
// a user who does not exist.
//
// bcrypt looks at the first 72 bytes of a password, and so does Verify, as
// htpasswd did when it made the hash.
func (u *Users) Verify(name, password string) bool {
	if u == nil {
		return false
	}
	hash, exists := u.hashes[name]
	if !exists {
		u.slots <- struct{}{}
		_ = bcrypt.CompareHashAndPassword(u.decoy, []byte(password))
		<-u.slots
		return false
	}
	digest := u.digest(name, password)
	if u.isKnown(digest) {
		return true
	}
	u.slots <- struct{}{}
	defer func() { <-u.slots }()
	if u.isKnown(digest) { // another request was faster
		return true
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.known) >= maxKnown {
		clear(u.known)
	}
	u.known[digest] = struct{}{}
	return true
}

// digest is what is remembered of a pair in place of the password. The length
// keeps pairs apart that read the same when they are put together.
func (u *Users) digest(name, password string) [32]byte {
	mac := hmac.New(sha256.New, u.key[:])
	_ = binary.Write(mac, binary.BigEndian, uint64(len(name))) // a hash takes everything
	mac.Write([]byte(name))
	mac.Write([]byte(password))
	return [32]byte(mac.Sum(nil))
}

func (u *Users) isKnown(digest [32]byte) bool {
	u.mu.RLock()
	defer u.mu.RUnlock()
	_, ok := u.known[digest]
	return ok
}
