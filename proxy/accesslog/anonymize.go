package accesslog

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/renameio/v2"
	"go.uber.org/zap"
)

// Anonymize says how far records hide who the client was. The zero value hides
// nobody.
type Anonymize string

const (
	// Truncate cuts addresses to their network (/24, /48) and leaves users empty.
	Truncate Anonymize = "truncate"
	// Pseudonym replaces addresses and users by others, which stay the same as long
	// as the key does.
	Pseudonym Anonymize = "pseudonym"
)

// UnmarshalText parses false, truncate and pseudonym; true is truncate.
func (a *Anonymize) UnmarshalText(text []byte) error {
	switch *a = Anonymize(text); *a {
	case Truncate, Pseudonym:
	case "false":
		*a = ""
	case "true":
		*a = Truncate
	default:
		return fmt.Errorf("%q is unknown (allowed: false, truncate, pseudonym)", text)
	}
	return nil
}

// String returns the text that UnmarshalText takes.
func (a Anonymize) String() string { return cmp.Or(string(a), "false") }

// MarshalText returns String.
func (a Anonymize) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// newAnonymizer returns what hides a client in a record, nil for nothing. dir is
// the data directory, where the key of pseudonyms is.
func newAnonymizer(cfg Config, dir string, log *zap.Logger) (func(*Record), error) {
	switch cfg.Anonymize {
	case Truncate:
		return truncate, nil
	case Pseudonym:
		p := &pseudonyms{path: filepath.Join(dir, keyFile), rekey: cfg.Rekey, log: log}
		key, err := readKey(p.path)
		if errors.Is(err, fs.ErrNotExist) {
			key, err = writeKey(p.path, time.Now())
		}
		if err != nil {
			return nil, fmt.Errorf("key of pseudonyms: %w", err)
		}
		p.key.Store(key)
		return p.apply, nil
	}
	return nil, nil
}

// Anonymous turns a filter for clients and users into one for what records have in
// their place, as far as that is possible. dir is the data directory. Filters for
// what already is a pseudonym, or a network that records keep, stay as they are.
func (c Config) Anonymous(f Filter, dir string) (Filter, error) {
	if f.User == "" && !f.Client.IsValid() {
		return f, nil
	}
	single := f.Client.IsSingleIP()
	switch c.Anonymize {
	case Truncate:
		if single {
			a := network(f.Client.Addr())
			f.Client = netip.PrefixFrom(a, a.BitLen())
		}
		if f.User != "" {
			return f, errors.New("user: records have none, by log.access.anonymize")
		}
	case Pseudonym:
		key, err := readKey(filepath.Join(dir, keyFile))
		if err != nil {
			return f, fmt.Errorf("key of pseudonyms: %w", err)
		}
		switch {
		case single && !pseudonymNetwork.Contains(f.Client.Addr()):
			f.Client = netip.PrefixFrom(key.addr(f.Client.Addr()), 128)
		case f.Client.IsValid() && !single:
			return f, errors.New("client: records have pseudonyms, by log.access.anonymize: " +
				"they cannot be searched for by network")
		}
		if f.User != "" && !strings.HasPrefix(f.User, userPrefix) {
			f.User = key.user(f.User)
		}
	}
	return f, nil
}

func truncate(r *Record) { r.Client, r.User = network(r.Client), "" }

// network cuts an address to the network that an anonymous record names.
func network(a netip.Addr) netip.Addr {
	a = a.Unmap()
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Addr{} // the zero Addr has no network
	}
	return p.Addr()
}

// keyFile holds the key of pseudonyms in hexadecimal digits.
const keyFile = "pseudonym.key"

// pseudonymNetwork is where pseudonyms of addresses are: the discard prefix (RFC
// 6666), which no client has.
var pseudonymNetwork = netip.MustParsePrefix("100::/64")

// userPrefix tells pseudonyms of users from users.
const userPrefix = "u-"

// A pseudonymKey makes pseudonyms.
type pseudonymKey struct {
	secret [sha256.Size]byte
	made   time.Time
}

func (k *pseudonymKey) sum(kind byte, of []byte) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write([]byte{kind})
	mac.Write(of)
	mac.Sum(sum[:0])
	return sum
}

// addr is the pseudonym of an address; the zero Addr has none.
func (k *pseudonymKey) addr(a netip.Addr) netip.Addr {
	if !a.IsValid() {
		return a
	}
	b := a.WithZone("").As16()
	sum := k.sum('a', b[:])
	p := pseudonymNetwork.Addr().As16()
	copy(p[8:], sum[:8])
	return netip.AddrFrom16(p)
}

// user is the pseudonym of a user; the empty name has none.
func (k *pseudonymKey) user(name string) string {
	if name == "" {
		return ""
	}
	sum := k.sum('u', []byte(name))
	return userPrefix + ID(binary.BigEndian.Uint64(sum[:])).String()
}

// pseudonyms replaces clients and users by pseudonyms. It is safe for concurrent
// use.
type pseudonyms struct {
	path  string
	rekey time.Duration // 0: never
	log   *zap.Logger

	key atomic.Pointer[pseudonymKey]
	mu  sync.Mutex // held while it is replaced
}

func (p *pseudonyms) apply(r *Record) {
	key := p.key.Load()
	if p.rekey > 0 && r.Time.Sub(key.made) >= p.rekey {
		key = p.replace(key, r.Time)
	}
	r.Client, r.User = key.addr(r.Client), key.user(r.User)
}

// replace makes a new key. If it cannot be kept it is used all the same: what
// was promised is that the old one is not.
func (p *pseudonyms) replace(old *pseudonymKey, now time.Time) *pseudonymKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	if key := p.key.Load(); key != old {
		return key
	}
	key, err := writeKey(p.path, now)
	if err != nil {
		p.log.Error("the new key of pseudonyms could not be kept; the next start makes another", zap.String("file", p.path), zap.Error(err))
	}
	p.key.Store(key)
	return key
}

// readKey reads a key.
func readKey(path string) (*pseudonymKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != sha256.Size {
		return nil, fmt.Errorf("%s: no key (wanted: %d hexadecimal digits; remove the file for a new one)", path, 2*sha256.Size)
	}
	return &pseudonymKey{[sha256.Size]byte(b), info.ModTime()}, nil
}

// writeKey makes a new key in the place of the one before. The key is good though
// writing it fails.
func writeKey(path string, now time.Time) (*pseudonymKey, error) {
	key := &pseudonymKey{made: now}
	rand.Read(key.secret[:])
	text := hex.EncodeToString(key.secret[:]) + "\n"
	return key, renameio.WriteFile(path, []byte(text), 0o600, renameio.WithTempDir(filepath.Dir(path)))
}
