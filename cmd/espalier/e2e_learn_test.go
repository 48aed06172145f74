package main

import (
	"crypto/tls"
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

	"espalier/proxy/inspect"
)

// galleryPage shows six images of each of eight hosts, as often as its query says, and then
// tells so.
const galleryPage = `<!doctype html><title>gallery</title><script>
const left = +new URLSearchParams(location.search).get("left"), errors = []
let shown = 0
const next = () => {
	if (++shown < 48) return
	if (errors.length > 0 || left <= 1) fetch("/told", {method: "POST", body: errors.join()})
	else location.replace("?left=" + (left - 1))
}
for (let host = 1; host <= 8; host++) for (let n = 1; n <= 6; n++) {
	const img = new Image()
	img.onload = next
	img.onerror = () => { errors.push(img.src); next() }
	img.src = "https://h" + host + ".example.com:" + location.port + "/image?" + n + Math.random()
}
</script>`

// gallery serves galleryPage at every name below example.com, by HTTP/2. What the page tells
// comes from the channel.
func gallery(t *testing.T) (port int, root string, told chan string) {
	t.Helper()
	told = make(chan string, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, galleryPage)
	})
	mux.HandleFunc("/image", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "image/svg+xml")
		io.WriteString(w, `<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>`)
	})
	mux.HandleFunc("/told", func(w http.ResponseWriter, r *http.Request) {
		errors, _ := io.ReadAll(r.Body)
		told <- string(errors)
	})
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	var cert tls.Certificate
	cert, root = certified(t, "*.example.com")
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().(*net.TCPAddr).Port, root, told
}

// from returns an address at which clients reach the proxy as if they had the address client.
func (p *process) from(client string) string {
	p.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
	return listen(p.t, "127.0.0.1:0", func(c net.Conn) {
		there, err := d.Dial("tcp", p.proxy)
		if err != nil {
			p.t.Error(err)
			return
		}
		go func() { _, _ = io.Copy(there, c); _ = there.(*net.TCPConn).CloseWrite() }()
		_, _ = io.Copy(c, there)
		there.Close()
	}).String()
}

// Browsers open several connections to a host and close those that they turn out not to
// need. Whatever they load, that exempts no host.
func TestBrowsersExemptNothing(t *testing.T) {
	t.Parallel()
	need(t, "chromium")
	need(t, "firefox-esr")
	port, root, told := gallery(t)
	p := prepare(t, "egress: {allow: [loopback], hosts: {\"*.example.com\": 127.0.0.1}}\ninspect: {mode: all, roots: ["+root+"]}\n")
	ca := p.initCA()
	p.start()
	for client := range 5 {
		proxy := p.from(fmt.Sprintf("127.0.0.%d", 101+client))
		pac := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-ns-proxy-autoconfig")
			fmt.Fprintf(w, "function FindProxyForURL(url, host) { return \"PROXY %s\" }", proxy)
		}))
		t.Cleanup(pac.Close)
		for _, program := range []string{"chromium", "firefox-esr"} {
			b := browse(t, program, visit{url: fmt.Sprintf("https://www.example.com:%d/?left=2", port), pac: pac.URL, root: ca})
			select {
			case errors := <-told:
				if errors != "" {
					t.Errorf("%s: %s", program, errors)
				}
			case <-b.ended:
				t.Fatalf("%s ended before it has said anything:\n%s", program, b.out.String())
			}
			b.stop()
		}
	}
	p.await("the records", func() bool { return p.metric(`espalier_requests_total{action="inspect",service="other"}`) >= 5*2*2*48 })
	stdout, _, _ := p.run("inspect", "exceptions", "list", "--json")
	var list []inspect.Exception
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || len(list) > 0 {
		t.Errorf("%v\n%s", err, stdout)
	}
}

// nodeClient asks for a URL through a proxy, and knows the certificate of the server: it
// verifies it in the way that its last argument names.
const nodeClient = `
const [, , proxy, url, ca, way] = process.argv
const fs = require("fs"), http = require("http"), tls = require("tls"), u = new URL(url)
const fail = e => { console.error(String(e)); process.exit(1) }
const [host, port] = proxy.split(":")
http.request({host, port, method: "CONNECT", path: u.host}).on("connect", (res, socket) => {
	const s = tls.connect({socket, servername: u.hostname, ca: fs.readFileSync(ca), rejectUnauthorized: way != "reset"}, () => {
		if (way == "reset" && !s.authorized) { socket.resetAndDestroy(); return fail(s.authorizationError) }
		s.end("GET " + u.pathname + " HTTP/1.1\r\nHost: " + u.host + "\r\nConnection: close\r\n\r\n")
	})
	s.on("error", fail)
	s.on("data", () => process.exit(0))
}).on("error", fail).end()
`

// Node refuses a certificate by closing; a client that trusts the CA elsewhere gets through
// at the second occasion, and no other does.
func TestNodeIsExemptForItself(t *testing.T) {
	t.Parallel()
	need(t, "node")
	need(t, "curl")
	port, root, _ := gallery(t)
	p := prepare(t, "egress: {allow: [loopback], hosts: {\"*.example.com\": 127.0.0.1}}\ninspect: {mode: all, roots: ["+root+"]}\n")
	ca := p.initCA()
	p.start()
	script := filepath.Join(t.TempDir(), "client.js")
	if err := os.WriteFile(script, []byte(nodeClient), 0o600); err != nil {
		t.Fatal(err)
	}
	own, other := p.from("127.0.0.111"), p.from("127.0.0.112")
	for _, proxy := range []string{own, other} { // both trust the CA
		url := fmt.Sprintf("https://www.example.com:%d/", port)
		if stdout, stderr, code := outputOf(t, exec.Command("curl", "--silent", "--show-error", "--output", os.DevNull, "--proxy", "http://"+proxy, "--cacert", ca, url)); code != 0 {
			t.Fatalf("curl: %s%s", stdout, stderr)
		}
	}
	passes := func(proxy, way string) bool {
		_, _, code := outputOf(t, exec.Command("node", script, proxy, fmt.Sprintf("https://%s.example.com:%d/", way, port), root, way))
		return code == 0
	}
	ways := []string{"closes", "reset"}
	for _, way := range ways {
		for range 2 {
			if passes(own, way) {
				t.Errorf("%s: it gets through on the first occasion", way)
			}
		}
	}
	for _, way := range ways {
		p.await("the second occasion", func() bool { return passes(own, way) })
		if passes(other, way) {
			t.Errorf("%s: another client gets through", way)
		}
	}
	stdout, _, _ := p.run("inspect", "exceptions")
	if n := strings.Count(stdout, "127.0.0.111"); n != 2 || strings.Contains(stdout, "127.0.0.112") {
		t.Errorf("espalier inspect exceptions:\n%s", stdout)
	}
}
