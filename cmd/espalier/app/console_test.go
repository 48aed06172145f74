package app

import (
	"net/netip"
	"strings"
	"testing"

	"espalier/configs"
	"espalier/web/certs"
)

// Whatever has opened a listener, a service manager too: no password goes over the
// network in the clear.
func TestConsoleBeyondLoopback(t *testing.T) {
	for addr, ok := range map[string]bool{"127.0.0.1": true, "127.0.0.2": true, "::1": true, "0.0.0.0": false, "::": false, "192.0.2.1": false} {
		on := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0"), netip.AddrPortFrom(netip.MustParseAddr(addr), 8081)}
		err := encrypted(&configs.Config{}, on)
		if (err == nil) != ok || err != nil && !strings.HasPrefix(err.Error(), "web.admin: ") {
			t.Errorf("%s: %v", addr, err)
		}
		with := &configs.Config{TLS: certs.Config{SelfSigned: true}}
		if err := encrypted(with, on); err != nil {
			t.Errorf("%s, with TLS: %v", addr, err)
		}
	}
}
