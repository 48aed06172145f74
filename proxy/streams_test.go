package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/elazarl/goproxy"

	"espalier/policy"
	"espalier/proxy/exchange"
)

// Every request by HTTP/2 but CONNECT passes through goproxy, once: plain ones
// and those inside TLS, to origins of both protocols.
func TestHTTP2PassesGoproxy(t *testing.T) {
	say := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.ProtoMajor, r.Header.Get("X-Hook")) }
	multiplexed := newSite(t, say)
	single := httptest.NewUnstartedServer(http.HandlerFunc(say))
	single.StartTLS() // with the same certificate
	t.Cleanup(single.Close)
	plain := httptest.NewServer(http.HandlerFunc(say))
	t.Cleanup(plain.Close)
	port := func(s *httptest.Server) int { return s.Listener.Addr().(*net.TCPAddr).Port }
	for _, tt := range []struct {
		name, url, want string
		intercepted     bool
	}{
		{"plain", plain.URL + "/", "1seen", false},
		{"intercepted", "https://" + multiplexed.at("example.com") + "/", "2seen", true},
		{"intercepted, HTTP/1 origin", fmt.Sprintf("https://example.com:%d/", port(single)), "1seen", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, trust := secured(t, multiplexed.everything())
			var asked, answered atomic.Int32
			r.server.forward.Proxy.OnRequest().DoFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Request, *http.Response) {
				asked.Add(1)
				r.Header.Set("X-Hook", "seen")
				return r, nil
			})
			r.server.forward.Proxy.OnResponse().DoFunc(func(resp *http.Response, _ *goproxy.ProxyCtx) *http.Response {
				answered.Add(1)
				resp.Header.Set("X-Answer", "seen")
				return resp
			})
			m := r.multiplexer(trust)
			conn := m.conn
			if tt.intercepted {
				conn = m.inside(r, strings.TrimSuffix(strings.TrimPrefix(tt.url, "https://"), "/"))
			}
			req, _ := http.NewRequest("GET", tt.url, nil)
			resp, err := conn.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if string(body) != tt.want || err != nil || resp.Header.Get("X-Answer") != "seen" || asked.Load() != 1 || answered.Load() != 1 {
				t.Errorf("%s %q, %v, header %v, %d and %d hooks", resp.Status, body, err, resp.Header, asked.Load(), answered.Load())
			}
			m.conn.Close()
		})
	}
}

// inside opens an intercepted connection by HTTP/2 in a stream.
func (m *multiplexer) inside(r *rig, target string) *http.ClientConn {
	m.t.Helper()
	outer := m.open(target, nil).pipe()
	host, _, _ := net.SplitHostPort(target)
	c := tls.Client(outer, &tls.Config{RootCAs: r.trusted(), ServerName: host, NextProtos: []string{"h2"}})
	if err := c.Handshake(); err != nil {
		m.t.Fatal(err)
	}
	conn := over(m.t, c)
	m.t.Cleanup(func() { conn.Close(); outer.Close() })
	return conn
}

// pipe is the tunnel as a connection.
func (v *virtual) pipe() net.Conn {
	outer, inner := net.Pipe()
	go func() { _, _ = io.Copy(inner, v.Body); inner.Close() }()
	go func() { _, _ = io.Copy(v.up, inner); v.up.Close() }()
	return outer
}

// What gRPC needs: both directions at the same time, trailers that were not announced,
// and TE, over one connection to the origin for all.
func TestHTTP2Calls(t *testing.T) {
	var mu sync.Mutex
	conns := map[string]bool{}
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		conns[r.RemoteAddr] = true
		mu.Unlock()
		if r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_ = http.NewResponseController(w).Flush()
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				break
			}
			fmt.Fprint(w, "echo ", line)
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Sum", r.Trailer.Get("Sum"))
	})
	r := start(t, site.everything(), false)
	browser := r.browser()
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			body, more := io.Pipe()
			req, _ := http.NewRequest("POST", "https://"+site.at("example.com")+"/", body)
			req.Header.Set("Te", "trailers")
			req.Trailer = http.Header{"Sum": nil}
			resp, err := browser.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			in := bufio.NewReader(resp.Body)
			for i := range 3 {
				fmt.Fprintln(more, i)
				if line, err := in.ReadString('\n'); line != fmt.Sprintf("echo %d\n", i) {
					t.Errorf("%q, %v", line, err)
				}
			}
			req.Trailer.Set("Sum", "42")
			more.Close()
			if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil || resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("Sum") != "42" {
				t.Errorf("%q, %v, trailers %v", rest, err, resp.Trailer)
			}
		})
	}
	calls.Wait()
	if len(conns) != 1 {
		t.Errorf("%d connections to the origin", len(conns))
	}
	browser.CloseIdleConnections()
	_, requests := byMethod(r.stop())
	if len(requests) != 20 {
		t.Fatalf("%d records", len(requests))
	}
	for _, x := range requests {
		if x.Status != 200 || x.Error != "" || x.Up != 6 || x.Down != 21 {
			t.Errorf("record %+v", x)
		}
	}
}

// An origin by HTTP/2 that ends its connection in order, or by a kill, costs the next
// request nothing but a new connection.
func TestHTTP2OriginLeaves(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method) })
	r := start(t, site.everything(), false)
	browser := r.browser()
	for i := range 5 {
		for _, method := range []string{"GET", "POST"} {
			req, _ := http.NewRequest(method, "https://"+site.at("example.com")+"/", nil)
			resp, err := browser.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(resp.Body); string(body) != method || err != nil {
				t.Errorf("round %d: %s %q, %v", i, resp.Status, body, err)
			}
			resp.Body.Close()
		}
		site.CloseClientConnections()
		await(t, "the proxy to see that", func() bool { return r.server.origins.Len() == 0 })
	}
}

// A client that resets a stream ends its request, at origins of both protocols, and
// not its connection.
func TestHTTP2ClientResets(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("secure=%v", secure), func(t *testing.T) {
			left := make(chan error, 1)
			wait := func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/" {
					return
				}
				<-r.Context().Done()
				left <- r.Context().Err()
			}
			site := newSite(t, wait)
			plain := httptest.NewServer(http.HandlerFunc(wait))
			t.Cleanup(plain.Close)
			r, trust := secured(t, site.everything())
			m := r.multiplexer(trust)
			conn, url := m.conn, plain.URL
			if secure {
				conn, url = m.inside(r, site.at("example.com")), "https://"+site.at("example.com")
			}
			ctx, cancel := context.WithCancel(context.Background())
			ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) {
				go func() {
					await(t, "the request to be counted", func() bool { _, n, _ := r.server.pipeline.Limits.Open(); return n > 0 })
					cancel()
				}()
			}})
			req, _ := http.NewRequestWithContext(ctx, "GET", url+"/wait", nil)
			if _, err := conn.RoundTrip(req); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			req, _ = http.NewRequest("GET", url+"/", nil)
			resp, err := conn.RoundTrip(req)
			if err != nil || resp.StatusCode != 200 {
				t.Errorf("behind it: %v, %v", resp, err)
			}
			m.conn.Close()
			_, requests := byMethod(r.stop())
			if len(requests) != 2 {
				t.Fatalf("records %+v", requests)
			}
			closed := 0
			for _, x := range requests {
				if x.Error == exchange.ErrClientClosed.Error() && x.Status == 0 {
					closed++
				}
			}
			if closed != 1 {
				t.Errorf("records %+v", requests)
			}
		})
	}
}

// Malformed requests have a record, with the host where it can be read.
func TestHTTP2MalformedRecords(t *testing.T) {
	r, trust := secured(t, setup{})
	r.askFor(trust, "http", "a.example", "no path")
	x := r.record()
	if x.Host != "a.example" || x.Status != 400 || x.Rule != exchange.RuleMalformed || x.Action != policy.Deny {
		t.Errorf("record %+v", x)
	}
}

// All of h2spec's cases pass where clients speak to the proxy.
func TestSecureH2spec(t *testing.T) {
	tool, err := filepath.Abs("../.tools/h2spec")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tool); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	r, _ := secured(t, setup{})
	host, port, _ := net.SplitHostPort(r.listener.Addr().String())
	out, err := exec.Command(tool, "-t", "-k", "-h", host, "-p", port).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "145 tests, 145 passed, 0 skipped, 0 failed") {
		t.Errorf("%v\n%s", err, out)
	}
}
