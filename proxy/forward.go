package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/elazarl/goproxy"
	"go.uber.org/zap"

	"espalier/policy"
	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/head"
	"espalier/proxy/refusal"
)

// tlsTimeout is for the TLS handshake with a destination.
const tlsTimeout = 10 * time.Second

// forwarder passes requests on by goproxy, plain ones and intercepted ones. It
// stands in front of it with what goproxy leaves open: hop-by-hop headers that
// Connection nominates, streaming, cut bodies, error texts, the environment's
// proxy.
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
func newTransport(st *State, t Timeouts) *http.Transport {
	return &http.Transport{
		// egress.parent; the default would be HTTP_PROXY of the environment. A parent
		// would look up the target in an absolute URL, and not what a preset has in
		// its place.
		Proxy: func(r *http.Request) (*url.URL, error) {
			if _, ok := elsewhere(r.Context()); ok || r.URL.Scheme == "https" {
				return nil, nil // Dial goes through parents by CONNECT
			}
			u, err := st.Dialer.Proxy(r)
			if fx, ok := r.Context().Value(forwardedKey{}).(*forwarded); ok && u != nil {
				fx.trust()
				fx.trust = st.Dialer.Doubt(u.Host)
			}
			return u, err
		},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dial := st.Dialer.DialContext
			if at, ok := elsewhere(ctx); ok {
				dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return st.Dialer.Dial(ctx, at) }
			}
			return dial(ctx, network, addr)
		},
		TLSClientConfig:     st.Route().TLS.Clone(),
		TLSHandshakeTimeout: tlsTimeout,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: time.Minute, PingTimeout: 15 * time.Second},
		// Whoever asked for an encoding gets it, byte for byte.
		DisableCompression:    true,
		MaxIdleConns:          1000,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       90 * time.Second,
		ResponseHeaderTimeout: t.Reply,
		// Origins that do not know Expect are many. Clients send the body after a
		// second without a word, and so must what stands between.
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 2 * head.MaxBytes, // answerConn has its own
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
	if !ok || fx.dial == fx.Target {
		return policy.Target{}, false
	}
	return fx.dial, true
}

// request is goproxy's hook for requests: it names the transport.
func (f *forwarder) request(r *http.Request, ctx *goproxy.ProxyCtx) (*http.Request, *http.Response) {
	if fx, ok := r.Context().Value(forwardedKey{}).(*forwarded); ok {
		ctx.RoundTripper = goproxy.RoundTripperFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) {
			resp, err := fx.transport.RoundTrip(r)
			fx.interim.end()
			fx.trust()
			if err == nil && resp.StatusCode == http.StatusProxyAuthRequired && fx.viaParent {
				resp.Body.Close()
				return nil, &egress.ParentError{Parent: fx.Record.Upstream.String(), Status: resp.StatusCode}
			}
			return resp, err
		})
	}
	return r, nil
}

// forwarded is a plain request on its way through goproxy.
type forwarded struct {
	*exchange.Exchange
	server    *Server
	transport *http.Transport
	dial      policy.Target
	upgrade   bool   // the client asks for a WebSocket
	secure    bool   // inside TLS
	stalled   func() // ends the request, for its answer does not go on; nil: not needed
	viaParent bool   // egress.parent is set, and whoever wants a sign-in is a parent
	trust     func() // ends the doubt in the parent that is asked
	w         *responseWriter
	got       bool // a connection
	interim   interim
	// What cut the answer's body short: the destination, or the client.
	bodyErr, clientErr error
	uploadErr          error // what cut the request's body short; guarded by mu
	uploading          bool  // the request's body, by HTTP/1, has not come to its end; guarded by mu

	// The transport may read the body after it has answered, and goproxy may
	// relay one direction of a WebSocket after it has given up the other.
	mu    sync.Mutex
	ended bool  // the record is made, and nothing is counted any more
	sent  int64 // of the request's body
}

type forwardedKey struct{}

// serve passes r on by a transport, as d says, and writes the answer.
func (f *forwarder) serve(w http.ResponseWriter, r *http.Request, x *exchange.Exchange) {
	st, d := x.State, &x.Decision
	if r.Method == http.MethodOptions && lastHop(r.Header) {
		w.WriteHeader(http.StatusOK)
		x.Finish(http.StatusOK)
		return
	}
	secure := r.URL.Scheme == "https"
	fx := &forwarded{
		Exchange: x, server: f.s, dial: d.Dial, transport: f.s.http2.transport.Load(),
		secure: secure, viaParent: !secure && st.Dialer.HasParent(),
		trust: func() {},
	}
	fx.w = &responseWriter{ResponseWriter: w, fx: fx}

	var asked time.Time
	ctx, cancel := context.WithCancelCause(context.WithValue(r.Context(), forwardedKey{}, fx))
	defer cancel(nil)
	if secure && r.ProtoMajor == 1 { // in plain answerConn sees to it; HTTP/2 has calls that stay open
		fx.stalled = func() { cancel(errStalled) }
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { asked, fx.got = time.Now(), false },
		GotConn: func(info httptrace.GotConnInfo) {
			x.Record.Upstream, fx.got = addrPort(info.Conn), true
			if !info.Reused {
				x.Record.Connect = time.Since(asked)
			}
		},
		Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
			fx.passInterim(r, status, http.Header(h))
			return nil
		},
	})
	out := r.WithContext(ctx)
	out.Close = false // whether the client goes on is no matter of the destination's
	out.Header = r.Header.Clone()
	out.URL.Host = x.Target.String()
	trailers := r.ProtoMajor == 2 && slices.Contains(r.Header["Te"], "trailers")
	fx.upgrade = wantsWebSocket(r)
	cleanHopByHop(out.Header, fx.upgrade)
	if trailers { // which are passed on; gRPC servers insist
		out.Header.Set("Te", "trailers")
	}
	if r.Method == http.MethodOptions && r.URL.Path == "" && r.URL.RawQuery == "" && !fx.viaParent {
		out.URL.Path = "*" // RFC 9112, 3.2.4
	}
	if !r.ProtoAtLeast(1, 1) || r.ContentLength == 0 {
		out.Header.Del("Expect") // it means nothing there (RFC 9110, 10.1.1)
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
		out.Body = &requestBody{r.Body, fx, out, r.ContentLength}
		fx.uploading = r.ProtoMajor == 1 // streams of HTTP/2 end by themselves
		// Else net/http takes the body from the transport when an answer begins,
		// and the transport closes the connection that the answer comes on. That
		// what is left of a body is no request is then responseWriter's to see to.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}

	// A record is written also when goproxy panics; net/http then closes the
	// connection.
	defer func() {
		fault := recover()
		if fault != nil && fault != http.ErrAbortHandler {
			f.s.pipeline.Panicked(nil, fault)
			x.Fail(fmt.Errorf("panic: %v", fault))
		}
		if fx.bodyErr != nil {
			x.Fail(fmt.Errorf("read the answer's body: %w", fx.bodyErr))
			fault = http.ErrAbortHandler // else a cut chunked body would look whole
		} else if fx.clientErr != nil && x.Record.Error == "" {
			x.Record.Error = "write to client: " + fx.clientErr.Error()
		}
		fx.w.closeHijacked()
		fx.mu.Lock()
		fx.ended = true
		fx.mu.Unlock()
		x.Finish(fx.w.status)
		if f.s.pipeline.State() != st { // a reload came before the transport was asked
			fx.transport.CloseIdleConnections()
		}
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
	if resp.StatusCode == http.StatusSwitchingProtocols {
		if !fx.upgrade || !isWebSocket(resp.Header) {
			resp.Body.Close()
			return fx.refusal(errors.New("malformed answer: it switches to a protocol that was not asked for"))
		}
		cleanHopByHop(resp.Header, true)
		resp.Header.Del("Content-Length")
		return resp
	}
	cleanHopByHop(resp.Header, false)
	cleanTrailer(resp.Trailer)
	fx.w.stream = resp.ContentLength < 0
	fx.w.body = resp.Body
	return resp
}

// refusal makes the answer to a request that failed with err.
func (fx *forwarded) refusal(err error) *http.Response {
	if err == nil {
		err = errors.New("no answer")
	}
	fx.mu.Lock()
	upload := fx.uploadErr
	fx.mu.Unlock()
	if upload != nil {
		err = upload // whatever the transport made of it
	} else if fx.got && refusal.IsTimeout(err) {
		err = &slowReply{err}
	}
	fx.Fail(err)
	r := refusal.For(err)
	h, body := fx.Render(r)
	resp := &http.Response{StatusCode: r.Status, Header: h}
	resp.ContentLength, resp.Body = int64(len(body)), io.NopCloser(strings.NewReader(body))
	fx.w.own = true
	return resp
}

// requestBody counts what a client uploads.
type requestBody struct {
	io.ReadCloser
	fx *forwarded
	to *http.Request // that the body is sent with
	// What is still to come; below 0 at the start: as long as it takes.
	left int64
}

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.fx.up(int64(n))
	b.left -= int64(n)
	if err == io.EOF || b.left == 0 {
		b.fx.mu.Lock()
		b.fx.uploading = false
		b.fx.mu.Unlock()
	}
	if err == io.EOF {
		cleanTrailer(b.to.Trailer)
	} else if err != nil {
		b.fx.mu.Lock()
		b.fx.uploadErr = &uploadError{err}
		b.fx.mu.Unlock()
	}
	return n, err
}

// errStalled says that a destination has stopped amid its answer.
var errStalled = fmt.Errorf("nothing more came in time: %w", os.ErrDeadlineExceeded)

// uploadError is an error of a request's body on its way from the client.
type uploadError struct{ error }

func (e *uploadError) Error() string { return "read the request's body: " + e.error.Error() }
func (e *uploadError) Unwrap() error { return e.error }

// Refusal implements refusal.Refuser.
func (e *uploadError) Refusal() refusal.Refusal {
	if refusal.IsTimeout(e.error) {
		return refusal.SlowBody
	}
	return refusal.Body
}

// A slowReply says that an origin did not begin to answer in time.
type slowReply struct{ error }

func (e *slowReply) Error() string          { return "no answer to the request in time" }
func (e *slowReply) Unwrap() error          { return e.error }
func (*slowReply) Refusal() refusal.Refusal { return refusal.SlowReply }

// amidUpload reports whether the end of the request's body has not been seen.
func (fx *forwarded) amidUpload() bool {
	fx.mu.Lock()
	defer fx.mu.Unlock()
	return fx.uploading
}

func (fx *forwarded) up(n int64) {
	fx.mu.Lock()
	defer fx.mu.Unlock()
	if !fx.ended {
		fx.AddUp(n)
		fx.sent += n
	}
}

func (fx *forwarded) down(n int64) {
	fx.mu.Lock()
	defer fx.mu.Unlock()
	if !fx.ended {
		fx.AddDown(n)
	}
}
