// Package dnstest runs name servers for tests.
package dnstest

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// A Server answers on loopback, over UDP and TCP on the same port.
type Server struct {
	Addr  string       // address:port
	Asked atomic.Int64 // questions, of all kinds
}

// Serve runs a server until the test ends. Where answer returns nil the server stays
// silent. network is "udp" or "tcp".
func Serve(t testing.TB, answer func(q *dns.Msg, network string) *dns.Msg) *Server {
	t.Helper()
	s := &Server{}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		s.Asked.Add(1)
		if m := answer(q, w.LocalAddr().Network()); m != nil {
			_ = w.WriteMsg(m) // the client may have left
		}
	})
	var l net.Listener
	var pc net.PacketConn
	for range 20 { // until a port is free for both
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if pc, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			break
		}
		l.Close()
	}
	if pc == nil {
		t.Fatal("no port is free for UDP and TCP")
	}
	s.Addr = l.Addr().String()
	for _, server := range []*dns.Server{{Listener: l, Handler: handler}, {PacketConn: pc, Handler: handler}} {
		started, done := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = server.Shutdown(); <-done })
	}
	return s
}

// Reply answers q with records in zone-file syntax, "ns " in front for the
// authority section.
func Reply(q *dns.Msg, rcode int, records ...string) *dns.Msg {
	m := new(dns.Msg).SetRcode(q, rcode)
	for _, s := range records {
		s, ns := strings.CutPrefix(s, "ns ")
		rr, err := dns.NewRR(s)
		if err != nil {
			panic(err)
		}
		if ns {
			m.Ns = append(m.Ns, rr)
		} else {
			m.Answer = append(m.Answer, rr)
		}
	}
	return m
}

// ByType answers questions for IPv4 and IPv6 with these records.
func ByType(a, aaaa []string) func(*dns.Msg, string) *dns.Msg {
	return func(q *dns.Msg, _ string) *dns.Msg {
		if q.Question[0].Qtype == dns.TypeA {
			return Reply(q, dns.RcodeSuccess, a...)
		}
		return Reply(q, dns.RcodeSuccess, aaaa...)
	}
}
