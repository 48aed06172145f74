package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
)

// What curl is told through the program: headers by rules, safe search by
// address, and the pages of refusals.
func TestPresets(t *testing.T) {
	need(t, "curl")
	origin := func(name, addr string) int {
		o := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sni := ""
			if r.TLS != nil {
				sni = r.TLS.ServerName
			}
			fmt.Fprintf(w, "%s host=%s sni=%s mark=%q", name, r.Host, sni, r.Header["X-Mark"])
		}))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		o.Listener.Close()
		o.Listener = l
		if strings.HasSuffix(name, "tls") {
			o.StartTLS()
		} else {
			o.Start()
		}
		t.Cleanup(o.Close)
		return l.Addr().(*net.TCPAddr).Port
	}
	elsewhere := ownLoopback(t, 0)
	plain := origin("plain", "127.0.0.1:0")
	origin("safe", fmt.Sprintf("%s:%d", elsewhere, plain))
	secure := origin("plain-tls", "127.0.0.1:0")
	origin("safe-tls", fmt.Sprintf("%s:%d", elsewhere, secure))
	p := launch(t, fmt.Sprintf(`
proxy: {contact: "help desk, room 12"}
egress:
  hosts: {www.google.com: "127.0.0.1", forcesafesearch.google.com: %q, marked.example: "127.0.0.1"}
  allow: [loopback]
presets: {safe_search: [google]}
rules:
  - {name: no games, when: {hosts: [games.example]}, then: deny}
  - {name: mark, when: {hosts: [marked.example]}, then: allow, headers: {X-Mark: ours}}
`, elsewhere))
	curl := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("curl", append([]string{"-sS", "-m", "20", "-x", p.proxy}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("curl %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	at := fmt.Sprintf("marked.example:%d", plain)
	if got, want := curl("-H", "X-Mark: theirs", "http://"+at+"/"), "plain host="+at+` sni= mark=["ours"]`; got != want {
		t.Errorf("header: %s, want %s", got, want)
	}
	at = fmt.Sprintf("www.google.com:%d", plain)
	if got, want := curl("http://"+at+"/search?q=x"), "safe host="+at+" sni= mark=[]"; got != want {
		t.Errorf("plain: %s, want %s", got, want)
	}
	at = fmt.Sprintf("www.google.com:%d", secure)
	if got, want := curl("-k", "https://"+at+"/search?q=x"), "safe-tls host="+at+" sni=www.google.com mark=[]"; got != want {
		t.Errorf("tunnel: %s, want %s", got, want)
	}
	page := curl("-i", "-H", "Accept: text/html", "-H", "Accept-Language: sv", "http://games.example/")
	for _, want := range []string{"HTTP/1.1 403 Forbidden\r\n", "Content-Security-Policy: default-src 'none'", "Inte tillåtet här", "no games", "help desk, room 12"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in\n%s", want, page)
		}
	}
	if text := curl("http://games.example/"); !strings.HasPrefix(text, "403 Forbidden\n") || !strings.Contains(text, "Contact: help desk, room 12\n") {
		t.Errorf("text:\n%s", text)
	}

	// Without the preset, nothing is connected elsewhere.
	p.write(fmt.Sprintf("egress: {hosts: {www.google.com: \"127.0.0.1\", forcesafesearch.google.com: %q}, allow: [loopback]}\n", elsewhere))
	if _, stderr, code := p.run("reload"); code != 0 {
		t.Fatalf("reload: %d %s", code, stderr)
	}
	at = fmt.Sprintf("www.google.com:%d", plain)
	if got, want := curl("http://"+at+"/"), "plain host="+at+" sni= mark=[]"; got != want {
		t.Errorf("reloaded: %s, want %s", got, want)
	}
}
