//go:build linux

package scenario

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"

	"espalier/policy"
	"espalier/policy/auth"
	"espalier/policy/catalog"
	"espalier/proxy"
	"espalier/proxy/accesslog"
	"espalier/proxy/egress"
	"espalier/proxy/inspect"
	"espalier/proxy/traffic"
)

// An entry is a way by which requests reach the proxy.
type entry struct {
	name   string
	groups []string // beside its name, for conditions
	drip   bool     // heads arrive in pieces
	header bool     // the PROXY protocol's header comes first
	tls    bool     // the proxy is spoken to inside TLS
	inside bool     // requests come inside intercepted TLS
	http2  bool
	parent bool // the origin is a parent proxy
}

var entries = []entry{
	{name: "loop", groups: []string{"h1", "plain"}},
	{name: "drip", groups: []string{"h1", "plain"}, drip: true},
	{name: "proxyprotocol", groups: []string{"h1", "plain"}, header: true},
	{name: "tls", groups: []string{"h1"}, tls: true},
	{name: "parent", groups: []string{"h1", "plain"}, parent: true},
	{name: "intercepted", groups: []string{"h1", "inside"}, inside: true},
	{name: "h2", groups: []string{"http2"}, tls: true, http2: true},
	{name: "intercepted-h2", groups: []string{"http2", "inside"}, inside: true, http2: true},
}

// entryConditions are all names that a condition may use.
func entryConditions() map[string]bool {
	all := map[string]bool{}
	for _, e := range entries {
		all[e.name] = true
		for _, g := range e.groups {
			all[g] = true
		}
	}
	return all
}

func (e entry) is(name string) bool {
	for _, g := range e.groups {
		if g == name {
			return true
		}
	}
	return e.name == name
}

// runs reports whether s is run on e.
func (e entry) runs(s *scenario) bool {
	if s.tunnel && e.inside {
		return false
	}
	return applies(e, fieldsOf(s.only))
}

// host is the origin's name; the certificate of net/http/httptest has it.
const host = "example.com"

// secrets are made once: keys take a while.
var secrets = sync.OnceValues(func() (s struct {
	server tls.Certificate // of origins and of the proxy itself
	roots  *x509.CertPool  // who signed it
	ca     *inspect.CA
}, err error) {
	site := httptest.NewUnstartedServer(nil)
	site.StartTLS()
	defer site.Close()
	s.server, s.roots = site.TLS.Certificates[0], x509.NewCertPool()
	s.roots.AddCert(site.Certificate())
	dir, err := os.MkdirTemp("", "scenario")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	s.ca, _, err = inspect.Init(filepath.Join(dir, "ca"), inspect.InitOptions{Exclude: catalog.Embedded()})
	return s, err
})

// A rig is a running proxy.
type rig struct {
	server   *proxy.Server
	listener net.Listener
	counters *traffic.Counters
	log      *accesslog.Log
	path     string
	served   chan error
	dead     *deadAddress // nil: none
	closing  net.Listener // a parent that closes what it accepts; nil: none
	auth     *auth.Auth
}

// openUsers returns the sign-in of a file with one user.
func openUsers(dir string) (*auth.Auth, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte("password"), bcrypt.MinCost)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(path, []byte("user:"+string(hash)+"\n"), 0o600); err != nil {
		return nil, err
	}
	return auth.Open(auth.Config{HTPasswd: path}, nil, nil)
}

func closeAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

// A deadAddress drops attempts to connect, as a host that is down does: the queue
// of connections that wait to be accepted is full.
type deadAddress struct{ fds []int }

func newDeadAddress(at *net.TCPAddr) (*deadAddress, error) {
	d := &deadAddress{}
	addr := &unix.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	d.fds = append(d.fds, fd)
	if err := errors.Join(unix.Bind(fd, addr), unix.Listen(fd, 0)); err != nil {
		d.close()
		return nil, err
	}
	for range 3 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			d.close()
			return nil, err
		}
		d.fds = append(d.fds, fd)
		_ = unix.Connect(fd, addr) // what does not get in waits for ever
	}
	return d, nil
}

func (d *deadAddress) close() {
	for _, fd := range d.fds {
		unix.Close(fd)
	}
}

// startRig starts a proxy for s on the entry e. parent is the address of the
// origin that e makes a parent, dir a directory of its own.
func startRig(dir string, s *scenario, e entry, scale float64, parent string) (r *rig, err error) {
	shared, err := secrets()
	if err != nil {
		return nil, err
	}
	nop := zap.NewNop()
	r = &rig{counters: traffic.New(), path: filepath.Join(dir, "access.log"), served: make(chan error, 1)}
	if r.log, err = accesslog.Open(accesslog.Config{File: r.path, Format: "json"}, dir, "test", nop); err != nil {
		return nil, err
	}
	bound := func(name string) time.Duration { return time.Duration(float64(s.bounds[name]) * scale) }
	cfg := proxy.Config{IdleTimeout: time.Hour, Timeouts: proxy.Timeouts{
		Head: bound("head"), KeepAlive: bound("keep-alive"), Reply: bound("reply"),
		Stall: bound("stall"), HalfClosed: bound("half-closed"), Watch: bound("watch"),
	}}
	if d := bound("idle"); d != 0 {
		cfg.IdleTimeout = d
	}
	out := egress.Config{
		Hosts: map[string]string{host: "127.0.0.1", "*." + host: "127.0.0.1"}, Allow: []string{"loopback"}, ConnectTimeout: time.Minute,
	}
	if d := bound("connect"); d != 0 {
		out.ConnectTimeout = d
	}
	if e.parent {
		out.Hosts = nil
	}
	rules := policy.Config{Clients: []string{"loopback"}, Apple: policy.Apple{Wide: true}}
	if e.header {
		cfg.ProxyProtocol = []string{"loopback"}
	}
	if e.parent {
		out.Parent = "http://" + parent
	}
	st := &proxy.State{}
	for key, value := range s.setup {
		switch key {
		case "max-tunnels":
			cfg.MaxTunnels, err = strconv.Atoi(value)
		case "max-tunnels-per-client":
			cfg.MaxTunnelsPerClient, err = strconv.Atoi(value)
		case "deny":
			rules.Rules = append(rules.Rules, policy.Rule{Name: "denied", When: policy.When{Hosts: []string{value}}, Then: "deny"})
		case "refuse": // the origin does not listen
		case "dead-first", "dead-only":
			dead, err := net.ResolveTCPAddr("tcp", strings.Replace(parent, "127.0.0.1", "127.0.0.2", 1))
			if err == nil {
				r.dead, err = newDeadAddress(dead)
			}
			if err != nil {
				return nil, err
			}
			if out.Hosts[host] = "127.0.0.2"; key == "dead-first" {
				out.Hosts[host] += ",127.0.0.1"
			}
		case "closing-parent":
			if r.closing, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
				go closeAll(r.closing)
				out.Parent = "http://" + r.closing.Addr().String() + "," + out.Parent
			}
		case "users":
			if r.auth, err = openUsers(dir); err == nil {
				st.Auth = r.auth
				rules.Auth = st.Auth.Enabled()
			}
		case "apple":
			rules.Apple.Extra = []string{value}
		default:
			err = fmt.Errorf("setup: unknown key %q (allowed: apple, closing-parent, dead-first, dead-only, deny, max-tunnels, max-tunnels-per-client, refuse, users)", key)
		}
		if err != nil {
			return nil, err
		}
	}
	if e.inside {
		rules.Inspect.Mode = policy.InspectAll
		if st.Leaves, err = inspect.NewLeaves(shared.ca, func(string, netip.Addr) bool { return false }); err != nil {
			return nil, err
		}
		if st.Exceptions, err = inspect.OpenExceptions(dir); err != nil {
			return nil, err
		}
		st.Roots, rules.Exceptions = shared.roots, st.Exceptions
	}
	if st.Policy, err = policy.New(rules); err != nil {
		return nil, err
	}
	if r.listener, err = proxy.Listen("127.0.0.1:0"); err != nil {
		return nil, err
	}
	self := r.listener.Addr().(*net.TCPAddr).AddrPort()
	if st.Dialer, err = egress.New(out, egress.Self{Listeners: []netip.AddrPort{self}}); err != nil {
		return nil, err
	}
	r.server = proxy.New(cfg, r.log, nop, r.counters)
	r.log.KeepJournal(dir, r.server.ReportTunnels, func(*accesslog.Record) {})
	r.server.Apply(st)
	serve := r.server.Serve
	if e.tls {
		serve = func(l net.Listener) error {
			return r.server.ServeTLS(l, &tls.Config{Certificates: []tls.Certificate{shared.server}, NextProtos: []string{"h2", "http/1.1"}})
		}
	}
	go func() { r.served <- serve(r.listener) }()
	return r, nil
}

// dial opens a connection to the proxy by the entry e, ready for requests to
// authority.
func (r *rig) dial(ctx context.Context, e entry, authority string) (tcp *net.TCPConn, conn net.Conn, err error) {
	shared, err := secrets()
	if err != nil {
		return nil, nil, err
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", r.listener.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	tcp = c.(*net.TCPConn)
	if at, ok := ctx.Deadline(); ok {
		_ = tcp.SetDeadline(at)
		defer tcp.SetDeadline(time.Time{})
	}
	if e.header {
		if _, err := io.WriteString(tcp, "PROXY TCP4 127.0.0.1 127.0.0.1 40000 3128\r\n"); err != nil {
			return tcp, tcp, err
		}
	}
	cfg := &tls.Config{ServerName: host, RootCAs: shared.roots, NextProtos: []string{"http/1.1"}}
	if e.http2 {
		cfg.NextProtos = []string{"h2"}
	}
	if e.inside {
		pool := x509.NewCertPool()
		pool.AddCert(shared.ca.Root())
		cfg.RootCAs = pool
		if _, err := fmt.Fprintf(tcp, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", authority); err != nil {
			return tcp, tcp, err
		}
		h, err := readHead(bufio.NewReaderSize(tcp, 16)) // nothing follows before the hello
		if err != nil || statusOf(h) != 200 {
			return tcp, tcp, fmt.Errorf("CONNECT %s: answer %q, %w", authority, h, cmpErr(err))
		}
	}
	if !e.inside && !e.tls {
		return tcp, tcp, nil
	}
	secure := tls.Client(tcp, cfg)
	return tcp, secure, secure.HandshakeContext(ctx)
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("want 200")
	}
	return err
}

// readHead reads up to and with the empty line.
func readHead(in *bufio.Reader) (string, error) {
	var h string
	for {
		line, err := in.ReadString('\n')
		h += line
		if err != nil || line == "\r\n" {
			return h, err
		}
	}
}

// stop ends the proxy, and returns the records. What the counters say must be
// what the records say.
func (r *rig) stop(limit time.Duration) (records []accesslog.Record, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var errs []error
	if cut := r.server.Shutdown(ctx); cut > 0 {
		errs = append(errs, fmt.Errorf("%d tunnels did not end", cut))
	}
	if ctx.Err() != nil {
		errs = append(errs, fmt.Errorf("requests did not end in %s", limit))
	}
	errs = append(errs, <-r.served, r.log.Close())
	if r.dead != nil {
		r.dead.close()
	}
	if r.closing != nil {
		r.closing.Close()
	}
	if r.auth != nil {
		r.auth.Close()
	}
	f, err := os.Open(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(errs...)
	}
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	defer f.Close()
	bad, err := accesslog.Read(f, func(rec *accesslog.Record) error {
		records = append(records, *rec)
		return nil
	})
	if bad > 0 {
		errs = append(errs, fmt.Errorf("access log: %d invalid lines", bad))
	}
	errs = append(errs, err)
	var up, down int64
	ids := map[accesslog.ID]bool{}
	for _, rec := range records {
		if up, down = up+rec.Up, down+rec.Down; ids[rec.ID] {
			errs = append(errs, fmt.Errorf("two records have the id %s", rec.ID))
		}
		ids[rec.ID] = true
	}
	requests := 0
	for _, c := range r.counters.Snapshot() {
		up, down = up-c.Up, down-c.Down
		for _, n := range c.Requests {
			requests += int(n)
		}
		if c.Tunnels != 0 || c.UpInFlight+c.DownInFlight != 0 {
			errs = append(errs, fmt.Errorf("%d open tunnels and %d bytes in flight stay counted", c.Tunnels, c.UpInFlight+c.DownInFlight))
		}
	}
	if up != 0 || down != 0 || requests != len(records) {
		errs = append(errs, fmt.Errorf("counters and %d records differ: by %d bytes up, %d down, %d requests", len(records), up, down, requests-len(records)))
	}
	return records, errors.Join(errs...)
}
