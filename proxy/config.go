package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"espalier/policy"
)

// Config is the configuration of the proxy's listeners and limits, `proxy`.
type Config struct {
	// Listen are the addresses of the plain proxy, "host:port" or ":port".
	Listen []string `koanf:"listen"`
	// TLSListen are addresses where clients speak to the proxy inside TLS.
	TLSListen []string `koanf:"tls_listen"`
	// Clients may use the proxy: CIDR blocks, addresses, loopback, private.
	Clients []string `koanf:"clients"`
	// Ports are the destination ports that requests may reach: "443" or
	// "1024-65535". The catalogue's hosts, and rules that name a port, are exempt.
	// Empty means policy.DefaultPorts.
	Ports []policy.PortRange `koanf:"ports"`
	// Contact is shown to users whose request is blocked, in a line or a few; empty
	// means that none is.
	Contact string `koanf:"contact"`
	// ProxyProtocol are the load balancers trusted to say who the client is.
	ProxyProtocol []string `koanf:"proxy_protocol"`
	// IdleTimeout ends a tunnel with no byte either way; it must be positive.
	IdleTimeout time.Duration `koanf:"idle_timeout"`
	// MaxTunnels bounds open tunnels; 0 means what the limit of file
	// descriptors allows, with a reserve.
	MaxTunnels int `koanf:"max_tunnels"`
	// MaxTunnelsPerClient bounds the open tunnels of a client's address, and its
	// other requests in progress; an IPv6 network of 64 bits may have 16 times as many. 0
	// means three quarters of what the limit of file descriptors allows.
	MaxTunnelsPerClient int `koanf:"max_tunnels_per_client"`
	// DrainTimeout is how long open tunnels may go on after the listener has
	// closed; 0 means none.
	DrainTimeout time.Duration `koanf:"drain_timeout"`
	// Timeouts are not configurable; tests shorten them.
	Timeouts Timeouts `koanf:"-"`
}

// Timeouts bound the phases of a request and of a connection; the package comment
// lists all bounds. A zero field means its default.
type Timeouts struct {
	Head       time.Duration // until a request's head is complete; default 20 s
	KeepAlive  time.Duration // between two requests of a client; default 2 min
	Reply      time.Duration // until the origin begins to answer; default 5 min, as some long-poll for a minute or two
	Stall      time.Duration // between two movements of a body, either way; default 5 min
	HalfClosed time.Duration // without a byte in a tunnel of which one side has closed; default 5 min
	Watch      time.Duration // until the proxy starts to watch a waiting client; default 1 s
}

// withDefaults returns t with its zero fields replaced by the defaults.
func (t Timeouts) withDefaults() Timeouts {
	t.Head = cmp.Or(t.Head, 20*time.Second)
	t.KeepAlive = cmp.Or(t.KeepAlive, 2*time.Minute)
	t.Reply = cmp.Or(t.Reply, 5*time.Minute)
	t.Stall = cmp.Or(t.Stall, 5*time.Minute)
	t.HalfClosed = cmp.Or(t.HalfClosed, 5*time.Minute)
	t.Watch = cmp.Or(t.Watch, time.Second)
	return t
}

// Validate checks the values. Errors begin with the key, joined.
func (c Config) Validate() error {
	var errs []error
	if len(c.Listen) == 0 && len(c.TLSListen) == 0 {
		errs = append(errs, errors.New("listen: is empty, and so is tls_listen: no client could connect"))
	}
	seen := map[string]string{} // address: its key
	listen := func(key string, list []string) {
		for i, s := range list {
			at := fmt.Sprintf("%s[%d]", key, i)
			if _, err := policy.ParseListen(s, 3128); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", at, err))
			} else if other, dup := seen[s]; dup {
				errs = append(errs, fmt.Errorf("%s: %q stands at %s too", at, s, other))
			} else if !strings.HasSuffix(s, ":0") { // any free port, another each time
				seen[s] = at
			}
		}
	}
	listen("listen", c.Listen)
	listen("tls_listen", c.TLSListen)
	networks := func(key string, list []string) {
		for i, s := range list {
			if _, err := policy.ParseNetwork(s); err != nil {
				errs = append(errs, fmt.Errorf("%s[%d]: %w", key, i, err))
			}
		}
	}
	networks("clients", c.Clients)
	networks("proxy_protocol", c.ProxyProtocol)
	if strings.ContainsFunc(c.Contact, func(r rune) bool { return r != '\n' && (r == utf8.RuneError || !unicode.IsPrint(r)) }) {
		errs = append(errs, fmt.Errorf("contact: %q has characters that cannot be printed", c.Contact))
	}
	if c.IdleTimeout <= 0 {
		errs = append(errs, fmt.Errorf("idle_timeout: must be positive, not %s", c.IdleTimeout))
	}
	for _, n := range []struct {
		key   string
		value int64
	}{
		{"max_tunnels", int64(c.MaxTunnels)}, {"max_tunnels_per_client", int64(c.MaxTunnelsPerClient)},
		{"drain_timeout", int64(c.DrainTimeout)},
	} {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("%s: must not be negative", n.key))
		}
	}
	return errors.Join(errs...)
}
