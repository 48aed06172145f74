package signin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"

	"espalier/policy/auth"
)

// tokensName is the file of tokens in the data directory.
const tokensName = "tokens"

// tokenPrefix begins every token, so that a leaked one is recognised.
const tokenPrefix = "espalier_"

// maxTokens bounds the file.
const maxTokens = 1000

// A Token lets a script use the API. What the script sends is not kept, only its
// digest.
type Token struct {
	Name    string    `json:"name"` // unique
	Role    Role      `json:"role"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"` // the zero time: never
	SHA256  string    `json:"sha256"`           // in hexadecimal digits
}

// Expired reports whether a token is good no longer.
func (t *Token) Expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// ErrNoToken says that there is no token of a name.
var ErrNoToken = errors.New("there is no such token")

// ReadTokens returns the tokens of a data directory in the order that they were
// made in. Errors name the file.
func ReadTokens(data string) ([]Token, error) {
	path := filepath.Join(data, tokensName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var tokens []Token
	if err := json.Unmarshal(text, &tokens); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, t := range tokens {
		if _, err := ParseRole(string(t.Role)); err != nil {
			return nil, fmt.Errorf("%s: token %q: %w", path, t.Name, err)
		}
		if sum, err := hex.DecodeString(t.SHA256); err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("%s: token %q: sha256 is no digest", path, t.Name)
		}
	}
	return tokens, nil
}

// CreateToken makes a token and returns what the script has to send, which can
// not be had again. lifetime 0 means that it never expires. A running process
// takes it from then on.
func CreateToken(data, name string, role Role, lifetime time.Duration) (string, error) {
	if name == "" || len(name) > 64 || name != strings.TrimSpace(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", fmt.Errorf("%q cannot be a token's name (allowed: up to 64 bytes that can be printed, no space at either end)", name)
	}
	if _, err := ParseRole(string(role)); err != nil {
		return "", err
	}
	if lifetime < 0 {
		return "", errors.New("a token cannot have expired when it is made")
	}
	secret := tokenPrefix + newSecret()
	err := changeTokens(data, func(tokens []Token) ([]Token, error) {
		now := time.Now().UTC().Truncate(time.Second)
		tokens = slices.DeleteFunc(tokens, func(t Token) bool { return t.Name == name && t.Expired(now) })
		if slices.ContainsFunc(tokens, func(t Token) bool { return t.Name == name }) {
			return nil, fmt.Errorf("there is a token %q already: revoke it first, or choose another name", name)
		}
		if len(tokens) >= maxTokens {
			return nil, fmt.Errorf("there are %d tokens already: revoke some", len(tokens))
		}
		sum := digestOf(secret)
		t := Token{Name: name, Role: role, Created: now, SHA256: hex.EncodeToString(sum[:])}
		if lifetime > 0 {
			t.Expires = now.Add(lifetime)
		}
		return append(tokens, t), nil
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// RevokeToken removes a token. A running process refuses it from then on. The
// error is ErrNoToken where there is none.
func RevokeToken(data, name string) error {
	return changeTokens(data, func(tokens []Token) ([]Token, error) {
		left := slices.DeleteFunc(slices.Clone(tokens), func(t Token) bool { return t.Name == name })
		if len(left) == len(tokens) {
			return nil, ErrNoToken
		}
		return left, nil
	})
}

// changeTokens lets one process at a time change the file. The lock is that of
// the directory.
func changeTokens(data string, change func([]Token) ([]Token, error)) error {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	dir, err := os.Open(data)
	if err != nil {
		return err
	}
	defer dir.Close() // and with it the lock
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", data, err)
	}
	tokens, err := ReadTokens(data)
	if err != nil {
		return err
	}
	if tokens, err = change(tokens); err != nil {
		return err
	}
	text, err := json.MarshalIndent(tokens, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(data, tokensName), append(text, '\n'))
}

// tokenFile is the file as it was last read.
type tokenFile struct {
	path string

	mu     sync.Mutex
	read   os.FileInfo // nil: it was not there
	tokens map[digest]Token
	err    error
}

// get returns the tokens as they are now. While the file cannot be read nobody
// has one.
func (f *tokenFile) get() (map[digest]Token, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		f.read, f.tokens, f.err = nil, nil, nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if f.read != nil && os.SameFile(f.read, info) && f.read.ModTime().Equal(info.ModTime()) && f.read.Size() == info.Size() {
		return f.tokens, f.err
	}
	list, err := ReadTokens(filepath.Dir(f.path))
	f.read, f.err, f.tokens = info, err, make(map[digest]Token, len(list))
	for _, t := range list {
		sum, _ := hex.DecodeString(t.SHA256) // ReadTokens has looked
		f.tokens[digest(sum)] = t
	}
	return f.tokens, f.err
}

// Token returns who sends a token from an address. The error is auth.ErrWrong if it is none,
// or no longer, an *auth.ThrottledError, or an *auth.UnavailableError with why tokens cannot
// be told.
func (d *Desk) Token(from netip.Addr, secret string) (*Identity, error) {
	key := digestOf(secret)
	good := func() (Token, bool, error) {
		tokens, err := d.tokens.get()
		t, ok := tokens[key]
		return t, ok && !t.Expired(d.now()), err
	}
	var t Token
	err := d.guard.Check(auth.Token, from, secret, func() (ok bool, err error) {
		if strings.HasPrefix(secret, tokenPrefix) {
			t, ok, err = good()
		}
		return ok, err
	})
	if err != nil {
		return nil, err
	}
	return &Identity{Name: t.Name, Role: t.Role, valid: func() bool {
		_, ok, _ := good()
		return ok
	}}, nil
}
