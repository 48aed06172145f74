package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"

	"espalier/policy"
)

// A probe reaches one port of one host one way.
type probe struct {
	d      *Doctor
	trust  *trust
	way    Way
	target policy.Target
	ask    func(*probe, context.Context) Finding // speaks the port's protocol
	checks []*Check                              // those that it answers
}

// run makes the probe, in time each at most. The checks have no finding if ctx ended
// before it was known.
func (p *probe) run(ctx context.Context, each time.Duration) {
	if ctx.Err() != nil {
		return
	}
	began := time.Now()
	part, cancel := context.WithTimeout(ctx, each)
	defer cancel()
	found := p.ask(p, part)
	if found.State != OK && ctx.Err() != nil {
		return // it was cut short
	}
	found.Milliseconds = time.Since(began).Milliseconds()
	for _, c := range p.checks {
		c.Finding = found
	}
}

// tcp is for ports to which it is enough to connect.
func (p *probe) tcp(ctx context.Context) Finding {
	return p.within(ctx, func(net.Conn) Finding { return good("") })
}

// tls is for TLS, whatever is inside.
func (p *probe) tls(ctx context.Context) Finding {
	return p.within(ctx, func(conn net.Conn) Finding { return p.handshake(ctx, conn) })
}

// http2 is for TLS with HTTP/2 inside.
func (p *probe) http2(ctx context.Context) Finding {
	return p.within(ctx, func(conn net.Conn) Finding { return p.handshake(ctx, conn, "h2") })
}

// within calls f with a connection to the target.
func (p *probe) within(ctx context.Context, f func(net.Conn) Finding) Finding {
	conn, found := p.open(ctx)
	if conn == nil {
		return found
	}
	defer conn.Close()
	found = f(conn)
	found.Address = conn.RemoteAddr().String()
	return found
}

// open returns a connection to the target, or why there is none.
func (p *probe) open(ctx context.Context) (net.Conn, Finding) {
	if p.way == Through {
		return p.openThrough(ctx)
	}
	conn, err := p.d.Egress.Dial(ctx, p.target)
	if err != nil {
		return nil, failed(StepConnect, err)
	}
	return conn, Finding{}
}

// agent names the doctor in the proxy's records.
const agent = "espalier-doctor"

// openThrough asks the proxy for a tunnel.
func (p *probe) openThrough(ctx context.Context) (net.Conn, Finding) {
	conn, found := p.dialProxy(ctx)
	if conn == nil {
		return nil, found
	}
	resp, err := conn.ask(ctx, fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\nUser-Agent: %s\r\n\r\n", p.target, agent), http.MethodConnect)
	if err == nil && resp.StatusCode == http.StatusOK {
		return conn, Finding{}
	}
	conn.Close()
	if err != nil {
		found = failed(StepProxy, fmt.Errorf("no answer to CONNECT: %w", err))
		if found.Problem != TimedOut { // which may be the destination's fault
			found.By = "the proxy " + p.d.Proxy
		}
		return nil, found
	}
	return nil, refusedBy(p.d.Proxy, resp)
}

func (p *probe) dialProxy(ctx context.Context) (*answering, Finding) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.d.Proxy)
	if err != nil {
		return nil, broken(StepProxy, ProxyDown, "the proxy "+p.d.Proxy, err.Error())
	}
	return newAnswering(conn), Finding{}
}

// handshake shakes hands on conn, and looks at whose certificate it is shown.
func (p *probe) handshake(ctx context.Context, conn net.Conn, protocols ...string) Finding {
	var chain []*x509.Certificate
	asked := false
	config := &tls.Config{
		ServerName:         p.target.Host,
		NextProtos:         protocols,
		InsecureSkipVerify: true, // p.trust judges, for it has more to say
		VerifyConnection: func(state tls.ConnectionState) error {
			chain = state.PeerCertificates
			return nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return &tls.Certificate{}, nil
		},
	}
	client := tls.Client(conn, config)
	err := client.HandshakeContext(ctx)
	if len(chain) == 0 {
		return failed(StepTLS, err)
	}
	found := p.trust.judge(chain, p.target.Host, time.Now())
	switch {
	case found.State != OK:
	case err != nil && !asked:
		return failed(StepTLS, err)
	case err != nil:
		// Without a device's certificate this is as far as anybody comes.
	case len(protocols) > 0 && client.ConnectionState().NegotiatedProtocol != protocols[0]:
		return broken(StepTLS, NoHTTP2, "", "the handshake did not agree on "+protocols[0])
	}
	return found
}

// http asks for a page without TLS. Any answer will do that comes from the host
// itself.
func (p *probe) http(ctx context.Context) (found Finding) {
	path := "/"
	if p.target.Host == captiveHost {
		path = "/hotspot-detect.html"
	}
	conn, proxy, headers, found := p.openPlain(ctx)
	if conn == nil {
		return found
	}
	defer conn.Close()
	if proxy != "" {
		path = "http://" + p.target.Host + path
	}
	resp, err := conn.ask(ctx, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\nConnection: close\r\n%s\r\n",
		path, p.target.Host, agent, headers), http.MethodGet)
	switch {
	case err != nil:
		found = failed(StepHTTP, err)
	case proxy != "" && ownAnswer(resp):
		found = refusedBy(proxy, resp)
	default:
		found = judgeHTTP(p.target.Host, resp)
	}
	found.Address = conn.RemoteAddr().String()
	return found
}

// openPlain returns a connection for plain requests, and the proxy to which it is, with
// the headers that this one needs; or why there is none.
func (p *probe) openPlain(ctx context.Context) (conn *answering, proxy, headers string, found Finding) {
	if p.way == Through {
		conn, found = p.dialProxy(ctx)
		return conn, p.d.Proxy, "", found
	}
	c, parent, err := p.d.Egress.DialPlain(ctx, p.target)
	if err != nil {
		return nil, "", "", failed(StepConnect, err)
	}
	if parent != nil {
		proxy = parent.String()
		if auth := parent.ProxyAuthorization(); auth != "" {
			headers = "Proxy-Authorization: " + auth + "\r\n"
		}
	}
	return newAnswering(c), proxy, headers, Finding{}
}

// answering is a connection that an HTTP answer is read from, and then whatever
// follows.
type answering struct {
	net.Conn
	limit *io.LimitedReader
	buf   *bufio.Reader
}

// maxHead bounds the head of an answer.
const maxHead = 64 << 10

func newAnswering(conn net.Conn) *answering {
	limit := &io.LimitedReader{R: conn, N: maxHead}
	return &answering{conn, limit, bufio.NewReader(limit)}
}

func (c *answering) Read(p []byte) (int, error) { return c.buf.Read(p) }

// ask sends a request and reads the answer's head. What was read until ctx ends
// stays good.
func (c *answering) ask(ctx context.Context, request, method string) (*http.Response, error) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	if _, err := io.WriteString(c.Conn, request); err != nil {
		return nil, err
	}
	for {
		resp, err := http.ReadResponse(c.buf, &http.Request{Method: method})
		if err != nil {
			if c.limit.N == 0 {
				err = errLongHead
			}
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			c.limit.N = math.MaxInt64
			return resp, nil
		}
	}
}

var errLongHead = errors.New("the head of the answer is too long")
