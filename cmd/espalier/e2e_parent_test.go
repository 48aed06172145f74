package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"espalier/policy"
)

const parentPassword = "p@ss,geheim"

// squidParent is a real squid that wants a password, and allows CONNECT where
// its default configuration does not: to any port and to loopback.
func squidParent(t *testing.T) (addr string) {
	t.Helper()
	squid, err := exec.LookPath("squid")
	if err != nil { // not in everybody's PATH
		squid = "/usr/sbin/squid"
		need(t, squid)
	}
	helper := ""
	for _, dir := range []string{"/usr/lib/squid", "/usr/lib64/squid", "/usr/libexec/squid"} {
		if path := filepath.Join(dir, "basic_ncsa_auth"); exists(path) {
			helper = path
		}
	}
	if helper == "" {
		t.Skip("squid's basic_ncsa_auth is missing")
	}
	dir, err := os.MkdirTemp("", "espalier-squid")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { // squid gives up root
		t.Fatal(err)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(parentPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(dir, "users")
	if err := os.WriteFile(users, []byte("espalier:"+strings.Replace(string(hash), "$2a$", "$2y$", 1)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	config := filepath.Join(dir, "squid.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, `http_port %s
pid_filename none
cache_log %s/cache.log
access_log stdio:%[2]s/access.log
cache deny all
coredump_dir %[2]s
shutdown_lifetime 0 seconds
hosts_file %[2]s/hosts
dns_nameservers 127.0.0.1
pinger_enable off
auth_param basic program %s %s
auth_param basic children 1
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
`, addr, dir, helper, users), 0o644); err != nil {
		t.Fatal(err)
	}
	// A name that only the parent knows.
	if err := os.WriteFile(filepath.Join(dir, "hosts"), []byte("127.0.0.1 inner.example\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(squid, "-N", "-f", config)
	out, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Skipf("squid does not start: %v", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for end := time.Now().Add(patience); ; {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return addr
		}
		select {
		case <-ended:
			said, _ := os.ReadFile(out.Name())
			t.Skipf("squid does not run here: %s", said)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(end) {
			t.Fatal("squid does not listen")
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// refusing is a loopback address that refuses connections.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Tunnels go through a squid that wants a password; it knows names that this
// machine does not. Its password is in no file and no output of the proxy.
func TestThroughSquid(t *testing.T) {
	squid := squidParent(t)
	origin := listen(t, "127.0.0.1:0", echo)
	p := launch(t, fmt.Sprintf("egress: {parent: \"http://%s, http://espalier:p%%40ss%%2Cgeheim@%s\", dns: [\"%s\"]}\n", refusing(t), squid, refusing(t)))
	target := fmt.Sprintf("inner.example:%d", origin.Port)
	for range 2 {
		status, why, c := p.connect(target)
		if status != 200 {
			t.Fatalf("status %d, %s", status, why)
		}
		if err := pingPong(c, "through two proxies"); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if r := p.record("inner.example"); r.Action != policy.Tunnel || r.Upstream != netip.MustParseAddrPort(squid) || r.Up != 19 || r.Down != 19 {
		t.Errorf("record %+v", r)
	}
	if status, _, _ := p.connect(fmt.Sprintf("127.0.0.1:%d", origin.Port)); status != 403 {
		t.Errorf("a loopback address: status %d", status)
	}
	// Nothing listens there, and squid says so.
	_, port, _ := net.SplitHostPort(refusing(t))
	if status, _, _ := p.connect("inner.example:" + port); status < 502 || status > 504 {
		t.Errorf("a closed port: status %d", status)
	}
	// Plain requests go to squid in absolute form, by the short way and by the
	// general one.
	web := listen(t, "127.0.0.1:0", func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		body := r.Method + " " + r.Host + r.URL.String() + r.Header.Get("Proxy-Authorization")
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	})
	host := fmt.Sprintf("inner.example:%d", web.Port)
	for _, method := range []string{"GET", "GET", "POST"} {
		c := p.dial()
		fmt.Fprintf(c, "%s http://%s/x HTTP/1.1\r\nHost: %[2]s\r\nConnection: close\r\n\r\n", method, host)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || string(body) != method+" "+host+"/x" || resp.Header.Get("Via") == "" {
			t.Errorf("%s: %d %v %s, %v", method, resp.StatusCode, resp.Header, body, err)
		}
	}
	p.noSecret("geheim")
}

// A wrong password is not the client's business: it must not be asked for one.
func TestThroughSquidWithoutPassword(t *testing.T) {
	squid := squidParent(t)
	p := launch(t, fmt.Sprintf("egress: {parent: \"http://espalier:geheim@%s\"}\n", squid))
	if status, _, _ := p.connect("inner.example:443"); status < 500 {
		t.Errorf("status %d", status)
	}
	for _, method := range []string{"GET", "POST"} {
		c := p.dial()
		fmt.Fprintf(c, "%s http://other.example/ HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n", method)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 502 {
			t.Errorf("%s: %v, %v", method, resp, err)
		}
	}
	r := p.record("inner.example")
	if want := "parent proxy " + squid + " answers 407: it does not accept the user and password of egress.parent, or none are set"; r.Error != want {
		t.Errorf("record's error: %s", r.Error)
	}
	p.noSecret("geheim")
}

// noSecret looks for a secret in what the process has written.
func (p *process) noSecret(secret string) {
	p.t.Helper()
	shown := p.stderr.String()
	stdout, stderr, _ := p.run("validate")
	shown += stdout + stderr
	if log, err := os.ReadFile(filepath.Join(p.data, "access.log")); err == nil {
		shown += string(log)
	}
	if strings.Contains(shown, secret) {
		p.t.Errorf("a secret is shown in\n%s", shown)
	}
}
