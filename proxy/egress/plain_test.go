package egress

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// Plain requests find a parent, or the destination itself.
func TestDialPlain(t *testing.T) {
	p := serveParent(t, opened)
	cfg := through(closedPort(t), "user:geheim@"+p.addr)
	cfg.Hosts = map[string]string{"fixed.example": "1.1.1.1"}
	d := dialer(t, cfg)
	for _, host := range []string{"name.example:80", "8.8.8.8:80"} {
		c, via, err := d.DialPlain(t.Context(), target(t, host))
		if err != nil || via == nil || c.RemoteAddr().String() != p.addr {
			t.Fatalf("%s: %v, %v", host, via, err)
		}
		c.Close()
		if got := via.ProxyAuthorization(); got != "Basic dXNlcjpnZWhlaW0=" {
			t.Errorf("%s: %s", host, got)
		}
		if text := fmt.Sprintf("%v %+v", via, via); text != p.addr+" "+p.addr {
			t.Errorf("shown as %s", text)
		}
	}
	c, via, err := d.DialPlain(t.Context(), target(t, "fixed.example:80"))
	if err != nil || via != nil {
		t.Fatalf("fixed.example: %v, %v", via, err)
	}
	echoes(t, c, "")
	if got := p.asked(); !slices.Equal(got, []string{"CONNECT 1.1.1.1:80 HTTP/1.1"}) {
		t.Errorf("asked %q", got)
	}

	d = dialer(t, Config{Allow: []string{"loopback"}})
	c, via, err = d.DialPlain(t.Context(), target(t, p.addr))
	if err != nil || via != nil {
		t.Fatalf("no parent: %v, %v", via, err)
	}
	c.Close()

	gone := dialer(t, through(closedPort(t)))
	var e *ParentError
	if c, _, err := gone.DialPlain(t.Context(), target(t, "name.example:80")); !errors.As(err, &e) || c != nil {
		t.Errorf("gone: %v, %v", c, err)
	}
}

// http.Transport sends plain requests to the parent in absolute form.
func TestTransport(t *testing.T) {
	p := serveParent(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	cfg := through(closedPort(t), "user:geheim@"+p.addr)
	cfg.Hosts = map[string]string{"fixed.example": "1.1.1.1"}
	d := dialer(t, cfg)
	transport := &http.Transport{Proxy: d.Proxy, DialContext: d.DialContext}
	defer transport.CloseIdleConnections()
	get := func(url string) error {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	var e *ParentError
	if err := get("http://name.example/a"); !errors.As(err, &e) || !slices.Equal(resting(d), []int{0}) {
		t.Errorf("the first parent refuses connections: %v, resting %v", err, resting(d))
	}
	if err := get("http://name.example/b"); err != nil {
		t.Error(err)
	}
	p.mu.Lock()
	if got := strings.Join(p.got, ""); !strings.HasPrefix(got, "GET http://name.example/b HTTP/1.1\r\n") || !strings.Contains(got, "\r\nProxy-Authorization: Basic dXNlcjpnZWhlaW0=\r\n") {
		t.Errorf("asked %q", got)
	}
	p.mu.Unlock()
	p.asked()
	var forbidden *ForbiddenError
	if err := get("http://10.0.0.1/"); !errors.As(err, &forbidden) || len(p.asked()) > 0 {
		t.Errorf("a private address: %v", err)
	}
	_ = get("http://fixed.example/") // what comes out of the tunnel is no matter here
	if got := p.asked(); !slices.Equal(got, []string{"CONNECT 1.1.1.1:80 HTTP/1.1"}) {
		t.Errorf("a fixed address: asked %q", got)
	}
	for _, p := range d.parents {
		p.failed(time.Now(), time.Now())
	}
	if u, err := d.Proxy(&http.Request{URL: &url.URL{Host: "name.example"}}); err != nil || u != d.parents[0].url {
		t.Errorf("all rest: %v", err)
	}

	o := listen(t, "127.0.0.1", 0)
	d = dialer(t, Config{Allow: []string{"loopback"}})
	if u, err := d.Proxy(&http.Request{URL: &url.URL{Host: "127.0.0.1"}}); u != nil || err != nil || d.HasParent() {
		t.Errorf("no parent: %v, %v", u, err)
	}
	c, err := d.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", o.port))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
