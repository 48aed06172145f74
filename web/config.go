// Package web serves what Espalier shows over HTTP: the PAC script and
// certificates to devices, metrics and the API to administrators.
package web

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"espalier/policy"
)

// Config is the configuration of the web listeners, `web`.
type Config struct {
	// Public are the addresses devices fetch from, "host:port" or ":port".
	Public []string `koanf:"public"`
	// Admin are the addresses of the console, the API and the metrics.
	Admin []string `koanf:"admin"`
	// Users is an htpasswd file of the console's users; empty means that the
	// console is open to whoever reaches it, which is refused beyond loopback.
	Users string `koanf:"users"`
}

// Validate checks the values; whether two listeners share an address is for the
// configuration as a whole to say. Errors begin with the key, joined.
func (c Config) Validate() error {
	var errs []error
	for i, s := range c.Public {
		if _, err := listenHost(s); err != nil {
			errs = append(errs, fmt.Errorf("public[%d]: %w", i, err))
		}
	}
	for i, s := range c.Admin {
		host, err := listenHost(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("admin[%d]: %w", i, err))
		} else if c.Users == "" && !host.Unmap().IsLoopback() {
			errs = append(errs, fmt.Errorf("admin[%d]: %q reaches beyond loopback, where anybody could use the console (name its users in web.users, or listen on 127.0.0.1)", i, s))
		}
	}
	return errors.Join(errs...)
}

// listenHost returns the address part of a listen address; the unspecified
// address where it is empty.
func listenHost(s string) (netip.Addr, error) {
	host, port, err := net.SplitHostPort(s)
	addr := netip.IPv6Unspecified()
	if err == nil && host != "" {
		addr, err = netip.ParseAddr(host)
	}
	if err == nil && port != "0" {
		_, err = policy.ParsePort(port)
	}
	if err != nil {
		return addr, fmt.Errorf("%q is no listen address (allowed: \":8080\", \"192.0.2.1:8080\", \"[2001:db8::1]:8080\")", s)
	}
	return addr, nil
}
