package pac

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// ErrNoProxy is returned where neither the configuration nor the address that
// the script was fetched from names a proxy.
var ErrNoProxy = errors.New("no IPv4 address of the proxy is known; set pac.proxies to its host:port")

// Fetched returns host:port of the proxy for a client that fetched the script at
// the local address local, for use where pac.proxies is empty. listen are the
// addresses that the plain proxy listens on, with their actual ports.
//
// A PAC answer takes no IPv6 literal, so for an IPv6 address the first IPv4
// address of the same interface is named, and for an invalid one that of the
// machine's first interface that has one. Where the proxy listens on other
// addresses only, the first of these is named; one on loopback only for a
// client on loopback.
func Fetched(local netip.Addr, listen []netip.AddrPort) (string, error) {
	return fetched(local, listen, localV4)
}

func fetched(local netip.Addr, listen []netip.AddrPort, localV4 func(netip.Addr) netip.Addr) (string, error) {
	local = local.Unmap()
	switch {
	case local.Is4():
	case local.IsLoopback():
		local = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		local = localV4(local.WithZone(""))
	}
	for _, l := range listen {
		if a := l.Addr().Unmap(); local.IsValid() && (a == local || a.IsUnspecified()) {
			return hostPort(local, l.Port()), nil
		}
	}
	for _, l := range listen {
		if a := l.Addr().Unmap(); a.Is4() && !a.IsUnspecified() && (!a.IsLoopback() || local.IsLoopback()) {
			return hostPort(a, l.Port()), nil
		}
	}
	return "", ErrNoProxy
}

func hostPort(a netip.Addr, port uint16) string {
	return a.String() + ":" + strconv.Itoa(int(port))
}

// interfaces remembers the machine's addresses for a while, since asking for
// them takes longer than everything else about an answer.
var interfaces struct {
	sync.Mutex
	read  time.Time
	v4    map[netip.Addr]netip.Addr // of the interface that has the IPv6 address
	first netip.Addr                // of the first interface that is not loopback
}

const interfacesKept = 10 * time.Second

// localV4 returns an IPv4 address of the interface that has v6, or else of the
// machine; the zero Addr where it has none but loopback.
func localV4(v6 netip.Addr) netip.Addr {
	interfaces.Lock()
	defer interfaces.Unlock()
	if now := time.Now(); now.Sub(interfaces.read) > interfacesKept {
		interfaces.read = now
		interfaces.v4, interfaces.first = readInterfaces()
	}
	if a, ok := interfaces.v4[v6]; ok {
		return a
	}
	return interfaces.first
}

func readInterfaces() (v4 map[netip.Addr]netip.Addr, first netip.Addr) {
	v4 = map[netip.Addr]netip.Addr{}
	list, err := net.Interfaces()
	if err != nil {
		return v4, first // as a machine without addresses
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil || i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		var own netip.Addr
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().Is4() && !p.Addr().IsLinkLocalUnicast() {
				own = p.Addr()
				break
			}
		}
		if !own.IsValid() {
			continue
		}
		if !first.IsValid() {
			first = own
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() {
				v4[p.Addr()] = own
			}
		}
	}
	return v4, first
}
