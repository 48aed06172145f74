package http1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"espalier/policy"
	"espalier/proxy/accesslog"
	"espalier/proxy/conns"
	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/hello"
	"espalier/proxy/limits"
	"espalier/proxy/traffic"
	"espalier/proxy/tunnel"
	"espalier/proxy/waiting"
	"espalier/proxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds every wait in these tests; none takes that long unless something hangs.
const limit = 30 * time.Second

// A rig is a running Server, whose clients and origins are on loopback.
type rig struct {
	*Server
	last    atomic.Pointer[conn] // that was accepted
	t       testing.TB
	l       net.Listener
	log     *accesslog.Log
	path    string // of the access log
	serving sync.WaitGroup
	panics  uint64 // that there must be
	policy  policy.Config
	once    sync.Once
	records []accesslog.Record
}

// patient are the Times of tests that do not wait for one.
var patient = Times{Head: limit, KeepAlive: limit, Reply: limit, Stall: limit, HalfClosed: limit, Watch: time.Millisecond}

func start(t testing.TB, times Times, change ...func(*Config, *policy.Config)) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{t: t, path: filepath.Join(dir, "access.log")}
	var err error
	if r.log, err = accesslog.Open(accesslog.Config{File: r.path, Format: "json"}, dir, "test", zap.NewNop()); err != nil {
		t.Fatal(err)
	}
	m := limits.New(limits.Config{Ops: zap.NewNop()})
	cfg := Config{
		Pipeline: exchange.New(m, r.log, zap.NewNop(), traffic.New()),
		Origins:  egress.NewOrigins(times.Stall),
		Tunnels:  tunnel.New(tunnel.Config{Idle: times.Stall, HalfClosed: times.HalfClosed, AttemptDelay: time.Second}),
		Conns:    conns.New(tunnel.ErrShutdown), Room: waiting.NewRoom(1000, nil), RefuseTLS: hello.Refuse, Times: times, Ops: zap.NewNop(),
	}
	r.policy = policy.Config{Clients: []string{"loopback"}}
	for _, f := range change {
		f(&cfg, &r.policy)
	}
	r.Server = New(cfg)
	r.apply()
	if r.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	r.serving.Go(func() {
		for {
			c, err := r.l.Accept()
			if err != nil {
				return
			}
			k := &conn{Server: r.Server, Conn: wire.New(c, nil), client: netip.MustParseAddr("127.0.0.1")}
			r.last.Store(k)
			r.serving.Go(func() {
				if r.enter(k) {
					r.serve(k)
				}
			})
		}
	})
	t.Cleanup(func() { r.stop() })
	return r
}

// apply makes a new State, as a reload does.
func (r *rig) apply() {
	r.t.Helper()
	p, err := policy.New(r.policy)
	if err != nil {
		r.t.Fatal(err)
	}
	d, err := egress.New(egress.Config{Allow: []string{"loopback"}, ConnectTimeout: limit}, egress.Self{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.cfg.Pipeline.Apply(&exchange.State{Policy: p, Dialer: d})
}

// stop ends the rig and returns the records. Nothing may be left.
func (r *rig) stop() []accesslog.Record {
	r.t.Helper()
	r.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		r.l.Close()
		r.cfg.Conns.Shutdown(ctx)
		r.cfg.Origins.Close()
		r.serving.Wait()
		r.cfg.Tunnels.Shutdown(ctx)
		if err := r.log.Close(); err != nil {
			r.t.Error(err)
		}
		r.read()
		if t, p, c := r.cfg.Pipeline.Limits.Open(); t != 0 || p != 0 || c != 0 {
			r.t.Errorf("%d tunnels, %d requests and %d clients stay counted", t, p, c)
		}
		if n := r.cfg.Room.Len(); n != 0 {
			r.t.Errorf("%d connections stay in the room", n)
		}
		if n := r.cfg.Pipeline.Panics(); n != r.panics {
			r.t.Errorf("%d panics, want %d", n, r.panics)
		}
		if n := r.cfg.Origins.Len(); n != 0 || r.cfg.Conns.Len() != 0 {
			r.t.Errorf("%d connections to origins and %d to clients are left", n, r.cfg.Conns.Len())
		}
	})
	return r.records
}

func (r *rig) read() {
	r.t.Helper()
	f, err := os.Open(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	seen := map[accesslog.ID]bool{}
	if bad, err := accesslog.Read(f, func(rec *accesslog.Record) error {
		if seen[rec.ID] {
			r.t.Errorf("two records %s", rec.ID)
		}
		seen[rec.ID] = true
		r.records = append(r.records, *rec)
		return nil
	}); err != nil || bad > 0 {
		r.t.Fatalf("access log: %d lines are no record, %v", bad, err)
	}
}

// A peer is one end of a connection, spoken to byte by byte.
type peer struct {
	*net.TCPConn
	t  testing.TB
	in *bufio.Reader
}

func newPeer(t testing.TB, c net.Conn) *peer {
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(limit))
	return &peer{TCPConn: c.(*net.TCPConn), t: t, in: bufio.NewReader(c)}
}

func (r *rig) dial() *peer {
	r.t.Helper()
	c, err := net.Dial("tcp", r.l.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	return newPeer(r.t, c)
}

func (p *peer) send(format string, a ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p, format, a...); err != nil {
		p.t.Fatal(err)
	}
}

// answer reads a response to a request of method.
func (p *peer) answer(method string) (status int, body string) {
	p.t.Helper()
	resp, err := http.ReadResponse(p.in, &http.Request{Method: method})
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// head reads up to an empty line.
func (p *peer) head() string {
	p.t.Helper()
	var b strings.Builder
	for {
		line, err := p.in.ReadString('\n')
		if err != nil {
			p.t.Fatalf("%v behind %q", err, b.String())
		}
		b.WriteString(line)
		if line == "\r\n" {
			return b.String()
		}
	}
}

func (p *peer) ended() {
	p.t.Helper()
	if b, err := io.ReadAll(p.in); err != nil || len(b) > 0 {
		p.t.Errorf("%q and %v, want the end", b, err)
	}
}

// An origin is a listener; each connection to it is a peer.
type origin struct {
	net.Listener
	t testing.TB
}

func newOrigin(t testing.TB) *origin {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &origin{l, t}
}

func (o *origin) at() string { return o.Addr().String() }

func (o *origin) accept() *peer {
	o.t.Helper()
	_ = o.Listener.(*net.TCPListener).SetDeadline(time.Now().Add(limit))
	c, err := o.Accept()
	if err != nil {
		o.t.Fatal(err)
	}
	return newPeer(o.t, c)
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// get is a GET of a path, with lines, which end in CRLF.
func (o *origin) get(path, lines string) string {
	return "GET http://" + o.at() + path + " HTTP/1.1\r\nHost: " + o.at() + "\r\n" + lines + "\r\n"
}

// await waits until cond holds.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
