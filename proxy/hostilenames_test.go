package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// hostileHosts are destinations that must not be reached, as a client may write
// them; each of a kind that another proxy or resolver has fallen for.
var hostileHosts = strings.Fields(`
	127.0.0.1 127.0.0.2 127.1.2.3 127.255.255.254 0.0.0.0 0.0.0.1 0.255.255.255
	10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255
	100.64.0.1 100.127.255.255 169.254.0.1 169.254.169.254 169.254.170.2 169.254.170.23 100.100.100.200 168.63.129.16
	192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1
	224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.254 255.255.255.255 127.0.0.1.

	127.1 127.0.1 0177.0.0.1 0177.0.0.01 00000177.0.0.1 127.0.0.01 0x7f.0.0.1 0x7f.1 0X7F.0.0.1 0x7f.0x0.0x0.0x1 0x7f000001 0X7F000001
	2130706433 02130706433 017700000001 0x000000007f000001 4294967295 4294967297 0 0x0 0x 00 1 127.0.0.1.1 127.0.0 256.0.0.1 127.0.0.256 127.0.0.0x1
	127.0.0.1e0 1.2.3.4.5 10.1 192.168.1 3232235521 0xc0a80001 169.254.43518 0xa9fea9fe 2852039166 0251.0376.0251.0376
	127。0。0。1 127．0．0．1 127｡0｡0｡1 １２７.0.0.1 ①②⑦.⓪.⓪.① ⑯⑨。②⑤④。⑯⑨｡②⑤④ 0ⅹ7f.0.0.1

	[::1] [::] [0:0:0:0:0:0:0:1] [0000:0000:0000:0000:0000:0000:0000:0001] [::127.0.0.1] [::7f00:1] [::2] [::ffff:127.0.0.1] [::ffff:7f00:1] [::FFFF:127.0.0.1]
	[0:0:0:0:0:ffff:127.0.0.1] [::ffff:0.0.0.0] [::ffff:10.0.0.1] [::ffff:169.254.169.254] [::ffff:a9fe:a9fe] [::ffff:0:127.0.0.1] [::ffff:0:7f00:1]
	[64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b::10.0.0.1] [64:ff9b::169.254.169.254] [64:ff9b::] [64:ff9b:1::1] [64:ff9b:1::127.0.0.1] [64:ff9b:1:ffff::8.8.8.8] [64:ff9b:0:1::1]
	[2002:7f00:1::] [2002:7f00:1::1] [2002:a00:1::1] [2002:c0a8:1::1] [2002:a9fe:a9fe::1] [2002:0:0::1]
	[2001:0:7f00:1::1] [2001:0:808:808:0:0:80ff:fffe] [2001:0:808:808:0:0:f5ff:fffe] [2001:0:808:808::5601:5601] [2001:0:a00:1:0:0:f7f7:f7f7]
	[fe80::5efe:7f00:1] [2403:300::5efe:127.0.0.1] [2403:300::200:5efe:10.0.0.1] [2403:300::5efe:a9fe:a9fe]
	[fe80::1] [febf::1] [fec0::1] [feff::1] [fc00::1] [fd00::1] [fd00:ec2::254] [fd00:ec2::23] [fd20:ce::254] [fdff::1]
	[ff00::1] [ff02::1] [ff0e::1] [100::1] [2001:2::1] [2001:10::1] [2001:20::1] [2001:db8::1] [3fff::1] [5f00::1] [4000::1] [8000::1] [::ffff] [0:0:1::]

	[::1%lo] [::1%25lo] [fe80::1%eth0] [fe80::1%25eth0] [::1%] [::ffff:127.0.0.1%1] [::1 ::1] [[::1]] [::1]] [::1]. [::1]x []
	[127.0.0.1] [example.com] [localhost] [0x7f.1] [v1.x] [::g] [1::2::3] [12345::] [::ffff:127.1] [::ffff:0x7f.0.0.1] [::ffff:256.0.0.1]
	::1 ::ffff:127.0.0.1 0:0:0:0:0:0:0:1

	localhost LOCALHOST localhost. a.localhost ｌｏｃａｌｈｏｓｔ
	. .. .a a. .a.b a..b -- a_b..c *.example %31%32%37.0.0.1 127.0.0.1%00 127.0.0.1%20 127.0.0.1%2e a@127.0.0.1 apple.com@127.0.0.1 apple.com#@127.0.0.1 apple.com\@127.0.0.1
	127.0.0.1/apple.com 127.0.0.1?apple.com 127.0.0.1#apple.com http://127.0.0.1 //127.0.0.1 unix:/run/docker.sock ` +
	strings.Repeat("a", 64) + ".example " + strings.Repeat("a.", 130) + "example " + strings.Repeat("9", 400) + " " + strings.Repeat("ü", 400) + ".example")

// hostileAddresses are what a hostile zone may answer; the name itself is good.
var hostileAddresses = strings.Fields(`
	127.0.0.1 127.255.255.255 0.0.0.0 10.0.0.1 172.16.0.1 192.168.0.1 100.64.0.1 169.254.169.254 169.254.170.2 100.100.100.200 168.63.129.16
	192.0.0.1 192.0.2.1 192.88.99.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 255.255.255.255
	::1 :: ::2 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1
	2002:7f00:1::1 2002:a9fe:a9fe:: 2001:0:7f00:1::1 2001:0:808:808::80ff:fffe 2403:300::5efe:127.0.0.1 2403:300::200:5efe:10.0.0.1
	fe80::1 fec0::1 fc00::1 fd00:ec2::254 fd20:ce::254 ff02::1 100::1 2001:2::1 2001:db8::1 3fff::1 5f00::1`)

// A zone answers for names below .test as its function says.
func zone(t *testing.T, answer func(name string) []netip.Addr) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started, done := make(chan struct{}), make(chan struct{})
	server := &dns.Server{PacketConn: conn, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		name, kind := q.Question[0].Name, q.Question[0].Qtype
		list := answer(strings.TrimSuffix(name, "."))
		if list == nil {
			m.Rcode = dns.RcodeNameError
		}
		for _, a := range list {
			h := dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 60}
			if a.Is4() && kind == dns.TypeA {
				m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
			} else if !a.Is4() && kind == dns.TypeAAAA {
				b := a.As16()
				m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: b[:]})
			}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { defer close(done); _ = server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = server.Shutdown(); <-done })
	return conn.LocalAddr().String()
}

// ask sends a CONNECT and a GET for host:port and returns the two statuses.
func (r *rig) ask(t *testing.T, hostport string) (statuses [2]int) {
	for i, request := range []string{connectTo(hostport), "GET http://" + hostport + "/ HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c := dial(t, r.listener.Addr().String())
		c.send(request)
		if resp, err := http.ReadResponse(c.in, nil); err != nil {
			t.Errorf("%.80q: %v", hostport, err)
		} else {
			statuses[i] = resp.StatusCode
		}
		c.Close()
	}
	return statuses
}

// No way of writing or resolving a host leads to an address that is not public.
func TestHostileNames(t *testing.T) {
	reached := newCanary(t)
	names := map[string]netip.Addr{}
	hosts := hostileHosts
	for i, a := range hostileAddresses {
		name := fmt.Sprintf("n%d.test", i)
		names[name] = netip.MustParseAddr(a)
		hosts = append(hosts, name)
	}
	server := zone(t, func(name string) []netip.Addr {
		if a, ok := names[name]; ok {
			return []netip.Addr{a}
		}
		if strings.HasSuffix(name, "localhost") { // as some resolvers do
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		}
		return nil
	})
	if len(hosts) < 250 {
		t.Fatalf("%d hosts", len(hosts))
	}
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, setup{guarded: true, dns: []string{server}})
		for _, host := range hosts {
			got := r.ask(t, fmt.Sprintf("%s:%d", host, reached.Port()))
			// Of a name that does not exist, or a URL that is none, others are told.
			if got[0] != 403 && got[0] != 502 || got[1] != 403 && got[1] != 502 && got[1] != 400 && got[1] != 501 {
				t.Errorf("%.80q: CONNECT %d, GET %d", host, got[0], got[1])
			}
			if names[host].IsValid() && got != [2]int{403, 403} {
				t.Errorf("%s, a name of %s: CONNECT %d, GET %d", host, names[host], got[0], got[1])
			}
		}
		if n := reached.count(); n > 0 {
			t.Errorf("%d connections to a forbidden address", n)
		}
	})
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, setup{guarded: true, dns: []string{server}})
		for _, port := range []string{"", ":", ":0", ":-1", ":+80", ":65536", ":99999", ":000080000", ":0x50", ":80:80", ":8 0", ":http", ":٨٠", ":80.", ":80/", ":1e3"} {
			if got := r.ask(t, "n0.test"+port); got[0] != 403 || got[1] == 200 {
				t.Errorf("port %q: %v", port, got)
			}
		}
	})
}

// canary counts connections to a port of this machine, on both families.
type canary struct {
	netip.AddrPort
	mu sync.Mutex
	n  int
}

func newCanary(t *testing.T) *canary {
	c := &canary{}
	note := func(net.Conn) { c.mu.Lock(); c.n++; c.mu.Unlock() }
	c.AddrPort = newOrigin(t, note)
	if l, err := net.Listen("tcp", fmt.Sprintf("[::1]:%d", c.Port())); err == nil {
		serveOrigin(t, l, note)
	}
	return c
}

func (c *canary) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// A name that changes its address between two look-ups (DNS rebinding) is checked
// each time, and what was checked is what is connected to.
func TestRebinding(t *testing.T) {
	forbidden := newCanary(t)
	allowed := newOriginAt(t, fmt.Sprintf("127.0.0.2:%d", forbidden.Port()), func(c net.Conn) {
		if _, err := readHead(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
	})
	var mu sync.Mutex
	answers := []netip.Addr{allowed.Addr()}
	server := zone(t, func(string) []netip.Addr { mu.Lock(); defer mu.Unlock(); return answers })
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		c := setup{allow: []string{"127.0.0.2"}, dns: []string{server}}
		set := func(a ...netip.Addr) { mu.Lock(); defer mu.Unlock(); answers = a }
		r := start(t, c)
		name := fmt.Sprintf("rebind.test:%d", forbidden.Port())
		for _, tt := range []struct {
			answers []netip.Addr
			want    int
		}{
			{[]netip.Addr{allowed.Addr()}, 200},
			{[]netip.Addr{forbidden.Addr()}, 403},
			{[]netip.Addr{forbidden.Addr(), allowed.Addr()}, 200},
			{[]netip.Addr{allowed.Addr(), forbidden.Addr(), netip.IPv6Loopback(), netip.MustParseAddr("::ffff:127.0.0.1")}, 200},
			{[]netip.Addr{netip.IPv6Loopback(), netip.MustParseAddr("::ffff:127.0.0.1")}, 403},
		} {
			set(tt.answers...)
			r.server.Apply(r.state(c)) // and forget the last answer
			for range 2 {
				if got := r.ask(t, name); got != [2]int{tt.want, tt.want} {
					t.Errorf("%v: %v, want %d", tt.answers, got, tt.want)
				}
			}
		}
		if n := forbidden.count(); n > 0 {
			t.Errorf("%d connections to a forbidden address", n)
		}
	})
}

// The proxy is not reached through itself by any of its names, even where
// everything is allowed.
func TestSelfLoop(t *testing.T) {
	addrs := strings.Fields("127.0.0.1 127.0.0.2 127.9.9.9 0.0.0.0 ::1 :: ::ffff:127.0.0.1 64:ff9b::127.0.0.1 2002:7f00:1::1 2001:0:808:808::80ff:fffe")
	if list, err := net.InterfaceAddrs(); err == nil {
		for _, a := range list {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
				addrs = append(addrs, p.Addr().String())
			}
		}
	}
	server := zone(t, func(name string) []netip.Addr {
		var i int
		if _, err := fmt.Sscanf(name, "proxy%d.test", &i); err != nil {
			return nil
		}
		return []netip.Addr{netip.MustParseAddr(addrs[i])}
	})
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, setup{allow: []string{"0.0.0.0/0", "::/0"}, dns: []string{server}})
		port := portOf(r.listener.Addr().String())
		for i, a := range addrs {
			for _, host := range []string{fmt.Sprintf("proxy%d.test", i), literal(a)} {
				if got := r.ask(t, host+":"+port); got != [2]int{403, 403} {
					t.Errorf("%s, %s: %v", host, a, got)
				}
			}
		}
	})
}

func literal(addr string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]"
	}
	return addr
}
