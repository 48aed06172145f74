// Package auth tells who a user is, by a file of passwords or an LDAP directory,
// and slows down whoever guesses.
package auth

import (
	"errors"
	"fmt"
	"strings"
)

// Config says where users are known from, `auth`. The zero value means that
// nobody can sign in.
type Config struct {
	// HTPasswd is a file of "name:hash" lines with bcrypt or argon2id hashes;
	// empty means none. A user who stands there is not looked for in LDAP.
	HTPasswd string `koanf:"htpasswd"`
	// Groups is a file of "group: user user" lines; empty means none. Its groups
	// add to those of a directory.
	Groups string `koanf:"groups"`
	// Realm is what devices show where they ask for a password; empty means
	// Espalier.
	Realm string     `koanf:"realm"`
	LDAP  LDAPConfig `koanf:"ldap"`
}

// Validate checks the values; it does not touch files. Errors begin with the
// key, joined.
func (c Config) Validate() error {
	var errs []error
	// Never repeated: it may be what it should not.
	if strings.ContainsAny(c.HTPasswd, "\n\x00") || strings.Contains(c.HTPasswd, ":$") {
		errs = append(errs, errors.New("htpasswd: holds users, not the name of a file with them"))
	}
	if strings.ContainsAny(c.Groups, "\n\x00") {
		errs = append(errs, errors.New("groups: holds groups, not the name of a file with them"))
	}
	if c.Groups != "" && c.HTPasswd == "" && c.LDAP.URL == "" {
		errs = append(errs, errors.New("groups: is of no use without htpasswd or ldap, which say who a user is"))
	}
	if len(c.Realm) > 128 || strings.ContainsFunc(c.Realm, func(r rune) bool { return r < ' ' || r > '~' }) {
		errs = append(errs, fmt.Errorf("realm: %.200q does not fit a header (allowed: up to 128 printable ASCII characters)", c.Realm))
	}
	return errors.Join(append(errs, c.LDAP.validate()...)...)
}

// challenge is the value of a Proxy-Authenticate or WWW-Authenticate header
// (RFC 7617).
func (c Config) challenge() string {
	realm := c.Realm
	if realm == "" {
		realm = "Espalier"
	}
	return `Basic realm="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(realm) + `", charset="UTF-8"`
}
