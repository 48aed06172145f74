package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A fakeParent is a proxy on loopback that answers every CONNECT as it is told,
// and remembers what it was asked.
type fakeParent struct {
	addr string
	mu   sync.Mutex
	say  string   // the answer; "" closes without one, "hang" says nothing
	got  []string // the head of each request
}

const opened = "HTTP/1.1 200 Connection established\r\n\r\n"

func serveParent(t testing.TB, say string) *fakeParent {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &fakeParent{addr: l.Addr().String(), say: say}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return p
}

func (p *fakeParent) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	head := ""
	for !strings.HasSuffix(head, "\r\n\r\n") {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		head += line
	}
	p.mu.Lock()
	p.got = append(p.got, head)
	say := p.say
	p.mu.Unlock()
	if say != "hang" {
		if _, err := io.WriteString(c, say); err != nil || say == "" {
			return
		}
	}
	_, _ = io.Copy(c, r) // an echo, until the client leaves
}

func (p *fakeParent) tell(say string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.say = say
}

// asked returns the request lines since the last call.
func (p *fakeParent) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var lines []string
	for _, head := range p.got {
		line, _, _ := strings.Cut(head, "\r\n")
		lines = append(lines, line)
	}
	p.got = nil
	return lines
}

// closedPort is an address that refuses connections.
func closedPort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().String()
}

func through(addrs ...string) Config {
	for i, a := range addrs {
		addrs[i] = "http://" + a
	}
	return Config{Parent: strings.Join(addrs, ", ")}
}

// echoes checks that c is a tunnel to the parent's echo, behind what the parent
// sent first.
func echoes(t testing.TB, c net.Conn, first string) {
	t.Helper()
	defer c.Close()
	if _, ok := c.(*net.TCPConn); !ok {
		t.Errorf("the connection is a %T", c)
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(first)+4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != first+"ping" {
		t.Errorf("read %q, %v", got, err)
	}
}

// The whole request, for names, literals and fixed addresses.
func TestParentRequest(t *testing.T) {
	p := serveParent(t, opened)
	cfg := through("us%2Cer:p%40ss%C3%A4@" + p.addr)
	cfg.Hosts = map[string]string{"fixed.example": "192.0.2.7", "*.public.example": "1.1.1.1,9.9.9.9"}
	cfg.DNS = []string{closedPort(t)} // nobody asks it
	d := dialer(t, cfg)
	for host, want := range map[string]string{
		"Name.Example.:443":        "name.example:443",
		"name.example:80":          "name.example:80",
		"8.8.8.8:443":              "8.8.8.8:443",
		"[::ffff:8.8.8.8]:443":     "8.8.8.8:443",
		"[2620:149::1]:5223":       "[2620:149::1]:5223",
		"a.public.example:443":     "1.1.1.1:443",
		"localhost.example.org:22": "localhost.example.org:22",
	} {
		c, err := d.Dial(t.Context(), target(t, host))
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		if got := c.RemoteAddr().String(); got != p.addr {
			t.Errorf("%s: connected to %s", host, got)
		}
		echoes(t, c, "")
		head := "CONNECT " + want + " HTTP/1.1\r\nHost: " + want + "\r\nProxy-Authorization: Basic dXMsZXI6cEBzc8Ok\r\n\r\n"
		p.mu.Lock()
		if len(p.got) != 1 || p.got[0] != head {
			t.Errorf("%s: asked %q, want %q", host, p.got, head)
		}
		p.got = nil
		p.mu.Unlock()
		if a, ok := d.Immediate(target(t, host)); ok {
			t.Errorf("%s: immediately %s", host, a)
		}
	}
	for _, host := range []string{"127.0.0.1:80", "[::1]:80", "10.0.0.1:443", "169.254.169.254:80", "fixed.example:443", "localhost:80", "x.localhost:80", "[64:ff9b::7f00:1]:80"} {
		_, err := d.Dial(t.Context(), target(t, host))
		if forbidden := (*ForbiddenError)(nil); !errors.As(err, &forbidden) {
			t.Errorf("%s: %v", host, err)
		}
		_, _, err = d.DialPlain(t.Context(), target(t, host))
		if forbidden := (*ForbiddenError)(nil); !errors.As(err, &forbidden) {
			t.Errorf("plain, %s: %v", host, err)
		}
	}
	if got := p.asked(); len(got) != 0 {
		t.Errorf("asked for what is forbidden: %q", got)
	}
}

// What follows the head of the answer comes out of the tunnel, however the
// answer is cut.
func TestParentBytesBehindTheHead(t *testing.T) {
	for name, parts := range map[string][]string{
		"at once":        {"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n\r\n"},
		"an interim one": {"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n\r\n"},
		"in pieces":      strings.Split("HTTP/1.1 200 OK\r\nA: b\r\n\r\nSSH-2.0-x\r\n\r\n", ""),
		"a long head":    {"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 5000) + "\r\n\r\nSSH-2.0-x\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			client, parent := tcpPair(t)
			wrote := make(chan struct{})
			go func() {
				defer close(wrote)
				for _, part := range parts {
					_, _ = io.WriteString(parent, part)
				}
				_ = parent.CloseWrite()
			}()
			defer func() { <-wrote }()
			status, err := readAnswer(client)
			if err != nil || status != 200 {
				t.Fatalf("%d, %v", status, err)
			}
			if rest, err := io.ReadAll(client); err != nil || string(rest) != "SSH-2.0-x\r\n\r\n" {
				t.Errorf("behind the head: %q, %v", rest, err)
			}
		})
	}
}

func tcpPair(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func TestParentErrors(t *testing.T) {
	for _, tc := range []struct {
		name, say string
		status    int
		is        error
		text      string // behind "parent proxy ADDR"
	}{
		{"forbidden", "HTTP/1.1 403 secret reason\r\nX: y\r\n\r\nbody", 403, nil, " answers 403 Forbidden"},
		{"credentials", "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n", 407, nil, " answers 407: it does not accept the user and password of egress.parent, or none are set"},
		{"bad gateway", "HTTP/1.1 502 x\r\n\r\n", 502, nil, " answers 502 Bad Gateway"},
		{"unavailable", "HTTP/1.1 503 x\r\n\r\n", 503, nil, " answers 503 Service Unavailable"},
		{"gateway timeout", "HTTP/1.1 504 x\r\n\r\n", 504, context.DeadlineExceeded, " answers 504 Gateway Timeout"},
		{"redirect", "HTTP/1.1 302 x\r\nLocation: http://x/\r\n\r\n", 302, nil, " answers 302 Found"},
		{"unknown status", "HTTP/1.1 799 x\r\n\r\n", 799, nil, " answers 799"},
		{"no HTTP", "SSH-2.0-x\r\n", 0, errBadAnswer, ": its answer to CONNECT is not valid HTTP/1"},
		{"no end", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", maxAnswer), 0, errLongAnswer, ": the head of its answer to CONNECT is longer than 16384 bytes"},
		{"interim answers without end", strings.Repeat("HTTP/1.1 100 x\r\n\r\n", maxAnswer), 0, errLongAnswer, ": the head of its answer to CONNECT is longer than 16384 bytes"},
		{"closed", "", 0, io.ErrUnexpectedEOF, ": it closed the connection without an answer to CONNECT: unexpected EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := serveParent(t, tc.say)
			_, err := dial(t, dialer(t, through("user:geheim@"+p.addr)), "name.example:443")
			var e *ParentError
			if !errors.As(err, &e) || e.Status != tc.status || e.Parent != p.addr || tc.is != nil && !errors.Is(err, tc.is) {
				t.Fatalf("got %#v", err)
			}
			if want := "parent proxy " + p.addr + tc.text; err.Error() != want {
				t.Errorf("got  %s\nwant %s", err, want)
			}
		})
	}
}

// A parent that cannot be reached is named, without credentials.
func TestParentUnreachable(t *testing.T) {
	addr := closedPort(t)
	_, err := dial(t, dialer(t, through("user:geheim@"+addr)), "name.example:443")
	var e *ParentError
	if !errors.As(err, &e) || e.Status != 0 || !errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "geheim") || !strings.HasPrefix(err.Error(), "parent proxy "+addr+": ") {
		t.Errorf("refused: %v", err)
	}

	cfg := through("user:geheim@parent.example:3128")
	ns := serveDNS(t, byType(nil, nil))
	cfg.DNS = []string{ns.addr}
	_, err = dial(t, dialer(t, cfg), "name.example:443")
	var lookup *LookupError
	if !errors.As(err, &e) || !errors.As(err, &lookup) || lookup.Host != "parent.example" {
		t.Errorf("no such name: %v", err)
	}
}

// The parent's own address is not subject to the guard, but the proxy is not its
// own parent.
func TestParentItself(t *testing.T) {
	p := serveParent(t, opened)
	ap := netip.MustParseAddrPort(p.addr)
	_, err := dial(t, dialer(t, through(p.addr), netip.AddrPortFrom(netip.IPv4Unspecified(), ap.Port())), "name.example:443")
	want := "parent proxy " + p.addr + ": 127.0.0.1 is this proxy's own address; let egress.parent name another proxy"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	cfg := through(fmt.Sprintf("parent.example:%d", ap.Port()))
	cfg.Hosts = map[string]string{"parent.example": "127.0.0.1"}
	if _, err := dial(t, dialer(t, cfg), "name.example:443"); err != nil {
		t.Errorf("a parent in egress.hosts: %v", err)
	}
}

// No answer ends with connect_timeout, and with the request.
func TestParentSilent(t *testing.T) {
	p := serveParent(t, "hang")
	cfg := through(p.addr)
	cfg.ConnectTimeout = 50 * time.Millisecond
	var e *ParentError
	if _, err := dial(t, dialer(t, cfg), "name.example:443"); !errors.As(err, &e) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("timeout: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	d := dialer(t, through(p.addr))
	p.asked()
	go func() {
		for len(p.asked()) == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := d.Dial(ctx, target(t, "name.example:443")); !errors.Is(err, context.Canceled) {
		t.Errorf("the client left: %v", err)
	}
}

// rest reports which parents are left alone for now.
func resting(d *Dialer) (list []int) {
	for i, p := range d.parents {
		p.mu.Lock()
		if p.pause > 0 {
			list = append(list, i)
		}
		p.mu.Unlock()
	}
	return list
}

// over lets the pauses of all parents be over.
func over(d *Dialer) {
	for _, p := range d.parents {
		p.mu.Lock()
		p.until = time.Time{}
		p.mu.Unlock()
	}
}

func TestParentFailover(t *testing.T) {
	const no503 = "HTTP/1.1 503 x\r\n\r\n"
	for _, tc := range []struct {
		name    string
		says    []string // "refuse" stands for a closed port
		status  int      // 200: a tunnel
		asked   []int    // how often each is asked
		resting []int    // afterwards
	}{
		{"the first works", []string{opened, opened}, 200, []int{1, 0}, nil},
		{"the first refuses connections", []string{"refuse", opened}, 200, []int{0, 1}, []int{0}},
		{"the first is unavailable", []string{no503, opened}, 200, []int{1, 1}, []int{0}},
		{"the first closes", []string{"", opened}, 200, []int{1, 1}, []int{0}},
		{"the first speaks something else", []string{"220 ESMTP\r\n", opened}, 200, []int{1, 1}, []int{0}},
		{"the first does not know the password", []string{"HTTP/1.1 407 x\r\n\r\n", opened}, 200, []int{1, 1}, []int{0}},
		{"two are ill", []string{"refuse", no503, opened}, 200, []int{0, 1, 1}, []int{0, 1}},
		{"the first forbids it", []string{"HTTP/1.1 403 x\r\n\r\n", opened}, 403, []int{1, 0}, nil},
		{"the destination is down", []string{no503, no503}, 503, []int{1, 1}, nil},
		{"one is ill, the destination is down", []string{no503, "refuse"}, 503, []int{1, 0}, []int{1}},
		{"none is reached", []string{"refuse", "refuse"}, 0, []int{0, 0}, []int{0, 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var addrs []string
			var parents []*fakeParent
			for _, say := range tc.says {
				p := &fakeParent{addr: closedPort(t)}
				if say != "refuse" {
					p = serveParent(t, say)
				}
				parents, addrs = append(parents, p), append(addrs, p.addr)
			}
			d := dialer(t, through(addrs...))
			_, err := dial(t, d, "name.example:443")
			e := &ParentError{Status: 200}
			if err != nil && !errors.As(err, &e) || e.Status != tc.status {
				t.Errorf("got %v, want status %d", err, tc.status)
			}
			for i, p := range parents {
				if got := len(p.asked()); got != tc.asked[i] {
					t.Errorf("parent %d was asked %d times, want %d", i, got, tc.asked[i])
				}
			}
			if got := resting(d); !slices.Equal(got, tc.resting) {
				t.Errorf("resting: %v, want %v", got, tc.resting)
			}
		})
	}
}

// A parent that takes connections and says nothing has its share of the time.
func TestParentHangs(t *testing.T) {
	a, b := serveParent(t, "hang"), serveParent(t, opened)
	cfg := through(a.addr, b.addr)
	cfg.ConnectTimeout = 2 * time.Second
	d := dialer(t, cfg)
	if _, err := dial(t, d, "name.example:443"); err != nil {
		t.Fatal(err)
	}
	if got := resting(d); !slices.Equal(got, []int{0}) {
		t.Errorf("resting: %v", got)
	}
}

// An ill parent is skipped, then probed by one request, and used again when it
// is well.
func TestParentRecovers(t *testing.T) {
	a, b := serveParent(t, ""), serveParent(t, opened)
	d := dialer(t, through(a.addr, b.addr))
	ask := func(wantA, wantB int) {
		t.Helper()
		if _, err := dial(t, d, "name.example:443"); err != nil {
			t.Error(err)
		}
		if gotA, gotB := len(a.asked()), len(b.asked()); gotA != wantA || gotB != wantB {
			t.Errorf("asked %d and %d times, want %d and %d", gotA, gotB, wantA, wantB)
		}
	}
	ask(1, 1) // falls ill
	ask(0, 1) // rests
	over(d)
	ask(1, 1) // probed, still ill
	if got := d.parents[0].pause; got != 2*firstPause {
		t.Errorf("the second pause is %s", got)
	}
	ask(0, 1)
	a.tell(opened)
	over(d)
	ask(1, 0) // probed, well
	ask(1, 0)

	// All ill: all are tried, in order, and what works is well again.
	for _, p := range d.parents {
		p.failed(time.Now(), time.Now())
	}
	ask(1, 0)
	if got := resting(d); !slices.Equal(got, []int{1}) {
		t.Errorf("resting: %v", got)
	}
	// The last resort: the one that does not rest gives no answer.
	a.tell("")
	ask(1, 1)
	if got := resting(d); !slices.Equal(got, []int{0}) {
		t.Errorf("resting: %v", got)
	}
}

func TestParentPause(t *testing.T) {
	now := time.Now()
	p := &Parent{}
	if !p.admit(now) || !p.admit(now) {
		t.Error("a healthy one is not admitted")
	}
	p.failed(now, now)
	p.failed(now.Add(-time.Second), now) // under way at the same time
	if p.pause != firstPause || p.admit(now.Add(firstPause-1)) {
		t.Errorf("pause %s", p.pause)
	}
	later := now.Add(firstPause)
	if !p.admit(later) || p.admit(later) {
		t.Error("not one request probes")
	}
	for range 10 {
		p.failed(later, later)
	}
	if p.pause != maxPause {
		t.Errorf("the longest pause is %s", p.pause)
	}
	p.worked()
	if !p.admit(later) {
		t.Error("not well")
	}
}

// Addresses of egress.hosts are asked for in turn, as without a parent.
func TestParentSeveralAddresses(t *testing.T) {
	p := serveParent(t, "HTTP/1.1 502 x\r\n\r\n")
	cfg := through(p.addr)
	cfg.Hosts = map[string]string{"two.example": "1.1.1.1,10.0.0.1,9.9.9.9"}
	d := dialer(t, cfg)
	if _, err := dial(t, d, "two.example:443"); err == nil {
		t.Error("no error")
	}
	if got := p.asked(); !slices.Equal(got, []string{"CONNECT 1.1.1.1:443 HTTP/1.1", "CONNECT 9.9.9.9:443 HTTP/1.1"}) {
		t.Errorf("asked %q", got)
	}
	p.tell("HTTP/1.1 403 x\r\n\r\n")
	if _, err := dial(t, d, "two.example:443"); err == nil {
		t.Error("no error")
	}
	if got := p.asked(); !slices.Equal(got, []string{"CONNECT 1.1.1.1:443 HTTP/1.1"}) {
		t.Errorf("asked %q", got)
	}
}

// Plain requests find a parent, or the destination itself.
func TestDialPlain(t *testing.T) {
	p := serveParent(t, opened)
	cfg := through(closedPort(t), "user:geheim@"+p.addr)
	cfg.Hosts = map[string]string{"fixed.example": "1.1.1.1"}
	d := dialer(t, cfg)
	for _, host := range []string{"name.example:80", "8.8.8.8:80"} {
		c, via, err := d.DialPlain(t.Context(), target(t, host))
		if err != nil || via == nil || c.RemoteAddr().String() != p.addr {
			t.Fatalf("%s: %v, %v", host, via, err)
		}
		c.Close()
		if got := via.ProxyAuthorization(); got != "Basic dXNlcjpnZWhlaW0=" {
			t.Errorf("%s: %s", host, got)
		}
		if text := fmt.Sprintf("%v %+v", via, via); text != p.addr+" "+p.addr {
			t.Errorf("shown as %s", text)
		}
		via, err = d.PlainParent(target(t, host))
		if err != nil || via == nil || via.URL().String() != "http://user:geheim@"+p.addr {
			t.Errorf("%s: %v, %v", host, via, err)
			continue
		}
		if c, err = d.DialParent(t.Context(), via); err != nil {
			t.Error(err)
			continue
		}
		c.Close()
	}
	c, via, err := d.DialPlain(t.Context(), target(t, "fixed.example:80"))
	if err != nil || via != nil {
		t.Fatalf("fixed.example: %v, %v", via, err)
	}
	echoes(t, c, "")
	if got := p.asked(); !slices.Equal(got, []string{"CONNECT 1.1.1.1:80 HTTP/1.1"}) {
		t.Errorf("asked %q", got)
	}

	d = dialer(t, Config{Allow: []string{"loopback"}})
	c, via, err = d.DialPlain(t.Context(), target(t, p.addr))
	if err != nil || via != nil {
		t.Fatalf("no parent: %v, %v", via, err)
	}
	c.Close()
	if via, err := d.PlainParent(target(t, p.addr)); err != nil || via != nil {
		t.Errorf("no parent: %v, %v", via, err)
	}

	gone := dialer(t, through(closedPort(t)))
	via, err = gone.PlainParent(target(t, "name.example:80"))
	if err != nil || via == nil {
		t.Fatal(via, err)
	}
	var e *ParentError
	if c, err := gone.DialParent(t.Context(), via); !errors.As(err, &e) || c != nil || len(resting(gone)) != 1 {
		t.Errorf("gone: %v, resting %v", err, resting(gone))
	}
	if c, _, err := gone.DialPlain(t.Context(), target(t, "name.example:80")); !errors.As(err, &e) || c != nil {
		t.Errorf("gone: %v, %v", c, err)
	}
}
