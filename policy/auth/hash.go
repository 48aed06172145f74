package auth

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// A hash is what a file keeps in place of a password.
type hash interface {
	matches(password string) bool
	// work is roughly how long matches takes, in microseconds.
	work() float64
}

// Limits of what a file may ask for, so that nobody's sign-in takes memory or
// time from traffic.
const (
	maxCost    = 17       // of bcrypt, some 10 s: the highest that htpasswd writes
	maxMemory  = 64 << 10 // of argon2id, KiB
	maxPasses  = 16
	maxThreads = 16
)

var (
	errHash = errors.New("no bcrypt or argon2id hash (`espalier passwd` makes one)")
	// bcryptText is a hash as htpasswd (2y), OpenBSD (2b) and older tools (2a)
	// write it. All three are the same function.
	bcryptText = regexp.MustCompile(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)
	// argon2Text is a hash of argon2id, version 1.3, in the PHC string format.
	argon2Text = regexp.MustCompile(`^\$argon2id\$v=19\$m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,9})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})$`)
)

// parseHash reads a hash as it stands in a file. Errors are to be put behind "has
// ".
func parseHash(s string) (hash, error) {
	if bcryptText.MatchString(s) {
		cost, err := bcrypt.Cost([]byte(s))
		switch {
		case err != nil:
			return nil, errHash
		case cost > maxCost:
			return nil, fmt.Errorf("a bcrypt hash of cost %d, too slow to check (allowed: %d at most)", cost, maxCost)
		}
		return bcryptHash{[]byte(s), cost}, nil
	}
	part := argon2Text.FindStringSubmatch(s)
	if part == nil {
		return nil, errHash
	}
	var n [3]uint64
	for i := range n {
		n[i], _ = strconv.ParseUint(part[1+i], 10, 64) // ten digits at most
	}
	memory, passes, threads := n[0], n[1], n[2]
	salt, err := base64.RawStdEncoding.DecodeString(part[4])
	if err != nil {
		return nil, errHash
	}
	key, err := base64.RawStdEncoding.DecodeString(part[5])
	if err != nil {
		return nil, errHash
	}
	switch {
	case memory > maxMemory:
		return nil, fmt.Errorf("an argon2id hash that takes %d KiB of memory (allowed: m=%d at most)", memory, maxMemory)
	case passes > maxPasses:
		return nil, fmt.Errorf("an argon2id hash of %d passes, too slow to check (allowed: t=%d at most)", passes, maxPasses)
	case threads > maxThreads || memory < 8*threads: // the latter by RFC 9106
		return nil, fmt.Errorf("an argon2id hash with p=%d (allowed: %d at most, and an eighth of m)", threads, maxThreads)
	}
	return argon2Hash{uint32(memory), uint32(passes), uint8(threads), salt, key}, nil
}

type bcryptHash struct {
	text []byte
	cost int
}

// matches looks at the first 72 bytes of a password, as bcrypt does.
func (h bcryptHash) matches(password string) bool {
	return bcrypt.CompareHashAndPassword(h.text, []byte(password)) == nil
}

func (h bcryptHash) work() float64 { return 50 * math.Exp2(float64(h.cost)) }

type argon2Hash struct {
	memory, passes uint32 // KiB
	threads        uint8
	salt, key      []byte
}

func (h argon2Hash) matches(password string) bool {
	got := argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.threads, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(got, h.key) == 1
}

func (h argon2Hash) work() float64 { return float64(h.memory) * float64(h.passes) }

// Line returns the line of an htpasswd file for a user: an argon2id hash, or a
// bcrypt one for files that other programs read too.
func Line(name, password string, useBcrypt bool) (string, error) {
	switch {
	case !isFileName(name):
		return "", fmt.Errorf("%q cannot be a user's name (allowed: no colon, no space at either end, no # first, nothing that cannot be printed)", name)
	case password == "":
		return "", errors.New("the password is empty")
	case useBcrypt && len(password) > 72:
		return "", errors.New("the password has more than the 72 bytes that bcrypt looks at")
	case len(password) > maxPassword:
		return "", fmt.Errorf("the password has more than %d bytes", maxPassword)
	}
	if useBcrypt {
		text, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
		return name + ":" + string(text), err
	}
	h := argon2Hash{memory: 19 << 10, passes: 2, threads: 1, salt: make([]byte, 16)}
	rand.Read(h.salt)
	key := argon2.IDKey([]byte(password), h.salt, h.passes, h.memory, h.threads, 32)
	enc := base64.RawStdEncoding
	return fmt.Sprintf("%s:$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", name, h.memory, h.passes, h.threads,
		enc.EncodeToString(h.salt), enc.EncodeToString(key)), nil
}

// isFileName reports whether name can stand in a file of users.
func isFileName(name string) bool {
	return name != "" && len(name) <= maxName && name == strings.TrimSpace(name) && name[0] != '#' &&
		!strings.Contains(name, ":") && printable(name)
}
