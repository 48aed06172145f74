// Package web serves what Espalier shows over HTTP: the PAC script and
// certificates to devices, metrics and the API to administrators.
package web

import (
	"errors"
	"fmt"

	"espalier/policy"
	"espalier/web/httpurl"
	"espalier/web/profile"
)

// Config is the configuration of the web listeners, `web`.
type Config struct {
	// Public are the addresses devices fetch from, "host:port" or ":port".
	Public []string `koanf:"public"`
	// PublicURL is where devices reach these, "http://HOST[:PORT]": what the URLs of
	// scripts begin with that profiles and people are given. Empty means this
	// machine by its first IPv4 address.
	PublicURL string `koanf:"public_url"`
	// Export serves what firewalls must let out under /export/ of Public.
	Export bool `koanf:"export"`
	// Admin are the addresses of the console, the API and the metrics.
	Admin []string `koanf:"admin"`
	// Users is the file of the console's users, with lines of "name:hash[:role]";
	// empty means users in the data directory, which need not be there.
	Users string `koanf:"users"`
	// Hosts are names that the console is reached by, beside localhost and the
	// addresses that it listens on. It answers for no other.
	Hosts []string `koanf:"hosts"`
	// Profile says in whose name profiles for devices are made.
	Profile profile.Config `koanf:"profile"`
}

// Validate checks the values; whether two listeners share an address is for the
// configuration as a whole to say. Errors begin with the key, joined.
func (c Config) Validate() error {
	var errs []error
	each := func(key string, values []string, check func(string) error) {
		for i, s := range values {
			if err := check(s); err != nil {
				errs = append(errs, fmt.Errorf("%s[%d]: %w", key, i, err))
			}
		}
	}
	listen := func(s string) error {
		_, err := policy.ParseListen(s, 8080)
		return err
	}
	each("public", c.Public, listen)
	if c.PublicURL != "" {
		if _, err := httpurl.Base(c.PublicURL); err != nil {
			errs = append(errs, fmt.Errorf("public_url: invalid URL %q: %w (example: http://proxy.example.org:8080)", c.PublicURL, err))
		}
	}
	each("admin", c.Admin, listen)
	each("hosts", c.Hosts, func(s string) error {
		if _, _, err := policy.ParseHost(s); err != nil {
			return fmt.Errorf("%q is no host name: %w", s, err)
		}
		return nil
	})
	if err := c.Profile.Validate(); err != nil {
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			errs = append(errs, fmt.Errorf("profile.%w", e))
		}
	}
	return errors.Join(errs...)
}

// BeyondLoopback are the indexes of those of Admin that others than this machine
// can reach.
func (c Config) BeyondLoopback() []int {
	var list []int
	for i, s := range c.Admin {
		if host, err := policy.ParseListen(s, 8080); err == nil && !host.Unmap().IsLoopback() {
			list = append(list, i)
		}
	}
	return list
}

// HostNames are Hosts as requests name them.
func (c Config) HostNames() []string {
	var list []string
	for _, s := range c.Hosts {
		if host, _, err := policy.ParseHost(s); err == nil {
			list = append(list, host)
		}
	}
	return list
}
