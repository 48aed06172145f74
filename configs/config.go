// Package configs is the configuration as a whole: the packages' own Config
// types composed, the embedded defaults, and how both are loaded from a file,
// the environment and flags.
//
// default.yaml is the reference of every key. Load reports all mistakes at
// once, each with its place; a Watcher tells when a file has changed.
package configs

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"espalier/pac"
	"espalier/policy"
	"espalier/policy/auth"
	"espalier/proxy"
	"espalier/proxy/accesslog"
	"espalier/proxy/egress"
	"espalier/web"
	"espalier/web/certs"
)

// Config is the whole configuration. Load returns one whose file names are
// resolved; see Load.
type Config struct {
	// Data is the directory of what must survive a restart: CA, certificates,
	// store, and logs with relative names.
	Data    string                 `koanf:"data"`
	Proxy   proxy.Config           `koanf:"proxy"`
	Egress  egress.Config          `koanf:"egress"`
	Apple   policy.Apple           `koanf:"apple"`
	Auth    auth.Config            `koanf:"auth"`
	Lists   map[string]policy.List `koanf:"lists"`
	Rules   []policy.Rule          `koanf:"rules"`
	Inspect policy.InspectConfig   `koanf:"inspect"`
	Presets policy.Presets         `koanf:"presets"`
	PAC     pac.Config             `koanf:"pac"`
	Log     Log                    `koanf:"log"`
	TLS     certs.Config           `koanf:"tls"`
	Web     web.Config             `koanf:"web"`
}

// Log is the configuration of the operational log, the access log and its
// store, `log`.
type Log struct {
	// Level is debug, info, warn or error.
	Level  string                `koanf:"level"`
	Access accesslog.Config      `koanf:"access"`
	Store  accesslog.StoreConfig `koanf:"store"`
}

var logLevels = []string{"debug", "info", "warn", "error"}

// Validate checks every section and what must hold between them. It does not
// touch files. Errors begin with the whole path of the key at fault, joined.
func (c *Config) Validate() error {
	return c.validate(func(string) bool { return true })
}

// validate is Validate; where two keys are at odds, the error is of the one
// that isSet reports as chosen by the user.
func (c *Config) validate(isSet func(key string) bool) error {
	var errs []error
	if strings.TrimSpace(c.Data) == "" {
		errs = append(errs, errors.New("data: is empty (wanted: a directory)"))
	}
	if !slices.Contains(logLevels, c.Log.Level) {
		errs = append(errs, fmt.Errorf("log.level: %q is unknown (allowed: %s)", c.Log.Level, strings.Join(logLevels, ", ")))
	}
	for _, s := range []struct {
		key string
		err error
	}{
		{"proxy", c.Proxy.Validate()},
		{"egress", c.Egress.Validate()},
		{"apple", c.Apple.Validate()},
		{"auth", c.Auth.Validate()},
		{"inspect", c.Inspect.Validate()},
		{"pac", c.PAC.Validate()},
		{"log.access", c.Log.Access.Validate()},
		{"log.store", c.Log.Store.Validate()},
		{"tls", c.TLS.Validate()},
		{"web", c.Web.Validate()},
	} {
		errs = append(errs, under(s.key, s.err)...)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Lists)) {
		if !isListName(name) {
			errs = append(errs, fmt.Errorf("lists.%s: %q is no name for a list (allowed: a to z, 0 to 9 and -)", name, name))
		}
		errs = append(errs, under("lists."+name, c.Lists[name].Validate())...)
	}
	errs = append(errs, split(policy.ValidateRules(c.Rules, c.Lists, c.Inspect.Mode))...)
	errs = append(errs, split(policy.ValidatePresets(c.Presets, c.Inspect.Mode))...)
	errs = append(errs, c.clashes(isSet)...)
	for _, i := range c.Web.BeyondLoopback() {
		if !c.TLS.Enabled() {
			errs = append(errs, fmt.Errorf("web.admin[%d]: %q reaches beyond loopback, where passwords must not go without TLS (configure tls, or listen on 127.0.0.1 and come through an SSH tunnel)", i, c.Web.Admin[i]))
		}
	}
	return errors.Join(errs...)
}

// UsersFile is the file of the console's users.
func (c *Config) UsersFile() string { return cmp.Or(c.Web.Users, filepath.Join(c.Data, "users")) }

func isListName(s string) bool {
	for _, c := range s {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return false
		}
	}
	return s != ""
}

// clashes finds listeners that would take each other's address. An address for
// all interfaces takes its port on each of them.
func (c *Config) clashes(isSet func(key string) bool) []error {
	type listener struct {
		list, key, text string
		addr            netip.AddrPort
	}
	var seen []listener
	var errs []error
	for _, group := range []struct {
		key  string
		list []string
	}{
		{"proxy.listen", c.Proxy.Listen},
		{"proxy.tls_listen", c.Proxy.TLSListen},
		{"web.public", c.Web.Public},
		{"web.admin", c.Web.Admin},
	} {
		for i, text := range group.list {
			full := text
			if strings.HasPrefix(full, ":") {
				full = "[::]" + full
			}
			addr, err := netip.ParseAddrPort(full)
			if err != nil || addr.Port() == 0 { // the section's Validate names the former
				continue
			}
			l := listener{group.key, fmt.Sprintf("%s[%d]", group.key, i), text, netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())}
			for _, other := range seen {
				same := l.addr.Addr() == other.addr.Addr() || l.addr.Addr().IsUnspecified() || other.addr.Addr().IsUnspecified()
				inProxy := strings.HasPrefix(l.list, "proxy.") && strings.HasPrefix(other.list, "proxy.")
				if l.addr.Port() != other.addr.Port() || !same || inProxy && l.text == other.text { // proxy.Config names the last
					continue
				}
				at, there := l, other
				if !isSet(l.key) && isSet(other.key) {
					at, there = other, l
				}
				errs = append(errs, fmt.Errorf("%s: %q is taken by %s (%q); every listener needs an address of its own", at.key, at.text, there.key, there.text))
				break
			}
			seen = append(seen, l)
		}
	}
	return errs
}

// under puts the key of a section in front of its errors.
func under(key string, err error) []error {
	errs := split(err)
	for i, e := range errs {
		errs[i] = fmt.Errorf("%s.%w", key, e)
	}
	return errs
}

// split takes joined errors apart, however deeply joined.
func split(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var errs []error
	text := make([]string, 0, len(joined.Unwrap()))
	for _, e := range joined.Unwrap() {
		errs = append(errs, split(e)...)
		text = append(text, e.Error())
	}
	if strings.Join(text, "\n") != err.Error() { // not Join, but a text with several %w
		return []error{err}
	}
	return errs
}
