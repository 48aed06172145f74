package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"espalier/policy"
	"espalier/proxy/accesslog"
)

// Services of the soak's traffic. What the last one carries is cut by clients
// while bytes are on their way, so that only bounds are known for it.
const (
	soakTunnels = "apple-other"
	soakPlain   = "other"
	soakCut     = "push"
)

// account is what was carried for a service.
type account struct {
	up, down int64
	requests map[policy.Action]int64
}

// ledger is the clients' own account of all that they did.
type ledger struct {
	mu       sync.Mutex
	services map[string]*account
	failed   error // the first
}

func newLedger() *ledger { return &ledger{services: map[string]*account{}} }

func (l *ledger) of(service string) *account {
	a := l.services[service]
	if a == nil {
		a = &account{requests: map[policy.Action]int64{}}
		l.services[service] = a
	}
	return a
}

// add notes a finished request; with bytes of an open tunnel, action is empty.
func (l *ledger) add(service string, action policy.Action, up, down int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.of(service)
	a.up, a.down = a.up+up, a.down+down
	if action != "" {
		a.requests[action]++
	}
}

func (l *ledger) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = err
	}
}

// soaker is what the clients of a soak share.
type soaker struct {
	*ledger
	p        *process
	stop     chan struct{}
	tunnels  int // port of the origin of tunnels
	plain    int // port of the origin of plain requests
	hiccup   atomic.Bool
	distinct atomic.Int64 // names that were looked up
}

// resting rests up to d, so that clients do not march in step; false at the end.
func (s *soaker) resting(d time.Duration) bool {
	select {
	case <-s.stop:
		return false
	case <-time.After(d/2 + rand.N(d/2)):
		return true
	}
}

func (s *soaker) dial() (net.Conn, error) {
	c, err := net.Dial("tcp", s.p.proxy)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

// tunnel opens one.
func (s *soaker) tunnel(i int) (net.Conn, error) {
	return openTunnel(s.p.proxy, fmt.Sprintf("%d.soak.apple.com:%d", i, s.tunnels))
}

// exchange sends text through a tunnel to an echo and notes it.
func (s *soaker) exchange(c net.Conn, text string) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if err := pingPong(c, text); err != nil {
		return err
	}
	s.add(soakTunnels, "", int64(len(text)), int64(len(text)))
	return nil
}

// ended notes the end of a tunnel.
func (s *soaker) ended() { s.add(soakTunnels, policy.Tunnel, 0, 0) }

// idle keeps a tunnel that carries next to nothing.
func (s *soaker) idle(i int) error {
	c, err := s.tunnel(i)
	if err != nil {
		return err
	}
	defer c.Close()
	for more := true; more; more = s.resting(20 * time.Second) {
		if err := s.exchange(c, "still here"); err != nil {
			return err
		}
	}
	defer s.ended()
	return errors.Join(c.(*net.TCPConn).CloseWrite(), atEnd(c))
}

const resetCommand = "reset!"

// busy opens tunnels that carry something and end in order, by a reset of the
// origin, or by one of the client.
func (s *soaker) busy(i int) error {
	text := strings.Repeat(fmt.Sprintf("%d;", i), 10+97*i)
	for n := i; ; n++ {
		c, err := s.tunnel(i)
		if err != nil {
			return err
		}
		for range 5 {
			if err := s.exchange(c, text); err != nil {
				return err
			}
			if !s.resting(300 * time.Millisecond) {
				break
			}
		}
		switch n % 3 {
		case 0:
			err = errors.Join(c.(*net.TCPConn).CloseWrite(), atEnd(c))
		case 1:
			if _, err = io.WriteString(c, resetCommand); err == nil {
				s.add(soakTunnels, "", int64(len(resetCommand)), 0)
				if _, rerr := c.Read(make([]byte, 1)); !errors.Is(rerr, syscall.ECONNRESET) {
					err = fmt.Errorf("after the origin's reset: %w", rerr)
				}
			}
		case 2:
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		c.Close()
		s.ended()
		if err != nil || !s.resting(time.Millisecond) {
			return err
		}
	}
}

// echoOrReset echoes, and resets when it is told to.
func echoOrReset(c net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if strings.HasSuffix(string(buf[:n]), resetCommand) {
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

const soakPage = 4000

// soakOrigin answers requests as their path says.
func soakOrigin(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		switch r.URL.Path {
		case "/cut":
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", soakPage)
			_, _ = io.CopyN(c, pattern{}, soakPage/4)
			return
		case "/reset":
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		case "/socket":
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			_, _ = io.Copy(c, in)
			return
		case "/endless":
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			_, _ = io.Copy(c, pattern{})
			return
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", soakPage); err != nil {
			return
		}
		if _, err := io.CopyN(c, pattern{}, soakPage); err != nil {
			return
		}
	}
}

// plainKinds are the requests that clients make in turn: to a path, with a body,
// and what becomes of them.
var plainKinds = []struct {
	method, path string
	upload       int
	slow         bool // the request comes in pieces
	action       policy.Action
	status       int
	down         int64
}{
	{method: "GET", path: "/", action: policy.Forward, status: 200, down: soakPage},
	{method: "POST", path: "/", action: policy.Forward, status: 200, down: soakPage},
	{method: "POST", path: "/", upload: 500_000, action: policy.Forward, status: 200, down: soakPage},
	{method: "GET", path: "/", slow: true, action: policy.Forward, status: 200, down: soakPage},
	{method: "GET", path: "/cut", action: policy.Error, status: 200, down: soakPage / 4},
	{method: "POST", path: "/cut", action: policy.Error, status: 200, down: soakPage / 4},
	{method: "GET", path: "/reset", action: policy.Error, status: 502},
	{method: "POST", path: "/reset", upload: 1000, action: policy.Error, status: 502},
}

// plainRequests makes requests of plainKinds, on connections that stay where they can.
func (s *soaker) plainRequests(i int) error {
	var c net.Conn
	var in *bufio.Reader
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for n := i; s.resting(400 * time.Millisecond); n++ {
		k := plainKinds[n%len(plainKinds)]
		if c == nil {
			var err error
			if c, err = s.dial(); err != nil {
				return err
			}
			in = bufio.NewReader(c)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		head := fmt.Sprintf("%s http://127.0.0.1:%d%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", k.method, s.plain, k.path, k.upload)
		if k.slow {
			if _, err := io.WriteString(c, head[:len(head)/2]); err != nil {
				return err
			}
			s.resting(time.Second)
			head = head[len(head)/2:]
		}
		if _, err := io.WriteString(c, head+strings.Repeat("u", k.upload)); err != nil {
			return err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return fmt.Errorf("%s %s: %w", k.method, k.path, err)
		}
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != k.status || k.status == 200 && int64(len(body)) != k.down || (err != nil) != (k.path == "/cut") {
			return fmt.Errorf("%s %s: %s, %d bytes, %w", k.method, k.path, resp.Status, len(body), err)
		}
		s.add(soakPlain, k.action, int64(k.upload), k.down)
		if err != nil || resp.Close {
			c.Close()
			c = nil
		}
	}
	return nil
}

// refusals asks for what is denied, for what is no name, and for names whose
// server has hiccups.
func (s *soaker) refusals(i int) error {
	for n := i; s.resting(500 * time.Millisecond); n++ {
		target, status, action := "no.denied.example:443", 403, policy.Deny
		switch n % 4 {
		case 1:
			target = "10.0.0.1:443"
		case 2:
			target = "[no.name]:443"
		case 3:
			target, status, action = fmt.Sprintf("%d.hiccup.example:%d", s.distinct.Add(1), s.tunnels), 200, policy.Tunnel
		}
		c, err := s.dial()
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
		if err != nil {
			return err
		}
		switch got := resp.StatusCode; {
		case action == policy.Tunnel && got == 502:
			action = policy.Error
		case got != status:
			return fmt.Errorf("CONNECT %s: %s", target, resp.Status)
		}
		c.Close()
		s.add(soakPlain, action, 0, 0)
	}
	return nil
}

// answer is a name server's, which fails now and then.
func (s *soaker) answer(q *dns.Msg, _ bool) *dns.Msg {
	if s.hiccup.Load() {
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	return addresses(q, "127.0.0.1")
}

// webSocket exchanges frames.
func (s *soaker) webSocket(int) error {
	for {
		c, err := s.dial()
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "GET http://127.0.0.1:%d/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", s.plain)
		var head []byte
		for b := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, b...) {
			if _, err := c.Read(b); err != nil {
				return fmt.Errorf("WebSocket: %w", err)
			}
		}
		if !strings.HasPrefix(string(head), "HTTP/1.1 101 ") {
			return fmt.Errorf("WebSocket: %q", head)
		}
		var n int64
		for range 5 {
			_ = c.SetDeadline(time.Now().Add(patience))
			if err := pingPong(c, "frame"); err != nil {
				return err
			}
			n += int64(len("frame"))
			if !s.resting(300 * time.Millisecond) {
				break
			}
		}
		c.Close()
		s.add(soakPlain, policy.Forward, n, n)
		if !s.resting(time.Millisecond) {
			return nil
		}
	}
}

// abort resets downloads in full flow, in tunnels and plain, sometimes after it
// has read slowly.
func (s *soaker) abort(i int) error {
	target := fmt.Sprintf("%s:%d", pushHost, pushPort)
	for n := i; s.resting(500 * time.Millisecond); n++ {
		var c net.Conn
		var err error
		action, request := policy.Tunnel, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n"
		if n%2 == 0 {
			c, err = openTunnel(s.p.proxy, target)
		} else {
			action, request = policy.Forward, "GET http://"+target+"/endless HTTP/1.1\r\nHost: x\r\n\r\n"
			c, err = s.dial()
		}
		if err != nil {
			return err
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, request)
		var down int64
		for range 4 {
			m, err := io.CopyN(io.Discard, c, 100_000)
			if err != nil {
				return err
			}
			down += m
			if n%3 == 0 {
				s.resting(200 * time.Millisecond)
			}
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
		s.add(soakCut, action, 0, down)
	}
	return nil
}

// reloads reads good and bad configurations in turn, and lets names fail.
func (s *soaker) reloads(good, bad string) {
	for i := 0; s.resting(700 * time.Millisecond); i++ {
		s.hiccup.Store(i%4 == 3)
		text := good
		if i%2 == 1 {
			text = bad
		}
		next := s.p.config + ".next"
		if err := errors.Join(os.WriteFile(next, []byte(s.p.whole(text)), 0o600), os.Rename(next, s.p.config)); err != nil {
			s.fail(err)
			return
		}
	}
}

// sample is what the process holds.
type sample struct{ rss, heap, fds float64 }

// Hours of a school day in minutes: every kind of traffic at once, with faults
// all the while. At the end the clients' own ledger, the records and the counters
// agree, and nothing has grown.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	s := &soaker{ledger: newLedger(), stop: make(chan struct{})}
	s.tunnels = listen(t, "127.0.0.1:0", echoOrReset).Port
	s.plain = listen(t, "127.0.0.1:0", soakOrigin).Port
	pushAt := ownLoopback(t, pushPort)
	listen(t, net.JoinHostPort(pushAt, fmt.Sprint(pushPort)), soakOrigin)
	good := fmt.Sprintf(`log: {access: {rotate: 0}}
egress:
  allow: [loopback]
  hosts: {"*.soak.apple.com": 127.0.0.1, "*.push.apple.com": %s}
  dns: ["%s"]
rules:
  - {name: "no", when: {hosts: ["*.denied.example"]}, then: deny}
`, pushAt, nameServer(t, s.answer))
	s.p = launch(t, good)
	before := s.sample()
	const goroutines = "go_goroutines"
	goroutinesBefore := s.p.metric(goroutines)

	var clients sync.WaitGroup
	const idle = 1000
	for _, kind := range []struct {
		count int
		run   func(int) error
	}{{idle, s.idle}, {60, s.busy}, {100, s.plainRequests}, {20, s.refusals}, {20, s.webSocket}, {20, s.abort}} {
		for i := range kind.count {
			clients.Go(func() {
				if err := kind.run(i); err != nil {
					s.fail(err)
				}
			})
		}
	}
	s.p.await("all idle tunnels", func() bool {
		return s.p.metric(`espalier_tunnels{service="`+soakTunnels+`"}`) >= idle
	})
	clients.Go(func() { s.reloads(good, "proxy: {idle_timeout: never}\n") })
	length := soak(t)
	samples := s.watch(length)
	close(s.stop)
	clients.Wait()
	if s.failed != nil {
		t.Fatal(s.failed)
	}
	s.p.write(good)
	s.p.signal(syscall.SIGHUP) // also closes connections that are kept
	var stays string
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(stays)
		}
	})
	s.p.await("what was open to be closed", func() bool {
		n, fds := s.p.metric(goroutines), s.sample().fds
		stays = fmt.Sprintf("%v goroutines and %v descriptors, before %v and %v", n, fds, goroutinesBefore, before.fds)
		return n <= goroutinesBefore+10 && fds <= before.fds+10
	})
	s.balance(t)
	flat(t, samples)
	if n := s.p.metric("espalier_panics_total") + s.p.metric(recordsLost); n != 0 {
		t.Errorf("%v panics and lost records", n)
	}
	s.p.signal(syscall.SIGTERM)
	s.p.exits(0)
	for service, a := range s.services {
		t.Logf("%s: %d bytes up, %d down, requests %v", service, a.up, a.down, a.requests)
	}
	last := samples[len(samples)-1]
	t.Logf("%s: RSS %.1f MB, heap %.1f MB, %v descriptors under load; before %.1f MB, %.1f MB, %v",
		length, last.rss/1e6, last.heap/1e6, last.fds, before.rss/1e6, before.heap/1e6, before.fds)
}

func (s *soaker) sample() sample {
	return sample{s.p.metric("process_resident_memory_bytes"), s.p.metric("go_memstats_heap_alloc_bytes"), s.p.metric("process_open_fds")}
}

// watch takes samples for so long.
func (s *soaker) watch(length time.Duration) []sample {
	ctx, cancel := context.WithTimeout(s.p.t.Context(), length)
	defer cancel()
	var list []sample
	tick := time.NewTicker(max(length/200, 100*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			list = append(list, s.sample())
		case <-ctx.Done():
			return append(list, s.sample())
		}
	}
}

// flat compares the last third of a long soak with the third before it: the most
// memory, and the least heap, which is what it holds after a collection.
func flat(t *testing.T, list []sample) {
	t.Helper()
	if len(list) < 100 {
		return // too short to say
	}
	third := len(list) / 3
	middle, end := list[third:2*third], list[2*third:]
	rss := func(s sample) float64 { return s.rss }
	heap := func(s sample) float64 { return s.heap }
	for _, c := range []struct {
		name   string
		of     func(sample) float64
		pick   func(func(sample) float64, []sample) float64
		margin float64
	}{{"RSS", rss, most, 0.15}, {"heap after a collection", heap, least, 0.25}} {
		before, after := c.pick(c.of, middle), c.pick(c.of, end)
		t.Logf("%s: %.1f MB in the second third, %.1f MB in the last", c.name, before/1e6, after/1e6)
		if after > before*(1+c.margin)+4e6 {
			t.Errorf("%s has grown from %.1f to %.1f MB", c.name, before/1e6, after/1e6)
		}
	}
}

func most(of func(sample) float64, list []sample) float64 {
	return of(slices.MaxFunc(list, func(a, b sample) int { return int(of(a) - of(b)) }))
}

func least(of func(sample) float64, list []sample) float64 {
	return of(slices.MinFunc(list, func(a, b sample) int { return int(of(a) - of(b)) }))
}

// balance compares the clients' ledger with the records and the counters.
func (s *soaker) balance(t *testing.T) {
	t.Helper()
	var want int64
	for _, a := range s.services {
		for _, n := range a.requests {
			want += n
		}
	}
	s.p.await("the last records", func() bool { return s.p.metric(recordsAll) >= float64(want) })
	recorded := newLedger()
	var bad int
	s.p.await("the last flush", func() bool { // half a second after the last request
		recorded = newLedger()
		f, err := os.Open(filepath.Join(s.p.data, "access.log"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var n int64
		bad, err = accesslog.Read(f, func(r *accesslog.Record) error {
			recorded.add(r.Service, r.Action, r.Up, r.Down)
			n++
			return nil
		})
		return err != nil || n >= want
	})
	if bad != 0 {
		t.Errorf("%d lines are no record", bad)
	}
	for service, client := range s.services {
		record := recorded.of(service)
		exact := service != soakCut
		if !maps.Equal(client.requests, record.requests) {
			t.Errorf("%s: the clients made %v, recorded are %v", service, client.requests, record.requests)
		}
		if exact && (client.up != record.up || client.down != record.down) || client.down > record.down {
			t.Errorf("%s: the clients counted %d bytes up and %d down, recorded are %d and %d", service, client.up, client.down, record.up, record.down)
		}
		for series, want := range map[string]int64{
			fmt.Sprintf("espalier_bytes_total{direction=%q,service=%q}", "up", service):   record.up,
			fmt.Sprintf("espalier_bytes_total{direction=%q,service=%q}", "down", service): record.down,
		} {
			if got := s.p.metric(series); got != float64(want) {
				t.Errorf("%s is %v, recorded are %d", series, got, want)
			}
		}
		for action, want := range record.requests {
			series := fmt.Sprintf("espalier_requests_total{action=%q,service=%q}", action, service)
			if got := s.p.metric(series); got != float64(want) {
				t.Errorf("%s is %v, recorded are %d", series, got, want)
			}
		}
	}
	if len(recorded.services) != len(s.services) {
		t.Errorf("records of %d services, the clients used %d", len(recorded.services), len(s.services))
	}
}
