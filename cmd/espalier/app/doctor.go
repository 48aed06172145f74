package app

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"espalier/configs"
	"espalier/proxy/doctor"
	"espalier/proxy/egress"
)

// NewDoctor returns a doctor of the hosts and the way that a configuration names.
// self is what the process listens on.
func NewDoctor(cfg *configs.Config, self []netip.AddrPort) (*doctor.Doctor, error) {
	apple, err := Apple(cfg)
	if err != nil {
		return nil, err
	}
	dialer, err := egress.New(cfg.Egress, ownAddresses(cfg, self))
	if err != nil {
		return nil, fmt.Errorf("egress: %w", err)
	}
	return &doctor.Doctor{Rows: apple.Rows(), Egress: dialer}, nil
}

// doctor returns a doctor of the configuration in force and the own proxy.
func (a *App) doctor() (*doctor.Doctor, error) {
	d, err := NewDoctor(a.cfg(), a.sockets.addrs(""))
	if on := a.sockets.addrs(forProxy); err == nil && len(on) > 0 {
		d.Proxy = LocalAddress(on[0].Addr().String(), strconv.Itoa(int(on[0].Port())))
	}
	return d, err
}

// LocalAddress is where a program on this machine reaches a listener.
func LocalAddress(host, port string) string {
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
