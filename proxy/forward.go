package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/elazarl/goproxy"
	"go.uber.org/zap"

	"espalier/policy"
	"espalier/proxy/egress"
	"espalier/proxy/traffic"
)

// replyTimeout is how long a destination may take to begin its answer. Some
// long-poll for a minute or two.
const replyTimeout = 5 * time.Minute

// tlsTimeout is for the TLS handshake with a destination.
const tlsTimeout = 10 * time.Second

// forwarder passes plain HTTP requests on by goproxy. It stands in front of it
// with what goproxy leaves open: hop-by-hop headers that Connection nominates,
// streaming, cut bodies, error texts, the environment's proxy.
type forwarder struct {
	s     *Server
	proxy *goproxy.ProxyHttpServer
}

func newForwarder(s *Server) *forwarder {
	f := &forwarder{s: s, proxy: goproxy.NewProxyHttpServer()}
	f.proxy.Tr = nil // every request brings the transport of its state
	f.proxy.ConnectDial = nil
	f.proxy.KeepAcceptEncoding = true
	f.proxy.Logger = zap.NewStdLog(s.ops)
	f.proxy.OnRequest().DoFunc(f.request)
	f.proxy.OnResponse().DoFunc(f.response)
	return f
}

// newTransport returns the transport of requests that st decides about. The
// connections that it keeps were dialed by the rules of st, and serve no other.
func newTransport(st *State) *http.Transport {
	return &http.Transport{
		// egress.parent; the default would be HTTP_PROXY of the environment. A parent
		// would look up the target in an absolute URL, and not what a preset has in
		// its place.
		Proxy: func(r *http.Request) (*url.URL, error) {
			if _, ok := elsewhere(r.Context()); ok || r.URL.Scheme == "https" {
				return nil, nil // Dial goes through parents by CONNECT
			}
			return st.Dialer.Proxy(r)
		},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if t, ok := elsewhere(ctx); ok {
				return st.Dialer.Dial(ctx, t)
			}
			return st.Dialer.DialContext(ctx, network, addr)
		},
		TLSClientConfig: &tls.Config{
			RootCAs: st.Roots, ClientSessionCache: tls.NewLRUClientSessionCache(1024),
		},
		TLSHandshakeTimeout: tlsTimeout,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: time.Minute, PingTimeout: 15 * time.Second},
		// Whoever asked for an encoding gets it, byte for byte.
		DisableCompression:    true,
		MaxIdleConns:          1000,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       90 * time.Second,
		ResponseHeaderTimeout: replyTimeout,
		// Origins that do not know Expect are many. Clients send the body after a
		// second without a word, and so must what stands between.
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		WriteBufferSize:        16 << 10,
		ReadBufferSize:         16 << 10,
	}
}

// elsewhere returns where to connect to for a request that is not for its
// target's own address. Within a State that is the same for all requests to a
// target, so that they may share kept connections; or, inside TLS, the target has
// shown its certificate wherever it is.
func elsewhere(ctx context.Context) (policy.Target, bool) {
	fx, ok := ctx.Value(forwardedKey{}).(*forwarded)
	if !ok || fx.dial == fx.target {
		return policy.Target{}, false
	}
	return fx.dial, true
}

// request is goproxy's hook for requests: it names the transport.
func (f *forwarder) request(r *http.Request, ctx *goproxy.ProxyCtx) (*http.Request, *http.Response) {
	if fx, ok := r.Context().Value(forwardedKey{}).(*forwarded); ok {
		ctx.RoundTripper = goproxy.RoundTripperFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) {
			resp, err := fx.transport.RoundTrip(r)
			if err == nil && resp.StatusCode == http.StatusProxyAuthRequired && fx.viaParent {
				resp.Body.Close()
				return nil, &egress.ParentError{Parent: fx.rec.Upstream.String(), Status: resp.StatusCode}
			}
			return resp, err
		})
	}
	return r, nil
}

// plain handles every method but CONNECT.
func (s *Server) plain(w http.ResponseWriter, r *http.Request, x *exchange) {
	x.rec.URL = recordURL(r.URL.Scheme, r.URL.Host, r.URL.EscapedPath())
	x.asked = r.Header
	switch {
	case !r.URL.IsAbs():
		// Not a proxy request: a browser that was pointed here, or a scanner.
		http.Error(w, "This is a proxy. Devices use it by its PAC script.", http.StatusNotFound)
		return
	case r.URL.Scheme != "http":
		x.rec.Host = r.URL.Host
		x.refuse("scheme", "scheme "+r.URL.Scheme)
		s.answer(w, x, refuseScheme)
		return
	}
	target, err := policy.ParseTarget(r.URL.Host, 80)
	if err != nil {
		x.rec.Host = r.URL.Host
		x.refuse(ruleTarget, err.Error())
		s.answer(w, x, refuseName)
		return
	}
	x.to(target)
	st := s.state.Load()
	d, refuse := s.decide(st, x, r, w.Header())
	if refuse != nil {
		s.answer(w, x, *refuse)
		return
	}
	s.forward.serve(w, r, x, st, &d)
}

// forwarded is a plain request on its way through goproxy.
type forwarded struct {
	*exchange
	service   *traffic.Service
	transport *http.Transport
	dial      policy.Target
	viaParent bool // egress.parent is set, and whoever wants a sign-in is a parent
	w         *responseWriter
	// What cut the answer's body short: the destination, or the client.
	bodyErr, clientErr error

	// The transport may read the body after it has answered, and goproxy may
	// relay one direction of a WebSocket after it has given up the other.
	mu    sync.Mutex
	ended bool // the record is made, and nothing is counted any more
}

type forwardedKey struct{}

// serve passes r on by a transport, as d says, and writes the answer.
func (f *forwarder) serve(w http.ResponseWriter, r *http.Request, x *exchange, st *State, d *policy.Decision) {
	fx := &forwarded{exchange: x, service: f.s.traffic.Service(x.rec.Service), transport: st.transport, dial: d.Dial, viaParent: r.URL.Scheme == "http" && st.Dialer.HasParent()}
	fx.w = &responseWriter{ResponseWriter: w, fx: fx}

	var asked time.Time
	ctx := context.WithValue(r.Context(), forwardedKey{}, fx)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { asked = time.Now() },
		GotConn: func(info httptrace.GotConnInfo) {
			x.rec.Upstream = addrPort(info.Conn)
			if !info.Reused {
				x.rec.Connect = time.Since(asked)
			}
		},
	})
	out := r.WithContext(ctx)
	out.Close = false // whether the client goes on is no matter of the destination's
	out.Header = r.Header.Clone()
	out.URL.Host = x.target.String()
	trailers := r.ProtoMajor == 2 && slices.Contains(r.Header["Te"], "trailers")
	cleanHopByHop(out.Header)
	if trailers { // which are passed on; gRPC servers insist
		out.Header.Set("Te", "trailers")
	}
	for name, value := range d.Headers() {
		out.Header.Set(name, value)
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // none was sent, so none is
	}
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	} else {
		out.Body = &requestBody{r.Body, fx}
		// Else net/http takes the body from the transport when an answer begins,
		// and the transport closes the connection that the answer comes on.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}

	// A record is written also when goproxy panics; net/http then closes the
	// connection.
	defer func() {
		fault := recover()
		if fault != nil && fault != http.ErrAbortHandler {
			f.s.panicked(nil, fault)
			x.failed(fmt.Errorf("panic: %v", fault))
		}
		if fx.bodyErr != nil {
			x.failed(fmt.Errorf("read the answer's body: %w", fx.bodyErr))
			fault = http.ErrAbortHandler // else a cut chunked body would look whole
		} else if fx.clientErr != nil && x.rec.Error == "" {
			x.rec.Error = "write to client: " + fx.clientErr.Error()
		}
		fx.w.closeHijacked()
		fx.mu.Lock()
		fx.ended = true
		fx.mu.Unlock()
		x.finish(fx.w.status)
		if fault != nil {
			panic(http.ErrAbortHandler)
		}
	}()
	f.proxy.ServeHTTP(fx.w, out)
}

// response is goproxy's hook for answers: it cleans the header, watches the body
// and makes an answer of an error.
func (f *forwarder) response(resp *http.Response, ctx *goproxy.ProxyCtx) *http.Response {
	fx, ok := ctx.Req.Context().Value(forwardedKey{}).(*forwarded)
	if !ok {
		return resp
	}
	if resp == nil {
		return fx.refusal(ctx.Error)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		cleanHopByHop(resp.Header)
		fx.w.stream = resp.ContentLength < 0
		fx.w.body = resp.Body
	}
	return resp
}

// refusal makes the answer to a request that failed with err.
func (fx *forwarded) refusal(err error) *http.Response {
	if err == nil {
		err = errors.New("no answer")
	}
	if opErr := (*net.OpError)(nil); isTimeout(err) &&
		!(errors.As(err, &opErr) && opErr.Op == "dial") && !errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", errReplyTimeout, err)
	}
	fx.failed(err)
	r := refusalFor(err)
	resp := &http.Response{StatusCode: r.status, Header: http.Header{}}
	body := fx.tell(r, resp.Header)
	resp.ContentLength, resp.Body = int64(len(body)), io.NopCloser(strings.NewReader(body))
	fx.w.own = true
	return resp
}

// hopByHop are the headers that concern one connection only (RFC 9110, 7.6.1,
// and those that older proxies made up).
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Te", "Transfer-Encoding", "Upgrade",
	"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info",
}

// cleanHopByHop removes hop-by-hop headers and those that Connection nominates.
// A WebSocket upgrade is left standing.
func cleanHopByHop(h http.Header) {
	websocket := false
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			name = strings.TrimSpace(name)
			if strings.EqualFold(name, "upgrade") {
				websocket = strings.EqualFold(h.Get("Upgrade"), "websocket")
			} else if name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
	if websocket {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", "websocket")
	}
}

// requestBody counts what a client uploads.
type requestBody struct {
	io.ReadCloser
	fx *forwarded
}

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.fx.up(int64(n))
	return n, err
}

func (fx *forwarded) up(n int64) {
	fx.mu.Lock()
	defer fx.mu.Unlock()
	if !fx.ended {
		fx.service.AddUp(n)
		fx.rec.Up += n
	}
}

func (fx *forwarded) down(n int64) {
	fx.mu.Lock()
	defer fx.mu.Unlock()
	if !fx.ended {
		fx.service.AddDown(n)
		fx.rec.Down += n
	}
}
