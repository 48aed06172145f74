// Package doctortest runs a stage for tests of the doctor: a name server that
// knows every name, and servers at one loopback address that are every host,
// with certificates of their own root. A host may be broken in one of many ways.
package doctortest

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A Fault is how a host is broken.
type Fault int

const (
	NoName      Fault = iota + 1 // NXDOMAIN
	NoAddress                    // no record
	DNSSilent                    // the question is not answered
	DNSFails                     // SERVFAIL
	Private                      // an address in 10.0.0.0/8
	Refuses                      // nobody listens
	Swallows                     // connections are not answered
	Intercepted                  // a certificate of another CA
	Expired                      // a certificate of last year
	Misnamed                     // a certificate for another name
	ApplesCA                     // a certificate of Apple's own CA, which is no public one
	WantsDevice                  // that, and no handshake without a device's certificate
	Alerts                       // a TLS alert in place of a certificate
	Resets                       // the connection is reset at the TLS hello
	SpeaksHTTP                   // HTTP where TLS is asked for
	Portal                       // plain requests are led to a portal
	Silent                       // connections are taken, and nothing is said
)

// InspectorName is what the CA of Intercepted calls itself.
const InspectorName = "Example Inspection CA (Example Security)"

// A Stage is what a doctor examines.
type Stage struct {
	Addr string // of the hosts
	DNS  string // host:port of the name server
	// Roots is the hosts' root in PEM.
	Roots []byte
	// Ports are where the hosts' ports are in truth.
	Ports map[uint16]uint16

	faults                 map[string]Fault
	t                      testing.TB
	key                    *ecdsa.PrivateKey // of every certificate
	root, inspector, apple *tls.Certificate  // CAs
}

// TCP are the ports of TCP that a stage has, beside UDP 123.
var TCP = []uint16{22, 80, 443, 2197, 5223}

// Start runs a stage at addr in 127.79.0.0/16 until the test ends: at the ports
// themselves, or at free ones. The test is skipped if that is not allowed.
func Start(t testing.TB, addr string, realPorts bool, faults map[string]Fault) *Stage {
	t.Helper()
	s := &Stage{Addr: addr, faults: faults, t: t, Ports: map[uint16]uint16{}}
	s.makeCAs()
	s.Roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.root.Leaf.Raw})
	s.serveDNS()
	handlers := map[uint16]func(net.Conn){22: s.ssh, 80: s.http, 443: s.tls, 2197: s.tls, 5223: s.tls}
	at := func(port uint16) string {
		if !realPorts {
			port = 0
		}
		return netip.AddrPortFrom(netip.MustParseAddr(addr), port).String()
	}
	for _, port := range TCP {
		l, err := net.Listen("tcp", at(port))
		if err != nil {
			t.Skipf("the stage needs port %d of %s: %v", port, addr, err)
		}
		s.Ports[port] = uint16(l.Addr().(*net.TCPAddr).Port)
		s.serve(l, handlers[port])
	}
	udp, err := net.ListenPacket("udp", at(123))
	if err != nil {
		t.Skipf("the stage needs UDP port 123 of %s: %v", addr, err)
	}
	s.Ports[123] = uint16(udp.LocalAddr().(*net.UDPAddr).Port)
	s.until(udp.Close, func() { TellTime(udp, nil) })
	for _, f := range faults {
		if f == Swallows {
			Hole(t, netip.AddrPortFrom(s.elsewhere(81), s.Ports[443]))
			break
		}
	}
	return s
}

// until runs serve, which end ends when the test does.
func (s *Stage) until(end func() error, serve func()) {
	var running sync.WaitGroup
	running.Go(serve)
	s.t.Cleanup(func() { _ = end(); running.Wait() })
}

// elsewhere is an address like that of the stage at which it does not listen.
func (s *Stage) elsewhere(second byte) netip.Addr {
	a := netip.MustParseAddr(s.Addr).As4()
	a[1] = second
	return netip.AddrFrom4(a)
}

func (s *Stage) serve(l net.Listener, handle func(net.Conn)) {
	s.until(l.Close, func() {
		var all sync.WaitGroup
		defer all.Wait()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				defer context.AfterFunc(s.t.Context(), func() { c.Close() })()
				handle(c)
			})
		}
	})
}

// serveDNS answers for every name.
func (s *Stage) serveDNS() {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.DNS = conn.LocalAddr().String()
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		name := q.Question[0].Name
		addr := netip.MustParseAddr(s.Addr)
		switch s.faults[strings.ToLower(strings.TrimSuffix(name, "."))] {
		case DNSSilent:
			return
		case NoName:
			m.Rcode = dns.RcodeNameError
		case DNSFails:
			m.Rcode = dns.RcodeServerFailure
		case NoAddress:
			addr = netip.Addr{}
		case Private:
			addr = netip.AddrFrom4([4]byte{10, 1, 2, 3})
		case Refuses:
			addr = s.elsewhere(80)
		case Swallows:
			addr = s.elsewhere(81)
		}
		if m.Rcode == dns.RcodeSuccess && addr.IsValid() && q.Question[0].Qtype == dns.TypeA {
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: addr.AsSlice(),
			})
		}
		_ = w.WriteMsg(m)
	})}
	s.until(conn.Close, func() { _ = server.ActivateAndServe() })
}

// Hole makes a port one that answers nothing, until the end of the test: a listener that
// accepts nothing, whose queue is full, so that the kernel drops what comes. It returns the
// address, which has a port if at's is 0.
func Hole(t testing.TB, at netip.AddrPort) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) }); err != nil {
		t.Fatal(err)
	}
	for range 16 {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 500*time.Millisecond)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return l.Addr().String()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("this kernel's queue has no end")
	return ""
}
