package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"espalier/policy/catalog"
)

// A netns is a network namespace of a test, gone when the test has ended.
type netns struct {
	t  *testing.T
	fd *os.File
}

func newNetns(t *testing.T) *netns {
	t.Helper()
	n := &netns{t: t}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, so that the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.fd, err = os.Open("/proc/thread-self/ns/net")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.fd.Close() })
	n.ip("link set lo up")
	return n
}

// do calls f on a thread in the namespace: sockets that f opens and programs that
// it starts are there. What f starts as a goroutine is not.
func (n *netns) do(f func() error) {
	n.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(n.fd.Fd()), unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
}

// run runs a program in the namespace.
func (n *netns) run(program string, args ...string) {
	n.t.Helper()
	n.do(func() error {
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
		}
		return nil
	})
}

func (n *netns) ip(args string) { n.t.Helper(); n.run("ip", strings.Fields(args)...) }

// link connects two namespaces, each with an address of each family.
func link(a, b *netns, name string, addrA, addrB []string) {
	a.t.Helper()
	a.ip(fmt.Sprintf("link add %s-a type veth peer name %[1]s-b netns /proc/%d/fd/%d", name, os.Getpid(), b.fd.Fd()))
	for _, end := range []struct {
		n     *netns
		dev   string
		addrs []string
	}{{a, name + "-a", addrA}, {b, name + "-b", addrB}} {
		for _, addr := range end.addrs {
			nodad := ""
			if strings.Contains(addr, ":") {
				nodad = " nodad"
			}
			end.n.ip("addr add " + addr + " dev " + end.dev + nodad)
		}
		end.n.ip("link set " + end.dev + " up")
	}
}

// A firewallStage is a client, a router that lets out what espalier exports, and an
// internet in which every address answers at every port.
type firewallStage struct {
	t              *testing.T
	client, router *netns
	mu             sync.Mutex
	names          map[string]int // each with an address of its own
}

// addressesOf returns the addresses of the i-th name; the others of these networks
// belong to no name.
func addressesOf(i int) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), netip.MustParseAddr(fmt.Sprintf("2001:2::%x", i))
}

// newFirewallStage loads the exports for devices under config, as they are.
func newFirewallStage(t *testing.T, config string) *firewallStage {
	t.Helper()
	s := &firewallStage{t: t, client: newNetns(t), router: newNetns(t), names: map[string]int{}}
	internet := newNetns(t)
	link(s.client, s.router, "in", []string{"10.78.0.2/24", "fd78::2/64"}, []string{"10.78.0.1/24", "fd78::1/64"})
	link(s.router, internet, "out", []string{"10.79.0.1/24", "fd79::1/64"}, []string{"10.79.0.2/24", "fd79::2/64"})
	for _, route := range []struct {
		n   *netns
		via []string
	}{{s.client, []string{"10.78.0.1", "fd78::1"}}, {s.router, []string{"10.79.0.2", "fd79::2"}}, {internet, []string{"10.79.0.1", "fd79::1"}}} {
		for _, via := range route.via {
			route.n.ip("route add default via " + via)
		}
	}
	for _, block := range []string{"17.0.0.0/8", "198.18.0.0/15", "203.0.113.0/24", "2001:2::/48", "2620:149::/32"} {
		internet.ip("route add local " + block + " dev lo")
	}
	internet.do(func() error { return answerEverything(t) })
	internet.nft(`table inet nat {
	chain prerouting {
		type nat hook prerouting priority dstnat
		ip daddr != 10.79.0.2 meta l4proto { tcp, udp } redirect to :9999
		ip6 daddr != fd79::2 meta l4proto { tcp, udp } redirect to :9999
	}
}
`)
	s.router.do(func() error {
		// Refusals are the test's answers, and must all be told.
		for key, value := range map[string]string{
			"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/icmp_ratemask": "0", "ipv6/icmp/ratemask": "2",
		} {
			if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
				return err
			}
		}
		return nil
	})

	p := prepare(t, config)
	export := func(format string) string {
		out, stderr, code := p.run("catalog", "export", "--for", "devices", "--format", format)
		if code != 0 {
			t.Fatalf("exit status %d: %s", code, stderr)
		}
		return out
	}
	rules := export("nftables")
	s.router.nft(rules)
	s.router.nft(`table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop
		ct state established,related accept
		meta l4proto ipv6-icmp accept
		jump apple_devices
		meta l4proto tcp reject with tcp reset
		reject with icmpx admin-prohibited
	}
}
`)
	s.router.nft(rules) // again, as after a change
	conf := filepath.Join(t.TempDir(), "apple.conf")
	if err := os.WriteFile(conf, []byte(export("dnsmasq")), 0o644); err != nil {
		t.Fatal(err)
	}
	s.resolve(conf)
	return s
}

// nft loads rules.
func (n *netns) nft(rules string) {
	n.t.Helper()
	n.do(func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	})
}

// answerEverything answers what is redirected to port 9999.
func answerEverything(t *testing.T) error {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: 9999})
	if err != nil {
		return err
	}
	u, err := net.ListenUDP("udp", &net.UDPAddr{Port: 9999})
	if err != nil {
		return err
	}
	t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			u.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	return nil
}

// resolve starts the resolver of the administrator, with the exported file, and the
// one behind it, which knows every name.
func (s *firewallStage) resolve(conf string) {
	s.t.Helper()
	var out bytes.Buffer
	var cmd *exec.Cmd
	s.router.do(func() error {
		pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5300})
		if err != nil {
			return err
		}
		upstream := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(s.answer)}
		go upstream.ActivateAndServe()
		s.t.Cleanup(func() { pc.Close() })
		cmd = exec.Command("dnsmasq", "--keep-in-foreground", "--user=root", "--pid-file", "--conf-file="+conf, "--no-resolv", "--no-hosts",
			"--server=127.0.0.1#5300", "--listen-address=10.78.0.1", "--bind-interfaces", "--log-facility=-")
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd.Start()
	})
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if s.t.Failed() {
			s.t.Logf("dnsmasq:\n%s", out.String())
		}
	})
	for end := time.Now().Add(patience); ; {
		if _, err := s.lookup("ready.example", dns.TypeA); err == nil {
			return
		} else if time.Now().After(end) {
			s.t.Fatalf("dnsmasq does not answer: %v", err)
		}
	}
}

func (s *firewallStage) answer(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	name := q.Question[0].Name
	v4, v6 := s.addresses(strings.TrimSuffix(strings.ToLower(name), "."))
	head := dns.RR_Header{Name: name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 60}
	switch head.Rrtype {
	case dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: head, A: v4.AsSlice()}}
	case dns.TypeAAAA:
		m.Answer = []dns.RR{&dns.AAAA{Hdr: head, AAAA: v6.AsSlice()}}
	}
	_ = w.WriteMsg(m)
}

// addresses are those of a name, whether the resolver gives them away or not.
func (s *firewallStage) addresses(name string) (v4, v6 netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] == 0 {
		s.names[name] = len(s.names) + 1
	}
	return addressesOf(s.names[name])
}

var errNoName = errors.New("there is no such name")

// lookup asks the router's resolver, as the client.
func (s *firewallStage) lookup(name string, kind uint16) (addr netip.Addr, err error) {
	s.client.do(func() error {
		c, dialErr := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(10, 78, 0, 1), Port: 53})
		if dialErr != nil {
			return dialErr
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		conn := &dns.Conn{Conn: c}
		if err = conn.WriteMsg(new(dns.Msg).SetQuestion(name+".", kind)); err != nil {
			return nil
		}
		var m *dns.Msg
		if m, err = conn.ReadMsg(); err != nil {
			return nil
		}
		if m.Rcode == dns.RcodeNameError || len(m.Answer) == 0 {
			err = errNoName
			return nil
		}
		switch rr := m.Answer[0].(type) {
		case *dns.A:
			addr, _ = netip.AddrFromSlice(rr.A.To4())
		case *dns.AAAA:
			addr, _ = netip.AddrFromSlice(rr.AAAA)
		}
		return nil
	})
	return addr, err
}

// passes reports whether the client reaches the internet at addr.
func (s *firewallStage) passes(transport string, addr netip.Addr, port uint16) (ok bool) {
	to := netip.AddrPortFrom(addr, port)
	s.client.do(func() error {
		if transport == "tcp" {
			c, err := (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp", to.String())
			if err == nil {
				c.Close()
			} else if e, isNet := err.(net.Error); isNet && e.Timeout() {
				return err // a firewall that rejects is heard of
			}
			ok = err == nil
			return nil
		}
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write([]byte("ping")); err != nil {
			return nil
		}
		_, err = c.Read(make([]byte, 8))
		if e, isNet := err.(net.Error); isNet && e.Timeout() {
			return err
		}
		ok = err == nil
		return nil
	})
	return ok
}

// firewallPorts are those of the catalogue, and some that it has not.
var firewallPorts = []uint16{22, 25, 53, 80, 123, 443, 853, 2197, 3128, 5223, 8443}

// check compares what passes to name, or to its addresses where the resolver knows
// no such name, with want.
func (s *firewallStage) check(name string, want func(transport string, port uint16) bool) {
	s.t.Helper()
	v4, v6 := s.addresses(name)
	for _, a := range []struct {
		kind uint16
		addr netip.Addr
	}{{dns.TypeA, v4}, {dns.TypeAAAA, v6}} {
		got, err := s.lookup(name, a.kind)
		if err != nil && !errors.Is(err, errNoName) || err == nil && got != a.addr {
			s.t.Fatalf("%s: %v, %v; want %v", name, got, err, a.addr)
		}
		for _, transport := range []string{"tcp", "udp"} {
			for _, port := range firewallPorts {
				if got, want := s.passes(transport, a.addr, port), want(transport, port); got != want {
					s.t.Errorf("%s (%v) %s %d passes: %t, want %t", name, a.addr, transport, port, got, want)
				}
			}
		}
	}
}

// A router that loads the exported files as they are lets out every row of the
// catalogue, wildcards by a member, and nothing else.
func TestFirewallLetsOutWhatIsExported(t *testing.T) {
	for _, program := range []string{"nft", "dnsmasq", "ip"} {
		need(t, program)
	}
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	rows := catalog.Embedded()
	never := func(string, uint16) bool { return false }
	// listed is what the rows of the article say of a name.
	listed := func(name string) func(string, uint16) bool {
		return func(transport string, port uint16) bool {
			return slices.ContainsFunc(rows, func(r catalog.Row) bool {
				return catalog.Covers(r.Host, name) && slices.Contains(r.Transports, transport) && slices.Contains(r.Ports, port)
			})
		}
	}
	// The names are asked for in turn, so that what one lets out shows in the next.
	t.Run("every row and nothing else", func(t *testing.T) {
		s := newFirewallStage(t, "apple: {wide: false}\n")
		var names []string
		for _, r := range rows {
			names = append(names, strings.Replace(r.Host, "*", "member", 1))
			if strings.HasPrefix(r.Host, "*") {
				names = append(names, strings.Replace(r.Host, "*", "a.deeper-member", 1))
			}
		}
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			s.check(name, listed(name))
		}
		for _, name := range []string{
			"www.example.com", "apple.com.example.com", "evilicloud.com", "icloud.com.example", "time.example", "apple.example", "x.guzzoni-apple.com",
		} {
			s.check(name, never)
		}
		for _, addr := range []string{"203.0.113.1", "198.19.0.1", "17.1.2.3", "2620:149::1", "2001:2::ffff"} {
			for _, transport := range []string{"tcp", "udp"} {
				for _, port := range firewallPorts {
					if s.passes(transport, netip.MustParseAddr(addr), port) {
						t.Errorf("%s %s %d, an address without a name, passes", addr, transport, port)
					}
				}
			}
		}
	})
	t.Run("the firewall advice", func(t *testing.T) {
		s := newFirewallStage(t, "")
		ports := func(tcp, udp string) func(string, uint16) bool {
			return func(transport string, port uint16) bool {
				list := tcp
				if transport == "udp" {
					list = udp
				}
				return slices.Contains(strings.Fields(list), fmt.Sprint(port))
			}
		}
		apple := ports("80 443 2197 5223", "123 443")
		s.check("new.apple.com", apple)
		s.check("apple.com", apple)
		s.check("proxy.safebrowsing.apple", ports("443", "443"))
		s.check("icloud.com", ports("443", ""))
		s.check("www.example.com", never)
		for _, addr := range []string{"17.1.2.3", "2620:149::1"} {
			for _, transport := range []string{"tcp", "udp"} {
				for _, port := range firewallPorts {
					if got := s.passes(transport, netip.MustParseAddr(addr), port); got != apple(transport, port) {
						t.Errorf("%s %s %d passes: %t", addr, transport, port, got)
					}
				}
			}
		}
	})
	t.Run("what the policy refuses", func(t *testing.T) {
		s := newFirewallStage(t, `
apple: {private_relay: block}
rules:
  - {name: no-siri, when: {services: [siri]}, then: deny}
  - {name: no-photos, when: {hosts: ["p1.icloud.com", "*.icloud.com.cn"]}, then: deny}
`)
		for _, name := range []string{"mask.icloud.com", "mask-h2.icloud.com", "p1.icloud.com"} {
			if _, err := s.lookup(name, dns.TypeA); !errors.Is(err, errNoName) {
				t.Errorf("%s: %v, want none", name, err)
			}
			s.check(name, never)
		}
		for _, name := range []string{"guzzoni.apple.com", "member.smoot.apple.com", "member.icloud.com.cn", "new.apple.com"} {
			s.check(name, never)
		}
		if s.passes("udp", netip.MustParseAddr("17.1.2.3"), 443) {
			t.Error("an address of Apple's, which may be Private Relay's, passes")
		}
		for _, name := range []string{"albert.apple.com", "time.apple.com", "member.push.apple.com", "p2.icloud.com", "mask-api.icloud.com"} {
			s.check(name, listed(name))
		}
	})
}
