package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// LDAPConfig says how users are found in a directory, and that a password is
// theirs: the entry is searched for by name, and a bind with its DN and the
// password must succeed. The zero value means that there is no directory.
type LDAPConfig struct {
	// URL is ldap://host[:port] or ldaps://host[:port]; several, separated by
	// commas, are tried in order. Empty means no directory.
	URL string `koanf:"url"`
	// StartTLS encrypts connections to ldap://.
	StartTLS bool `koanf:"start_tls"`
	// Roots is a PEM file of the authorities that the servers' certificates are
	// of; empty means the system's.
	Roots string `koanf:"roots"`
	// Insecure lets passwords go to other hosts without encryption.
	Insecure bool `koanf:"insecure"`
	// BindDN and Password are who searches; empty means anonymous.
	BindDN   string `koanf:"bind_dn"`
	Password string `koanf:"password"`
	// PasswordFile holds the password in place of Password.
	PasswordFile string `koanf:"password_file"`
	// Base is the DN below which users are.
	Base string `koanf:"base"`
	// Filter finds a user; %s stands for the name as typed.
	Filter string `koanf:"filter"`
	// NameAttribute holds the user's own name, which rules and records have.
	NameAttribute string `koanf:"name_attribute"`
	// GroupAttribute of the user's entry holds the DNs of groups; empty means
	// that it is not looked at.
	GroupAttribute string `koanf:"group_attribute"`
	// GroupBase is the DN below which groups are; groups elsewhere do not count.
	// Empty means everywhere, and for GroupFilter Base.
	GroupBase string `koanf:"group_base"`
	// GroupFilter finds the groups of a user; %d stands for the DN of the user,
	// %s for the name. Empty means that no groups are searched for.
	GroupFilter string `koanf:"group_filter"`
	// Timeout is for all that one server is asked for one sign-in.
	Timeout time.Duration `koanf:"timeout"`
	// Cache is how long an answer is taken without asking again; 0 means not at
	// all.
	Cache time.Duration `koanf:"cache"`
	// Outage is for how long after its last answer a user goes on where no
	// server answers; 0 means not at all.
	Outage time.Duration `koanf:"outage"`
	// MaxFailures is how many binds of a user may fail within an hour before no other
	// password is tried; one more at client addresses at which the user has signed in. 0 is
	// no bound.
	MaxFailures int `koanf:"max_failures"`
}

func (c LDAPConfig) validate() (errs []error) {
	if c.URL == "" {
		if c.BindDN != "" || c.Password != "" || c.PasswordFile != "" || c.Base != "" || c.Roots != "" || c.StartTLS {
			errs = append(errs, errors.New("ldap.url: missing (without it no directory is asked)"))
		}
		return errs
	}
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf("ldap."+format, args...)) }
	for _, text := range c.urls() {
		u, err := parseURL(text)
		switch {
		case err != nil:
			fail("url: %w", err)
		case u.Scheme == "ldaps" && c.StartTLS:
			fail("start_tls: is for ldap:// only; ldaps:// is encrypted from the start")
		case u.Scheme == "ldap" && !c.StartTLS && !c.Insecure && !isLoopback(u.Hostname()):
			fail("url: %q would send passwords that everybody on the way can read (use ldaps://, or set start_tls; insecure: true permits it)", text)
		}
	}
	if c.BindDN == "" && (c.Password != "" || c.PasswordFile != "") {
		fail("bind_dn: missing (there is a password, but not whose)")
	}
	if c.BindDN != "" && c.Password == "" && c.PasswordFile == "" {
		fail("password: missing (a directory takes a bind without one for anonymous; or set password_file)")
	}
	if c.Password != "" && c.PasswordFile != "" {
		fail("password_file: stands beside password (one of them is enough)")
	}
	if c.Base == "" {
		fail("base: missing (the DN below which users are)")
	}
	for _, dn := range []struct{ key, value string }{{"bind_dn", c.BindDN}, {"base", c.Base}, {"group_base", c.GroupBase}} {
		// Active Directory binds by user@domain and DOMAIN\user too.
		if dn.key == "bind_dn" && strings.ContainsAny(dn.value, `@\`) {
			continue
		}
		if _, err := ldap.ParseDN(dn.value); err != nil {
			fail("%s: %q is no DN: %w", dn.key, dn.value, err)
		}
	}
	if !strings.Contains(c.Filter, "%s") {
		fail("filter: %q does not hold %%s, which stands for the name", c.Filter)
	} else if _, err := ldap.CompileFilter(userFilter(c.Filter, "x")); err != nil {
		fail("filter: %q is no filter: %w", c.Filter, err)
	}
	if c.GroupFilter != "" {
		if !strings.Contains(c.GroupFilter, "%d") && !strings.Contains(c.GroupFilter, "%s") {
			fail("group_filter: %q holds neither %%d, the user's DN, nor %%s, the name", c.GroupFilter)
		} else if _, err := ldap.CompileFilter(groupFilter(c.GroupFilter, "cn=x", "x")); err != nil {
			fail("group_filter: %q is no filter: %w", c.GroupFilter, err)
		}
	}
	if c.NameAttribute == "" {
		fail("name_attribute: missing (uid, or sAMAccountName in Active Directory)")
	}
	c.validateBounds(fail)
	return errs
}

func (c LDAPConfig) validateBounds(fail func(format string, args ...any)) {
	if c.Timeout <= 0 || c.Timeout > time.Minute {
		fail("timeout: must be more than 0s and at most 1m")
	}
	if c.Cache < 0 || c.Cache > rememberGood {
		fail("cache: must be from 0s to %s", formatHours(rememberGood))
	}
	if c.Outage < 0 || c.Outage > rememberGood {
		fail("outage: must be from 0s to %s", formatHours(rememberGood))
	}
	if c.MaxFailures < 0 || c.MaxFailures > 1000 {
		fail("max_failures: must be from 0 to 1000")
	}
}

func formatHours(d time.Duration) string { return fmt.Sprintf("%dh", d/time.Hour) }

func (c LDAPConfig) urls() []string {
	var list []string
	for text := range strings.SplitSeq(c.URL, ",") {
		list = append(list, strings.TrimSpace(text))
	}
	return list
}

// parseURL takes a scheme, a host and maybe a port. Errors do not repeat what
// may be a password.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "ldap" && u.Scheme != "ldaps" || u.Hostname() == "":
		return nil, errors.New("is no ldap://host[:port] or ldaps://host[:port]")
	case u.User != nil:
		return nil, errors.New("holds a user; that is what bind_dn and password are for")
	case strings.TrimPrefix(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q holds more than a host and a port; base and filter have keys of their own", text)
	}
	if p := u.Port(); p != "" {
		if _, err := net.LookupPort("tcp", p); err != nil || p == "0" {
			return nil, fmt.Errorf("%q has no valid port", text)
		}
	}
	return u, nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// userFilter puts an escaped name into a filter (RFC 4515, 3).
func userFilter(filter, name string) string {
	return strings.ReplaceAll(filter, "%s", ldap.EscapeFilter(name))
}

func groupFilter(filter, dn, name string) string {
	return strings.NewReplacer("%d", ldap.EscapeFilter(dn), "%s", ldap.EscapeFilter(name)).Replace(filter)
}

// password returns the password of BindDN.
func (c LDAPConfig) password() (string, error) {
	if c.PasswordFile == "" {
		return c.Password, nil
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" || len(password) > maxPassword {
		return "", fmt.Errorf("password_file: %s must hold a password of up to %d bytes", c.PasswordFile, maxPassword)
	}
	return password, nil
}

// tls returns what every server's certificate is checked by, but for its name.
func (c LDAPConfig) tls() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.Roots == "" {
		return conf, nil
	}
	text, err := os.ReadFile(c.Roots)
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	conf.RootCAs = x509.NewCertPool()
	if !conf.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("roots: %s holds no certificate in PEM", c.Roots)
	}
	return conf, nil
}
