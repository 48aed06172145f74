// Package pebbletest runs Pebble, an authority for tests of ACME, and Knot, the
// name server that it asks, on loopback ports.
package pebbletest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// limit bounds every wait.
const limit = 30 * time.Second

// The zone that Knot serves, where every name is 127.0.0.1, and the key that may
// update it.
const (
	Zone      = "school.example"
	KeyName   = "espalier."
	KeySecret = "c2VjcmV0IGZvciB1cGRhdGVzIG9mIHRoZSB6b25l"
)

// Options say how the authority behaves.
type Options struct {
	// HTTPPort and TLSPort are where it looks for challenges.
	HTTPPort, TLSPort uint16
	// EAB makes it want accounts that are bound to EABKeyID by EABKey.
	EAB bool
}

// What Options.EAB wants, the latter in base64url.
const (
	EABKeyID = "kid-1"
	EABKey   = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
)

// A Server is a running Pebble.
type Server struct {
	Directory string // URL
	Roots     string // the file of the CA of Directory's own certificate
	DNS       string // address:port of the name server

	t          testing.TB
	dir        string
	program    string
	management string
	client     *http.Client
	stop       func()
}

// Start starts both, and stops them when the test ends. The test is skipped where
// one is not installed.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{t: t, program: find(t, "pebble")}
	knot := find(t, "knotd")
	var err error
	if s.dir, err = os.MkdirTemp("", "pebble"); err != nil { // a name that fits into the files of both
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.dir) })
	s.certificate()
	s.DNS = s.runKnot(knot)
	acme, management := freePort(t), freePort(t)
	s.Directory = "https://" + acme + "/dir"
	s.management = "https://" + management
	config := map[string]any{
		"listenAddress": acme, "managementListenAddress": management,
		"certificate": s.file("cert.pem"), "privateKey": s.file("key.pem"),
		"httpPort": o.HTTPPort, "tlsPort": o.TLSPort,
		"externalAccountBindingRequired": o.EAB,
		"externalAccountMACKeys":         map[string]string{EABKeyID: EABKey},
		"retryAfter":                     map[string]int{"authz": 1, "order": 1},
		"profiles":                       map[string]any{"default": map[string]any{"description": "default", "validityPeriod": 7776000}},
	}
	text, err := json.Marshal(map[string]any{"pebble": config})
	if err != nil {
		t.Fatal(err)
	}
	s.write("pebble.json", string(text))
	s.Run()
	return s
}

// find returns a program's path.
func find(t testing.TB, name string) string {
	t.Helper()
	paths := []string{name, "/usr/sbin/" + name}
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		paths = append(paths, filepath.Join(dir, ".tools", name))
	}
	for _, p := range paths {
		if p, err := exec.LookPath(p); err == nil {
			return p
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing", name)
	}
	t.Skipf("%s is missing (make deps installs it)", name)
	return ""
}

// Run starts Pebble again after Stop. It has forgotten everything.
func (s *Server) Run() {
	s.t.Helper()
	cmd := exec.Command(s.program, "-config", s.file("pebble.json"), "-dnsserver", s.DNS)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=10", "PEBBLE_AUTHZREUSE=0")
	s.stop = s.start(cmd)
	s.t.Cleanup(s.Stop)
	s.await("pebble", func() error {
		resp, err := s.client.Get(s.Directory)
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
}

// Stop ends Pebble.
func (s *Server) Stop() {
	s.stop()
	s.client.CloseIdleConnections()
}

// IssuedBy returns the CA that its certificates are of.
func (s *Server) IssuedBy() *x509.CertPool {
	s.t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.ask("/roots/0")) {
		s.t.Fatal("pebble has no root")
	}
	return pool
}

// IssuerFile is a PEM file of IssuedBy.
func (s *Server) IssuerFile() string {
	s.t.Helper()
	s.write("issuer.pem", string(s.ask("/roots/0")))
	return s.file("issuer.pem")
}

// Revoked reports whether a certificate is.
func (s *Server) Revoked(serial *big.Int) bool {
	s.t.Helper()
	var answer struct{ Status string }
	text := s.ask("/cert-status-by-serial/" + serial.Text(16))
	if err := json.Unmarshal(text, &answer); err != nil {
		s.t.Fatalf("%s: %v", text, err)
	}
	return answer.Status == "Revoked"
}

func (s *Server) ask(path string) []byte {
	s.t.Helper()
	resp, err := s.client.Get(s.management + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		s.t.Fatalf("%s: %s %s %v", path, resp.Status, text, err)
	}
	return text
}

// runKnot starts the name server and returns its address.
func (s *Server) runKnot(program string) string {
	s.t.Helper()
	at := freePort(s.t)
	host, port, _ := net.SplitHostPort(at)
	s.write(Zone+".zone", "$ORIGIN "+Zone+`.
$TTL 1
@ SOA ns hostmaster 1 3600 3600 3600 1
@ NS ns
@ A 127.0.0.1
* A 127.0.0.1
`)
	s.write("knot.conf", fmt.Sprintf(`server:
  listen: %s@%s
  rundir: %s
database:
  storage: %[3]s
key:
  - id: %s
    algorithm: hmac-sha256
    secret: %s
acl:
  - id: update
    key: %[4]s
    action: update
zone:
  - domain: %[6]s
    storage: %[3]s
    file: %[6]s.zone
    zonefile-sync: -1
    acl: update
`, host, port, s.dir, KeyName, KeySecret, Zone))
	s.t.Cleanup(s.start(exec.Command(program, "-c", s.file("knot.conf"))))
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at)
	}}
	s.await("knotd", func() error {
		_, err := r.LookupHost(context.Background(), "a."+Zone)
		return err
	})
	return at
}

// start runs a server, and returns what ends it.
func (s *Server) start(cmd *exec.Cmd) (stop func()) {
	s.t.Helper()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if s.t.Failed() {
			s.t.Logf("%s:\n%s", filepath.Base(cmd.Path), log.Bytes())
		}
	})
}

func (s *Server) await(what string, try func() error) {
	s.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s does not answer: %v", what, err)
		}
	}
}

// certificate takes the certificate of Directory, and the client that trusts it, from
// httptest.
func (s *Server) certificate() {
	s.t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})))
	s.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	s.Roots, s.client = s.file("cert.pem"), server.Client()
	s.client.Timeout = limit
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// freePort is an address that nobody listens on, by TCP and UDP.
func freePort(t testing.TB) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		u, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err == nil {
			u.Close()
			return l.Addr().String()
		}
	}
}
