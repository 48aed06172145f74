package web

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"espalier/pac/health"
	"espalier/policy"
	"espalier/policy/catalog"
	"espalier/policy/lists"
	"espalier/proxy/inspect"
	"espalier/proxy/traffic"
	"espalier/web/api"
	"espalier/web/public"
	"espalier/web/server"
	"espalier/web/signin"
)

// testStatus is what the process of these tests says of itself.
func testStatus() api.Status {
	return api.Status{
		Version: "v1.2.3", Node: "proxy-1", Started: time.Now().Add(-90 * time.Minute),
		Listeners: []api.Listener{{Purpose: "proxy", Address: "[::]:3128"}},
		PACURL:    "http://192.0.2.10:8080/proxy.pac", Proxy: "192.0.2.10:3128", Tunnels: 3,
		Reload: api.Reload{OK: true, File: "espalier.yaml", Time: time.Now(), Loaded: time.Unix(1_700_000_000, 0)},
	}
}

// adminServer serves the admin handler for a status and counters, to a client
// that sends the token of an admin.
func adminServer(t *testing.T, status func() api.Status, counters *traffic.Counters) *httptest.Server {
	t.Helper()
	c := testControl()
	c.Status, c.Services = status, counters.Snapshot
	c.Metrics = NewRegistry("v1.2.3", func() api.Reload { return status().Reload }, counters)
	return serveAdmin(t, c)
}

func serveAdmin(t *testing.T, c api.Control) *httptest.Server {
	t.Helper()
	dir := t.TempDir()
	token, err := signin.CreateToken(dir, "test", signin.Admin, 0)
	if err != nil {
		t.Fatal(err)
	}
	users, err := signin.OpenUsers(os.DevNull, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Exceptions, err = inspect.OpenExceptions(dir); err != nil {
		t.Fatal(err)
	}
	c.Desk = signin.NewDesk(dir, time.Now, users.Guard)
	c.Desk.SetUsers(os.DevNull, users)
	srv := httptest.NewServer(AdminServer(c).Handler)
	t.Cleanup(srv.Close)
	srv.Client().Transport = bearer{token, dir, srv.Client().Transport}
	return srv
}

// bearer sends a token with every request.
type bearer struct {
	token, dir string // dir is where it is kept
	next       http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

// get fetches path, as the Host where one is given.
func get(t *testing.T, srv *httptest.Server, method, path, host string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	client := *srv.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestAdminPaths(t *testing.T) {
	srv := adminServer(t, testStatus, traffic.New())
	for _, tt := range []struct {
		method, path string
		status       int
		contentType  string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8"},
		{"HEAD", "/", 200, "text/html; charset=utf-8"},
		{"GET", "/assets/style.css", 200, "text/css; charset=utf-8"},
		{"GET", "/assets/icon.svg", 200, "image/svg+xml"},
		{"GET", "/assets/", 404, "text/plain; charset=utf-8"},
		{"GET", "/assets/nothing.css", 404, "text/plain; charset=utf-8"},
		{"GET", "/metrics", 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"},
		{"GET", "/api/v1/status", 200, "application/json"},
		{"GET", "/api/v1/services", 200, "application/json"},
		{"GET", "/api/v1/nothing", 404, "application/problem+json"},
		{"POST", "/api/v1/status", 405, "application/problem+json"},
		{"GET", "/nothing", 404, "text/plain; charset=utf-8"},
		{"POST", "/", 405, "text/plain; charset=utf-8"},
		{"DELETE", "/metrics", 405, "text/plain; charset=utf-8"},
		{"GET", "/signout", 405, "text/plain; charset=utf-8"},
		{"GET", "/signin", 303, "text/html; charset=utf-8"},
		{"OPTIONS", "/", 405, "text/plain; charset=utf-8"},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			resp, body := get(t, srv, tt.method, tt.path, "")
			if resp.StatusCode != tt.status || resp.Header.Get("Content-Type") != tt.contentType {
				t.Errorf("%d, %s", resp.StatusCode, resp.Header.Get("Content-Type"))
			}
			for name, want := range map[string]string{
				"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff",
				"Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			} {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s: %q", name, got)
				}
			}
			if csp := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; script-src 'self'; style-src 'self';") || strings.Contains(csp, "unsafe") {
				t.Errorf("policy %q", csp)
			}
			if resp.Header.Get("Set-Cookie") != "" || resp.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("a cookie, or an origin is allowed")
			}
			if tt.contentType == "application/problem+json" {
				var p server.Problem
				if err := json.Unmarshal([]byte(body), &p); err != nil || p.Status != tt.status || p.Title == "" || p.Detail == "" {
					t.Errorf("%v: %s", err, body)
				}
			}
			if tt.status == 405 && resp.Header.Get("Allow") != "GET, HEAD" && tt.path != "/signout" {
				t.Errorf("Allow: %q", resp.Header.Get("Allow"))
			}
		})
	}
}

func TestRebindingIsRefused(t *testing.T) {
	srv := adminServer(t, testStatus, traffic.New())
	own := srv.Listener.Addr().String()
	for host, want := range map[string]int{
		own: 200, "localhost": 200, "LOCALHOST.:8081": 200, "127.0.0.2:99": 200, "[::1]:8081": 200, "espalier.localhost": 200,
		"attacker.example": 421, "attacker.example:8081": 421, "localhost.attacker.example": 421,
		"192.0.2.1": 421, "[::2]:8081": 421, "127.0.0.1.attacker.example": 421, "0x7f000001": 421, "0.0.0.0:8081": 421,
	} {
		for _, path := range []string{"/", "/metrics", "/api/v1/status", "/assets/style.css"} {
			if resp, body := get(t, srv, "GET", path, host); resp.StatusCode != want || want == 421 && strings.Contains(body, "proxy-1") {
				t.Errorf("Host %s, %s: %d", host, path, resp.StatusCode)
			}
		}
	}
}

func TestIsAddress(t *testing.T) {
	local := &net.TCPAddr{IP: net.ParseIP("192.0.2.10"), Port: 8081}
	for host, want := range map[string]bool{
		"192.0.2.10": true, "192.0.2.10:8081": true, "192.0.2.10:9": true, "[::ffff:192.0.2.10]:8081": true,
		"192.0.2.11": false, "": false, ":8081": false, "proxy.school.example": false,
	} {
		if got := isAddress(hostOf(&http.Request{Host: host}), local); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
	if isAddress("192.0.2.10", nil) {
		t.Error("an address is the listener's although the listener is not known")
	}
}

func TestStatusAPI(t *testing.T) {
	st := testStatus()
	st.Reload.OK, st.Reload.Problems = false, []string{"espalier.yaml:3:1: pacc: unknown key"}
	srv := adminServer(t, func() api.Status { return st }, traffic.New())
	_, body := get(t, srv, "GET", "/api/v1/status", "")
	var got api.Status
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if got.UptimeSeconds < 90*60 || got.Go == "" || got.PACURL != st.PACURL || got.Reload.OK || got.Reload.Problems[0] != st.Reload.Problems[0] {
		t.Error(body)
	}
	st = api.Status{}
	if _, body := get(t, srv, "GET", "/api/v1/status", ""); strings.Contains(body, "null") {
		t.Errorf("null in place of an empty list: %s", body)
	}
}

func TestServicesAPI(t *testing.T) {
	c := traffic.New()
	push := c.Service(catalog.Push)
	push.AddUp(5)
	push.AddDown(7)
	push.TunnelOpened()
	push.Request(policy.Tunnel)
	srv := adminServer(t, testStatus, c)
	_, body := get(t, srv, "GET", "/api/v1/services", "")
	var got api.Services
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Services) != len(catalog.Services) || got.Since.IsZero() {
		t.Fatal(body)
	}
	s := got.Services[0]
	if s.Service != "push" || s.Name == "" || s.Up != 5 || s.Down != 7 || s.Tunnels != 1 || s.Requests[policy.Tunnel] != 1 || len(s.Requests) != len(traffic.Actions) {
		t.Errorf("%+v", s)
	}
}

func TestMetrics(t *testing.T) {
	st := testStatus()
	c := traffic.New()
	srv := adminServer(t, func() api.Status { return st }, c)
	metrics := func() string {
		resp, body := get(t, srv, "GET", "/metrics", "")
		if resp.StatusCode != 200 {
			t.Fatal(body)
		}
		return body
	}
	c.Service(catalog.Push).AddDown(42)
	text := metrics()
	for _, want := range []string{
		`espalier_bytes_total{direction="down",service="push"} 42`,
		"espalier_config_last_reload_successful 1",
		"espalier_config_last_reload_success_timestamp_seconds 1.7e+09",
		"go_goroutines ", "process_open_fds ",
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("%s is missing", want)
		}
	}
	if !regexp.MustCompile(`(?m)^espalier_build_info\{go="go1[^"]+",version="v1.2.3"\} 1$`).MatchString(text) {
		t.Error("build info is missing")
	}
	st.Reload.OK = false
	if !strings.Contains(metrics(), "\nespalier_config_last_reload_successful 0\n") {
		t.Error("a failed reload does not show")
	}
}

func TestPanicIsAnswered(t *testing.T) {
	core, ops := observer.New(zap.ErrorLevel)
	c := testControl()
	c.Status, c.Log = func() api.Status { panic("no status") }, zap.New(core)
	srv := serveAdmin(t, c)
	for _, path := range []string{"/", "/api/v1/status"} {
		if resp, body := get(t, srv, "GET", path, ""); resp.StatusCode != 500 || strings.Contains(body, "no status") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
	if ops.Len() != 2 {
		t.Errorf("logged: %v", ops.All())
	}
}

func TestOverviewPage(t *testing.T) {
	st := testStatus()
	c := traffic.New()
	srv := adminServer(t, func() api.Status { return st }, c)
	page := func() string {
		_, body := get(t, srv, "GET", "/", "")
		return body
	}
	contains := func(name, body string, want bool, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if strings.Contains(body, text) != want {
				t.Errorf("%s: %q: contained %v, want %v", name, text, !want, want)
			}
		}
	}

	empty := page()
	contains("before traffic", empty, true, "http://192.0.2.10:8080/proxy.pac", "192.0.2.10:3128", "Nothing has come through yet",
		fmt.Sprintf("%d services without traffic", len(catalog.Services)), "In force", "[::]:3128")
	contains("before traffic", empty, false, "Draining", "not taken over")

	update := c.Service("software-update")
	update.AddDown(3_000_000_000)
	update.Request(policy.Tunnel)
	update.Request(policy.Error)
	c.Service(catalog.Other).AddUp(1_000_000_000)
	c.Service(catalog.Other).Request(policy.Deny)
	busy := page()
	contains("with traffic", busy, true, "Software updates", "75.0 %", "3.00 GB", "1 failed", fmt.Sprintf("%d services without traffic", len(catalog.Services)-2))
	contains("with traffic", busy, false, "Nothing has come through yet")
	// What is there to do first stands first.
	if at := func(page string) int {
		return strings.Index(page, "Give this to your devices") - strings.Index(page, "In figures")
	}; at(empty) > 0 || at(busy) < 0 {
		t.Error("what devices are given does not stand first before they use it, and last then")
	}
	if strings.Index(busy, "Software updates") > strings.Index(busy, "Everything else") {
		t.Error("the service with the most bytes does not come first")
	}

	st.Draining, st.PACURL = true, ""
	st.Node = `<script>alert(1)</script>`
	st.Reload.OK, st.Reload.Problems = false, []string{`espalier.yaml:3:1: "<b>" is no host`}
	st.AccessLog = api.AccessLog{Error: "no space left on <device>", Since: time.Now(), Lost: 12}
	st.CA = &api.CA{NotAfter: time.Now(), Warnings: []string{"the CA expires in 7 days <soon>"}}
	bad := page()
	contains("in trouble", bad, true, "log cannot be written", "on &lt;device&gt;</code>", "12 have been lost since the start", "is draining", "not taken over", "&lt;b&gt;", "No PAC script is served", "Last reload failed",
		"The interception CA needs attention", "<li>the CA expires in 7 days &lt;soon&gt;</li>")
	contains("in trouble", bad, false, "<script>", "<b>")

	st.PACProxies = []health.Status{{Proxy: "a.example:3128", Up: true}, {Proxy: "b.example:3128", Since: time.Now(), Error: "connection <refused>"}}
	st.PACFetches = []public.Fetches{{Site: "north", Agent: "apple", Count: 1234, Last: time.Now().Add(-time.Minute)}}
	st.Lists = []lists.Status{
		{Name: "ads", Source: "https://lists.example/ads", Entries: 1_234_567, BadLines: 1200, Loaded: time.Now().Add(-2 * time.Hour)},
		{Name: "old", Source: "https://lists.example/old", Entries: 2, Loaded: time.Now().Add(-99 * time.Hour), Stale: true, Error: "no <answer>"},
		{Name: "new", Source: "/etc/new.txt"},
	}
	listed := page()
	contains("lists", listed, true, "1,234,567 entries", "1,200 bad lines", "2 h 0 min ago", "4 d 3 h ago", "Stale</span>", "no &lt;answer&gt;", "Matches nothing yet", "/etc/new.txt")
	contains("PAC", listed, true, "Not every proxy of the PAC script", "<code>b.example:3128</code>", "connection &lt;refused&gt;", "site north", "1,234", "1 min 0 s ago")
	contains("PAC", listed, false, "a.example")
	contains("without fetches", busy, false, "Not every proxy", "Who fetches")
	contains("without lists", busy, false, "Lists</h2>", "Matches nothing yet")

	st.AccessLog = api.AccessLog{Lost: 12}
	over := page()
	contains("after the trouble", over, true, "Access records have been lost", "12 since the start")
	contains("after the trouble", over, false, "cannot be written")
	contains("without trouble", busy, false, "cannot be written", "records have been lost", "interception CA")

	for _, body := range []string{empty, busy, bad, listed, over} {
		if m := regexp.MustCompile(`(?i)<script[^>]*>[^<]|<style|\sstyle=|\son[a-z]+=|(href|src)="(https?:)?//`).FindString(body); m != "" {
			t.Errorf("the content security policy forbids %q", m)
		}
	}
}

// What comes in plain from other machines is led to https, and nothing that it
// sends is taken; inside TLS and from this machine all is as it is.
func TestConsoleWantsTLSFromElsewhere(t *testing.T) {
	here, elsewhere := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8081}, &net.TCPAddr{IP: net.ParseIP("192.0.2.10"), Port: 8081}
	reached := 0
	h := guarded(func() []string { return []string{"192.0.2.10"} }, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { reached++ }))
	for _, x := range []struct {
		name, method, header string
		local                net.Addr
		tls                  bool
		status               int
	}{
		{"from here", "POST", "", here, false, 200},
		{"inside TLS", "POST", "Authorization", elsewhere, true, 200},
		{"a page", "GET", "", elsewhere, false, 308},
		{"a password", "POST", "", elsewhere, false, 403},
		{"a token", "GET", "Authorization", elsewhere, false, 403},
	} {
		r := httptest.NewRequest(x.method, "http://192.0.2.10:8081/logs?since=1h", nil)
		if x.header != "" {
			r.Header.Set(x.header, "Bearer x")
		}
		if x.tls {
			r.TLS = &tls.ConnectionState{}
		}
		w, before := httptest.NewRecorder(), reached
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, x.local)))
		location := ""
		if x.status == 308 {
			location = "https://192.0.2.10:8081/logs?since=1h"
		}
		if w.Code != x.status || w.Header().Get("Location") != location || (reached > before) != (x.status == 200) {
			t.Errorf("%s: %d to %q, reached the console: %v", x.name, w.Code, w.Header().Get("Location"), reached > before)
		}
	}
}
