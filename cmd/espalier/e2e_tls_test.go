package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"espalier/policy"
	"espalier/web/certs"
	"espalier/web/certs/pebbletest"
)

// acmeProcess is a process whose certificate is of a Pebble.
type acmeProcess struct {
	*process
	pebble            *pebbletest.Server
	secure            string // the proxy inside TLS
	issuer            string // file of the CA
	publicAt, adminAt string
	stdin             *os.File // the other end of its standard input; nil: it has none
}

const certifiedName = "proxy.school.example"

// freeAt is an address that nobody listens on.
func freeAt(t *testing.T) (addr string, port uint16) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String(), l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// certify starts a process that gets its certificate by ACME.
func certify(t *testing.T, more string) *acmeProcess {
	t.Helper()
	c := &acmeProcess{}
	var http, alpn uint16
	c.publicAt, http = freeAt(t)
	c.secure, alpn = freeAt(t)
	c.adminAt, _ = freeAt(t)
	c.pebble = pebbletest.Start(t, pebbletest.Options{HTTPPort: http, TLSPort: alpn})
	c.process = prepare(t, fmt.Sprintf(`
tls:
  acme:
    domains: [%s]
    directory: %s
    roots: %s
    http_port: %d
    tls_port: %d
%s`, certifiedName, c.pebble.Directory, c.pebble.Roots, http, alpn, more))
	c.start()
	c.await("a certificate", func() bool { return c.certificate().Source == certs.SourceACME && !c.certificate().NotAfter.IsZero() })
	c.issuer = c.pebble.IssuerFile()
	return c
}

// start is process.start with addresses that the authority finds.
func (c *acmeProcess) start() {
	c.t.Helper()
	cmd := c.command("run", "-c", c.config, "--set", "proxy.listen=127.0.0.1:0", "--set", "proxy.tls_listen="+c.secure,
		"--set", "web.public="+c.publicAt, "--set", "web.admin="+c.adminAt, "--set", "web.hosts="+certifiedName)
	in, stdin, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	defer in.Close()
	c.t.Cleanup(func() { stdin.Close() })
	cmd.Stdin, c.stdin = in, stdin
	c.spawn(cmd)
	c.locate()
}

// certificate is what `espalier tls show` has, of one.
func (c *acmeProcess) certificate() certs.Status {
	c.t.Helper()
	out, errs, code := c.run("tls", "show", "--json")
	var list []certs.Status
	if err := json.Unmarshal([]byte(out), &list); err != nil || code != 0 || len(list) != 1 {
		c.t.Fatalf("tls show: %d %s %s %v", code, out, errs, err)
	}
	return list[0]
}

// curl runs curl, which finds the name here and trusts the authority for it, and
// nothing else.
func (c *acmeProcess) curl(args ...string) (out string, code int) {
	c.t.Helper()
	need(c.t, "curl")
	args = append([]string{"--silent", "--show-error", "--max-time", "20", "--cacert", c.issuer, "--proxy-cacert", c.issuer}, args...)
	for _, at := range []string{c.secure, c.publicAt, c.adminAt} {
		_, port, _ := net.SplitHostPort(at)
		args = append(args, "--resolve", certifiedName+":"+port+":127.0.0.1")
	}
	text, err := exec.Command("curl", args...).CombinedOutput()
	if err != nil && !strings.Contains(err.Error(), "exit status") {
		c.t.Fatal(err)
	}
	return string(text), map[bool]int{true: 0, false: 1}[err == nil]
}

// at is the URL of a listener by the certificate's name.
func at(scheme, addr, path string) string {
	_, port, _ := net.SplitHostPort(addr)
	return scheme + "://" + certifiedName + ":" + port + path
}

// From an authority to curl, which speaks to the proxy, the PAC server and the
// console by https; renewed and revoked by command while clients come, and serving
// on after a restart without the authority.
func TestTLSByACME(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "the origin") }))
	defer origin.Close()
	secure := httptest.NewTLSServer(origin.Config.Handler)
	defer secure.Close()
	c := certify(t, "egress: {allow: [loopback]}\n")

	for name, x := range map[string]struct {
		args []string
		want string
	}{
		"plain through the proxy":                {[]string{"--proxy", at("https", c.secure, ""), origin.URL}, "the origin"},
		"a tunnel through it":                    {[]string{"--proxy", at("https", c.secure, ""), "--insecure", secure.URL}, "the origin"},
		"the script by https":                    {[]string{at("https", c.publicAt, "/proxy.pac")}, "FindProxyForURL"},
		"the script by http":                     {[]string{at("http", c.publicAt, "/proxy.pac")}, "FindProxyForURL"},
		"the console by https":                   {[]string{at("https", c.adminAt, "/signin")}, "<title>"},
		"the console from here":                  {[]string{at("http", c.adminAt, "/signin")}, "<title>"},
		"the console over HTTP/2":                {[]string{"--http2", "--write-out", "HTTP/%{http_version}", at("https", c.adminAt, "/signin")}, "HTTP/2"},
		"another name, whom curl does not trust": {[]string{"--proxy", "https://" + c.secure, origin.URL}, "no alternative certificate subject name"},
	} {
		if out, _ := c.curl(x.args...); !strings.Contains(out, x.want) {
			t.Errorf("%s: %s", name, out)
		}
	}
	if v := c.metric(`espalier_tls_certificate_expiry_timestamp_seconds{source="acme"}`); time.Until(time.Unix(int64(v), 0)) < 24*time.Hour {
		t.Errorf("the metric says %v", v)
	}
	if v := c.metric(`espalier_tls_certificates_total{result="ok"}`); v != 1 {
		t.Errorf("%v certificates were obtained", v)
	}

	pool := x509.NewCertPool()
	if text, err := os.ReadFile(c.issuer); err != nil || !pool.AppendCertsFromPEM(text) {
		t.Fatal(err)
	}
	var load sync.WaitGroup
	var done, failed atomic.Int64
	ctx, end := context.WithCancel(t.Context())
	for range 3 {
		load.Go(func() {
			for ctx.Err() == nil {
				if err := tunnelTo(c.secure, pool, origin.Listener.Addr().String()); err != nil {
					t.Error(err)
					failed.Add(1)
					return
				}
				done.Add(1)
			}
		})
	}
	before := c.certificate()
	for _, args := range [][]string{{"tls", "renew"}, {"tls", "renew", "--revoke"}} {
		if out, errs, code := c.run(args...); code != 0 || !strings.Contains(out, certifiedName) {
			t.Errorf("%v: %d %s %s", args, code, out, errs)
		}
		now := c.certificate()
		if now.Fingerprint == before.Fingerprint || now.Error != "" || len(now.Warnings) > 0 {
			t.Errorf("%v: %+v, before %+v", args, now, before)
		}
		before = now
	}
	end()
	load.Wait()
	t.Logf("%d tunnels while the certificate was renewed twice, %d failed", done.Load(), failed.Load())
	if done.Load() == 0 {
		t.Error("there was no load")
	}

	c.signal(os.Interrupt)
	c.exits(0)
	c.pebble.Stop()
	c.start()
	if out, _ := c.curl("--proxy", at("https", c.secure, ""), origin.URL); out != "the origin" {
		t.Errorf("without the authority: %s", out)
	}
	if now := c.certificate(); now.Fingerprint != before.Fingerprint {
		t.Errorf("after a restart %+v", now)
	}
	if out, errs, code := c.run("tls", "renew"); code != 1 || !strings.Contains(errs, certifiedName+": ") {
		t.Errorf("renewed without the authority: %d %s %s", code, out, errs)
	}
	list, bad := c.records()
	for _, x := range list {
		if bad > 0 || x.Status != 200 || x.Error != "" || x.Action != policy.Forward && x.Action != policy.Tunnel {
			t.Fatalf("record %+v", x)
		}
	}
}

// keptFile is the file in ACME's storage that ends with suffix.
func (c *acmeProcess) keptFile(suffix string) string {
	c.t.Helper()
	var found []string
	err := filepath.WalkDir(filepath.Join(c.data, "acme"), func(path string, _ os.DirEntry, err error) error {
		if strings.HasSuffix(path, suffix) {
			found = append(found, path)
		}
		return err
	})
	if err != nil || len(found) != 1 {
		c.t.Fatalf("%s: %q %v", suffix, found, err)
	}
	return found[0]
}

// A certificate that a power failure has left as an empty file is obtained anew at
// the next start, which says so and keeps the file.
func TestTLSByACMEAfterDamage(t *testing.T) {
	c := certify(t, "")
	before := c.certificate()
	c.signal(os.Interrupt)
	c.exits(0)
	damaged := c.keptFile(".crt")
	if err := os.Truncate(damaged, 0); err != nil {
		t.Fatal(err)
	}
	c.start()
	c.await("another certificate", func() bool {
		now := c.certificate()
		return !now.NotAfter.IsZero() && now.Fingerprint != before.Fingerprint
	})
	if log := c.stderr.String(); !strings.Contains(log, damaged) {
		t.Errorf("the log does not name %s:\n%s", damaged, log)
	}
	if now := c.certificate(); now.Error != "" || len(now.Warnings) > 0 {
		t.Errorf("%+v", now)
	}
}

// Nobody is asked for anything where an account is missing, whatever stands at the
// other end of standard input.
func TestTLSRenewAsksNobody(t *testing.T) {
	c := certify(t, "")
	before := c.certificate()
	accounts := filepath.Dir(filepath.Dir(c.keptFile("default.key")))
	if err := os.RemoveAll(accounts); err != nil {
		t.Fatal(err)
	}
	asked := time.AfterFunc(patience, func() { c.stdin.Close() }) // and is no more
	if out, errs, code := c.run("tls", "renew"); code != 0 || !asked.Stop() {
		t.Errorf("%d %s %s", code, out, errs)
	}
	if now := c.certificate(); now.Fingerprint == before.Fingerprint || now.Error != "" {
		t.Errorf("%+v, before %+v", now, before)
	}
}

// tunnelTo opens a tunnel inside TLS, and asks through it.
func tunnelTo(proxy string, roots *x509.CertPool, target string) error {
	c, err := tls.Dial("tcp", proxy, &tls.Config{ServerName: certifiedName, RootCAs: roots})
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\nGET / HTTP/1.0\r\n\r\n", target); err != nil {
		return err
	}
	text, err := io.ReadAll(c)
	if err == nil && !strings.HasSuffix(string(text), "the origin") {
		err = fmt.Errorf("received %q", text)
	}
	return err
}

// Chromium has all it asks of the proxy in one connection of HTTP/2.
func TestChromiumByHTTP2(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 10)
	page := func(next string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				return
			}
			seen <- r.Host
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, "<script>%s</script>", next)
		}
	}
	last := httptest.NewTLSServer(page(""))
	defer last.Close()
	_, port, _ := net.SplitHostPort(last.Listener.Addr().String())
	first := httptest.NewServer(page("location.href = 'https://secure.example:" + port + "/'"))
	defer first.Close()
	_, firstPort, _ := net.SplitHostPort(first.Listener.Addr().String())
	c := certify(t, "log: {level: debug}\negress: {allow: [loopback], hosts: {plain.example: 127.0.0.1, secure.example: 127.0.0.1}}\n")
	sum := sha256.Sum256(last.Certificate().RawSubjectPublicKeyInfo)
	_, securePort, _ := net.SplitHostPort(c.secure)
	browse(t, "chromium", visit{
		url: "http://plain.example:" + firstPort + "/", root: c.issuer, local: []string{certifiedName},
		pac: "data:application/x-ns-proxy-autoconfig;base64," + base64.StdEncoding.EncodeToString([]byte(
			`function FindProxyForURL() { return "HTTPS `+certifiedName+":"+securePort+`"; }`)),
		flags: []string{"--ignore-certificate-errors-spki-list=" + base64.StdEncoding.EncodeToString(sum[:])},
	})
	for _, want := range []string{"plain.example:" + firstPort, "secure.example:" + port} {
		select {
		case got := <-seen:
			if got != want {
				t.Errorf("%s was asked for, want %s", got, want)
			}
		case <-time.After(2 * patience):
			t.Fatalf("nobody asks for %s", want)
		}
	}
	for _, action := range []policy.Action{policy.Forward, policy.Tunnel} {
		c.await("a request to "+string(action), func() bool {
			return c.metric(fmt.Sprintf("espalier_requests_total{action=%q,service=%q}", action, "other")) > 0 || action == policy.Tunnel && c.metric(`espalier_tunnels{service="other"}`) > 0
		})
	}
	if !strings.Contains(c.stderr.String(), `"protocol":"h2"`) {
		t.Error("no client has spoken HTTP/2")
	}
}

// A certificate in files is taken over when the files change, as tools write them
// that renew it; wrong files change nothing, and the status says so.
func TestTLSFromFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	issue := func(name string) {
		t.Helper()
		out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90",
			"-subj", "/CN="+name, "-addext", "subjectAltName=DNS:"+name, "-keyout", key+".new", "-out", cert+".new").CombinedOutput()
		if err != nil {
			t.Fatalf("openssl: %v\n%s", err, out)
		}
		for _, f := range []string{key, cert} {
			if err := os.Rename(f+".new", f); err != nil {
				t.Fatal(err)
			}
		}
	}
	need(t, "openssl")
	issue("one.test")
	p := launch(t, fmt.Sprintf("tls: {files: {cert: %s, key: %s}}\n", cert, key))
	shown := func() string {
		c, err := tls.Dial("tcp", p.public, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		return strings.Join(c.ConnectionState().PeerCertificates[0].DNSNames, " ")
	}
	if got := shown(); got != "one.test" {
		t.Errorf("%s is shown", got)
	}
	issue("two.test")
	p.await("the new certificate", func() bool { return shown() == "two.test" })
	if err := os.WriteFile(key, []byte("no key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.await("the reload that fails", func() bool { st, err := p.status(); return err == nil && !st.Reload.OK })
	st, err := p.status()
	if err != nil || len(st.Reload.Problems) != 1 || !strings.Contains(st.Reload.Problems[0], "tls.files.cert: "+cert+" and "+key) {
		t.Errorf("%v %+v", err, st.Reload)
	}
	if got := shown(); got != "two.test" {
		t.Errorf("%s is shown", got)
	}
}
