// Package web serves what Espalier shows over HTTP: the PAC script and
// certificates to devices, metrics and the API to administrators.
package web

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
