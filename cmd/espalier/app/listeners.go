package app

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

// What a socket is for. Sockets that the service manager passes are named so.
const (
	forProxy  = "proxy"
	forTLS    = "proxy-tls" // the proxy inside TLS
	forPublic = "public"
	forAdmin  = "admin"
)

// A socket is one that the process listens on.
type socket struct {
	net.Listener
	purpose string
	passed  bool // the service manager has opened it
}

type sockets []socket

// addrs are the addresses of the sockets for a purpose, or of all for "".
func (s sockets) addrs(purpose string) []netip.AddrPort {
	out := []netip.AddrPort{}
	for _, on := range s {
		if purpose == "" || on.purpose == purpose {
			at := on.Addr().(*net.TCPAddr).AddrPort()
			out = append(out, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
		}
	}
	return out
}

// has reports whether there is a socket for a purpose.
func (s sockets) has(purpose string) bool {
	return slices.ContainsFunc(s, func(on socket) bool { return on.purpose == purpose })
}

// passed names the sockets that the service manager has opened, for the log.
func (s sockets) passed() string {
	var list []string
	for _, on := range s {
		if on.passed {
			list = append(list, on.Addr().String())
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func (s sockets) close() {
	for _, on := range s {
		on.Close()
	}
}

// listeners opens what cfg names. Sockets that the service manager has passed
// (socket activation, sd_listen_fds(3)) take the place of addresses: by their
// name, or by the address that they listen on. Where it fails nothing stays open.
func listeners(cfg *configs.Config) (_ sockets, err error) {
	free, err := passedSockets()
	var opened sockets
	defer func() {
		if err != nil {
			opened.close()
			for _, s := range free {
				s.Close()
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	for _, g := range []struct {
		key, purpose string
		addrs        []string
	}{
		{"proxy.listen", forProxy, cfg.Proxy.Listen},
		{"proxy.tls_listen", forTLS, cfg.Proxy.TLSListen},
		{"web.public", forPublic, cfg.Web.Public},
		{"web.admin", forAdmin, cfg.Web.Admin},
	} {
		var given []*passedSocket
		given, free = assign(free, g.purpose, g.addrs)
		for _, s := range given {
			if s != nil {
				opened = append(opened, socket{s.TCPListener, g.purpose, true})
			}
		}
		for i, addr := range g.addrs {
			if given[i] == nil {
				l, err := proxy.Listen(addr)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", g.key, err)
				}
				opened = append(opened, socket{l, g.purpose, false})
			}
		}
	}
	var errs []error
	for _, s := range free {
		errs = append(errs, fmt.Errorf("%s: is none of proxy.listen, proxy.tls_listen, web.public and web.admin: add its address there, or name it proxy, proxy-tls, public or admin (FileDescriptorName=)", s))
	}
	return opened, errors.Join(errs...)
}

// assign picks the sockets for a purpose: one in the place of each address that it listens
// on, and those with the name also in that of the first address that has none, or behind
// all. An address without a socket has nil. rest are the others.
func assign(free []*passedSocket, purpose string, addrs []string) (given, rest []*passedSocket) {
	take := func(fits func(*passedSocket) bool) *passedSocket {
		at := slices.IndexFunc(free, fits)
		if at < 0 {
			return nil
		}
		s := free[at]
		free = slices.Delete(free, at, at+1)
		return s
	}
	for _, addr := range addrs {
		given = append(given, take(func(s *passedSocket) bool {
			named := slices.Contains([]string{forProxy, forTLS, forPublic, forAdmin}, s.name)
			return (s.name == purpose || !named) && s.listensOn(addr)
		}))
	}
	for {
		s := take(func(s *passedSocket) bool { return s.name == purpose })
		if s == nil {
			return given, free
		}
		if i := slices.Index(given, nil); i >= 0 {
			given[i] = s
		} else {
			given = append(given, s)
		}
	}
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
