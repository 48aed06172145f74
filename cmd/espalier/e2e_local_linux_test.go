package main

import "testing"

// With the default script, browsers reach local destinations themselves: a printer by
// its address, by a plain name and by .local, and the portal of a network by its
// address. Everything else goes through the proxy. The proxy could reach these
// addresses here too, so that only the script decides.
func TestBrowsersReachLocalHostsThemselves(t *testing.T) {
	t.Parallel()
	if !inNamespace(t, "192.168.1.20", "10.0.0.1", "172.16.9.9", "100.64.0.9", "169.254.7.7", "fd00::20", "203.0.113.9") {
		return
	}
	steps := []step{
		{"http", "proxied.example", "b", false},
		{"http", "192.168.1.20", "direct", false},
		{"https", "gs.apple.com", "b", false},
		{"http", "printer", "direct", false},
		{"http", "203.0.113.9", "b", false},
		{"https", "printer.local", "direct", false},
		{"http", "10.0.0.1", "direct", false},
		{"http", "172.16.9.9", "direct", false},
		{"http", "100.64.0.9", "direct", false},
		{"http", "169.254.7.7", "direct", false},
		{"http", "[fd00::20]", "direct", false},
		{"http", "localhost", "direct", false},
		{"https", "www.proxied.example", "b", false},
	}
	for _, program := range []string{"chromium", "firefox-esr"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			walk(t, program, "[loopback, private, 100.64.0.0/10, 203.0.113.9]", ":0", nil, steps)
		})
	}
}
