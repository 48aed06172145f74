package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"espalier/policy"
)

// pushHost is one of the catalogue's, at a port that any user may listen on.
const (
	pushHost = "1-courier.push.apple.com"
	pushPort = 5223
)

// certified is a certificate for hosts, and the file of a root of its own that
// signed it.
func certified(t *testing.T, hosts ...string) (cert tls.Certificate, root string) {
	t.Helper()
	sign := func(template, parent *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if by == nil {
			by = key
		}
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		return der, key
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root of " + hosts[0]},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, rootKey := sign(authority, authority, nil)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: hosts[0]},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, h)
		}
	}
	der, key := sign(leaf, authority, rootKey)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pemFile(t, rootDER)
}

// pemFile writes a certificate into a file.
func pemFile(t *testing.T, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "certificate.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// overTLS makes a handler of connections one of TLS connections, which ends them
// in order.
func overTLS(cert tls.Certificate, handle func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		secure := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		handle(secure)
		_ = secure.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	}
}

// curl reaches an Apple host through the proxy: the certificate is the origin's,
// so are the bytes, and they are counted before the tunnel closes.
func TestCurlThroughTheTunnel(t *testing.T) {
	need(t, "curl")
	addr := ownLoopback(t, pushPort)
	cert, file := certified(t, pushHost)
	body := bytes.Repeat([]byte("Not a byte is changed.\n"), 50_000)
	half, rest := body[:len(body)/2], body[len(body)/2:]
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	listen(t, net.JoinHostPort(addr, fmt.Sprint(pushPort)), overTLS(cert, func(c net.Conn) {
		if _, err := c.Read(make([]byte, 4096)); err != nil {
			return
		}
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", len(body))
		_, _ = c.Write(half)
		<-held
		_, _ = c.Write(rest)
	}))
	t.Cleanup(release)
	p := launch(t, "egress: {allow: [loopback], hosts: {\"*.push.apple.com\": "+addr+"}}\n")

	out := filepath.Join(t.TempDir(), "body")
	curl := exec.Command("curl", "--silent", "--show-error", "--max-time", "60", "--proxytunnel", "--proxy", "http://"+p.proxy,
		"--cacert", file, "--output", out, "--write-out", "%{http_connect} %{http_code} %{ssl_verify_result}", fmt.Sprintf("https://%s:%d/", pushHost, pushPort))
	curl.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
	var said bytes.Buffer
	curl.Stdout, curl.Stderr = &said, &said
	if err := curl.Start(); err != nil {
		t.Fatal(err)
	}
	down := `espalier_bytes_total{direction="down",service="push"}`
	p.await("the bytes in /metrics while the tunnel is open", func() bool { return p.metric(down) >= float64(len(half)) })
	if n := p.metric(`espalier_tunnels{service="push"}`); n != 1 {
		t.Errorf("%v open tunnels in /metrics, want 1", n)
	}
	release()
	if err := curl.Wait(); err != nil || said.String() != "200 200 0" {
		t.Fatalf("curl: %v, %s", err, &said)
	}
	got, err := os.ReadFile(out)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(body) {
		t.Errorf("curl received %d bytes that are not the origin's %d, %v", len(got), len(body), err)
	}
	rec := p.record(pushHost)
	if rec.Service != "push" || rec.Action != policy.Tunnel || rec.Rule != policy.RuleApple || rec.Port != pushPort || rec.Status != 200 ||
		rec.Method != "CONNECT" || !strings.HasPrefix(rec.Agent, "curl/") || rec.Down < int64(len(body)) || rec.Up == 0 { // curl may leave before TLS has ended
		t.Errorf("record %+v", rec)
	}
	if counted := p.metric(down); counted != float64(rec.Down) {
		t.Errorf("/metrics has %v bytes, the record %d", counted, rec.Down)
	}
}

// With authentication and interception on for everything, openssl still sees the
// origin's certificate, whatever credentials a client sends.
func TestOpenSSLSeesTheOriginsCertificate(t *testing.T) {
	need(t, "openssl")
	need(t, "curl")
	addr := ownLoopback(t, pushPort)
	cert, file := certified(t, pushHost)
	listen(t, net.JoinHostPort(addr, fmt.Sprint(pushPort)), overTLS(cert, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }))
	users := filepath.Join(t.TempDir(), "htpasswd")
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(users, []byte("alice:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := prepare(t, "egress: {allow: [loopback], hosts: {\"*.push.apple.com\": "+addr+"}}\n"+
		"auth: {htpasswd: "+users+"}\ninspect: {mode: all}\n")
	p.initCA()
	p.start()

	fingerprint := func(args ...string) string {
		cmd := exec.Command("openssl", append([]string{"x509", "-noout", "-fingerprint", "-sha256"}, args...)...)
		stdout, stderr, code := outputOf(t, cmd)
		if code != 0 {
			t.Fatalf("openssl x509: %s", stderr)
		}
		return stdout
	}
	target := fmt.Sprintf("%s:%d", pushHost, pushPort)
	s := exec.Command("openssl", "s_client", "-proxy", p.proxy, "-proxy_user", "alice", "-proxy_pass", "pass:wrong",
		"-connect", target, "-servername", pushHost, "-CAfile", file, "-verify_return_error")
	stdout, stderr, code := outputOf(t, s)
	if code != 0 || !strings.Contains(stdout, "Verify return code: 0") {
		t.Fatalf("openssl s_client: exit status %d\n%s%s", code, stdout, stderr)
	}
	seen := filepath.Join(t.TempDir(), "seen.pem")
	if err := os.WriteFile(seen, []byte(stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := fingerprint("-in", seen), fingerprint("-in", pemFile(t, cert.Certificate[0])); got != want {
		t.Errorf("certificate %s, want %s", got, want)
	}
	if rec := p.record(pushHost); rec.Service != "push" || rec.Action != policy.Tunnel || rec.User != "" {
		t.Errorf("record %+v", rec)
	}

	// Others are asked.
	for _, tt := range []struct{ args, want string }{
		{"", "407"}, {"--proxy-user alice:wrong", "407"}, {"--proxy-user alice:secret", "403"}, // signed in, and then the address guard
	} {
		args := append(strings.Fields(tt.args), "--silent", "--output", os.DevNull, "--write-out", "%{http_connect}", "--proxytunnel", "--proxy", "http://"+p.proxy, "https://10.0.0.1/")
		if stdout, _, _ := outputOf(t, exec.Command("curl", args...)); stdout != tt.want {
			t.Errorf("curl %s: %s, want %s", tt.args, stdout, tt.want)
		}
	}
}
