package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"espalier/configs"
	"espalier/proxy"
)

// A socketGroup is a key of listen addresses, and what stands for it.
type socketGroup struct {
	key   string
	name  string // of its sockets in LISTEN_FDNAMES
	addrs []string
	on    []net.Listener // one for each of addrs, nil where it is to be opened; perhaps more
}

// sockets are what the process listens on.
type sockets struct {
	proxyOn, secureOn, publicOn, adminOn []net.Listener // secureOn: the proxy inside TLS

	passed map[net.Listener]bool // which of these the service manager has opened
}

// listeners opens what cfg names. Sockets that the service manager has passed
// (socket activation, sd_listen_fds(3)) take the place of addresses: by their
// name, proxy, proxy-tls, public or admin, or by the address that they listen on.
// Where it fails nothing stays open.
func listeners(cfg *configs.Config) (opened sockets, err error) {
	groups := []*socketGroup{
		{key: "proxy.listen", name: "proxy", addrs: cfg.Proxy.Listen},
		{key: "proxy.tls_listen", name: "proxy-tls", addrs: cfg.Proxy.TLSListen},
		{key: "web.public", name: "public", addrs: cfg.Web.Public},
		{key: "web.admin", name: "admin", addrs: cfg.Web.Admin},
	}
	given, err := passedSockets()
	defer func() {
		if err == nil {
			return
		}
		for _, s := range given {
			s.Close()
		}
		for _, g := range groups {
			for _, l := range g.on {
				if l != nil {
					l.Close()
				}
			}
		}
	}()
	if err != nil {
		return sockets{}, err
	}
	passed := map[net.Listener]bool{}
	for _, s := range given {
		passed[s.TCPListener] = true
	}
	if err := assign(groups, given); err != nil {
		return sockets{}, err
	}
	for _, g := range groups {
		for i, addr := range g.addrs {
			if g.on[i] == nil {
				l, err := proxy.Listen(addr)
				if err != nil {
					return sockets{}, fmt.Errorf("%s: %w", g.key, err)
				}
				g.on[i] = l
			}
		}
	}
	return sockets{groups[0].on, groups[1].on, groups[2].on, groups[3].on, passed}, nil
}

// assign puts each socket into its group: in the place of the same address, and
// by name also in that of the first address that has none, or behind all. A
// socket that belongs nowhere is an error.
func assign(groups []*socketGroup, sockets []*passedSocket) error {
	named := func(name string) bool {
		return slices.ContainsFunc(groups, func(g *socketGroup) bool { return g.name == name })
	}
	free := slices.Clone(sockets)
	take := func(fits func(*passedSocket) bool) net.Listener {
		at := slices.IndexFunc(free, fits)
		if at < 0 {
			return nil
		}
		s := free[at]
		free = slices.Delete(free, at, at+1)
		return s.TCPListener
	}
	for _, g := range groups {
		g.on = make([]net.Listener, len(g.addrs))
		for i, addr := range g.addrs {
			if l := take(func(s *passedSocket) bool {
				return (s.name == g.name || !named(s.name)) && s.listensOn(addr)
			}); l != nil {
				g.on[i] = l
			}
		}
		for {
			l := take(func(s *passedSocket) bool { return s.name == g.name })
			if l == nil {
				break
			}
			if i := slices.Index(g.on, nil); i >= 0 {
				g.on[i] = l
			} else {
				g.on = append(g.on, l)
			}
		}
	}
	var errs []error
	for _, s := range free {
		errs = append(errs, fmt.Errorf("%s: is none of proxy.listen, proxy.tls_listen, web.public and web.admin: add its address there, or name it proxy, proxy-tls, public or admin (FileDescriptorName=)", s))
	}
	return errors.Join(errs...)
}

// A passedSocket is a listening socket that the service manager has opened.
type passedSocket struct {
	*net.TCPListener
	fd   int
	name string
}

func (s *passedSocket) String() string {
	return fmt.Sprintf("passed socket %d (%s, listening on %s)", s.fd, s.name, s.Addr())
}

// listensOn reports whether the socket is what listening on addr would open.
func (s *passedSocket) listensOn(addr string) bool {
	at := s.Addr().(*net.TCPAddr).AddrPort()
	host, port, _ := net.SplitHostPort(addr)
	if fmt.Sprint(at.Port()) != port {
		return false
	}
	if host == "" {
		return at.Addr().IsUnspecified()
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap() == at.Addr().Unmap()
}

// passedSockets are the sockets that LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES
// speak of. The variables are removed. Where it fails, what it returns is to be
// closed.
func passedSockets() ([]*passedSocket, error) {
	var sockets []*passedSocket
	var errs []error
	for i, f := range activation.Files(true) {
		s, err := passedFrom(f)
		f.Close()
		if err != nil {
			errs = append(errs, fmt.Errorf("passed socket %d (%s): %w", firstPassed+i, f.Name(), err))
			continue
		}
		s.fd, s.name = firstPassed+i, f.Name()
		sockets = append(sockets, s)
	}
	return sockets, errors.Join(errs...)
}

// firstPassed is the descriptor of the first socket that is passed.
const firstPassed = 3

// acceptPatience bounds how long accepting may block where a socket blocks.
const acceptPatience = 10 * time.Millisecond

func passedFrom(f *os.File) (*passedSocket, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("is no listening socket of TCP: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("is a socket of %s, not of TCP", l.Addr().Network())
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		var serr error
		err = raw.Control(func(fd uintptr) {
			var listening int
			if listening, serr = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); serr == nil && listening == 0 {
				serr = errors.New("does not listen")
			}
			if serr == nil {
				// That it does not block is a property of the socket, which all the
				// processes have in common that it is passed to; and it is switched off
				// whenever it is passed to another, until that one switches it on.
				patience := syscall.NsecToTimeval(int64(acceptPatience))
				serr = syscall.SetsockoptTimeval(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &patience)
			}
		})
		err = errors.Join(err, serr)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return &passedSocket{TCPListener: tcp}, nil
}

// describe names sockets for the log.
func describe(sockets map[net.Listener]bool) string {
	var list []string
	for l := range sockets {
		list = append(list, l.Addr().String())
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}
