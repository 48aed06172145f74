package auth

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// Users knows who may sign in. It is safe for concurrent use.
type Users struct {
	hashes map[string][]byte
	decoy  []byte // compared against where the user is unknown

	key   [32]byte
	mu    sync.RWMutex
	known map[[32]byte]struct{} // keyed digests of what bcrypt has confirmed
}

// maxKnown bounds the memory of confirmed passwords.
const maxKnown = 20_000

// Open reads the users of cfg. It returns nil where nobody can sign in.
func Open(cfg Config) (*Users, error) {
	if cfg.HTPasswd == "" {
		return nil, nil
	}
	f, err := os.Open(cfg.HTPasswd)
	if err != nil {
		return nil, fmt.Errorf("auth.htpasswd: %w", err)
	}
	defer f.Close()
	u := &Users{hashes: map[string][]byte{}, known: map[[32]byte]struct{}{}}
	if _, err := rand.Read(u.key[:]); err != nil {
		return nil, err
	}
	var errs []error
	cost := bcrypt.MinCost
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		c, err := bcrypt.Cost([]byte(hash))
		switch {
		case !ok || name == "":
			errs = append(errs, fmt.Errorf("auth.htpasswd: %s:%d: is no \"name:hash\" line", cfg.HTPasswd, n))
		case err != nil:
			errs = append(errs, fmt.Errorf("auth.htpasswd: %s:%d: user %q has no bcrypt hash (`htpasswd -B` makes one)", cfg.HTPasswd, n, name))
		case u.hashes[name] != nil:
			errs = append(errs, fmt.Errorf("auth.htpasswd: %s:%d: user %q stands twice", cfg.HTPasswd, n, name))
		default:
			u.hashes[name] = []byte(hash)
			cost = max(cost, c)
		}
	}
	if err := lines.Err(); err != nil {
		errs = append(errs, fmt.Errorf("auth.htpasswd: read %s: %w", cfg.HTPasswd, err))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	u.decoy, err = bcrypt.GenerateFromPassword(u.key[:], cost)
	return u, err
}

// Verify reports whether name signs in with password. bcrypt is paid once for
// each pair that is right; a wrong one costs the same whether the user exists or
// not.
func (u *Users) Verify(name, password string) bool {
	mac := hmac.New(sha256.New, u.key[:])
	mac.Write([]byte(name))
	mac.Write([]byte{0})
	mac.Write([]byte(password))
	digest := [32]byte(mac.Sum(nil))

	u.mu.RLock()
	_, ok := u.known[digest]
	u.mu.RUnlock()
	if ok {
		return true
	}
	hash := u.hashes[name]
	if hash == nil {
		_ = bcrypt.CompareHashAndPassword(u.decoy, []byte(password))
		return false
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
