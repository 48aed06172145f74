package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"espalier/policy"
	"espalier/proxy/tunnel"
)

// ownCertificate is one for the tests' proxy, and who trusts it.
func ownCertificate(t *testing.T) (*tls.Config, *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	s.Close()
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"h2", "http/1.1", "acme-tls/1"}}, pool
}

// secured starts a proxy inside TLS, and returns how clients trust it.
func secured(t *testing.T, c setup) (*rig, *tls.Config) {
	t.Helper()
	cfg, pool := ownCertificate(t)
	c.tls = cfg
	return start(t, c, false), &tls.Config{RootCAs: pool, ServerName: "example.com"}
}

// secureClient is a client of HTTP/1.1 inside TLS.
type secureClient struct {
	*client
	tls *tls.Conn
}

func (r *rig) dialTLS(trust *tls.Config, protocols ...string) *secureClient {
	r.t.Helper()
	c := r.dial()
	cfg := trust.Clone()
	cfg.NextProtos = protocols
	conn := c.secure(cfg)
	if err := conn.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	return &secureClient{c.within(conn), conn}
}

// A multiplexer is a client's one connection of HTTP/2 to a proxy.
type multiplexer struct {
	t    *testing.T
	conn *http.ClientConn
}

func (r *rig) multiplexer(trust *tls.Config) *multiplexer {
	r.t.Helper()
	c := r.dialTLS(trust, "h2")
	conn := over(r.t, c.tls)
	r.t.Cleanup(func() { conn.Close() })
	return &multiplexer{r.t.(*testing.T), conn}
}

// over speaks HTTP on a connection that is open, as it has negotiated.
func over(t testing.TB, c *tls.Conn) *http.ClientConn {
	t.Helper()
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}
	conn, err := transport.NewClientConn(context.Background(), "https", "proxy.test:443")
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// A virtual is a tunnel in a connection of HTTP/2.
type virtual struct {
	*http.Response
	up *io.PipeWriter
	t  *testing.T
}

// open sends a CONNECT.
func (m *multiplexer) open(target string, header http.Header) *virtual {
	m.t.Helper()
	read, write := io.Pipe()
	m.t.Cleanup(func() { write.Close() })
	if header == nil {
		header = http.Header{}
	}
	resp, err := m.conn.RoundTrip(&http.Request{
		Method: http.MethodConnect, URL: &url.URL{Scheme: "https", Host: target}, Host: target, Header: header, Body: read,
	})
	if err != nil {
		m.t.Fatalf("CONNECT %s: %v", target, err)
	}
	m.t.Cleanup(func() { resp.Body.Close() })
	return &virtual{resp, write, m.t}
}

func (v *virtual) send(text string) {
	v.t.Helper()
	if _, err := io.WriteString(v.up, text); err != nil {
		v.t.Fatal(err)
	}
}

func (v *virtual) expect(text string) {
	v.t.Helper()
	got := make([]byte, len(text))
	if n, err := io.ReadFull(v.Body, got); string(got[:n]) != text {
		v.t.Fatalf("received %q (%v), want %q", got[:n], err, text)
	}
}

// Inside TLS the proxy does by HTTP/1.1 what it does in plain.
func TestSecureHTTP1(t *testing.T) {
	for _, protocols := range [][]string{nil, {"http/1.1"}} {
		t.Run(fmt.Sprint(protocols), func(t *testing.T) {
			at := newOrigin(t, echo)
			web := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			r, trust := secured(t, setup{rules: []policy.Rule{{Name: "no", When: policy.When{Hosts: []string{"denied.example"}}, Then: "deny"}}})
			c := r.dialTLS(trust, protocols...)
			for range 2 {
				c.send("GET http://" + web.String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
				if a := c.answer("GET"); a.body != "ok" {
					t.Errorf("%s %q", a.Status, a.body)
				}
			}
			c.send(connectTo("denied.example:443"))
			if a := c.answer("CONNECT"); a.StatusCode != 403 {
				t.Errorf("%s", a.Status)
			}
			c = r.dialTLS(trust, protocols...)
			c.send(connectTo(at.String()) + "early")
			c.expect(established + "early")
			large := strings.Repeat("0123456789abcdef", 1<<16)
			go func() { _, _ = io.WriteString(c.tls, large) }()
			c.expect(large)
			if err := c.tls.CloseWrite(); err != nil { // the origin has its end, and sends its own
				t.Fatal(err)
			}
			c.expectEnd()
			records := r.stop()
			if len(records) != 4 {
				t.Fatalf("%d records", len(records))
			}
			x := records[3]
			if n := int64(5 + len(large)); x.Action != policy.Tunnel || x.Up != n || x.Down != n || x.Error != "" || x.Client != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("record %+v", x)
			}
		})
	}
}

// What two recipients might read differently is refused inside TLS too.
func TestSecureMalformed(t *testing.T) {
	r, trust := secured(t, setup{})
	for _, request := range []string{
		"GET http://example.com/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET http://example.com/ HTTP/1.1\nHost: x\n\n",
	} {
		c := r.dialTLS(trust)
		c.send(request)
		if a := c.answer("GET"); a.StatusCode != 400 {
			t.Errorf("%q: %s", request, a.Status)
		}
	}
	c := r.dialTLS(trust)
	c.send("CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
	if a := c.answer("CONNECT"); a.StatusCode != 403 {
		t.Errorf("%s", a.Status)
	}
}

// A connection of HTTP/2 has many tunnels, each with its own record.
func TestSecureHTTP2(t *testing.T) {
	at := newOrigin(t, echo)
	r, trust := secured(t, setup{})
	m := r.multiplexer(trust)
	var all []*virtual
	for i := range 20 {
		v := m.open(at.String(), nil)
		if v.StatusCode != 200 || v.ProtoMajor != 2 || v.ContentLength > 0 || v.Header.Get("Content-Type") != "" {
			t.Fatalf("%s %v", v.Status, v.Header)
		}
		v.send(fmt.Sprint("number ", i))
		all = append(all, v)
	}
	await(t, "all tunnels to begin", func() bool { return r.server.Tunnels() == len(all) })
	for i, v := range all {
		v.expect(fmt.Sprint("number ", i))
	}
	large := strings.Repeat("0123456789abcdef", 1<<16)
	go func() { _, _ = io.WriteString(all[0].up, large) }()
	all[0].expect(large)
	for _, v := range all {
		v.up.Close() // the origin has its end, and sends its own
		if rest, err := io.ReadAll(v.Body); len(rest) > 0 || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
	}
	records := r.stop()
	if len(records) != len(all) {
		t.Fatalf("%d records", len(records))
	}
	for _, x := range records {
		if x.Action != policy.Tunnel || x.Status != 200 || x.Error != "" || x.Up != x.Down || x.Up < 8 || x.Upstream != at {
			t.Errorf("record %+v", x)
		}
	}
}

// The policy is the same as in plain: what is denied, who must sign in, and that
// nobody does for Apple's.
func TestSecureHTTP2Policy(t *testing.T) {
	at := newOrigin(t, echo)
	r, trust := secured(t, setup{
		users: map[string]string{"alice": "secret"}, extra: []string{"apple.example"},
		hosts: map[string]string{"apple.example": "127.0.0.1", "other.example": "127.0.0.1"},
		rules: []policy.Rule{{Name: "no", When: policy.When{Hosts: []string{"denied.example"}}, Then: "deny"}},
	})
	m := r.multiplexer(trust)
	signedIn := http.Header{"Proxy-Authorization": {"Basic YWxpY2U6c2VjcmV0"}}
	for _, x := range []struct {
		target string
		header http.Header
		want   int
	}{
		{"apple.example", nil, 200},
		{"apple.example", http.Header{"Proxy-Authorization": {"Basic bm86bm8="}}, 200},
		{"other.example", nil, 407},
		{"other.example", signedIn, 200},
		{"denied.example", signedIn, 403},
		{"a..example", signedIn, 403}, // no name
	} {
		v := m.open(fmt.Sprintf("%s:%d", x.target, at.Port()), x.header)
		if v.StatusCode != x.want {
			t.Errorf("%s %v: %s", x.target, x.header, v.Status)
		}
		if (v.StatusCode == 407) != (v.Header.Get("Proxy-Authenticate") != "") {
			t.Errorf("%s: %v", x.target, v.Header)
		}
		v.up.Close()
		_, _ = io.Copy(io.Discard, v.Body)
	}
}

// Where the destination fails, the client sees that what came is not the whole;
// where the client does, the destination is closed.
func TestSecureHTTP2Resets(t *testing.T) {
	gone := make(chan error, 1)
	at := newOrigin(t, func(c net.Conn) {
		b := make([]byte, 4)
		if _, err := io.ReadFull(c, b); err != nil {
			return
		}
		_, _ = io.WriteString(c, "half")
		if string(b) == "fail" {
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		}
		_, err := io.ReadAll(c)
		gone <- err
	})
	r, trust := secured(t, setup{})
	m := r.multiplexer(trust)
	v := m.open(at.String(), nil)
	v.send("fail")
	if got, err := io.ReadAll(v.Body); string(got) != "half" && len(got) > 0 || err == nil {
		t.Errorf("%q, %v", got, err)
	}
	v = m.open(at.String(), nil)
	v.send("stay")
	v.expect("half")
	v.Body.Close() // resets the stream
	v.up.CloseWithError(errors.New("gone"))
	select {
	case <-gone:
	case <-time.After(limit):
		t.Fatal("the destination is still connected")
	}
	await(t, "the tunnels to end", func() bool { return r.server.Tunnels() == 0 })
	m.conn.Close()
	for _, x := range r.stop() {
		if x.Error == "" {
			t.Errorf("record %+v", x)
		}
	}
}

// Plain requests by HTTP/2 are forwarded.
func TestSecureHTTP2Plain(t *testing.T) {
	web := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: a\r\n\r\nok")
	r, trust := secured(t, setup{})
	m := r.multiplexer(trust)
	req, err := http.NewRequest("GET", "http://"+web.String()+"/a?b=c", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.conn.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != 200 || string(body) != "ok" || resp.Header.Get("X-Hop") != "" {
		t.Errorf("%s %q %v", resp.Status, body, resp.Header)
	}
	heads, _ := web.seen()
	if len(heads) != 1 || !strings.HasPrefix(heads[0], "GET /a?b=c HTTP/1.1\r\nHost: "+web.String()+"\r\n") {
		t.Errorf("the destination was sent %q", heads)
	}
	m.conn.Close()
	if x := r.record(); x.Action != policy.Forward || x.URL != "http://"+web.String()+"/a" || x.Down != 2 {
		t.Errorf("record %+v", x)
	}
}

// What is intercepted in plain is intercepted inside HTTP/2.
func TestSecureHTTP2Intercepts(t *testing.T) {
	site := newSite(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto, " ", r.Host) })
	for inner, proto := range map[string]string{"h2": "HTTP/2.0", "http/1.1": "HTTP/1.1"} {
		t.Run(inner, func(t *testing.T) {
			r, trust := secured(t, site.everything())
			m := r.multiplexer(trust)
			v := m.open(site.at("example.com"), nil)
			outer, pipe := net.Pipe()
			go func() { _, _ = io.Copy(pipe, v.Body); pipe.Close() }()
			go func() { _, _ = io.Copy(v.up, pipe); v.up.Close() }()
			c := tls.Client(outer, &tls.Config{RootCAs: r.trusted(), ServerName: "example.com", NextProtos: []string{inner}})
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			resp, body := fetch(t, &http.Client{Transport: over(t, c)}, "https://"+site.at("example.com")+"/")
			if want := proto + " " + site.at("example.com"); resp.StatusCode != 200 || body != want {
				t.Errorf("%s %q, want %q", resp.Status, body, want)
			}
			c.Close()
			outer.Close()
			m.conn.Close()
			connects, requests := byMethod(r.stop())
			if len(connects) != 1 || len(requests) != 1 || connects[0].Action != policy.Inspect || requests[0].Action != policy.Inspect {
				t.Errorf("records %+v %+v", connects, requests)
			}
		})
	}
}

// askFor sends a request by HTTP/2 whose scheme, or whose target, path, clients
// would not let pass, and waits for the head of the answer.
func (r *rig) askFor(trust *tls.Config, scheme, authority, path string) {
	r.t.Helper()
	c := r.dialTLS(trust, "h2")
	var block []byte
	for _, s := range [][2]string{{":method", "GET"}, {":scheme", scheme}, {":authority", authority}, {":path", path}} {
		block = append(block, 0) // literal, not indexed (RFC 7541, 6.2.2)
		for _, text := range s {
			block = append(append(block, byte(len(text))), text...)
		}
	}
	const settings, headers = "\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x01\x05\x00\x00\x00\x01" // of stream 1, which ends
	c.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + "\x00\x00" + string(rune(len(block))) + headers + string(block))
	defer c.tls.Close()
	for {
		var frame [9]byte
		_, err := io.ReadFull(c.in, frame[:])
		if err == nil {
			_, err = io.CopyN(io.Discard, c.in, int64(frame[1])<<8|int64(frame[2]))
		}
		switch {
		case err != nil:
			r.t.Fatalf("%s %s: %v", authority, path, err)
		case frame[3] == 1:
			return
		case frame[3] == 3:
			r.t.Fatalf("%s %s: the stream is reset", authority, path)
		}
	}
}

// What would stand in the request line to the destination is a path.
func TestSecureHTTP2Targets(t *testing.T) {
	web := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	for _, x := range []struct {
		authority, path string
		want            int
	}{
		{web.String(), "/", 200},
		{web.String(), "/?a=/b", 200},
		{web.String(), "http://other.example/", 400},
		{web.String(), "x:/path", 400},
		{web.String(), "x:opaque HTTP/1.1", 400},
		{web.String(), "/?a HTTP/1.1", 400},
		{"a b", "/", 403},
		{"127.1", "/", 403},
		{"127.0.0.1:0", "/", 403},
	} {
		t.Run(fmt.Sprint(x.authority, " ", x.path), func(t *testing.T) {
			r, trust := secured(t, setup{})
			r.askFor(trust, "http", x.authority, x.path)
			if list := r.stop(); len(list) != 1 || list[0].Status != x.want {
				t.Errorf("records %+v", list)
			}
		})
	}
	for _, h := range web.heads {
		if line, _, _ := strings.Cut(h, "\r\n"); line != "GET / HTTP/1.1" && line != "GET /?a=/b HTTP/1.1" {
			t.Errorf("the destination was sent %q", line)
		}
	}
}

// What is to be fetched by https is not fetched by http, but refused as an absolute
// URL is by HTTP/1.1.
func TestSecureHTTP2Scheme(t *testing.T) {
	web := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	for _, x := range []struct {
		name, scheme, path string
		want               int
		action             policy.Action
		rule               string
	}{
		{"http", "http", "/a", 200, policy.Forward, "default"},
		{"https", "https", "/a?b", 501, policy.Deny, "scheme"},
	} {
		t.Run(x.name, func(t *testing.T) {
			r, trust := secured(t, setup{})
			r.askFor(trust, x.scheme, web.String(), x.path)
			if list := r.stop(); len(list) != 1 || list[0].Status != x.want || list[0].Action != x.action || list[0].Rule != x.rule ||
				list[0].URL != x.scheme+"://"+web.String()+"/a" {
				t.Errorf("records %+v", list)
			}
		})
	}
	if heads, _ := web.seen(); len(heads) != 1 {
		t.Errorf("the destination was sent %q", heads)
	}
}

// An answer that comes before the end of an upload ends its stream, and not the
// connection with all the others.
func TestSecureHTTP2EarlyAnswer(t *testing.T) {
	web := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	r, trust := secured(t, setup{})
	m := r.multiplexer(trust)
	for range 3 {
		body, more := io.Pipe()
		req, _ := http.NewRequest("POST", "http://"+web.String()+"/", body)
		resp, err := m.conn.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); string(got) != "ok" || err != nil {
			t.Errorf("%s %q %v", resp.Status, got, err)
		}
		more.Close()
	}
	m.conn.Close()
	if list := r.stop(); len(list) != 3 {
		t.Errorf("records %+v", list)
	}
}

// endless answers with a body that does not end until nobody takes it.
func endless(t *testing.T) netip.AddrPort {
	return newOrigin(t, func(c net.Conn) {
		if _, err := readHead(bufio.NewReader(c)); err != nil {
			return
		}
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		for b := make([]byte, 16<<10); err == nil; {
			_, err = c.Write(b)
		}
	})
}

// Who takes nothing of an answer by HTTP/2, or sends nothing of a body, loses the
// request, though the connection lives.
func TestSecureHTTP2Stalls(t *testing.T) {
	hurry := hurried(func(b *Timeouts) { b.Stall = short })
	t.Run("download", func(t *testing.T) {
		r, trust := secured(t, hurry)
		m := r.multiplexer(trust)
		req, _ := http.NewRequest("GET", "http://"+endless(t).String()+"/", nil)
		resp, err := m.conn.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		await(t, "the request to be cut", func() bool { return func() bool { _, n, _ := r.server.pipeline.Limits.Open(); return n == 0 }() })
		if _, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Error("what was cut seems whole")
		}
		m.conn.Close()
		if x := r.record(); !strings.HasPrefix(x.Error, "write to client: ") || x.Down == 0 {
			t.Errorf("record %+v", x)
		}
	})
	t.Run("upload", func(t *testing.T) {
		web := newOrigin(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		r, trust := secured(t, hurry)
		m := r.multiplexer(trust)
		body, more := io.Pipe()
		defer more.Close()
		req, _ := http.NewRequest("POST", "http://"+web.String()+"/", body)
		req.ContentLength = 10
		resp, err := m.conn.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 408 {
			t.Error(resp.Status)
		}
		resp.Body.Close()
		m.conn.Close()
		if x := r.record(); x.Status != 408 {
			t.Errorf("record %+v", x)
		}
	})
}

// A request by HTTP/2 that goes on when the drain ends is cut, and does not hold it
// up; its client was told before to begin nothing more there.
func TestSecureShutdownCutsRequests(t *testing.T) {
	r, trust := secured(t, setup{})
	m := r.multiplexer(trust)
	v := m.open(newOrigin(t, echo).String(), nil)
	req, _ := http.NewRequest("GET", "http://"+endless(t).String()+"/", nil)
	resp, err := m.conn.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, resp.Body) }()
	ctx, end := context.WithCancel(t.Context())
	cut := r.shutdown(ctx)
	await(t, "the client to be told", func() bool { return m.conn.Available() == 0 })
	end()
	if n := <-cut; n != 1 {
		t.Errorf("%d tunnels were cut, want 1", n)
	}
	if _, err := io.ReadAll(v.Body); err == nil {
		t.Error("the tunnel that was cut ended in order")
	}
	for _, x := range r.stop() {
		if x.Action == policy.Tunnel && x.Error != tunnel.ErrShutdown.Error() || x.Error == "" {
			t.Errorf("record %+v", x)
		}
	}
}

// tunnelEcho opens a tunnel to an echo, and hears from it.
func tunnelEcho(t *testing.T, c net.Conn, target string) {
	t.Helper()
	if _, err := io.WriteString(c, connectTo(target)+"a"); err != nil {
		t.Fatal(err)
	}
	want := established + "a"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
}

// Where another process takes the socket over, who has connected before the drain
// still has the time to ask.
func TestSecureHandover(t *testing.T) {
	at := newOrigin(t, echo)
	r, trust := secured(t, setup{shared: true})
	c := r.dial()
	await(t, "the client to be accepted", func() bool { return r.server.Room().Len() > 0 })
	cut := r.shutdown(t.Context())
	secure := c.secure(trust)
	tunnelEcho(t, secure, at.String())
	secure.Close()
	if n := <-cut; n != 0 {
		t.Errorf("%d tunnels were cut", n)
	}
}

// Who is silent where TLS is to begin does not hold up a drain.
func TestSecureShutdownSilent(t *testing.T) {
	r, _ := secured(t, setup{})
	silent := r.dial()
	await(t, "the silent client to wait", func() bool { return r.server.Room().Len() > 0 })
	cut := r.shutdown(t.Context())
	_ = silent.SetReadDeadline(time.Now().Add(helloTimeout / 2)) // before the handshake's time is over
	silent.expectCut()
	<-cut
}

// A drain lets tunnels of HTTP/2 end, and cuts those that do not.
func TestSecureShutdown(t *testing.T) {
	at := newOrigin(t, echo)
	r, trust := secured(t, setup{})
	m := r.multiplexer(trust)
	ending, staying := m.open(at.String(), nil), m.open(at.String(), nil)
	r.dialTLS(trust) // and one that asks nothing
	silent := r.dial()
	ctx, end := context.WithTimeout(t.Context(), 2*time.Second)
	defer end()
	cut := r.shutdown(ctx)
	ending.send("goes on")
	ending.expect("goes on")
	ending.up.Close()
	if rest, err := io.ReadAll(ending.Body); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v", rest, err)
	}
	if n := <-cut; n != 1 {
		t.Errorf("%d tunnels were cut, want 1", n)
	}
	if rest, err := io.ReadAll(staying.Body); err == nil {
		t.Errorf("the tunnel that was cut ended in order, after %q", rest)
	}
	_, _ = io.Copy(io.Discard, silent.in)
	errs := map[string]int{}
	for _, x := range r.stop() {
		errs[x.Error]++
	}
	if len(errs) != 2 || errs[""] != 1 {
		t.Errorf("errors in the records: %v", errs)
	}
}

// Load balancers say who the client is before TLS begins.
func TestSecureProxyProtocol(t *testing.T) {
	at := newOrigin(t, echo)
	r, trust := secured(t, setup{balancers: []string{"loopback"}, clients: []string{"192.0.2.7"}})
	c := r.dial()
	c.send(line4)
	secure := c.secure(trust)
	tunnelEcho(t, secure, at.String())
	secure.Close()
	if x := r.record(); x.Client != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("record %+v", x)
	}
}

// Who speaks no TLS, or another protocol inside it, is closed; who says nothing
// may be turned out, and holds nobody up.
func TestSecureStrangers(t *testing.T) {
	r, trust := secured(t, setup{})
	c := r.dial()
	c.send("GET http://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
	_, _ = io.Copy(io.Discard, c.in)
	acme := r.dialTLS(trust, "acme-tls/1")
	acme.expectEnd()
	silent := r.dial()
	await(t, "the silent client to wait", func() bool { return r.server.Room().Len() > 0 })
	r.server.Room().Shed(10)
	_, _ = io.Copy(io.Discard, silent.in)
	if list := r.stop(); len(list) > 0 {
		t.Errorf("records %+v", list)
	}
}
