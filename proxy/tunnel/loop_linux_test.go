package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"espalier/proxy/head"
	"espalier/proxy/tunnel/pipes"
)

func init() {
	testEngines["one worker"] = func(c Config) Engine { return newLoop(c, 1) }
	testEngines["no pipes"] = func(c Config) Engine {
		e := newLoop(c, 1).(*loop)
		e.pipes.MaxLarge, e.pipes.MaxSmall = 0, 0
		return e
	}
	testEngines["small pipes"] = func(c Config) Engine {
		e := newLoop(c, 2).(*loop)
		e.pipes.MaxLarge, e.pipes.MaxSmall = 0, 8
		return e
	}
}

// door is a Gate that sends every CONNECT to one address.
type door struct {
	*stage
	to        []netip.AddrPort
	timeout   time.Duration // 0: an hour
	refuse    bool
	ends      owner
	openings  chan reached
	served    chan net.Conn
	unreached chan HandedOn
	reach     reach
}

// reached is what an Owner is told when its tunnel opens.
type reached struct {
	connect time.Duration
	to      netip.AddrPort
}

// routed is the Owner of a tunnel that a door has routed.
type routed struct {
	owner
	openings chan<- reached
}

func (r routed) TunnelOpened(connect time.Duration, to netip.AddrPort) {
	r.openings <- reached{connect, to}
}

// reach notes what the engine says of addresses.
type reach chan string

func (r reach) Failed(to netip.AddrPort, err error) {
	r <- fmt.Sprintf("%s failed, timeout %v", to, errors.Is(err, os.ErrDeadlineExceeded))
}
func (r reach) Reached(to netip.AddrPort) { r <- to.String() + " reached" }

func (d *door) Route(client netip.AddrPort, r head.Request, room []netip.AddrPort) (Route, bool) {
	if string(r.Target) != "origin.test:443" || d.refuse || !client.Addr().IsLoopback() {
		return Route{}, false
	}
	timeout := d.timeout
	if timeout == 0 {
		timeout = time.Hour
	}
	return Route{Addrs: append(room, d.to...), Timeout: timeout, Service: d.service, Owner: routed{d.ends, d.openings}, Reach: d.reach}, true
}

// locate sends what is routed to the stage.
func (d *door) locate() { d.to = []netip.AddrPort{netip.MustParseAddrPort(d.ln.Addr().String())} }

func (d *door) Serve(c *net.TCPConn, unread []byte, h HandedOn) {
	if h.Err != nil {
		d.unreached <- h
	}
	d.served <- Replay(c, unread)
}

// newDoor returns a gate that an engine accepts for, and its address. set changes
// the gate before.
func newDoor(t *testing.T, set ...func(*door)) (d *door, addr string, stop func()) {
	t.Helper()
	s := newStage(t, newLoop(patient, 2))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d = &door{stage: s, ends: make(owner, 100), openings: make(chan reached, 2000), served: make(chan net.Conn, 100), unreached: make(chan HandedOn, 100), reach: make(reach, 2000)}
	d.locate()
	for _, f := range set {
		f(d)
	}
	_, stopAccept, err := d.engine.(Acceptor).Accept(ln.(*net.TCPListener), d)
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() { stopAccept(); ln.Close() })
	t.Cleanup(stop)
	return d, ln.Addr().String(), stop
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(limit))
	return c.(*net.TCPConn)
}

const connectHead = "CONNECT origin.test:443 HTTP/1.1\r\nHost: origin.test:443\r\nUser-Agent: test\r\n\r\n"

func TestAcceptedConnectBecomesATunnel(t *testing.T) {
	d, addr, _ := newDoor(t)
	c := dial(t, addr)
	say(t, c, connectHead+"early bytes")
	origin, err := d.ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer origin.Close()
	_ = origin.SetDeadline(time.Now().Add(limit))
	expect(t, c, string(established))
	expect(t, origin, "early bytes")
	say(t, origin, "answer")
	expect(t, c, "answer")
	c.Close()
	expectEOF(t, origin)
	origin.Close()
	if st := d.ends.wait(t); st.Up != 11 || st.Down != 6 || st.Err != nil {
		t.Errorf("stats %+v", st)
	}
	if o := <-d.openings; o.connect <= 0 || o.to != d.to[0] {
		t.Errorf("opened with %+v", o)
	}
}

// What the short way does not take arrives at the gate whole, whoever cut it.
func TestAcceptedOtherIsServed(t *testing.T) {
	for name, sent := range map[string][]string{
		"plain request":        {"GET http://example.test/ HTTP/1.1\r\nHost: example.test\r\n\r\n"},
		"TLS hello":            {"\x16\x03\x01\x02\x00\x01\x00"},
		"another target":       {"CONNECT elsewhere.test:443 HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n"},
		"head with a body":     {"CONNECT origin.test:443 HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"},
		"bare line feeds":      {"CONNECT origin.test:443 HTTP/1.1\nHost: x\n\n"},
		"head in two segments": {connectHead[:20], connectHead[20:]},
	} {
		t.Run(name, func(t *testing.T) {
			d, addr, _ := newDoor(t)
			c := dial(t, addr)
			say(t, c, sent[0])
			var served net.Conn
			select {
			case served = <-d.served:
			case <-time.After(limit):
				t.Fatal("not served")
			}
			defer served.Close()
			for _, rest := range sent[1:] {
				say(t, c, rest)
			}
			_ = served.SetDeadline(time.Now().Add(limit))
			expect(t, served, strings.Join(sent, ""))
			say(t, served, "answer")
			expect(t, c, "answer")
		})
	}
}

func TestAcceptedLateHead(t *testing.T) {
	d, addr, _ := newDoor(t)
	c := dial(t, addr)
	waitFor(t, "waiting client", func() bool { return d.engine.(*loop).pending.Load() == 1 })
	say(t, c, connectHead)
	expect(t, c, string(established))
}

// closedPort is an address that refuses connections.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// The addresses of a route are raced; only where all fail has the gate the client.
func TestRaceOfAddresses(t *testing.T) {
	const delay = 50 * time.Millisecond
	hangs, closed := silent(t), closedPort(t)
	for _, tc := range []struct {
		name    string
		to      []netip.AddrPort // invalid: the origin
		timeout time.Duration
		reach   []string
		waits   time.Duration // at least
		err     error         // nil: a tunnel
	}{
		{name: "the first answers", to: []netip.AddrPort{{}, closed}, reach: []string{"ORIGIN reached"}},
		{name: "the first refuses", to: []netip.AddrPort{closed, {}}, reach: []string{"CLOSED failed, timeout false", "ORIGIN reached"}},
		{name: "the first is silent", to: []netip.AddrPort{hangs, {}}, reach: []string{"HANGS failed, timeout true", "ORIGIN reached"}, waits: delay},
		{name: "the first is silent, the second refuses", to: []netip.AddrPort{hangs, closed, {}}, reach: []string{"CLOSED failed, timeout false", "HANGS failed, timeout true", "ORIGIN reached"}, waits: delay},
		{name: "two are silent", to: []netip.AddrPort{hangs, hangs, {}}, reach: []string{"HANGS failed, timeout true", "HANGS failed, timeout true", "ORIGIN reached"}, waits: 2 * delay},
		{name: "all refuse", to: []netip.AddrPort{closed, closed}, reach: []string{"CLOSED failed, timeout false", "CLOSED failed, timeout false"}, err: unix.ECONNREFUSED},
		{name: "one refuses, the other is silent", to: []netip.AddrPort{hangs, closed}, timeout: 200 * time.Millisecond, reach: []string{"CLOSED failed, timeout false", "HANGS failed, timeout true"}, waits: 200 * time.Millisecond, err: unix.ECONNREFUSED},
		{name: "all are silent", to: []netip.AddrPort{hangs, hangs}, timeout: 200 * time.Millisecond, reach: []string{"HANGS failed, timeout true", "HANGS failed, timeout true"}, waits: 200 * time.Millisecond, err: os.ErrDeadlineExceeded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := patient
			cfg.AttemptDelay = delay
			d, addr, _ := newDoor(t, func(d *door) {
				d.stage = newStage(t, newLoop(cfg, 1))
				d.timeout = tc.timeout
				d.to = slices.Clone(tc.to)
				for i, to := range d.to {
					if !to.IsValid() {
						d.to[i] = netip.MustParseAddrPort(d.ln.Addr().String())
					}
				}
			})
			c := dial(t, addr)
			say(t, c, connectHead+"early")
			var took time.Duration
			if tc.err == nil {
				origin, err := d.ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer origin.Close()
				_ = origin.SetDeadline(time.Now().Add(limit))
				expect(t, c, string(established))
				expect(t, origin, "early")
				say(t, origin, "late")
				expect(t, c, "late")
				c.Close()
				origin.Close()
				st, o := d.ends.wait(t), <-d.openings
				if took = o.connect; o.to.String() != d.ln.Addr().String() || st.Unopened {
					t.Errorf("stats %+v, opened with %+v", st, o)
				}
			} else {
				served := <-d.served
				defer served.Close()
				_ = served.SetDeadline(time.Now().Add(limit))
				expect(t, served, connectHead+"early")
				f := <-d.unreached
				if took = f.Connect; !errors.Is(f.Err, tc.err) || f.Owner == nil {
					t.Errorf("failure %+v", f)
				}
				if n := d.engine.Len(); n != 0 {
					t.Errorf("%d tunnels", n)
				}
			}
			if took < tc.waits {
				t.Errorf("it took %s, and not %s", took, tc.waits)
			}
			for _, want := range tc.reach {
				got := strings.NewReplacer(d.ln.Addr().String(), "ORIGIN", closed.String(), "CLOSED", hangs.String(), "HANGS").Replace(<-d.reach)
				if got != want {
					t.Errorf("told %q, want %q", got, want)
				}
			}
			waitFor(t, "an end of connecting", func() bool { return d.engine.(*loop).connecting() == 0 })
			if len(d.reach) > 0 || len(d.ends) > 0 || len(d.unreached) > 0 {
				t.Error("more was told")
			}
		})
	}
}

// A slow address wins though the next one has failed at once, and stays watched.
func TestSlowAddressBesideOneThatFails(t *testing.T) {
	var origins sync.WaitGroup
	t.Cleanup(origins.Wait)
	l := busy(t)
	cfg := patient
	cfg.AttemptDelay = 10 * time.Millisecond
	d, addr, _ := newDoor(t, func(d *door) {
		d.stage = newStage(t, newLoop(cfg, 1))
		d.to = []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String()), netip.MustParseAddrPort("255.255.255.255:9")}
	})
	c := dial(t, addr)
	say(t, c, connectHead+"early")
	if got := <-d.reach; got != "255.255.255.255:9 failed, timeout false" {
		t.Errorf("told %q", got)
	}
	origins.Go(func() {
		for { // those that fill the backlog, and then the tunnel
			o, err := l.Accept()
			if err != nil {
				return
			}
			origins.Go(func() { defer o.Close(); _, _ = io.Copy(o, o) })
		}
	})
	expect(t, c, string(established)+"early")
}

// A client that resets the connection while its upstream is being connected ends
// that; one that only closes its direction does not.
func TestClientLeavesWhileConnecting(t *testing.T) {
	to := silent(t)
	d, addr, _ := newDoor(t, func(d *door) { d.to = []netip.AddrPort{to} })
	connecting := func() bool { return d.engine.(*loop).connecting() == 1 }
	c := dial(t, addr)
	say(t, c, connectHead)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "connecting client", connecting)
	_ = c.SetLinger(0)
	c.Close()
	st := d.ends.wait(t)
	if e, ok := errors.AsType[*Error](st.Err); !ok || !e.Client || !e.Left() || !st.Unopened {
		t.Errorf("stats %+v", st)
	}
	if connecting() {
		t.Error("it is still connecting")
	}

	d, addr, _ = newDoor(t, func(d *door) { d.to = []netip.AddrPort{to, d.to[0]} })
	c = dial(t, addr)
	say(t, c, connectHead+"all")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	o, err := d.ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = o.SetDeadline(time.Now().Add(limit))
	expect(t, o, "all")
	expectEOF(t, o)
	say(t, o, "answer")
	o.Close()
	expect(t, c, string(established)+"answer")
	if st := d.ends.wait(t); st.Err != nil || st.Up != 3 || st.Down != 6 {
		t.Errorf("stats %+v", st)
	}
}

// What workers keep of what they have used is bounded.
func TestPendingsAreBounded(t *testing.T) {
	w := &worker{}
	for range 2 * keptPendings {
		w.putPending(&pending{})
	}
	w.putPending(&pending{sent: make([]byte, 0, 2*keptHead)})
	if len(w.unused) != keptPendings {
		t.Errorf("%d are kept", len(w.unused))
	}
}

// A connection that was served and then became a tunnel loses no byte that was
// read ahead.
func TestServedConnectionStartsATunnel(t *testing.T) {
	d, addr, _ := newDoor(t, func(d *door) { d.refuse = true })
	c := dial(t, addr)
	ahead := strings.Repeat("ahead ", 1500)
	say(t, c, connectHead+ahead)
	served := <-d.served
	buf := make([]byte, 4096)
	n, err := served.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	near, upstream := d.pair()
	d.engine.Start(Tunnel{Client: served, Upstream: near, Head: bytes.Clone(buf[len(connectHead):n]), Service: d.service, Owner: d.ends})
	defer upstream.Close()
	expect(t, upstream, ahead)
}

func TestStopTurnsAwayClientsThatHaveNotAsked(t *testing.T) {
	d, addr, stop := newDoor(t)
	c := dial(t, addr)
	waitFor(t, "waiting client", func() bool { return d.engine.(*loop).pending.Load() == 1 })
	stop()
	expectEOF(t, c)
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("the listener still answers")
	}
}

// silent is an address on which a connection is neither accepted nor refused.
func silent(t *testing.T) netip.AddrPort {
	t.Helper()
	return netip.MustParseAddrPort(busy(t).Addr().String())
}

// busy is a listener that has no room for another connection until it accepts.
func busy(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.Listen(int(fd), 0) })
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // fill the backlog
		c, err := net.DialTimeout("tcp", l.Addr().String(), 100*time.Millisecond)
		if err != nil {
			return l
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("this system's backlog has no end")
	return nil
}

// A client that has asked gets its tunnel, or its answer, when its listener has
// closed, and Shutdown waits for it.
func TestStopLeavesClientsThatHaveAsked(t *testing.T) {
	to := silent(t)
	d, addr, stop := newDoor(t, func(d *door) { d.to, d.timeout = []netip.AddrPort{to}, 10*time.Millisecond })
	c := dial(t, addr)
	say(t, c, connectHead)
	waitFor(t, "connecting client", func() bool { return d.engine.(*loop).connecting() == 1 })
	stop()
	if cut := d.engine.Shutdown(t.Context()); cut != 0 {
		t.Errorf("%d tunnels cut", cut)
	}
	select {
	case served := <-d.served:
		defer served.Close()
		_ = served.SetDeadline(time.Now().Add(limit))
		expect(t, served, connectHead)
	default:
		t.Fatal("not answered when Shutdown had returned")
	}
}

// Shutdown tells the owner of a tunnel that was still connecting.
func TestShutdownWhileConnecting(t *testing.T) {
	to := silent(t)
	d, addr, _ := newDoor(t, func(d *door) { d.to = []netip.AddrPort{to} })
	c := dial(t, addr)
	say(t, c, connectHead)
	waitFor(t, "connecting client", func() bool { return d.engine.(*loop).connecting() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d.engine.Shutdown(ctx)
	if st := d.ends.wait(t); !errors.Is(st.Err, ErrShutdown) || !st.Unopened {
		t.Errorf("stats %+v", st)
	}
	if n := d.engine.(*loop).connecting(); n != 0 {
		t.Errorf("%d clients connecting", n)
	}
}

func TestServedConnectionsHaveTheKeepAliveOfTunnels(t *testing.T) {
	d, addr, _ := newDoor(t)
	c := dial(t, addr)
	say(t, c, "GET / HTTP/1.1\r\n\r\n")
	served := <-d.served
	defer served.Close()
	tcp, _, _ := plainTCP(served)
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { wantKeepAlive(t, int(fd)) })
}

// wantKeepAlive checks that a descriptor has the keepAlive of tunnels.
func wantKeepAlive(t *testing.T, fd int) {
	t.Helper()
	for _, o := range []struct{ level, name, want int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 300},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 60}, {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
	} {
		if got, err := unix.GetsockoptInt(fd, o.level, o.name); got != o.want {
			t.Errorf("option %d is %d, %v; want %d", o.name, got, err, o.want)
		}
	}
}

// Upstreams get theirs when their tunnel is first looked after.
func TestTunnelsHaveTheKeepAlive(t *testing.T) {
	d, addr, _ := newDoor(t)
	c := dial(t, addr)
	say(t, c, connectHead)
	expect(t, c, string(established))
	e := d.engine.(*loop)
	e.tick()
	looked := make(chan int, len(e.workers))
	e.postAll(func(w *worker) {
		n := 0
		w.each(func(_ uint32, s *slot) {
			n++
			for _, fd := range s.fd {
				wantKeepAlive(t, int(fd))
			}
		})
		looked <- n
	})
	if n := <-looked + <-looked; n != 1 {
		t.Errorf("%d tunnels", n)
	}
}

// Where descriptors run out, clients wait or find their connection closed; when
// there are some again, clients are served.
func TestDescriptorsRunOut(t *testing.T) {
	for _, tc := range []struct {
		name   string
		free   uint64 // descriptors
		served bool
	}{
		{"before a client is accepted", 0, true},
		{"before it is handed over", 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, addr, _ := newDoor(t)
			to := netip.MustParseAddrPort(addr)
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			c := os.NewFile(uintptr(fd), "client")
			defer c.Close()
			next, err := unix.Dup(fd) // the lowest that is free
			if err != nil {
				t.Fatal(err)
			}
			unix.Close(next)
			before := descriptors(t)
			var was unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
				t.Fatal(err)
			}
			restore := sync.OnceFunc(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &was) })
			defer restore()
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next) + tc.free, Max: was.Max}); err != nil {
				t.Fatal(err)
			}
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
				t.Fatal(err)
			}
			if tc.served {
				waitFor(t, "rest of the listener", d.engine.(*loop).hurrying.isSet.Load)
				restore()
				say(t, dial(t, addr), "first")
				(<-d.served).Close()
			}
			const text = "GET / HTTP/1.1\r\n\r\n"
			if _, err := c.WriteString(text); err != nil {
				t.Fatal(err)
			}
			if !tc.served {
				if n, _ := c.Read(make([]byte, 1)); n != 0 {
					t.Error("the client is answered")
				}
				restore()
				if after := descriptors(t); after > before { // a collection may close pipes of net's own meanwhile
					t.Errorf("%d descriptors before, %d after", before, after)
				}
				return
			}
			served := <-d.served
			defer served.Close()
			_ = served.SetDeadline(time.Now().Add(limit))
			expect(t, served, text)
		})
	}
}

// Pipes are closed when they are not needed, also after the last tunnel.
func TestPipesAreClosed(t *testing.T) {
	cfg := patient
	cfg.scan = time.Millisecond
	e := newLoop(cfg, 2).(*loop)
	s := newStage(t, e)
	client, upstream, end := s.open("")
	go send(t, upstream, 1, 4<<20)
	receive(t, client, 1, 4<<20)
	client.Close()
	end.wait(t)
	waitFor(t, "closed pipes", func() bool { return !e.pipes.Any() })
}

// Clients that ask for nothing push each other out, the first first, and nobody
// who asks.
func TestWaitingClientsAreBounded(t *testing.T) {
	cfg := patient
	turned := make(chan struct{}, 10)
	cfg.MaxWaiting, cfg.Turned = 2, func() { turned <- struct{}{} }
	d, addr, _ := newDoor(t, func(d *door) { d.stage = newStage(t, newLoop(cfg, 1)) }, (*door).locate)
	var silent [4]*net.TCPConn
	for i := range silent {
		silent[i] = dial(t, addr)
		waitFor(t, "the client", func() bool {
			return d.engine.(*loop).pending.Load() == int64(min(i+1, 2)) && len(turned) == max(i-1, 0)
		})
	}
	expectEOF(t, silent[0])
	expectEOF(t, silent[1])
	for _, c := range silent[2:] {
		say(t, c, connectHead)
		expect(t, c, string(established))
		origin, err := d.ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		origin.Close()
		d.ends.wait(t)
	}
	e := d.engine.(*loop)
	waitFor(t, "nobody to be remembered", func() bool { return e.pending.Load() == 0 })
	e.workers[0].forget() // nothing happens any more, so that nobody else looks
	if w := e.workers[0]; w.reading != 0 || len(w.waiting) != 0 {
		t.Errorf("%d clients are awaited, %d remembered", w.reading, len(w.waiting))
	}
}

// Where descriptors are short a client is served and not routed, and those that
// say nothing have less room.
func TestScarceDescriptors(t *testing.T) {
	cfg := patient
	cfg.MaxWaiting, cfg.MaxScarce, cfg.Descriptors = 100, 1, 1
	d, addr, _ := newDoor(t, func(d *door) { d.stage = newStage(t, newLoop(cfg, 1)) }, (*door).locate)
	first := dial(t, addr)
	waitFor(t, "the client", func() bool { return d.engine.(*loop).pending.Load() == 1 })
	second := dial(t, addr)
	expectEOF(t, first)
	say(t, second, connectHead)
	served := <-d.served
	defer served.Close()
	_ = served.SetDeadline(time.Now().Add(limit))
	expect(t, served, connectHead)
}

func TestManyClientsAtOnce(t *testing.T) {
	d, addr, _ := newDoor(t)
	go func() {
		for {
			c, err := d.ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	const clients, each = 40, 25
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for k := range each {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(limit))
				msg := fmt.Sprintf("client %d, tunnel %d", i, k)
				_, _ = io.WriteString(c, connectHead+msg)
				want := string(established) + msg
				got := make([]byte, len(want))
				if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
					t.Errorf("got %q, %v", got, err)
				}
				c.Close()
				<-d.ends
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if cut := d.engine.Shutdown(ctx); cut != 0 {
		t.Errorf("%d tunnels left", cut)
	}
}

// The engine's own mistakes cost one tunnel too.
func TestWorkerPanicsAreKept(t *testing.T) {
	cfg := patient
	faults := make(chan any, 10)
	cfg.Panicked = func(fault any) { faults <- fault }
	e := newLoop(cfg, 1).(*loop)
	s := newStage(t, e)
	other, otherUpstream, _ := s.open("")
	client, upstream, end := s.open("")
	w := e.workers[0]
	say(t, client, "x")
	expect(t, upstream, "x")
	damaged := make(chan struct{})
	// In the worker: the second tunnel wants a pipe of a budget that there is not.
	w.post(func(w *worker) {
		w.slots.chunks[0][1].dir[up].chunk, w.pipes = minChunk, pipes.Pool{}
		close(damaged)
	})
	<-damaged
	say(t, client, "x")
	if st := end.wait(t); st.Err == nil || !strings.Contains(st.Err.Error(), "panic: ") {
		t.Errorf("the tunnel ended with %+v", st)
	}
	expectEOF(t, upstream)
	<-faults
	say(t, other, "still here")
	expect(t, otherUpstream, "still here")
}
