package app

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

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
		d.Proxy = localAddress(on[0].Addr().String(), strconv.Itoa(int(on[0].Port())))
	}
	return d, err
}

// localAddress is where a program on this machine reaches a listener.
func localAddress(host, port string) string {
	if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// LocalProxy is where the proxy of a configuration listens on this machine, or
// why there is none to try.
func LocalProxy(cfg *configs.Config) (at, note string) {
	if len(cfg.Proxy.Listen) == 0 {
		return "", "proxy.listen is empty"
	}
	host, port, err := net.SplitHostPort(cfg.Proxy.Listen[0])
	if err != nil || port == "0" {
		return "", "proxy.listen leaves the port open (--through HOST:PORT names it)"
	}
	at = localAddress(host, port)
	conn, err := net.DialTimeout("tcp", at, time.Second)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "", "nobody listens at " + at + " (proxy.listen): espalier does not run here"
	}
	if conn != nil {
		conn.Close()
	}
	return at, ""
}
