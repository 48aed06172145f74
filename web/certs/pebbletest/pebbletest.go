// Package pebbletest serves Pebble, an authority for tests of ACME, and runs Knot,
// the name server that it asks, on loopback ports.
package pebbletest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
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

	t       testing.TB
	dir     string
	options Options
	server  *httptest.Server
	db      *db.MemoryStore
	ca      *ca.CAImpl
}

// Pebble's own settings, for parallel tests too.
func init() {
	os.Setenv("PEBBLE_VA_NOSLEEP", "1")
	os.Setenv("PEBBLE_WFE_NONCEREJECT", "10")
	os.Setenv("PEBBLE_AUTHZREUSE", "0")
}

// Start starts both, and stops them when the test ends. The test is skipped if Knot
// is not installed.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{t: t, options: o}
	var err error
	if s.dir, err = os.MkdirTemp("", "pebble"); err != nil { // a short name, for Knot's socket
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.dir) })
	s.DNS = s.runKnot()
	s.Run()
	t.Cleanup(s.Stop)
	s.Directory, s.Roots = s.server.URL+"/dir", s.file("roots.pem")
	s.writePEM("roots.pem", s.server.Certificate().Raw)
	return s
}

// Run starts Pebble, again after Stop. It has forgotten everything.
func (s *Server) Run() {
	s.t.Helper()
	logger := log.New(io.Discard, "", 0)
	s.db = db.NewMemoryStore()
	s.ca = ca.New(logger, s.db, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "default", ValidityPeriod: 7776000}})
	authority := va.New(logger, int(s.options.HTTPPort), int(s.options.TLSPort), false, s.DNS, s.db)
	if err := s.db.AddExternalAccountKeyByID(EABKeyID, EABKey); err != nil {
		s.t.Fatal(err)
	}
	front := wfe.New(logger, s.db, authority, s.ca, nil, false, s.options.EAB, 1, 1)
	before := s.server
	s.server = httptest.NewUnstartedServer(front.Handler())
	if before != nil { // at the same address
		s.server.Listener.Close()
		var err error
		if s.server.Listener, err = net.Listen("tcp", before.Listener.Addr().String()); err != nil {
			s.t.Fatal(err)
		}
	}
	s.server.Config.ErrorLog = logger
	s.server.StartTLS()
}

// Stop ends Pebble.
func (s *Server) Stop() { s.server.Close() }

// IssuedBy returns the CA that its certificates are of.
func (s *Server) IssuedBy() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.GetRootCert(0).Cert)
	return pool
}

// IssuerFile is a PEM file of IssuedBy.
func (s *Server) IssuerFile() string {
	s.t.Helper()
	s.writePEM("issuer.pem", s.ca.GetRootCert(0).Cert.Raw)
	return s.file("issuer.pem")
}

// Revoked reports whether a certificate is.
func (s *Server) Revoked(serial *big.Int) bool {
	return s.db.GetRevokedCertificateBySerial(serial) != nil
}

// runKnot starts the name server and returns its address.
func (s *Server) runKnot() string {
	s.t.Helper()
	program, err := exec.LookPath("knotd")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/knotd")
	}
	if err != nil && os.Getenv("CI") != "" {
		s.t.Fatal(err)
	} else if err != nil {
		s.t.Skip("knotd is missing (make deps installs it)")
	}
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
	s.start(exec.Command(program, "-c", s.file("knot.conf")))
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at)
	}}
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		_, err := r.LookupHost(context.Background(), "a."+Zone)
		if err == nil {
			return at
		}
		if time.Now().After(end) {
			s.t.Fatalf("knotd does not answer: %v", err)
		}
	}
}

// start runs a server until the test ends.
func (s *Server) start(cmd *exec.Cmd) {
	s.t.Helper()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if s.t.Failed() {
			s.t.Logf("%s:\n%s", filepath.Base(cmd.Path), log.Bytes())
		}
	})
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) writePEM(name string, der []byte) {
	s.t.Helper()
	s.write(name, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
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
