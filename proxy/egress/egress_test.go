package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"espalier/policy"
	"espalier/proxy/egress/dnstest"
	"espalier/proxy/egress/lookup"
)

func dialer(t testing.TB, cfg Config, self ...netip.AddrPort) *Dialer {
	t.Helper()
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 30 * time.Second
	}
	d, err := New(cfg, Self{Listeners: self})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func target(t testing.TB, s string) policy.Target {
	t.Helper()
	tgt, err := policy.ParseTarget(s, 0)
	if err != nil {
		t.Fatal(err)
	}
	return tgt
}

// An origin accepts on loopback, counts, and closes what it accepted.
type origin struct {
	port     uint16
	accepted atomic.Int64
}

// listen opens an origin at addr; port 0 means any.
func listen(t testing.TB, addr string, port uint16) *origin {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(int(port))))
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{port: l.Addr().(*net.TCPAddr).AddrPort().Port()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.accepted.Add(1)
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return o
}

// dial returns the address that a Dial reached, or its error.
func dial(t testing.TB, d *Dialer, s string) (netip.Addr, error) {
	t.Helper()
	c, err := d.Dial(t.Context(), target(t, s))
	if err != nil {
		if c != nil {
			t.Errorf("a connection beside the error %v", err)
		}
		return netip.Addr{}, err
	}
	defer c.Close()
	return c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(), nil
}

func TestDialHosts(t *testing.T) {
	o := listen(t, "127.0.0.1", 0)
	port := ":" + strconv.Itoa(int(o.port))
	for _, addr := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
		listen(t, addr, o.port)
	}
	d := dialer(t, Config{
		Hosts: map[string]string{
			"a.example": "127.0.0.1", "*.example": "127.0.0.2", "*.b.example": "127.0.0.3", "c.b.example": "127.0.0.4",
		},
		Allow: []string{"loopback"},
	})
	for host, want := range map[string]string{
		"a.example":   "127.0.0.1",
		"A.EXAMPLE.":  "127.0.0.1",
		"x.a.example": "127.0.0.2", // an exact name has no names below
		"b.example":   "127.0.0.2", // *.b.example does not mean b.example
		"x.b.example": "127.0.0.3",
		"c.b.example": "127.0.0.4",
		"127.0.0.3":   "127.0.0.3",
	} {
		if got, err := dial(t, d, host+port); err != nil || got != netip.MustParseAddr(want) {
			t.Errorf("%s: %v, %v; want %s", host, got, err, want)
		}
	}
}

// Nothing is reached that the guard refuses, by whatever name or spelling.
func TestDialForbidden(t *testing.T) {
	o := listen(t, "127.0.0.1", 0)
	port := ":" + strconv.Itoa(int(o.port))
	ns := dnstest.Serve(t, dnstest.ByType([]string{"x. 60 A 127.0.0.1", "x. 60 A 10.0.0.1"}, []string{"x. 60 AAAA ::1", "x. 60 AAAA ::ffff:127.0.0.1", "x. 60 AAAA 64:ff9b::127.0.0.1"}))
	d := dialer(t, Config{
		Hosts: map[string]string{"fixed.example": "127.0.0.1", "mapped.example": "::ffff:127.0.0.1", "two.example": "127.0.0.1,::1"},
		DNS:   []string{ns.Addr},
		Allow: []string{"10.9.0.0/16"},
	})
	for _, host := range []string{
		"fixed.example", "mapped.example", "two.example", "asked.example",
		"127.0.0.1", "127.0.0.1.", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
		"0.0.0.0", "[::]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "10.0.0.1", "169.254.169.254", "１２７.0.0.1",
	} {
		_, err := dial(t, d, host+port)
		if f := (*ForbiddenError)(nil); !errors.As(err, &f) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if n := o.accepted.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
}

// A name that has a forbidden address besides a permitted one leads to the
// permitted one only.
func TestDialPermittedAmongForbidden(t *testing.T) {
	good := listen(t, "127.0.0.2", 0)
	bad := listen(t, "127.0.0.1", good.port)
	d := dialer(t, Config{Hosts: map[string]string{"x.example": "127.0.0.1,::1,127.0.0.2"}, Allow: []string{"127.0.0.2"}})
	if got, err := dial(t, d, fmt.Sprintf("x.example:%d", good.port)); err != nil || got.String() != "127.0.0.2" {
		t.Errorf("%v, %v", got, err)
	}
	if bad.accepted.Load() != 0 {
		t.Error("the forbidden address was dialed")
	}
}

// A zone that changes its answer between check and use gains nothing: there is
// one look-up, and what it said was checked is dialed. The next look-up is
// checked anew.
func TestDialRebinding(t *testing.T) {
	good := listen(t, "127.0.0.2", 0)
	bad := listen(t, "127.0.0.1", good.port)
	var questions atomic.Int64
	ns := dnstest.Serve(t, func(q *dns.Msg, _ string) *dns.Msg {
		switch {
		case q.Question[0].Qtype != dns.TypeA:
			return dnstest.Reply(q, dns.RcodeSuccess)
		case questions.Add(1) == 1:
			return dnstest.Reply(q, dns.RcodeSuccess, "rebind.example. 0 A 127.0.0.2")
		}
		return dnstest.Reply(q, dns.RcodeSuccess, "rebind.example. 0 A 127.0.0.1")
	})
	d := dialer(t, Config{DNS: []string{ns.Addr}, Allow: []string{"127.0.0.2"}})
	now := time.Now()
	d.names = lookup.New(d.servers, time.Minute, d.v6, func() time.Time { return now })
	host := fmt.Sprintf("rebind.example:%d", good.port)
	if got, err := dial(t, d, host); err != nil || got.String() != "127.0.0.2" || questions.Load() != 1 {
		t.Errorf("first: %v, %v, after %d questions", got, err, questions.Load())
	}
	now = now.Add(time.Hour)
	_, err := dial(t, d, host)
	if f := (*ForbiddenError)(nil); !errors.As(err, &f) || f.Class != "loopback" || questions.Load() != 2 {
		t.Errorf("second: %v, after %d questions", err, questions.Load())
	}
	if got := d.Immediate(target(t, host), nil); len(got) > 0 {
		t.Error("the forbidden address is offered at once")
	}
	if bad.accepted.Load() != 0 {
		t.Error("the forbidden address was dialed")
	}
}

// The proxy does not connect to itself, by whatever name, whatever is allowed.
func TestDialSelf(t *testing.T) {
	o := listen(t, "0.0.0.0", 0)
	other := listen(t, "127.0.0.1", 0)
	d := dialer(t, Config{
		Hosts: map[string]string{"proxy.example": "127.0.0.1", "public.example": "203.0.113.7"},
		Allow: []string{"0.0.0.0/0", "::/0"},
	}, netip.AddrPortFrom(netip.IPv4Unspecified(), o.port), netip.MustParseAddrPort("203.0.113.7:3129"))

	own := []string{"127.0.0.1", "127.5.5.5", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::1]", "proxy.example", "203.0.113.7", "public.example"}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			own = append(own, p.Addr().String(), "[::ffff:"+p.Addr().String()+"]")
		}
	}
	for _, host := range own {
		_, err := dial(t, d, fmt.Sprintf("%s:%d", host, o.port))
		if forbidden(t, err) != classSelf {
			t.Errorf("%s: %v", host, err)
		}
		if got := d.Immediate(target(t, fmt.Sprintf("%s:%d", host, o.port)), nil); len(got) > 0 {
			t.Errorf("%s is offered at once", host)
		}
	}
	if o.accepted.Load() != 0 {
		t.Error("the proxy was dialed")
	}
	if got, err := dial(t, d, fmt.Sprintf("127.0.0.1:%d", other.port)); err != nil {
		t.Errorf("another port: %v, %v", got, err)
	}
	elsewhere := target(t, fmt.Sprintf("198.51.100.1:%d", o.port))
	if _, err := d.Lookup(t.Context(), elsewhere); err != nil {
		t.Errorf("another machine: %v", err)
	}
	if got := d.Immediate(elsewhere, nil); len(got) == 0 {
		t.Error("another machine is not offered at once, though this one's addresses are known")
	}
	d.self.asked = d.self.asked.Add(-ownAddressesAge)
	if got := d.Immediate(elsewhere, nil); len(got) > 0 {
		t.Error("another machine is offered by addresses of this one that may have changed")
	}
}

// The names that clients are told lead to this proxy, or to one like it, though
// no address of this machine says so.
func TestDialSelfByName(t *testing.T) {
	own := Self{Names: []policy.Target{target(t, "proxy.example:3128"), target(t, "203.0.113.7:443"), target(t, "unknown.example:3128")}}
	cfg := Config{
		Hosts: map[string]string{"proxy.example": "203.0.113.5", "other.example": "203.0.113.5,64:ff9b::203.0.113.7"},
		Allow: []string{"0.0.0.0/0", "::/0"}, ConnectTimeout: time.Minute,
	}
	d, err := New(cfg, own)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Parent = "http://198.51.100.1:3128"
	through, err := New(cfg, own)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{
		"proxy.example:3128", "203.0.113.5:3128", "[::ffff:203.0.113.5]:3128", "[64:ff9b::203.0.113.5]:3128",
		"203.0.113.7:443", "unknown.example:3128",
	} {
		if _, err := dial(t, through, host); forbidden(t, err) != classSelf {
			t.Errorf("%s, through a parent: %v", host, err)
		}
		if host == "unknown.example:3128" {
			continue // what it leads to does not matter where nobody is asked
		}
		if _, err := dial(t, d, host); forbidden(t, err) != classSelf {
			t.Errorf("%s: %v", host, err)
		}
		if got := d.Immediate(target(t, host), nil); len(got) > 0 {
			t.Errorf("%s is offered at once", host)
		}
	}
	for _, host := range []string{"proxy.example:443", "203.0.113.5:443", "203.0.113.7:3128"} {
		if got := d.Immediate(target(t, host), nil); len(got) == 0 {
			t.Errorf("%s is refused", host)
		}
	}
	if addrs, err := d.Lookup(t.Context(), target(t, "other.example:443")); fmt.Sprint(addrs) != "[203.0.113.5]" {
		t.Errorf("of an own address and another: %v, %v", addrs, err)
	}
}

func TestLookup(t *testing.T) {
	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprintf("8.8.8.%d", i+1)
	}
	tests := []struct{ name, hosts, want string }{
		{"one", "8.8.8.8", "8.8.8.8"},
		{"order is kept", "8.8.8.8,8.8.4.4", "8.8.8.8 8.8.4.4"},
		{"families in turn, IPv6 first", "8.8.8.8,8.8.4.4,9.9.9.9,2403:300::1,2403:300::2", "2403:300::1 8.8.8.8 2403:300::2 8.8.4.4 9.9.9.9"},
		{"more IPv6", "8.8.8.8,2403:300::1,2403:300::2", "2403:300::1 8.8.8.8 2403:300::2"},
		{"mapped is IPv4", "::ffff:8.8.8.8,2403:300::1", "2403:300::1 8.8.8.8"},
		{"forbidden are left out", "10.0.0.1,8.8.8.8,::1", "8.8.8.8"},
		{"only forbidden: the first", "10.0.0.1,::1", "10.0.0.1 is no public address (private), and egress.allow does not name it"},
		{"no more than are worth trying", strings.Join(many, ","), strings.Join(many[:maxAttempts], " ")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := dialer(t, Config{Hosts: map[string]string{"x.example": tt.hosts}})
			d.v6 = true
			for range 2 { // what is configured is not disturbed
				addrs, err := d.Lookup(t.Context(), target(t, "x.example:443"))
				got := strings.Trim(fmt.Sprint(addrs), "[]")
				if err != nil {
					got = err.Error()
				}
				if got != tt.want {
					t.Errorf("%s, want %s", got, tt.want)
				}
			}
		})
	}
}

// Without a way to the IPv6 Internet, an IPv6 address is not the first to try.
func TestAddressesWithoutIPv6(t *testing.T) {
	d := dialer(t, Config{Hosts: map[string]string{"x.example": "2403:300::1,8.8.8.8"}})
	x := target(t, "x.example:443")
	for v6, want := range map[bool]string{true: "2403:300::1", false: "8.8.8.8"} {
		d.v6 = v6
		if got := d.Immediate(x, nil); len(got) != 2 || got[0].Addr().String() != want {
			t.Errorf("IPv6 %v: %s, want %s first", v6, got, want)
		}
		if addrs, err := d.Lookup(t.Context(), x); err != nil || len(addrs) != 2 || addrs[0].String() != want {
			t.Errorf("IPv6 %v: %v, %v; want %s first", v6, addrs, err, want)
		}
	}
}

func TestLookupError(t *testing.T) {
	ns := dnstest.Serve(t, func(q *dns.Msg, _ string) *dns.Msg {
		switch q.Question[0].Name {
		case "none.example.":
			return dnstest.Reply(q, dns.RcodeNameError)
		case "empty.example.":
			return dnstest.Reply(q, dns.RcodeSuccess)
		case "silent.example.":
			return nil
		}
		return dnstest.Reply(q, dns.RcodeServerFailure)
	})
	d := dialer(t, Config{DNS: []string{ns.Addr}, ConnectTimeout: 400 * time.Millisecond})
	tests := []struct {
		host              string
		notFound, timeout bool
		text              string
	}{
		{"none.example", true, false, "look up none.example: no such name"},
		{"empty.example", true, false, "look up empty.example: the name has no address"},
		{"broken.example", false, false, "look up broken.example: name server NS: answers SERVFAIL"},
		{"silent.example", false, true, "look up silent.example: "},
	}
	for _, tt := range tests {
		_, err := dial(t, d, tt.host+":443")
		failed := (*lookup.Error)(nil)
		if !errors.As(err, &failed) {
			t.Fatalf("%s: %v", tt.host, err)
		}
		netErr := net.Error(nil)
		timeout := errors.Is(err, context.DeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout()
		if failed.NotFound() != tt.notFound || failed.NoAddress() != (tt.host == "empty.example") || timeout != tt.timeout || failed.Host != tt.host ||
			!strings.HasPrefix(strings.ReplaceAll(err.Error(), ns.Addr, "NS"), tt.text) {
			t.Errorf("%s: not found %v, timeout %v, %v", tt.host, failed.NotFound(), timeout, err)
		}
	}
}

func TestDialRefused(t *testing.T) {
	o := listen(t, "127.0.0.2", 0)
	d := dialer(t, Config{Allow: []string{"loopback"}, Hosts: map[string]string{
		"first.example": "127.0.0.3,127.0.0.2", "most.example": "127.0.0.3,127.0.0.4,127.0.0.5,127.0.0.2",
		"one.example": "127.0.0.3", "all.example": "127.0.0.3,127.0.0.4",
	}})
	for _, host := range []string{"first.example", "most.example"} {
		if got, err := dial(t, d, fmt.Sprintf("%s:%d", host, o.port)); err != nil || got.String() != "127.0.0.2" {
			t.Errorf("%s: %v, %v", host, got, err)
		}
	}
	for _, host := range []string{"one.example", "all.example"} {
		if _, err := dial(t, d, fmt.Sprintf("%s:%d", host, o.port)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// A dialer is shared by everybody.
func TestDialConcurrently(t *testing.T) {
	o := listen(t, "127.0.0.2", 0)
	ns := dnstest.Serve(t, dnstest.ByType([]string{"x. 60 A 127.0.0.3", "x. 60 A 127.0.0.2"}, nil))
	d := dialer(t, Config{DNS: []string{ns.Addr}, Allow: []string{"loopback"}})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if got, err := dial(t, d, fmt.Sprintf("n%d.example:%d", i%5, o.port)); err != nil || got.String() != "127.0.0.2" {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	wg.Wait()
	if n := ns.Asked.Load(); n != 2*5 {
		t.Errorf("%d questions for 5 names", n)
	}
}

func TestImmediate(t *testing.T) {
	ns := dnstest.Serve(t, dnstest.ByType([]string{"x. 60 A 8.8.8.8"}, []string{"x. 60 AAAA 2403:300::1"}))
	d := dialer(t, Config{DNS: []string{ns.Addr}, Hosts: map[string]string{
		"fixed.example": "10.0.0.1,8.8.4.4", "six.example": "8.8.4.4,2403:300::2", "mapped.example": "::ffff:8.8.4.4", "inside.example": "10.0.0.1",
	}})
	check := func(host, want string) {
		t.Helper()
		room := make([]netip.AddrPort, 0, 4)
		if got := fmt.Sprint(d.Immediate(target(t, host+":443"), room)); got != "["+want+"]" {
			t.Errorf("%s: %q; want %q", host, got, want)
		}
	}
	check("fixed.example", "8.8.4.4:443")
	check("six.example", "[2403:300::2]:443 8.8.4.4:443")
	check("mapped.example", "8.8.4.4:443")
	check("inside.example", "")
	check("8.8.8.8", "8.8.8.8:443")
	check("127.0.0.1", "")
	check("[::ffff:127.0.0.1]", "")
	check("asked.example", "") // nobody has asked yet
	if ns.Asked.Load() != 0 {
		t.Error("a name server was asked")
	}
	if _, err := d.Lookup(t.Context(), target(t, "asked.example:443")); err != nil {
		t.Fatal(err)
	}
	check("asked.example", "[2403:300::1]:443 8.8.8.8:443")
}

// What another address said tells more than that there is no IPv6.
func TestDialMostTellingError(t *testing.T) {
	// The kernel knows no way to the broadcast address over TCP, so that nothing
	// leaves the machine.
	unroutable := "255.255.255.255"
	_, err := net.Dial("tcp", unroutable+":9")
	if !isUnroutable(err) {
		t.Skipf("this kernel says %v", err)
	}
	o := listen(t, "127.0.0.2", 0)
	d := dialer(t, Config{Allow: []string{"loopback", unroutable}, Hosts: map[string]string{
		"refused.example": unroutable + ",127.0.0.3", "open.example": unroutable + ",127.0.0.2", "no.example": unroutable,
	}})
	if _, err := dial(t, d, fmt.Sprintf("refused.example:%d", o.port)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refused.example: %v", err)
	}
	if got, err := dial(t, d, fmt.Sprintf("open.example:%d", o.port)); err != nil || got.String() != "127.0.0.2" {
		t.Errorf("open.example: %v, %v", got, err)
	}
	if _, err := dial(t, d, fmt.Sprintf("no.example:%d", o.port)); !isUnroutable(err) {
		t.Errorf("no.example: %v", err)
	}
}

// The addresses of a Dialer's configuration are not its callers' to change.
func TestNewCopiesConfig(t *testing.T) {
	cfg := Config{Hosts: map[string]string{"x.example": "8.8.8.8"}, DNS: []string{"127.0.0.1"}, Allow: []string{"10.0.0.0/8"}}
	d := dialer(t, cfg)
	cfg.Hosts["x.example"], cfg.DNS[0], cfg.Allow[0] = "9.9.9.9", "x", "0.0.0.0/0"
	addrs, err := d.Lookup(t.Context(), target(t, "x.example:443"))
	if err != nil || !slices.Equal(addrs, []netip.Addr{netip.MustParseAddr("8.8.8.8")}) {
		t.Errorf("%v, %v", addrs, err)
	}
	addrs[0] = netip.MustParseAddr("9.9.9.9")
	if again, _ := d.Lookup(t.Context(), target(t, "x.example:443")); again[0].String() != "8.8.8.8" {
		t.Errorf("a caller changed the answer to %v", again)
	}
}

// What the administrator chose may be anywhere but here; a redirect from there
// may not.
func TestTrusting(t *testing.T) {
	o, other := listen(t, "127.0.0.1", 0), listen(t, "127.0.0.1", 0)
	own := listen(t, "127.0.0.1", 0)
	d := dialer(t, Config{Hosts: map[string]string{"lists.example": "127.0.0.1"}},
		netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), own.port))
	at := func(host string, o *origin) string { return host + ":" + strconv.Itoa(int(o.port)) }
	for _, tt := range []struct {
		name, trusted, target string
		forbidden             bool
	}{
		{"by name", at("lists.example", o), at("lists.example", o), false},
		{"by address", at("127.0.0.1", o), at("127.0.0.1", o), false},
		{"another port", at("lists.example", o), at("lists.example", other), true},
		{"another name for it", at("lists.example", o), at("127.0.0.1", o), true},
		{"the proxy itself", at("lists.example", own), at("lists.example", own), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := dial(t, d.Trusting(target(t, tt.trusted)), tt.target)
			var forbidden *ForbiddenError
			if tt.forbidden != errors.As(err, &forbidden) || !tt.forbidden && err != nil {
				t.Error(err)
			}
			if _, err := dial(t, d, tt.target); !errors.As(err, &forbidden) {
				t.Errorf("without trust: %v", err)
			}
		})
	}
}
