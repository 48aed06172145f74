package main

import (
	"bufio"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"espalier/policy"
	"espalier/proxy/inspect"
)

// initCA makes a CA in the data directory of a process that does not run yet, and
// returns the file of its root.
func (p *process) initCA() string {
	p.t.Helper()
	if _, stderr, code := p.run("ca", "init"); code != 0 {
		p.t.Fatalf("espalier ca init: exit status %d\n%s", code, stderr)
	}
	return filepath.Join(p.data, "ca", "ca.crt")
}

// shop is an HTTPS site with a certificate for example.com and 127.0.0.1 that it
// has from nobody whom the system trusts.
type shop struct {
	*httptest.Server
	root string // file
	port int
	told chan finding
}

// A finding is what the shop's page found out in a browser.
type finding struct {
	Protocol string // that the page came by
	Hello    string // fetched
	Echo     string // of a WebSocket
	Error    string
}

const shopPage = `<!doctype html><title>shop</title><script>
(async () => {
	const r = {Protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol}
	try {
		r.Hello = await (await fetch("/hello", {method: "POST", body: "x".repeat(100000)})).text()
		r.Echo = await new Promise((done, fail) => {
			const ws = new WebSocket("wss://" + location.host + "/ws")
			ws.onopen = () => ws.send("ping")
			ws.onmessage = m => { done(m.data); ws.close() }
			ws.onerror = () => fail("WebSocket")
		})
	} catch (e) { r.Error = String(e) }
	await fetch("/told", {method: "POST", body: JSON.stringify(r)})
})()
</script>`

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{told: make(chan finding, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, shopPage)
	})
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "hello by %s, %d bytes", r.Proto, n)
	})
	mux.HandleFunc("/told", func(w http.ResponseWriter, r *http.Request) {
		var x finding
		if err := json.NewDecoder(r.Body).Decode(&x); err == nil {
			s.told <- x
		}
	})
	mux.HandleFunc("/ws", echoWebSocket)
	s.Server = httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	var cert tls.Certificate
	cert, s.root = certified(t, "example.com", "*.example.com", "127.0.0.1")
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	s.port = s.Listener.Addr().(*net.TCPAddr).Port
	return s
}

// echoWebSocket sends a short text message back (RFC 6455).
func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, in, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusUpgradeRequired)
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	head := make([]byte, 6)
	if _, err := io.ReadFull(in, head); err != nil || head[1] < 0x80 || head[1] > 0x80+125 {
		return
	}
	text := make([]byte, head[1]-0x80)
	if _, err := io.ReadFull(in, text); err != nil {
		return
	}
	for i := range text {
		text[i] ^= head[2+i%4]
	}
	_, _ = conn.Write(append([]byte{0x81, byte(len(text))}, text...))
	_, _ = io.Copy(io.Discard, in) // until the client is done
}

// intercepting starts a proxy that intercepts all it may, with the shop behind
// example.com; it returns the file of the CA's root.
func (s *shop) intercepting(t *testing.T) (p *process, root string) {
	t.Helper()
	p = prepare(t, "egress: {allow: [loopback], hosts: {example.com: 127.0.0.1, \"*.example.com\": 127.0.0.1}}\n"+
		"inspect: {mode: all, roots: ["+s.root+"]}\n")
	root = p.initCA()
	p.start()
	return p, root
}

func TestCurlIsIntercepted(t *testing.T) {
	need(t, "curl")
	s := newShop(t)
	p, root := s.intercepting(t)
	for _, tt := range []struct{ name, args, host, want string }{
		{"HTTP/1.1", "--http1.1", "example.com", "1.1 0"},
		{"HTTP/2", "--http2", "example.com", "2 0"},
		{"TLS 1.2", "--http2 --tls-max 1.2", "example.com", "2 0"},
		{"an address", "--http1.1", "127.0.0.1", "1.1 0"},
		{"without the CA", "--http1.1 --cacert " + s.root, "strange.example.com", "0 60"}, // does not trust
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"--silent", "--proxy", "http://" + p.proxy, "--cacert", root, "--data", "abc",
				"--write-out", "\n%{http_version} %{exitcode}"}, strings.Fields(tt.args)...)
			stdout, _, _ := outputOf(t, exec.Command("curl", append(args, fmt.Sprintf("https://%s:%d/hello?x=1", tt.host, s.port))...))
			body, how, _ := strings.Cut(stdout, "\n")
			hello := "hello by HTTP/1.1, 3 bytes" // the origin is asked as the proxy is
			if strings.HasPrefix(tt.want, "2") {
				hello = "hello by HTTP/2.0, 3 bytes"
			}
			if how != tt.want || strings.HasSuffix(how, " 0") && body != hello {
				t.Errorf("%q, %s, want %s", body, how, tt.want)
			}
		})
	}
	p.await("the records", func() bool {
		n := 0
		list, _ := p.records()
		for _, r := range list {
			if r.Method == http.MethodPost && r.Action == policy.Inspect && r.Status == 200 && r.Up == 3 && r.Down == 26 &&
				r.URL == fmt.Sprintf("https://%s:%d/hello", r.Host, s.port) {
				n++
			}
		}
		return n == 4
	})
	if up := p.metric(`espalier_bytes_total{direction="up",service="other"}`); up != 4*3 {
		t.Errorf("%v bytes are counted", up)
	}
}

// Apple's hosts show their own certificate to a client that would be intercepted.
func TestCurlSeesAppleUntouched(t *testing.T) {
	need(t, "curl")
	addr := ownLoopback(t, 443)
	cert, file := certified(t, "gs.apple.com")
	listen(t, addr+":443", overTLS(cert, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\napple")
		}
	}))
	p := prepare(t, "egress: {allow: [loopback], hosts: {\"*.apple.com\": "+addr+"}}\ninspect: {mode: all}\n")
	p.initCA()
	p.start()
	stdout, stderr, code := outputOf(t, exec.Command("curl", "--silent", "--show-error", "--proxy", "http://"+p.proxy, "--cacert", file, "https://gs.apple.com/"))
	if stdout != "apple" || code != 0 {
		t.Errorf("%q, exit status %d: %s", stdout, code, stderr)
	}
	if r := p.record("gs.apple.com"); r.Action != policy.Tunnel || r.Rule != policy.RuleApple {
		t.Errorf("%+v", r)
	}
}

// A browser that trusts the CA uses a site as it does without the proxy.
func TestBrowsersAreIntercepted(t *testing.T) {
	t.Parallel()
	need(t, "chromium")
	need(t, "firefox-esr")
	s := newShop(t)
	p, root := s.intercepting(t)
	for _, tt := range []struct{ name, program, flag, protocol string }{
		{"Chromium, HTTP/2", "chromium", "--enable-features=", "h2"},
		{"Chromium, HTTP/1.1", "chromium", "--disable-http2", "http/1.1"},
		{"Firefox", "firefox-esr", "--new-instance", "h2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := browse(t, tt.program, visit{
				url: fmt.Sprintf("https://example.com:%d/", s.port), pac: "http://" + p.public + "/proxy.pac", root: root, flags: []string{tt.flag},
			})
			want := finding{Protocol: tt.protocol, Hello: "hello by HTTP/2.0, 100000 bytes", Echo: "ping"}
			if tt.protocol == "http/1.1" {
				want.Hello = "hello by HTTP/1.1, 100000 bytes"
			}
			select {
			case got := <-s.told:
				if got != want {
					t.Errorf("%+v, want %+v", got, want)
				}
			case <-b.ended:
				t.Errorf("the browser ended before it has said anything:\n%s", b.out.String())
			}
		})
	}
	p.await("the record of a WebSocket", func() bool {
		list, _ := p.records()
		for _, r := range list {
			if strings.HasSuffix(r.URL, "/ws") && r.Status == 101 && r.Action == policy.Inspect && r.Up > 0 && r.Down > 0 {
				return true
			}
		}
		return false
	})
}

// A client that knows its server's certificate gets through once it has shown that, for
// itself alone, and an administrator has the last word.
func TestPinnedClients(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	s := newShop(t)
	p, root := s.intercepting(t)
	spki, err := x509.MarshalPKIXPublicKey(s.Certificate().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pin := sha256.Sum256(spki)
	apps := map[string][]string{
		"www.example.com":    {"--cacert", root},                                                                       // trusts the CA
		"app.example.com":    {"--cacert", s.root},                                                                     // an alert in the handshake
		"pinned.example.com": {"--insecure", "--pinnedpubkey", "sha256//" + base64.StdEncoding.EncodeToString(pin[:])}, // closes behind it
	}
	passes := func(host string, more ...string) bool {
		t.Helper()
		args := append([]string{"--silent", "--output", os.DevNull, "--proxy", "http://" + p.proxy}, apps[host]...)
		_, _, code := outputOf(t, exec.Command("curl", append(append(args, more...), fmt.Sprintf("https://%s:%d/", host, s.port))...))
		return code == 0
	}
	for range 2 {
		if passes("app.example.com") {
			t.Error("a client without the CA gets through")
		}
	}
	if !passes("www.example.com") || passes("app.example.com") || !passes("app.example.com") {
		t.Error("a client that trusts the CA does not get through after one alert")
	}
	for range 3 {
		if passes("pinned.example.com") {
			t.Error("a client that has closed on one occasion gets through")
		}
	}
	p.await("the second occasion", func() bool { return passes("pinned.example.com") })

	exceptions := func() map[string]inspect.Exception {
		t.Helper()
		stdout, stderr, code := p.run("inspect", "exceptions", "list", "--json")
		var list []inspect.Exception
		if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != 0 {
			t.Fatalf("%v\n%s%s", err, stdout, stderr)
		}
		all := map[string]inspect.Exception{}
		for _, x := range list {
			all[x.Host] = x
		}
		return all
	}
	for _, host := range []string{"app.example.com", "pinned.example.com"} {
		if x := exceptions()[host]; x.State != inspect.Automatic || x.Everybody || len(x.Clients) != 1 || x.Reason == "" || x.Until.IsZero() {
			t.Errorf("%s: %+v", host, x)
		}
		p.await("the exception in explain", func() bool { // it reads the file
			stdout, _, _ := p.run("explain", "--client", "127.0.0.1", fmt.Sprintf("%s:%d", host, s.port))
			return strings.Contains(stdout, policy.RuleException)
		})
	}
	if n := p.metric(`espalier_inspect_exceptions{state="automatic"}`); n != 2 {
		t.Errorf("espalier_inspect_exceptions: %v", n)
	}
	if n := strings.Count(p.stderr.String(), "client refuses interception of a host"); n != 2 {
		t.Errorf("%d messages in the log", n)
	}
	p.await("the records", func() bool {
		without, passed := 0, 0
		list, _ := p.records()
		for _, r := range list {
			switch r.Rule {
			case policy.RuleException:
				passed++
			case policy.RuleWithoutCA:
				without++
			}
		}
		return without == 2 && passed == 2
	})

	// The administrator decides.
	for _, tt := range []struct {
		do   string
		want bool // it gets through
	}{{"refuse", false}, {"accept", true}, {"forget", true}} {
		if stdout, stderr, code := p.run("inspect", "exceptions", tt.do, "*.example.com"); code != 0 {
			t.Errorf("%s: exit status %d\n%s%s", tt.do, code, stdout, stderr)
		}
		passes("app.example.com") // which is evidence, if evidence counts
		if got := passes("app.example.com"); got != tt.want {
			t.Errorf("after %s it gets through: %v", tt.do, got)
		}
	}
	stdout, _, _ := p.run("inspect", "exceptions")
	if !strings.Contains(stdout, "app.example.com") || strings.Contains(stdout, "*.example.com") {
		t.Errorf("espalier inspect exceptions:\n%s", stdout)
	}

	// What is known survives a restart.
	p.signal(os.Interrupt)
	p.exits(0)
	p.start()
	if !passes("app.example.com") {
		t.Error("after a restart it does not get through")
	}
}
