// Package auth tells who a user is.
package auth

import (
	"errors"
	"strings"
)

// Config says where users are known from, `auth`.
type Config struct {
	// HTPasswd is a file of "name:hash" lines with bcrypt hashes; empty means
	// none.
	HTPasswd string `koanf:"htpasswd"`
	// LDAP is reserved for a directory.
	LDAP map[string]any `koanf:"ldap"`
}

// Validate checks the values; it does not touch the file. Errors begin with the
// key, joined.
func (c Config) Validate() error {
	// Never repeated: it may be what it should not.
	if strings.ContainsAny(c.HTPasswd, "\n\x00") || strings.Contains(c.HTPasswd, ":$2") {
		return errors.New("htpasswd: holds users, not the name of a file with them")
	}
	return nil
}
