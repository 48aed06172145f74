package proxy

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"espalier/policy"
)

// v2 is a PROXY header of version 2.
func v2(command, family byte, rest string) string {
	b := []byte("\r\n\r\n\x00\r\nQUIT\n")
	b = append(b, 0x20|command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(rest)))) + rest
}

const (
	proxied, local = 1, 0
	tcp4, tcp6     = 0x11, 0x21
	from4          = "\xc0\x00\x02\x07\xc6\x33\x64\x01\x9c\x40\x0c\x38" // 192.0.2.7:40000 to 198.51.100.1:3128
	from6          = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x9c\x40\x0c\x38"
	mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x07" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x01\x9c\x40\x0c\x38"
	line4 = "PROXY TCP4 192.0.2.7 198.51.100.1 40000 3128\r\n"
)

// A load balancer says who the client is: in the record, and to the policy. What
// comes right behind the header, and behind a CONNECT, is not lost.
func TestProxyProtocol(t *testing.T) {
	for _, tt := range []struct{ name, header, client string }{
		{"version 1, IPv4", line4, "192.0.2.7"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 40000 3128\r\n", "2001:db8::7"},
		{"version 1, unknown", "PROXY UNKNOWN\r\n", "127.0.0.1"},
		{"version 1, unknown with addresses", "PROXY UNKNOWN 2001:db8::7 2001:db8::1 40000 3128\r\n", "127.0.0.1"},
		{"version 2, IPv4", v2(proxied, tcp4, from4), "192.0.2.7"},
		{"version 2, IPv6", v2(proxied, tcp6, from6), "2001:db8::7"},
		{"version 2, IPv4 as IPv6", v2(proxied, tcp6, mapped), "192.0.2.7"},
		{"version 2, local", v2(local, 0, ""), "127.0.0.1"},
		{"version 2, local with an address", v2(local, tcp4, from4), "127.0.0.1"},
		{"version 2, with more", v2(proxied, tcp4, from4+"\x04\x04\x00"+strings.Repeat("x", 1024)), "192.0.2.7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := newOrigin(t, echo)
			web := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			r := start(t, setup{balancers: []string{"loopback"}, clients: []string{tt.client}}, false)

			c := r.dial()
			c.send(tt.header + connectTo(at.String()) + "early")
			c.expect(established + "early")
			c.send("late")
			c.expect("late")
			c.finish()
			c.expectEnd()
			c = r.dial()
			for range 2 {
				c.send(tt.header + "GET http://" + web.String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
				if a := c.answer("GET"); a.body != "ok" {
					t.Errorf("%s %q", a.Status, a.body)
				}
				tt.header = "" // it stands at the beginning only
			}
			for _, rec := range r.stop() {
				if rec.Client != netip.MustParseAddr(tt.client) || rec.Status != 200 || rec.Error != "" {
					t.Errorf("record %+v", rec)
				}
			}
			if len(r.records) != 3 {
				t.Errorf("%d records, want 3", len(r.records))
			}
		})
	}
}

// proxy.clients is about the client, not about the load balancer.
func TestProxyProtocolClientIsRefused(t *testing.T) {
	r := start(t, setup{balancers: []string{"loopback"}, clients: []string{"loopback"}}, false)
	c := r.dial()
	c.send(line4 + connectTo("127.0.0.1:1"))
	if a := c.answer("CONNECT"); a.StatusCode != 403 {
		t.Errorf("status %s", a.Status)
	}
	if rec := r.record(); rec.Rule != policy.RuleClients || rec.Client != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("record %+v", rec)
	}
}

// A malformed CONNECT is the client's too.
func TestProxyProtocolMalformedConnect(t *testing.T) {
	r := start(t, setup{balancers: []string{"loopback"}, clients: []string{"192.0.2.7"}}, false)
	c := r.dial()
	c.send(line4 + "CONNECT x HTTP/9\r\n\r\n")
	if a := c.answer("CONNECT"); a.StatusCode != 403 {
		t.Errorf("status %s", a.Status)
	}
	if rec := r.record(); rec.Client != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("record %+v", rec)
	}
}

// A load balancer's connection without a good header is closed, and logged once.
func TestProxyProtocolBadHeader(t *testing.T) {
	const get = "GET http://192.0.2.1/ HTTP/1.1\r\nHost: x\r\n\r\n"
	quickly := func(s *Server) { s.lbs.Timeout = 50 * time.Millisecond }
	for _, tt := range []struct {
		name, sent string
		quiet      bool
	}{
		{name: "none", sent: get},
		{name: "another version", sent: "\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c" + from4 + get},
		{name: "another command", sent: v2(2, tcp4, from4) + get},
		{name: "a family without an address", sent: v2(proxied, 0, "") + get},
		{name: "UDP", sent: v2(proxied, 0x12, from4) + get},
		{name: "a socket's path", sent: v2(proxied, 0x31, strings.Repeat("x", 216)) + get},
		{name: "too short for its family", sent: v2(proxied, tcp6, from4) + get},
		{name: "too much more", sent: v2(proxied, tcp4, from4+strings.Repeat("x", 60_000)) + get},
		{name: "no address", sent: "PROXY TCP4 192.0.2.7.1 198.51.100.1 40000 3128\r\n" + get},
		{name: "an address with a zone", sent: "PROXY TCP6 fe80::1%lo fe80::2 40000 3128\r\n" + get},
		{name: "another family", sent: "PROXY TCP4 2001:db8::7 2001:db8::1 40000 3128\r\n" + get},
		{name: "a port too large", sent: "PROXY TCP4 192.0.2.7 198.51.100.1 65536 3128\r\n" + get},
		{name: "a bare line feed", sent: "PROXY TCP4 192.0.2.7 198.51.100.1 40000 3128\n" + get},
		{name: "a line without an end", sent: "PROXY TCP4 " + strings.Repeat("1", 200)},
		{name: "twice", sent: line4 + line4, quiet: true}, // the second is a malformed request
		{name: "version 1, slow", sent: "PRO"},
		{name: "version 2, slow", sent: v2(proxied, tcp4, from4)[:20]},
		{name: "nothing", sent: ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, setup{balancers: []string{"127.0.0.0/8"}, prepare: quickly}, false)
			for range 2 {
				c := r.dial()
				_, _ = c.Write([]byte(tt.sent)) // it may be closed before all is sent
				var got bytes.Buffer
				_, _ = got.ReadFrom(c.in) // until the end, in order or not
				if text := got.String(); text != "" && !(tt.quiet && strings.HasPrefix(text, "HTTP/1.1 400 ")) {
					t.Errorf("received %q", text)
				}
			}
			if list := r.stop(); len(list) > 0 {
				t.Errorf("records %+v", list)
			}
			want := 1
			if tt.quiet {
				want = 0
			}
			if n := r.ops.FilterMessageSnippet("PROXY header").Len(); n != want {
				t.Errorf("logged %d times, want %d: %v", n, want, r.ops.All())
			}
		})
	}
}

// Load balancers look whether the proxy is here, and say nothing.
func TestProxyProtocolHealthCheck(t *testing.T) {
	r := start(t, setup{balancers: []string{"loopback"}}, false)
	c := r.dial()
	c.finish()
	c.expectEnd()
	c = r.dial()
	_ = c.SetLinger(0)
	c.Close()
	r.stop()
	if n := r.ops.Len(); n > 0 {
		t.Errorf("log %v", r.ops.All())
	}
}

// Nobody else is believed, nor has to send a header.
func TestProxyProtocolOfAnybodyElse(t *testing.T) {
	for _, header := range []string{line4, v2(proxied, tcp4, from4)} {
		at := newOrigin(t, echo)
		r := start(t, setup{balancers: []string{"192.0.2.0/24"}, clients: []string{"loopback", "192.0.2.7"}}, false)
		c := r.dial()
		c.send(header + connectTo(at.String()))
		if got := c.raw(); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("received %q", got)
		}
		c = r.dial()
		c.send(connectTo(at.String()) + "x")
		c.expect(established + "x")
		c.finish()
		c.expectEnd()
		if rec := r.record(); rec.Client != netip.MustParseAddr("127.0.0.1") {
			t.Errorf("record %+v", rec)
		}
	}
}

// TLS on the plain port is refused at once behind a header too.
func TestProxyProtocolThenTLS(t *testing.T) {
	r := start(t, setup{balancers: []string{"loopback"}}, false)
	c := r.dial()
	c.send(line4 + "\x16\x03\x01\x00\x05hello")
	c.finish()
	if got := c.raw(); got != "\x15\x03\x01\x00\x02\x02\x28" {
		t.Errorf("received %q", got)
	}
}
