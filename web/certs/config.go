package certs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"espalier/policy"
	"espalier/proxy/egress/lookup"
	"espalier/web/httpurl"
)

// Config says where the certificate comes from by which Espalier's own listeners
// speak TLS, `tls`: from one of ACME, Files and SelfSigned. The zero value means
// that none was chosen.
type Config struct {
	ACME  ACME  `koanf:"acme"`
	Files Files `koanf:"files"`
	// SelfSigned takes a certificate that Espalier signs by itself.
	SelfSigned bool `koanf:"self_signed"`
}

// ACME obtains certificates from an authority (RFC 8555). No domains means that
// it is not used.
type ACME struct {
	// Domains are the names, each of which gets a certificate of its own.
	Domains []string `koanf:"domains"`
	// Email is where the authority sends notices; it may be empty.
	Email string `koanf:"email"`
	// Directory is the URL of the authority; empty means Let's Encrypt.
	Directory string `koanf:"directory"`
	// Roots is a PEM file of the CAs that the directory's own certificate is of;
	// empty means the system's.
	Roots string `koanf:"roots"`
	// Storage is the directory of keys and certificates, relative to the data
	// directory; empty means acme.
	Storage string `koanf:"storage"`
	// EAB binds the account to one that the authority knows.
	EAB EAB `koanf:"eab"`
	// Challenges are the ways to prove that a name is ours, of those that need no
	// DNS; empty means all of them.
	Challenges []string `koanf:"challenges"`
	// HTTPPort and TLSPort are where connections of the authority arrive that it
	// makes to ports 80 and 443; 0 means these.
	HTTPPort uint16 `koanf:"http_port"`
	TLSPort  uint16 `koanf:"tls_port"`
	// DNS proves names by records in the DNS, in place of Challenges.
	DNS DNS `koanf:"dns"`
}

// EAB is an external account binding (RFC 8555, section 7.3.4). Both or none are
// set.
type EAB struct {
	KeyID string `koanf:"key_id"`
	// MACKey is the key, in base64url.
	MACKey string `koanf:"mac_key"`
}

// DNS makes the records of the challenge dns-01.
type DNS struct {
	// Provider is one of Providers; empty means that the challenge is not used.
	Provider string `koanf:"provider"`
	// Settings are the provider's own.
	Settings map[string]string `koanf:"settings"`
	// Resolvers are the name servers that must see the record before the
	// authority is asked to look; empty means the system's.
	Resolvers []string `koanf:"resolvers"`
}

// Files are PEM files; both or none are set. The certificate has its chain behind
// it.
type Files struct {
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
}

// Challenges that need no DNS.
const (
	HTTP01    = "http-01"
	TLSALPN01 = "tls-alpn-01"
)

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

var challenges = []string{HTTP01, TLSALPN01}

// Enabled reports whether it was chosen where a certificate comes from.
func (c Config) Enabled() bool { return len(c.ACME.Domains) > 0 || c.Files.Cert != "" || c.SelfSigned }

// Validate checks the values; it does not touch the files. Errors begin with
// the key, joined.
func (c Config) Validate() error {
	acme := c.ACME.isSet()
	var errs []error
	switch {
	case acme && c.Files != (Files{}):
		errs = append(errs, errors.New("acme: stands beside files (a certificate comes from acme or from files, not both)"))
	case c.SelfSigned && (acme || c.Files != (Files{})):
		errs = append(errs, errors.New("self_signed: stands beside acme or files, of which the certificate is (remove one)"))
	case acme && len(c.ACME.Domains) == 0:
		errs = append(errs, errors.New("acme.domains: missing (acme needs the names that the certificate is for)"))
	case c.Files.Cert != "" && c.Files.Key == "":
		errs = append(errs, errors.New("files.key: missing (a certificate needs its key)"))
	case c.Files.Key != "" && c.Files.Cert == "":
		errs = append(errs, errors.New("files.cert: missing (a key needs its certificate)"))
	}
	for _, err := range c.ACME.validate() {
		errs = append(errs, fmt.Errorf("acme.%w", err))
	}
	return errors.Join(errs...)
}

// Names are the Domains of a valid configuration as certificates have them, each
// once: in lower case, international ones in ASCII, addresses without brackets.
func (c ACME) Names() (list []string) {
	for _, d := range c.Domains {
		name, wildcard := strings.CutPrefix(d, "*.")
		name, _, _ = policy.ParseHost(name) // validated
		if wildcard {
			name = "*." + name
		}
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	return list
}

func (c ACME) isSet() bool {
	return len(c.Domains) > 0 || c.Email != "" || c.Directory != "" || c.Roots != "" || c.Storage != "" || c.EAB != (EAB{}) ||
		len(c.Challenges) > 0 || c.HTTPPort != 0 || c.TLSPort != 0 || c.DNS.Provider != "" || len(c.DNS.Settings) > 0 || len(c.DNS.Resolvers) > 0
}

// checkDomain returns why no certificate can be obtained for a domain.
func (c ACME) checkDomain(d string) error {
	name, wildcard := strings.CutPrefix(d, "*.")
	host, addr, err := policy.ParseHost(name)
	switch {
	case err != nil:
		return fmt.Errorf("%q is no domain: %w", d, err)
	case wildcard && addr.IsValid():
		return fmt.Errorf("%q is no domain", d)
	case wildcard && c.DNS.Provider == "":
		return fmt.Errorf("%q is a wildcard, which only dns.provider can prove", d)
	case c.Directory == "" && (addr.IsValid() || !strings.Contains(host, ".")):
		return fmt.Errorf("%q is no public domain name (an authority of your own, named by directory, may certify others)", d)
	case addr.IsValid() && c.DNS.Provider != "":
		return fmt.Errorf("%q is an address, which DNS cannot prove", d)
	}
	return nil
}

func (c ACME) validate() (errs []error) {
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for i, d := range c.Domains {
		if err := c.checkDomain(d); err != nil {
			fail("domains[%d]: %w", i, err)
		}
	}
	if c.Email != "" && !strings.Contains(c.Email, "@") {
		fail("email: %q is no address", c.Email)
	}
	if c.Directory != "" {
		u, err := httpurl.Parse(c.Directory)
		if err == nil && u.Scheme != "https" {
			err = errors.New("scheme must be https")
		}
		if err != nil {
			fail("directory: invalid URL %q: %w", c.Directory, err)
		}
	}
	switch {
	case c.EAB.KeyID != "" && c.EAB.MACKey == "":
		fail("eab.mac_key: missing (the authority gives it with the key's id)")
	case c.EAB.KeyID == "" && c.EAB.MACKey != "":
		fail("eab.key_id: missing (the authority gives it with the key)")
	case strings.Trim(c.EAB.MACKey, base64url+"=") != "":
		fail("eab.mac_key: is not in base64url")
	}
	for i, name := range c.Challenges {
		if !slices.Contains(challenges, name) {
			fail("challenges[%d]: %q is unknown (allowed: %s; for dns-01 set dns.provider)", i, name, strings.Join(challenges, ", "))
		}
	}
	if c.DNS.Provider != "" {
		if len(c.Challenges) > 0 {
			fail("challenges: stands beside dns.provider, in whose place no other challenge is used")
		}
		if _, err := c.DNS.provider(); err != nil {
			fail("dns.%w", err)
		}
	} else if len(c.DNS.Settings) > 0 {
		fail("dns.provider: missing (the settings are of a provider)")
	}
	for i, s := range c.DNS.Resolvers {
		if _, err := lookup.ParseServer(s); err != nil {
			fail("dns.resolvers[%d]: %w", i, err)
		}
	}
	return errs
}
