// Package auth tells who a user is.
package auth

// Config says where users are known from, `auth`.
type Config struct {
	// HTPasswd is a file of "name:hash" lines with bcrypt hashes; empty means
	// none.
	HTPasswd string `koanf:"htpasswd"`
	// LDAP is reserved for a directory.
	LDAP map[string]any `koanf:"ldap"`
}

// Enabled reports whether anybody can sign in, and so whether everybody is
// asked.
func (c Config) Enabled() bool { return c.HTPasswd != "" || len(c.LDAP) > 0 }
