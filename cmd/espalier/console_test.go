package main

import (
	"net"
	"strings"
	"testing"

	"espalier/configs"
	"espalier/web/certs"
)

// listenerAt listens nowhere.
type listenerAt struct {
	net.Listener
	at net.TCPAddr
}

func (l *listenerAt) Addr() net.Addr { return &l.at }

// Whatever has opened a listener, a service manager too: no password goes over the
// network in the clear.
func TestConsoleBeyondLoopback(t *testing.T) {
	for addr, ok := range map[string]bool{"127.0.0.1": true, "127.0.0.2": true, "::1": true, "0.0.0.0": false, "::": false, "192.0.2.1": false} {
		err := encrypted(&configs.Config{}, []net.Listener{&listenerAt{at: net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}, &listenerAt{at: net.TCPAddr{IP: net.ParseIP(addr), Port: 8081}}})
		if (err == nil) != ok || err != nil && !strings.HasPrefix(err.Error(), "web.admin: ") {
			t.Errorf("%s: %v", addr, err)
		}
		with := &configs.Config{TLS: certs.Config{SelfSigned: true}}
		if err := encrypted(with, []net.Listener{&listenerAt{at: net.TCPAddr{IP: net.ParseIP(addr), Port: 8081}}}); err != nil {
			t.Errorf("%s, with TLS: %v", addr, err)
		}
	}
}
