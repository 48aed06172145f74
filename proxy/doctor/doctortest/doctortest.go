// Package doctortest runs a stage for tests of the doctor: a name server that
// knows every name, and servers at one loopback address that are every host,
// with certificates of their own root. A host may be broken in one of many ways.
package doctortest

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
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

	faults map[string]Fault
	t      testing.TB
	ca     map[string]*authority

	mu    sync.Mutex
	certs map[string]*tls.Certificate // by host
	open  map[net.Conn]bool
}

// TCP are the ports of TCP that a stage has, beside UDP 123.
var TCP = []uint16{22, 80, 443, 2197, 5223}

// Start runs a stage at addr in 127.79.0.0/16 until the test ends: at the ports
// themselves, or at free ones. The test is skipped where that is not allowed.
func Start(t testing.TB, addr string, realPorts bool, faults map[string]Fault) *Stage {
	t.Helper()
	s := &Stage{
		Addr: addr, faults: faults, t: t, Ports: map[uint16]uint16{},
		ca: map[string]*authority{}, certs: map[string]*tls.Certificate{}, open: map[net.Conn]bool{},
	}
	for _, name := range []string{"Stage Root", inspectorCN, appleCN} {
		s.ca[name] = newAuthority(t, name)
	}
	s.Roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca["Stage Root"].cert.Raw})
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
	done := make(chan struct{})
	go func() {
		defer close(done)
		TellTime(udp, nil)
	}()
	t.Cleanup(func() { udp.Close(); <-done })
	for _, f := range faults {
		if f == Swallows {
			hole(t, s.elsewhere(81), s.Ports[443])
			break
		}
	}
	return s
}

// elsewhere is an address like that of the stage where it does not listen.
func (s *Stage) elsewhere(second byte) netip.Addr {
	a := netip.MustParseAddr(s.Addr).As4()
	a[1] = second
	return netip.AddrFrom4(a)
}

func (s *Stage) serve(l net.Listener, handle func(net.Conn)) {
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.open[c] = true
			s.mu.Unlock()
			all.Go(func() {
				handle(c)
				c.Close()
				s.mu.Lock()
				delete(s.open, c)
				s.mu.Unlock()
			})
		}
	})
	s.t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for c := range s.open {
			c.Close()
		}
		s.mu.Unlock()
		all.Wait()
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
	done := make(chan struct{})
	go func() { defer close(done); _ = server.ActivateAndServe() }()
	s.t.Cleanup(func() { conn.Close(); <-done })
}

func (s *Stage) ssh(c net.Conn) { fmt.Fprint(c, "SSH-2.0-stage\r\n") }

// http answers like Apple's hosts, each connection once.
func (s *Stage) http(c net.Conn) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch s.faults[r.Host] {
		case Silent:
			<-r.Context().Done()
		case Portal:
			http.Redirect(w, r, "http://login.portal.example/?to="+r.Host, http.StatusFound)
		default:
			if r.Host == "captive.apple.com" && r.URL.Path == "/hotspot-detect.html" {
				fmt.Fprint(w, "<HTML><HEAD><TITLE>Success</TITLE></HEAD><BODY>Success</BODY></HTML>")
				return
			}
			http.Error(w, "nothing here", http.StatusNotFound)
		}
	})
	l := &oneListener{conn: c, done: make(chan struct{})}
	server := &http.Server{Handler: answer, ConnState: func(_ net.Conn, st http.ConnState) {
		if st == http.StateClosed {
			l.once.Do(func() { close(l.done) })
		}
	}}
	_ = server.Serve(l)
}

// tls is every host at once, and as broken as the hello's name is.
func (s *Stage) tls(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	config := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		own := &tls.Config{MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
		if len(hello.SupportedProtos) == 0 {
			own.NextProtos = nil
		}
		switch s.faults[hello.ServerName] {
		case Silent:
			_, _ = io.Copy(io.Discard, c)
		case Alerts:
			return nil, fmt.Errorf("no certificate for %s", hello.ServerName)
		case Resets:
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		case SpeaksHTTP:
			fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
			c.Close()
		case WantsDevice:
			own.ClientAuth = tls.RequireAnyClientCert
		}
		cert, err := s.certificate(hello.ServerName)
		if err != nil {
			return nil, err
		}
		own.Certificates = []tls.Certificate{*cert}
		return own, nil
	}}
	conn := tls.Server(c, config)
	if conn.Handshake() == nil {
		_, _ = io.Copy(io.Discard, conn)
	}
}

// oneListener gives an http.Server one connection.
type oneListener struct {
	conn  net.Conn
	given bool
	once  sync.Once
	done  chan struct{} // closed when the connection is
}

func (l *oneListener) Accept() (net.Conn, error) {
	if !l.given {
		l.given = true
		return l.conn, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

func (l *oneListener) Addr() net.Addr { return l.conn.LocalAddr() }
func (l *oneListener) Close() error   { return nil }
