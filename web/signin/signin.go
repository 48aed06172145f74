// Package signin tells who may use the console and its API: users of a file, who
// get sessions, and scripts, which have tokens. It knows nothing of HTTP.
package signin

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"espalier/policy/auth"
)

// A Role says what somebody may do.
type Role string

const (
	Viewer Role = "viewer" // sees everything but secrets
	Admin  Role = "admin"  // changes things too
)

// May reports whether somebody with role r may do what needs role need.
func (r Role) May(need Role) bool { return r == Admin || r == Viewer && need == Viewer }

// ParseRole reads a role as users write it.
func ParseRole(s string) (Role, error) {
	if r := Role(s); r == Viewer || r == Admin {
		return r, nil
	}
	return "", fmt.Errorf("%q is no role (allowed: viewer, admin)", s)
}

// An Identity is a user or a program, and what they may do. The zero value is one
// who needs no sign-in: on the control socket.
type Identity struct {
	Name string // of the user, or of the token
	Role Role
	// CSRF is what requests of this session that change something must repeat. It
	// is empty for a token: no browser sends that by itself.
	CSRF string

	valid func() bool
}

// Valid reports whether the identity may still use the console, for answers that
// last. It does not count as activity.
func (i *Identity) Valid() bool { return i.valid == nil || i.valid() }

// Confirms reports whether a request that changes something repeats what its
// session was given. A token's needs no such thing.
func (i *Identity) Confirms(csrf string) bool {
	return i.CSRF == "" || subtle.ConstantTimeCompare([]byte(csrf), []byte(i.CSRF)) == 1
}

type contextKey struct{}

// NewContext returns a context of a request by an identity.
func NewContext(ctx context.Context, i *Identity) context.Context {
	return context.WithValue(ctx, contextKey{}, i)
}

// FromContext returns the identity that NewContext was given, or else the zero one.
func FromContext(ctx context.Context) *Identity {
	if i, ok := ctx.Value(contextKey{}).(*Identity); ok {
		return i
	}
	return &Identity{}
}

// OpenUsers reads the console's users, an htpasswd file with lines of
// "name:hash[:role]"; without a role somebody is a viewer. A file that is not
// there has no users. guard is that of the desk; nil is a new one. Errors name file and
// line, joined.
func OpenUsers(file string, guard *auth.Guard) (*auth.Auth, error) {
	roles := []string{string(Viewer), string(Admin)}
	users, err := auth.OpenRoles(file, roles, guard)
	if errors.Is(err, fs.ErrNotExist) {
		return auth.OpenRoles(os.DevNull, roles, guard)
	}
	return users, err
}
