package public

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"espalier/pac"
	"espalier/pac/health"
	"espalier/policy"
	"espalier/proxy/hello"
)

var publicRoutes = pac.Routes{
	Apple: []string{"proxy", "direct"}, AppleUnmarked: []string{"proxy", "direct"},
	Internal: []string{"direct"}, Default: []string{"proxy"},
}

func publicPAC(t testing.TB, cfg pac.Config) *pac.PAC {
	t.Helper()
	cfg.Routes = publicRoutes
	p, err := policy.New(policy.Config{Apple: policy.Apple{Wide: true}})
	if err != nil {
		t.Fatal(err)
	}
	compiled, err := pac.Compile(cfg, p)
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

// A publicStage is a public server on loopback.
type publicStage struct {
	*Handler
	addr   string
	pac    atomic.Pointer[pac.PAC]
	root   atomic.Pointer[x509.Certificate]
	ready  atomic.Pointer[error]
	export atomic.Pointer[string]
	logs   *observer.ObservedLogs
	health *health.Prober
	hello  *hello.Listener
}

var anyAddress = []netip.AddrPort{netip.MustParseAddrPort("[::]:3128")}

func newPublicStage(t testing.TB, cfg pac.Config, proxy []netip.AddrPort, listen string) *publicStage {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	s := &publicStage{logs: logs, health: health.New()}
	s.pac.Store(publicPAC(t, cfg))
	s.Handler = New(Source{
		PAC:    s.pac.Load,
		Proxy:  proxy,
		Health: s.health,
		Root:   s.root.Load,
		RootProfile: func() []byte {
			if s.root.Load() == nil {
				return nil
			}
			return []byte("<plist/>")
		},
		Export: func(format string) []byte {
			if text := s.export.Load(); text != nil {
				return []byte(format + *text)
			}
			return nil
		},
		URL:   func() string { return "http://proxy.example:8080" },
		About: func() (string, string) { return "Example <School>", "Help desk\nroom 12" },
		Ready: func() error {
			if err := s.ready.Load(); err != nil {
				return *err
			}
			return nil
		},
		Log: zap.New(core),
	})
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Skipf("this machine does not listen on %s: %v", listen, err)
	}
	s.addr = l.Addr().String()
	s.hello = hello.NewListener(l)
	server := s.Server()
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(s.hello) }()
	t.Cleanup(func() { server.Close(); <-done })
	return s
}

// do sends head, which has \n for line ends and lacks the blank line, and reads
// the answer.
func (s *publicStage) do(t *testing.T, head string) (*http.Response, string) {
	t.Helper()
	return s.doAt(t, s.addr, head)
}

func (s *publicStage) doAt(t *testing.T, addr, head string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, strings.ReplaceAll(head, "\n", "\r\n")+"\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(head, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", head, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%q: %v", head, err)
	}
	return resp, string(body)
}

const hostLine = " HTTP/1.1\nHost: x"

// A proxy that is not well stands last, at once and for those too who
// ask whether anything has changed.
func TestPublicNamesFailedProxiesLast(t *testing.T) {
	open, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	shut, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, b := shut.Addr().String(), open.Addr().String()
	s := newPublicStage(t, pac.Config{Proxies: []string{a, b}, Probe: true}, nil, "127.0.0.1:0")
	resp, body := s.do(t, "GET /proxy.pac"+hostLine)
	if !strings.Contains(body, `"PROXY `+a+`; PROXY `+b+`"`) || resp.Header.Get("Cache-Control") != "private, max-age=60" {
		t.Errorf("with both open: %s\n%s", resp.Header, body)
	}
	etag, modified := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	shut.Close()
	s.health.Watch(s.pac.Load().Probed())
	watching, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.health.Run(watching) }()
	for deadline := time.Now().Add(time.Minute); s.health.Up(a) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	<-done
	if _, body := s.do(t, "GET /proxy.pac"+hostLine); !strings.Contains(body, `"PROXY `+b+`; PROXY `+a+`"`) {
		t.Errorf("with the first closed: %s", body)
	}
	for _, header := range []string{"If-None-Match: " + etag, "If-Modified-Since: " + modified} {
		if resp, _ := s.do(t, "GET /proxy.pac"+hostLine+"\n"+header); resp.StatusCode != 200 {
			t.Errorf("%s: status %d", header, resp.StatusCode)
		}
	}
}

func TestPublicPaths(t *testing.T) {
	s := newPublicStage(t, pac.Config{WPAD: true, Sites: map[string]pac.Site{
		"school": {Proxies: []string{"school.example:80"}},
		"lab":    {Clients: []string{"192.0.2.0/24"}},
	}}, anyAddress, "127.0.0.1:0")
	for _, c := range []struct {
		line   string
		status int
		body   string // is contained
	}{
		{"GET /proxy.pac", 200, `"PROXY 127.0.0.1:3128"`},
		{"GET /proxy.pac?v=2", 200, `"PROXY 127.0.0.1:3128"`},
		{"GET http://proxy.example/proxy.pac", 200, `"PROXY 127.0.0.1:3128"`},
		{"GET /wpad.dat", 200, `"PROXY 127.0.0.1:3128"`},
		{"GET /wpad.da", 200, `"PROXY 127.0.0.1:3128"`},
		{"GET /pac/school.pac", 200, `"PROXY school.example:80"`},
		{"GET /pac/lab.pac", 200, `"PROXY 127.0.0.1:3128"`},
		{"GET /pac/nowhere.pac", 404, "nothing at this path"},
		{"GET /pac/default.pac", 404, "nothing at this path"},
		{"GET /pac/.pac", 404, "nothing at this path"},
		{"GET /pac/school", 404, "nothing at this path"},
		{"GET /pac/../proxy.pac", 404, "nothing at this path"},
		{"GET /proxy.pac/", 404, "nothing at this path"},
		{"GET //proxy.pac", 404, "nothing at this path"},
		{"GET /PROXY.PAC", 404, "nothing at this path"},
		{"GET /ca.crt", 404, "nothing at this path"},
		{"GET /ca.mobileconfig", 404, "nothing at this path"},
		{"GET /", 200, "<h1>Web proxy</h1>"},
		{"GET /?x", 200, "<h1>Web proxy</h1>"},
		{"GET http://www.example.org/", 404, "nothing at this path"},
		{"GET //", 404, "nothing at this path"},
		{"GET /index.html", 404, "nothing at this path"},
		{"GET /healthz", 200, "ok\n"},
		{"GET /readyz", 200, "ok\n"},
		{"POST /proxy.pac", 405, "only GET and HEAD"},
		{"OPTIONS *", 405, "only GET and HEAD"},
		{"CONNECT gs.apple.com:443", 405, "only GET and HEAD"},
		{"BREW /proxy.pac", 405, "only GET and HEAD"},
	} {
		resp, body := s.do(t, c.line+hostLine)
		if resp.StatusCode != c.status || !strings.Contains(body, c.body) {
			t.Errorf("%s: %d %q; want %d with %q", c.line, resp.StatusCode, body, c.status, c.body)
		}
		if resp.ContentLength != int64(len(body)) {
			t.Errorf("%s: Content-Length %d, body of %d", c.line, resp.ContentLength, len(body))
		}
		for _, name := range []string{"Location", "Set-Cookie"} {
			if v := resp.Header.Get(name); v != "" {
				t.Errorf("%s: %s: %s", c.line, name, v)
			}
		}
		if allow := resp.Header.Get("Allow"); (c.status == 405) != (allow == "GET, HEAD") {
			t.Errorf("%s: Allow: %q", c.line, allow)
		}
	}
	want := `
# HELP espalier_pac_requests_total Requests for the PAC script, by site; default is outside sites.
# TYPE espalier_pac_requests_total counter
espalier_pac_requests_total{site="default"} 5
espalier_pac_requests_total{site="lab"} 1
espalier_pac_requests_total{site="school"} 1
`
	if err := testutil.CollectAndCompare(s.Collector(), strings.NewReader(want)); err != nil {
		t.Error(err)
	}

	s.pac.Store(publicPAC(t, pac.Config{Proxies: []string{"new.example:1"}}))
	if _, body := s.do(t, "GET /proxy.pac"+hostLine); !strings.Contains(body, "PROXY new.example:1") {
		t.Errorf("after a reload: %s", body)
	}
	for _, path := range []string{"/wpad.dat", "/wpad.da", "/pac/school.pac"} {
		if resp, _ := s.do(t, "GET "+path+hostLine); resp.StatusCode != 404 {
			t.Errorf("%s after a reload without it: %d", path, resp.StatusCode)
		}
	}
	err := errors.New("draining")
	s.ready.Store(&err)
	if resp, body := s.do(t, "GET /readyz"+hostLine); resp.StatusCode != 503 || body != "draining\n" {
		t.Errorf("not ready: %d %q", resp.StatusCode, body)
	}
	if n := s.logs.Len(); n != 0 {
		t.Errorf("%d lines were logged: %v", n, s.logs.All())
	}
}

func TestPublicScriptHeaders(t *testing.T) {
	s := newPublicStage(t, pac.Config{}, anyAddress, "127.0.0.1:0")
	get, body := s.do(t, "GET /proxy.pac"+hostLine)
	for name, want := range map[string]string{
		"Content-Type":           "application/x-ns-proxy-autoconfig",
		"Cache-Control":          "private, max-age=300",
		"Vary":                   "Accept-Encoding",
		"X-Content-Type-Options": "nosniff",
		"Content-Encoding":       "",
		"Last-Modified":          s.pac.Load().Modified().UTC().Format(http.TimeFormat),
	} {
		if got := get.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if expires, err := http.ParseTime(get.Header.Get("Expires")); err != nil || !expires.After(time.Now()) {
		t.Errorf("Expires: %q", get.Header.Get("Expires"))
	}
	engine, err := pac.NewEvaluator([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := engine.FindProxy("https://gs.apple.com", "gs.apple.com."); err != nil || got != "PROXY 127.0.0.1:3128; DIRECT" {
		t.Errorf("the script says %q, %v", got, err)
	}

	head, none := s.do(t, "HEAD /proxy.pac"+hostLine)
	if none != "" || head.StatusCode != 200 {
		t.Errorf("HEAD: %d with a body of %d bytes", head.StatusCode, len(none))
	}
	for _, name := range []string{"Content-Type", "Content-Length", "ETag", "Last-Modified", "Cache-Control", "Vary"} {
		if h, g := head.Header.Get(name), get.Header.Get(name); h != g || h == "" {
			t.Errorf("%s: %q to HEAD, %q to GET", name, h, g)
		}
	}
}

func TestPublicNotModified(t *testing.T) {
	s := newPublicStage(t, pac.Config{}, anyAddress, "127.0.0.1:0")
	first, _ := s.do(t, "GET /proxy.pac"+hostLine)
	etag, modified := first.Header.Get("ETag"), first.Header.Get("Last-Modified")
	old := s.pac.Load().Modified().Add(-time.Hour).UTC().Format(http.TimeFormat)
	for _, c := range []struct {
		headers string
		status  int
	}{
		{"If-None-Match: " + etag, 304},
		{"If-None-Match: " + strings.TrimPrefix(etag, "W/"), 304},
		{`If-None-Match: "a", W/"b" , ` + etag, 304},
		{"If-None-Match: \"a\"\nIf-None-Match: " + etag, 304},
		{"If-None-Match: *", 304},
		{`If-None-Match: "a"`, 200},
		{"If-None-Match: \"a\"\nIf-Modified-Since: " + modified, 200},
		{"If-None-Match: " + etag + "\nIf-Modified-Since: " + old, 304},
		{"If-Modified-Since: " + modified, 304},
		{"If-Modified-Since: " + old, 200},
		{"If-Modified-Since: yesterday", 200},
		{"Accept-Encoding: gzip\nIf-None-Match: " + etag, 304},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			resp, body := s.do(t, method+" /proxy.pac"+hostLine+"\n"+c.headers)
			if resp.StatusCode != c.status {
				t.Errorf("%s with %q: %d, want %d", method, c.headers, resp.StatusCode, c.status)
			}
			if resp.StatusCode == 304 && (body != "" || resp.Header.Get("ETag") != etag || resp.Header.Get("Expires") == "") {
				t.Errorf("304 to %q: body %q, headers %v", c.headers, body, resp.Header)
			}
		}
	}

	// A device that moves to another site keeps the date and needs the script.
	s.pac.Store(publicPAC(t, pac.Config{Sites: map[string]pac.Site{"a": {Clients: []string{"127.0.0.0/8"}, Proxies: []string{"a.example:1"}}}}))
	future := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for path, status := range map[string]int{"/proxy.pac": 200, "/pac/a.pac": 304} {
		if resp, _ := s.do(t, "GET "+path+hostLine+"\nIf-Modified-Since: "+future); resp.StatusCode != status {
			t.Errorf("%s by date, with sites by client: %d, want %d", path, resp.StatusCode, status)
		}
	}
}

func TestPublicGzip(t *testing.T) {
	s := newPublicStage(t, pac.Config{}, anyAddress, "127.0.0.1:0")
	_, want := s.do(t, "GET /proxy.pac"+hostLine)
	for accept, encoded := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "x-gzip": true, "gzip, deflate, br": true, "deflate": false, "br;q=1.0, gzip;q=0.8, *;q=0.1": true,
		"gzip;q=0": false, "gzip; q=0.000": false, "*": true, "*;q=0": false, "gzip;q=0, *": false, "identity": false,
		"identity;q=1, gzip;q=0.5": false, "identity;q=0.5, gzip": true, "gzip;q=x": false, "gzip;q=-1": false, "gzip;q=NaN": false, ";,;": false,
	} {
		resp, body := s.do(t, "GET /proxy.pac"+hostLine+"\nAccept-Encoding: "+accept)
		if got := resp.Header.Get("Content-Encoding") == "gzip"; got != encoded {
			t.Errorf("Accept-Encoding: %s: gzip is %v, want %v", accept, got, encoded)
			continue
		}
		if encoded {
			r, err := gzip.NewReader(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			body = string(plain)
		}
		if body != want || resp.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("Accept-Encoding: %s: body of %d bytes, want %d; headers %v", accept, len(body), len(want), resp.Header)
		}
	}
}

// The Host header is a stranger's word: it changes nothing.
func TestPublicIgnoresHost(t *testing.T) {
	s := newPublicStage(t, pac.Config{WPAD: true}, anyAddress, "127.0.0.1:0")
	_, want := s.do(t, "GET /proxy.pac"+hostLine)
	for _, head := range []string{
		"GET /proxy.pac HTTP/1.1\nHost: evil.example", "GET /proxy.pac HTTP/1.1\nHost: wpad", "GET /wpad.dat HTTP/1.1\nHost: ",
		"GET /proxy.pac HTTP/1.1\nHost: [::1]:99999", `GET /proxy.pac HTTP/1.1` + "\n" + `Host: "+alert(1)+"`, "GET /proxy.pac HTTP/1.0\nX: y",
		"GET http://evil.example/proxy.pac HTTP/1.1\nHost: a\nX-Forwarded-Host: evil.example\nForwarded: host=evil.example",
	} {
		if resp, body := s.do(t, head); resp.StatusCode == 200 && body != want || resp.StatusCode != 200 && resp.StatusCode != 400 {
			t.Errorf("%q: %d %s", head, resp.StatusCode, body)
		}
	}
}

func TestPublicNamesTheAddressItWasAskedAt(t *testing.T) {
	for _, c := range []struct {
		name, listen, proxy string
		status              int
		want                string
	}{
		{"IPv4", "127.0.0.3:0", "[::]:3128", 200, `"PROXY 127.0.0.3:3128"`},
		{"IPv6", "[::1]:0", "[::]:3128", 200, `"PROXY 127.0.0.1:3128"`},
		{"the proxy's own", "127.0.0.3:0", "127.0.0.4:3128", 200, `"PROXY 127.0.0.4:3128"`},
		{"none", "127.0.0.3:0", "[2001:db8::1]:3128", 503, "set pac.proxies"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newPublicStage(t, pac.Config{}, []netip.AddrPort{netip.MustParseAddrPort(c.proxy)}, c.listen)
			resp, body := s.do(t, "GET /proxy.pac"+hostLine)
			if resp.StatusCode != c.status || !strings.Contains(body, c.want) {
				t.Errorf("%d %s; want %d with %s", resp.StatusCode, body, c.status, c.want)
			}
		})
	}
}

// Every address of a machine is named to who asks by it, however many there are.
func TestPublicManyAddresses(t *testing.T) {
	s := newPublicStage(t, pac.Config{}, anyAddress, "0.0.0.0:0")
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		host := fmt.Sprintf("127.1.%d.%d", i/200, i%200+1)
		resp, body := s.doAt(t, net.JoinHostPort(host, port), "GET /proxy.pac"+hostLine)
		if resp.StatusCode != 200 || !strings.Contains(body, `"PROXY `+host+`:3128"`) {
			t.Fatalf("at %s: %d %s", host, resp.StatusCode, body)
		}
	}
}

func TestPublicRefusesTLS(t *testing.T) {
	s := newPublicStage(t, pac.Config{}, anyAddress, "127.0.0.1:0")
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if err := tls.Client(c, &tls.Config{ServerName: "proxy.example"}).Handshake(); err == nil || !strings.Contains(err.Error(), "handshake failure") {
		t.Errorf("handshake: %v", err)
	}
	if n, logged := s.hello.Refused(), s.logs.Len(); n != 1 || logged != 0 {
		t.Errorf("%d refused, %d lines logged; want 1 and none", n, logged)
	}
}

func TestPublicServerLimits(t *testing.T) {
	s := newPublicStage(t, pac.Config{}, anyAddress, "127.0.0.1:0")
	if resp, _ := s.do(t, "GET /proxy.pac"+hostLine+"\nX: "+strings.Repeat("x", 16<<10)); resp.StatusCode != 431 {
		t.Errorf("a head of 16 KB: %d, want 431", resp.StatusCode)
	}
}

func TestPublicPanicIsAnswered(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	p := New(Source{PAC: func() *pac.PAC { panic("broken") }, Log: zap.New(core)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := p.Server()
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	defer func() { server.Close(); <-done }()
	s := &publicStage{addr: l.Addr().String()}
	resp, body := s.do(t, "GET /proxy.pac"+hostLine)
	if resp.StatusCode != 500 || strings.Contains(body, "broken") || logs.Len() != 1 {
		t.Errorf("%d %q, %d lines logged", resp.StatusCode, body, logs.Len())
	}
}

func TestPublicRoot(t *testing.T) {
	s := newPublicStage(t, pac.Config{}, anyAddress, "127.0.0.1:0")
	s.root.Store(&x509.Certificate{Raw: []byte("a certificate")})
	resp, body := s.do(t, "GET /ca.crt"+hostLine)
	if resp.StatusCode != 200 || body != "a certificate" || resp.Header.Get("Content-Type") != "application/x-x509-ca-cert" {
		t.Errorf("GET: %d %q %q", resp.StatusCode, body, resp.Header)
	}
	tag := resp.Header.Get("ETag")
	if resp, body := s.do(t, "HEAD /ca.crt"+hostLine); resp.StatusCode != 200 || body != "" || resp.ContentLength != 13 || resp.Header.Get("ETag") != tag {
		t.Errorf("HEAD: %d %q %q", resp.StatusCode, body, resp.Header)
	}
	again := "GET /ca.crt" + hostLine + "\nIf-None-Match: " + tag
	if resp, body := s.do(t, again); resp.StatusCode != 304 || body != "" {
		t.Errorf("the same again: %d %q", resp.StatusCode, body)
	}
	s.root.Store(&x509.Certificate{Raw: []byte("another")})
	if resp, body := s.do(t, again); resp.StatusCode != 200 || body != "another" {
		t.Errorf("another root: %d %q", resp.StatusCode, body)
	}
}

// Lists for firewalls follow the policy, and are asked for again with an ETag.
func TestPublicExport(t *testing.T) {
	s := newPublicStage(t, pac.Config{}, anyAddress, "127.0.0.1:0")
	if resp, _ := s.do(t, "GET /export/devices.txt"+hostLine); resp.StatusCode != 404 {
		t.Errorf("switched off: %d", resp.StatusCode)
	}
	set := func(text string) { s.export.Store(&text) }
	set("\ngs.apple.com\n")
	resp, body := s.do(t, "GET /export/devices.txt"+hostLine)
	if resp.StatusCode != 200 || body != "list\ngs.apple.com\n" || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("GET: %d %q %q", resp.StatusCode, body, resp.Header)
	}
	tag := resp.Header.Get("ETag")
	if resp, body := s.do(t, "HEAD /export/devices.txt"+hostLine); resp.StatusCode != 200 || body != "" || resp.ContentLength != 18 || resp.Header.Get("ETag") != tag {
		t.Errorf("HEAD: %d %q %q", resp.StatusCode, body, resp.Header)
	}
	again := "GET /export/devices.txt" + hostLine + "\nIf-None-Match: " + tag
	if resp, body := s.do(t, again); resp.StatusCode != 304 || body != "" {
		t.Errorf("the same again: %d %q", resp.StatusCode, body)
	}
	set("\n")
	if resp, body := s.do(t, again); resp.StatusCode != 200 || body != "list\n" {
		t.Errorf("after a reload: %d %q", resp.StatusCode, body)
	}
	if resp, body := s.do(t, "GET /export/devices-networks.txt"+hostLine); resp.StatusCode != 200 || body != "networks\n" {
		t.Errorf("networks: %d %q", resp.StatusCode, body)
	}
	for _, path := range []string{"/export/", "/export/servers.txt", "/export/devices.txt/", "/export"} {
		if resp, _ := s.do(t, "GET "+path+hostLine); resp.StatusCode != 404 {
			t.Errorf("%s: %d, want 404", path, resp.StatusCode)
		}
	}
}

// BenchmarkPublicServed is the script over connections on loopback that stay open,
// the clients' work included; not modified where the client has it.
func BenchmarkPublicServed(b *testing.B) {
	s := newPublicStage(b, pac.Config{Proxies: []string{"a.example:3128", "b.example:3128"}, Spread: true}, nil, "127.0.0.1:0")
	resp, err := http.Head("http://" + s.addr + "/proxy.pac")
	if err != nil {
		b.Fatal(err)
	}
	resp.Body.Close()
	for _, c := range []struct{ name, header string }{
		{"whole", ""}, {"gzip", "Accept-Encoding: gzip\r\n"}, {"not-modified", "If-None-Match: " + resp.Header.Get("ETag") + "\r\n"},
	} {
		request := "GET /proxy.pac HTTP/1.1\r\nHost: x\r\n" + c.header + "\r\n"
		b.Run(c.name, func(b *testing.B) {
			b.SetParallelism(8)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("tcp", s.addr)
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				in := bufio.NewReader(conn)
				for pb.Next() {
					if _, err := io.WriteString(conn, request); err != nil {
						b.Error(err)
						return
					}
					resp, err := http.ReadResponse(in, nil)
					if err != nil {
						b.Error(err)
						return
					}
					if _, err := io.Copy(io.Discard, resp.Body); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}

// The page for people names the script, the certificate and the contact, in the
// device's language, and keeps a secret path to itself.
func TestPublicWelcome(t *testing.T) {
	const secret = "0123456789abcdef0123456789"
	for name, tt := range map[string]struct {
		pac      pac.Config
		ca       bool
		language string
		want     []string
		not      []string
	}{
		"English": {language: "en-GB,en;q=0.9", want: []string{`<html lang="en">`, "<code>http://proxy.example:8080/proxy.pac</code>", "Example &lt;School&gt;", "Help desk\nroom 12"},
			not: []string{"/ca.", "SHA-256", "<script", "src="}},
		"Swedish":    {language: "sv-SE,sv;q=0.9,en;q=0.8", want: []string{`<html lang="sv">`, "Webbproxy", "<code>http://proxy.example:8080/proxy.pac</code>"}},
		"German":     {language: "de", want: []string{`<html lang="en">`}},
		"with a CA":  {ca: true, want: []string{`href="/ca.mobileconfig"`, `href="/ca.crt"`, "Example Root", "E3:<wbr>B0:<wbr>C4:<wbr>42"}},
		"with token": {pac: pac.Config{Token: secret}, want: []string{"<h1>Web proxy</h1>"}, not: []string{"proxy.example:8080", ".pac", secret}},
		"a site's token": {pac: pac.Config{Sites: map[string]pac.Site{"north": {Token: secret}}},
			want: []string{"<code>http://proxy.example:8080/proxy.pac</code>"}, not: []string{secret, "north"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newPublicStage(t, tt.pac, anyAddress, "127.0.0.1:0")
			if tt.ca {
				s.root.Store(&x509.Certificate{Raw: []byte{}, Subject: pkix.Name{CommonName: "Example Root"}})
			}
			resp, body := s.do(t, "GET / HTTP/1.1\nHost: x\nAccept-Language: "+tt.language)
			if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
				t.Fatalf("%s %v\n%s", resp.Status, resp.Header, body)
			}
			for _, want := range tt.want {
				if !strings.Contains(body, want) {
					t.Errorf("no %q in\n%s", want, body)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(body, not) {
					t.Errorf("%q in\n%s", not, body)
				}
			}
			for key, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Vary": "Accept-Language",
			} {
				if got := resp.Header.Get(key); got != want {
					t.Errorf("%s: %q, want %q", key, got, want)
				}
			}
			if csp := resp.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; style-src 'sha256-") {
				t.Errorf("Content-Security-Policy: %s", csp)
			}
			head, none := s.do(t, "HEAD / HTTP/1.1\nHost: x\nAccept-Language: "+tt.language)
			if none != "" || head.ContentLength != int64(len(body)) {
				t.Errorf("HEAD: %d bytes announced, %q sent; want %d", head.ContentLength, none, len(body))
			}
		})
	}
}

// Without a URL that devices reach the machine by, the page names the address that the
// request arrived at.
func TestPublicWelcomeWithoutURL(t *testing.T) {
	s := newPublicStage(t, pac.Config{}, anyAddress, "127.0.0.1:0")
	s.source.URL = func() string { return "" }
	_, body := s.do(t, "GET / HTTP/1.1\nHost: evil.example")
	if want := "<code>http://" + s.addr + "/proxy.pac</code>"; !strings.Contains(body, want) || strings.Contains(body, "evil") {
		t.Errorf("no %q in\n%s", want, body)
	}
}

func BenchmarkPublicScript(b *testing.B) {
	compiled := publicPAC(b, pac.Config{Proxies: []string{"192.0.2.1:3128"}})
	p := New(Source{PAC: func() *pac.PAC { return compiled }, Log: zap.NewNop()})
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET /proxy.pac HTTP/1.1\r\nHost: x\r\n\r\n")))
	if err != nil {
		b.Fatal(err)
	}
	r.RemoteAddr = "192.0.2.7:5000"
	b.ReportAllocs()
	for b.Loop() {
		p.ServeHTTP(&discard{h: http.Header{}}, r)
	}
}

type discard struct {
	bytes.Buffer
	h http.Header
}

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
