package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"espalier/policy"
)

// A step is a page that sends a browser on to the next.
type step struct {
	scheme, host string
	// via is how the browser gets there: direct, or through the proxy a or b.
	via   string
	drain bool // the proxy has closed its listener before the page is answered
}

// Browsers go where the script says. Nobody but who should ask for a name can
// find it: those of the steps that are direct the browser, the others the
// proxies.
func TestBrowsersGoWhereTheScriptSays(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		proxies []string // of the script: a, b (where it comes from), closed
		steps   []step
	}{
		{"routes", nil, []step{
			{"http", "proxied.example", "b", false},
			{"http", "inside.example", "direct", false},
			{"https", "gs.apple.com", "b", false},
			{"https", "www.inside.example", "direct", false},
			{"https", "www.proxied.example", "b", false},
		}},
		{"the first proxy is closed, the second closes", []string{"closed", "a", "b"}, []step{
			{"http", "proxied.example", "a", false},
			{"https", "gs.apple.com", "a", false},
			{"http", "inside.example", "direct", false},
			{"http", "proxied.example", "a", true},
			{"http", "proxied.example", "b", false},
			{"https", "albert.apple.com", "b", false},
		}},
		{"no proxy is open", []string{"closed"}, []step{
			{"http", "inside.example", "direct", false},
			{"https", "gs.apple.com", "direct", false},
		}},
	} {
		for _, program := range []string{"chromium", "firefox-esr"} {
			t.Run(program+"/"+tt.name, func(t *testing.T) {
				walk(t, program, "[loopback]", "127.0.0.1:0", tt.proxies, tt.steps)
			})
		}
	}
}

// walk sends a browser from step to step, and compares what the proxies recorded. The
// pages are served at the address at, and allow is the proxies' egress.allow.
func walk(t *testing.T, program, allow, at string, proxies []string, steps []step) {
	v := visit{}
	hosts := map[string]string{} // for the proxies
	for _, s := range steps {
		if _, err := netip.ParseAddr(strings.Trim(s.host, "[]")); err == nil {
			continue
		}
		if s.via == "direct" {
			v.local = append(v.local, s.host)
		} else {
			hosts[s.host] = "127.0.0.1"
		}
	}
	noName := nameServer(t, func(q *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeNameError) })
	config := fmt.Sprintf("egress: {allow: %s, dns: [%q], hosts: %s}\n", allow, noName, flow(t, hosts))
	b := launch(t, config)
	running := map[string]*process{"b": b}
	named := []string{}
	for _, name := range proxies {
		switch name {
		case "a":
			running["a"] = launch(t, config)
			named = append(named, running["a"].proxy)
		case "b":
			named = append(named, b.proxy)
		default:
			named = append(named, refusing(t))
		}
	}
	b.write(config + fmt.Sprintf("pac: {proxies: %s, probe: false, internal: [inside.example]}\n", flow(t, named)))
	if stdout, stderr, code := b.run("reload"); code != 0 {
		t.Fatalf("reload: exit status %d\n%s%s", code, stdout, stderr)
	}
	v.pac = "http://" + b.public + "/proxy.pac"

	// Every page has a path of its own, and waits until the browser may go on.
	var urls []string
	arrived, proceed := make(chan string), make(chan int)
	pages := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/step") {
			http.NotFound(w, r) // an icon
			return
		}
		select {
		case arrived <- r.Host + r.URL.Path:
		case <-r.Context().Done():
			return
		}
		select {
		case next := <-proceed:
			if next < len(urls) {
				http.Redirect(w, r, urls[next], http.StatusFound)
			}
		case <-r.Context().Done():
		}
	})
	serve := func() *httptest.Server {
		s := httptest.NewUnstartedServer(pages)
		t.Cleanup(s.Close)
		s.Listener.Close()
		var err error
		if s.Listener, err = net.Listen("tcp", at); err != nil {
			t.Fatal(err)
		}
		return s
	}
	plain, secure := serve(), serve()
	plain.Start()
	var cert tls.Certificate
	cert, v.root = certified(t, "*.apple.com", "www.proxied.example", "www.inside.example", "printer.local")
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	secure.StartTLS()
	for i, s := range steps {
		at := plain
		if s.scheme == "https" {
			at = secure
		}
		urls = append(urls, fmt.Sprintf("%s://%s:%d/step%d", s.scheme, s.host, at.Listener.Addr().(*net.TCPAddr).Port, i))
	}
	v.url = urls[0]

	w := browse(t, program, v)
	for i, s := range steps {
		select {
		case got := <-arrived:
			if want := s.scheme + "://" + got; want != urls[i] {
				t.Fatalf("the browser is at %s, want %s", want, urls[i])
			}
		case <-w.ended:
			t.Fatalf("the browser ended before %s\n%s", urls[i], w.out.String())
		}
		if s.drain {
			running[s.via].drain()
		}
		select {
		case proceed <- i + 1:
		case <-w.ended:
			t.Fatalf("the browser ended at %s\n%s", urls[i], w.out.String())
		}
	}
	w.stop() // which ends its tunnels

	for name, p := range running {
		want := map[string]policy.Action{}
		for _, s := range steps {
			if s.via == name {
				want[s.host] = policy.Forward
				if s.scheme == "https" {
					want[s.host] = policy.Tunnel
				}
			}
		}
		got := map[string]policy.Action{}
		p.await("the records of "+name, func() bool {
			list, _ := p.records()
			for _, r := range list {
				if slices.ContainsFunc(steps, func(s step) bool { return s.host == r.Host }) {
					got[r.Host] = r.Action
				}
			}
			return len(got) >= len(want)
		})
		if !maps.Equal(got, want) {
			t.Errorf("%s has records of %v, want %v", name, got, want)
		}
	}
	if a := running["a"]; a != nil {
		a.exits(0) // as nobody uses it any more
	}
}

// flow is v in YAML's flow style, of which JSON is a part.
func flow(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
