package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"espalier/proxy/egress/dnstest"
	"espalier/proxy/egress/lookup"
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
		head := "CONNECT " + want + " HTTP/1.1\r\nHost: " + want + "\r\nVia: " + d.parents[0].Via() + "\r\nProxy-Authorization: Basic dXMsZXI6cEBzc8Ok\r\n\r\n"
		p.mu.Lock()
		if len(p.got) != 1 || p.got[0] != head {
			t.Errorf("%s: asked %q, want %q", host, p.got, head)
		}
		p.got = nil
		p.mu.Unlock()
		if a := d.Immediate(target(t, host), nil); a != nil {
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
	ns := dnstest.Serve(t, dnstest.ByType(nil, nil))
	cfg.DNS = []string{ns.Addr}
	_, err = dial(t, dialer(t, cfg), "name.example:443")
	var failed *lookup.Error
	if !errors.As(err, &e) || !errors.As(err, &failed) || failed.Host != "parent.example" {
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
