package proxy

import (
	"testing"
	"time"
)

func TestConfigValidate(t *testing.T) {
	const noAddress = ` is no listen address (allowed: ":3128", "192.0.2.1:3128", "[2001:db8::1]:3128")`
	const noBlock = ` is no address block (allowed: a CIDR block, an address, loopback, private)`
	tests := []struct {
		name   string
		change func(*Config) // of a valid configuration
		want   string
	}{
		{"smallest", func(*Config) {}, ""},
		{"everything", func(c *Config) {
			*c = Config{
				Listen: []string{":3128", "192.0.2.1:3128", "[2001:db8::1]:3128", ":0", ":0", "127.0.0.1:0", "127.0.0.1:0"}, TLSListen: []string{":3129", ":0"},
				Clients: []string{"loopback", "private", "198.51.100.0/24", "2001:db8::1"}, ProxyProtocol: []string{"192.0.2.7"},
				IdleTimeout: time.Hour, MaxTunnels: 7, MaxTunnelsPerClient: 3, DrainTimeout: time.Second,
			}
		}, ""},
		{"only TLS", func(c *Config) { c.Listen, c.TLSListen = nil, []string{":3129"} }, ""},
		{"no listener", func(c *Config) { c.Listen = nil }, "listen: is empty, and so is tls_listen: no client could connect"},
		{"no port", func(c *Config) { c.Listen = []string{"127.0.0.1"} }, `listen[0]: "127.0.0.1"` + noAddress},
		{"empty port", func(c *Config) { c.Listen = []string{"127.0.0.1:"} }, `listen[0]: "127.0.0.1:"` + noAddress},
		{"port too large", func(c *Config) { c.Listen = []string{":3128", ":65536"} }, `listen[1]: ":65536"` + noAddress},
		{"name of a port", func(c *Config) { c.Listen = []string{":http"} }, `listen[0]: ":http"` + noAddress},
		{"only a port", func(c *Config) { c.Listen = []string{"3128"} }, `listen[0]: "3128"` + noAddress},
		{"name", func(c *Config) { c.Listen = []string{"localhost:3128"} }, `listen[0]: "localhost:3128"` + noAddress},
		{"IPv6 without brackets", func(c *Config) { c.Listen = []string{"2001:db8::1:3128"} }, `listen[0]: "2001:db8::1:3128"` + noAddress},
		{"empty", func(c *Config) { c.Listen = []string{""} }, `listen[0]: ""` + noAddress},
		{"twice", func(c *Config) { c.Listen = []string{":3128", ":3129", ":3128", ":3128"} }, "listen[2]: \":3128\" stands at listen[0] too\nlisten[3]: \":3128\" stands at listen[0] too"},
		{"twice, once in TLS", func(c *Config) { c.TLSListen = []string{":3128"} }, `tls_listen[0]: ":3128" stands at listen[0] too`},
		{"clients", func(c *Config) { c.Clients = []string{"private", "10.0.0.1/8", "school"} }, `clients[1]: "10.0.0.1/8" has bits set behind the prefix; did you mean 10.0.0.0/8?` + "\n" + `clients[2]: "school"` + noBlock},
		{"load balancers", func(c *Config) { c.ProxyProtocol = []string{"x"} }, `proxy_protocol[0]: "x"` + noBlock},
		{"idle timeout", func(c *Config) { c.IdleTimeout = 0 }, "idle_timeout: must be positive, not 0s"},
		{"tunnels", func(c *Config) { c.MaxTunnels = -1 }, "max_tunnels: must not be negative"},
		{"tunnels of a client", func(c *Config) { c.MaxTunnelsPerClient = -1 }, "max_tunnels_per_client: must not be negative"},
		{"drain timeout", func(c *Config) { c.DrainTimeout = -1 }, "drain_timeout: must not be negative"},
		{"all of them, in order", func(c *Config) {
			*c = Config{Listen: []string{"x"}, TLSListen: []string{"y"}, Clients: []string{"x"}, ProxyProtocol: []string{"y"}, IdleTimeout: -1, MaxTunnels: -1, DrainTimeout: -1}
		}, `listen[0]: "x"` + noAddress + `
tls_listen[0]: "y"` + noAddress + `
clients[0]: "x"` + noBlock + `
proxy_protocol[0]: "y"` + noBlock + `
idle_timeout: must be positive, not -1ns
max_tunnels: must not be negative
drain_timeout: must not be negative`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{Listen: []string{":3128"}, IdleTimeout: time.Hour}
			tt.change(&cfg)
			got := ""
			if err := cfg.Validate(); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}
