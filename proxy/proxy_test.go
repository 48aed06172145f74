package proxy

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/crypto/bcrypt"

	"espalier/policy"
	"espalier/policy/auth"
	"espalier/proxy/accesslog"
	"espalier/proxy/egress"
	"espalier/proxy/inspect"
	"espalier/proxy/traffic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds every wait in these tests; none of them takes that long unless
// something hangs.
const limit = time.Minute

// setup is what a test configures; the zero value lets loopback clients reach
// loopback destinations.
type setup struct {
	clients        []string
	hosts          map[string]string
	dns            []string
	guarded        bool     // egress.allow is empty
	allow          []string // egress.allow, in place of loopback
	connectTimeout time.Duration
	relay          string
	rules          []policy.Rule
	lists          map[string]policy.HostList
	inspect        string
	exempt         []string
	unknown        string            // inspect.unknown
	denyPage       bool              // inspect.deny_page
	knownExempt    bool              // inspect.known_exempt
	roots          *x509.CertPool    // of intercepted destinations
	users          map[string]string // name: password
	auth           auth.Config       // beside users
	maxTunnels     int
	perClient      int         // proxy.max_tunnels_per_client
	balancers      []string    // proxy.proxy_protocol
	logFormat      string      // of the access log, in place of json; there are no records then
	shared         bool        // the listening socket
	tls            *tls.Config // clients speak TLS
	extra          []string
	presets        policy.Presets
	contact        string
	parent         string
	prepare        func(*Server) // before it serves
	timeouts       Timeouts
	idle           time.Duration // proxy.idle_timeout, in place of an hour
}

// rig is a running Server.
type rig struct {
	t        testing.TB
	server   *Server
	listener net.Listener
	counters *traffic.Counters
	log      *accesslog.Log
	path     string // of the access log
	ops      *observer.ObservedLogs
	served   chan error
	netHTTP  bool // it is not the tunnel engine that accepts
	squid    bool // the access log is not in JSON

	ca         *inspect.CA // nil until something is to be intercepted
	exceptions *inspect.Exceptions

	once    sync.Once
	records []accesslog.Record
}

// everyWay runs test with each of the two ways on which requests come in: the
// tunnel engine's own accept loop, and net/http alone as on other systems.
func everyWay(t *testing.T, test func(t *testing.T, start func(*testing.T, setup) *rig)) {
	t.Run("engine", func(t *testing.T) {
		test(t, func(t *testing.T, c setup) *rig { return start(t, c, false) })
	})
	t.Run("net-http", func(t *testing.T) {
		test(t, func(t *testing.T, c setup) *rig { return start(t, c, true) })
	})
}

// opaque hides from Serve that a listener is one of TCP.
type opaque struct{ net.Listener }

func start(t testing.TB, c setup, netHTTP bool) *rig {
	t.Helper()
	core, ops := observer.New(zapcore.InfoLevel)
	logger := zap.New(core)
	r := &rig{t: t, counters: traffic.New(), ops: ops, served: make(chan error, 1), netHTTP: netHTTP, squid: c.logFormat != ""}
	dir := t.TempDir()
	r.path = filepath.Join(dir, "access.log")
	var err error
	if r.log, err = accesslog.Open(accesslog.Config{File: r.path, Format: cmp.Or(c.logFormat, "json")}, dir, "test", logger); err != nil {
		t.Fatal(err)
	}
	cfg := Config{IdleTimeout: cmp.Or(c.idle, time.Hour), MaxTunnels: c.maxTunnels, MaxTunnelsPerClient: c.perClient, ProxyProtocol: c.balancers, Timeouts: c.timeouts}
	r.server = New(cfg, r.log, logger, r.counters)
	r.log.KeepJournal(dir, r.server.ReportTunnels, func(*accesslog.Record) {})
	if c.prepare != nil {
		c.prepare(r.server)
	}
	if r.listener, err = Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	r.server.Apply(r.state(c))
	l := r.listener
	if netHTTP {
		l = opaque{l}
	}
	if c.shared {
		l = Shared{l}
	}
	serve := r.server.Serve
	if c.tls != nil {
		serve = func(l net.Listener) error { return r.server.ServeTLS(l, c.tls) }
	}
	go func() { r.served <- serve(l) }()
	t.Cleanup(func() { r.stop() })
	return r
}

// state compiles c.
func (r *rig) state(c setup) *State {
	r.t.Helper()
	st := &State{Contact: c.contact}
	cfg := policy.Config{
		Clients: c.clients, Apple: policy.Apple{Wide: true, Extra: c.extra, PrivateRelay: c.relay},
		Rules: c.rules, Lists: c.lists, Presets: c.presets,
		Inspect: policy.InspectConfig{
			Mode: c.inspect, Exempt: c.exempt, KnownExempt: c.knownExempt, Unknown: c.unknown, DenyPage: c.denyPage,
		},
	}
	if c.inspect != "" {
		r.intercepting(st, c.roots)
		cfg.Exceptions = st.Exceptions
	}
	if c.clients == nil {
		cfg.Clients = []string{"loopback"}
	}
	if st.Auth = openUsers(r.t, c); st.Auth != nil {
		cfg.Auth = st.Auth.Enabled()
	}
	var err error
	if st.Policy, err = policy.New(cfg); err != nil {
		r.t.Fatal(err)
	}
	out := egress.Config{Hosts: c.hosts, DNS: c.dns, Allow: []string{"loopback"}, ConnectTimeout: c.connectTimeout, Parent: c.parent}
	if c.guarded {
		out.Allow = nil
	}
	if c.allow != nil {
		out.Allow = c.allow
	}
	if c.connectTimeout == 0 {
		out.ConnectTimeout = limit
	}
	self := r.listener.Addr().(*net.TCPAddr).AddrPort()
	if st.Dialer, err = egress.New(out, egress.Self{Listeners: []netip.AddrPort{self}}); err != nil {
		r.t.Fatal(err)
	}
	return st
}

// openUsers returns nil where c has nobody.
func openUsers(t testing.TB, c setup) *auth.Auth {
	t.Helper()
	cfg := c.auth
	if c.users == nil && cfg == (auth.Config{}) {
		return nil
	}
	var b strings.Builder
	for name, password := range c.users {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(name + ":" + string(hash) + "\n")
	}
	cfg.HTPasswd = filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(cfg.HTPasswd, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := auth.Open(cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

// stop waits until every request and tunnel has ended, and returns all records.
// What the counters say must be what the records say, and nothing stays counted or in flight.
func (r *rig) stop() []accesslog.Record {
	r.t.Helper()
	r.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if cut := r.server.Shutdown(ctx); cut > 0 {
			r.t.Errorf("%d tunnels did not end", cut)
		}
		if err := <-r.served; err != nil {
			r.t.Errorf("Serve: %v", err)
		}
		if err := r.log.Close(); err != nil {
			r.t.Error(err)
		}
		if r.squid {
			return
		}
		r.records = readRecords(r.t, r.path)
		r.compareCounters()
		if t, p, c := r.server.pipeline.Limits.Open(); t != 0 || p != 0 || c != 0 {
			r.t.Errorf("%d tunnels, %d plain requests and %d clients stay counted", t, p, c)
		}
	})
	return r.records
}

func readRecords(t testing.TB, path string) (list []accesslog.Record) {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	bad, err := accesslog.Read(f, func(rec *accesslog.Record) error {
		list = append(list, *rec)
		return nil
	})
	if err != nil || bad > 0 {
		t.Fatalf("access log: %d lines are no record, %v", bad, err)
	}
	return list
}

func (r *rig) compareCounters() {
	r.t.Helper()
	type sum struct {
		up, down int64
		requests [6]int64
	}
	want := map[string]sum{}
	ids := map[accesslog.ID]bool{}
	for _, rec := range r.records {
		if ids[rec.ID] {
			r.t.Errorf("two records have the id %s", rec.ID)
		}
		ids[rec.ID] = true
		s := want[rec.Service]
		s.up, s.down = s.up+rec.Up, s.down+rec.Down
		for i, a := range traffic.Actions {
			if a == rec.Action {
				s.requests[i]++
			}
		}
		want[rec.Service] = s
	}
	for _, c := range r.counters.Snapshot() {
		got := sum{up: c.Up, down: c.Down}
		for i, a := range traffic.Actions {
			got.requests[i] = c.Requests[a]
		}
		if got != want[c.Service] || c.Tunnels != 0 || c.UpInFlight != 0 || c.DownInFlight != 0 {
			r.t.Errorf("service %s counts %+v, %d open tunnels and %d bytes in flight, the records say %+v", c.Service, got, c.Tunnels, c.UpInFlight+c.DownInFlight, want[c.Service])
		}
	}
}

// record stops the rig and returns the one record that there must be.
func (r *rig) record() accesslog.Record {
	r.t.Helper()
	list := r.stop()
	if len(list) != 1 {
		r.t.Fatalf("%d records, want 1: %+v", len(list), list)
	}
	return list[0]
}

func (r *rig) snapshot(service string) traffic.Snapshot {
	for _, c := range r.counters.Snapshot() {
		if c.Service == service {
			return c
		}
	}
	r.t.Fatalf("no service %s", service)
	return traffic.Snapshot{}
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

// client is a connection to a proxy, spoken to byte by byte.
type client struct {
	*net.TCPConn
	t   testing.TB
	in  *bufio.Reader
	out io.Writer
}

func (r *rig) dial() *client {
	r.t.Helper()
	return dial(r.t, r.listener.Addr().String())
}

func dial(t testing.TB, addr string) *client {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(limit))
	t.Cleanup(func() { c.Close() })
	return asClient(t, c)
}

func asClient(t testing.TB, c net.Conn) *client {
	return &client{c.(*net.TCPConn), t, bufio.NewReader(c), c}
}

// within is the client that speaks inside TLS.
func (c *client) within(conn *tls.Conn) *client {
	return &client{c.TCPConn, c.t, bufio.NewReader(conn), conn}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.out, text); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// expect reads exactly text.
func (c *client) expect(text string) {
	c.t.Helper()
	got := make([]byte, len(text))
	n, err := io.ReadFull(c.in, got)
	if string(got[:n]) != text {
		c.t.Fatalf("received %.300q (%v), want %.300q", got[:n], err, text)
	}
}

// expectEnd reads an orderly end, with nothing before it.
func (c *client) expectEnd() {
	c.t.Helper()
	rest, err := io.ReadAll(c.in)
	if len(rest) > 0 || err != nil {
		c.t.Fatalf("received %.300q (%v), want the end", rest, err)
	}
}

// finish ends the sending direction.
func (c *client) finish() {
	c.t.Helper()
	if err := c.CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
}

// reply is an answer with its whole body; err is what reading the body failed
// with.
type reply struct {
	*http.Response
	body string
	err  error
}

// answer reads an answer to a request of method.
func (c *client) answer(method string) reply {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	return reply{resp, string(body), err}
}

// raw reads until the end and returns all.
func (c *client) raw() string {
	c.t.Helper()
	b, err := io.ReadAll(c.in)
	if err != nil {
		c.t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

// newOrigin is a destination that handles each connection by handle. It returns
// its address. At the end of the test no connection may be left.
func newOrigin(t *testing.T, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	return newOriginAt(t, "127.0.0.1:0", handle)
}

func newOriginAt(t *testing.T, addr string, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	serveOrigin(t, l, handle)
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func serveOrigin(t *testing.T, l net.Listener, handle func(net.Conn)) {
	var handlers sync.WaitGroup
	handlers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handlers.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(limit))
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		handlers.Wait()
	})
}

// openTunnels is how many are counted.
func (s *Server) openTunnels() int64 {
	n, _, _ := s.pipeline.Limits.Open()
	return n
}

const established = "HTTP/1.1 200 Connection established\r\n\r\n"

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// answering is an origin that reads requests without a body, keeps them, and
// sends the same bytes for each.
type answering struct {
	netip.AddrPort
	mu    sync.Mutex
	heads []string
	conns int
}

func newAnswering(t *testing.T, answer string) *answering {
	t.Helper()
	return plainLane.newAnswering(t, answer)
}

func (o *answering) serve(answer string) func(net.Conn) {
	return func(c net.Conn) {
		o.mu.Lock()
		o.conns++
		o.mu.Unlock()
		in := bufio.NewReader(c)
		for {
			head, err := readHead(in)
			if err != nil {
				return
			}
			o.mu.Lock()
			o.heads = append(o.heads, head)
			o.mu.Unlock()
			if _, err := io.WriteString(c, answer); err != nil || strings.Contains(answer, "Connection: close") {
				return
			}
		}
	}
}

func (o *answering) seen() (heads []string, conns int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.heads...), o.conns
}

// readHead reads up to and with the empty line. It leaves out what the proxy says in Via,
// which TestVia is about.
func readHead(in *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := in.ReadString('\n')
		if strings.HasPrefix(line, "Via: 1.1 espalier-") {
			continue
		}
		b.WriteString(line)
		if err != nil || line == "\r\n" {
			return b.String(), err
		}
	}
}
