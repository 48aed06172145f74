// Package forward passes on the requests that come by HTTP/2: each goes through
// goproxy, by its hooks for requests and answers, and from there to its origin by the
// connections of package egress, in the protocol that the origin speaks.
//
// Package streams answers the clients. For package http1, Translate reaches origins that
// speak only HTTP/2.
package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/elazarl/goproxy"
	"go.uber.org/zap"
	wire "golang.org/x/net/http2"

	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/head"
	"espalier/proxy/http2"
	"espalier/proxy/refusal"
	"espalier/proxy/tunnel"
	"espalier/proxy/upstream"
)

// A Config has what a Forwarder works with. All fields must be set.
type Config struct {
	Pipeline *exchange.Pipeline
	Origins  *egress.Origins
	Reply    time.Duration // for an origin to begin its answer, behind the request's body
	Stall    time.Duration // for a body to go on, in either direction
	Ops      *zap.Logger
}

// A Forwarder passes requests on. It is safe for concurrent use.
type Forwarder struct {
	// Proxy is what every request goes through. Hooks may be added before the first.
	Proxy *goproxy.ProxyHttpServer
	cfg   Config
}

// New returns a Forwarder.
func New(cfg Config) *Forwarder {
	f := &Forwarder{cfg: cfg, Proxy: goproxy.NewProxyHttpServer()}
	f.Proxy.Tr, f.Proxy.ConnectDial = nil, nil // they would read the environment
	f.Proxy.KeepAcceptEncoding = true
	f.Proxy.Logger = zap.NewStdLog(cfg.Ops)
	f.Proxy.OnRequest().DoFunc(f.request)
	f.Proxy.OnResponse().DoFunc(f.response)
	return f
}

// A forwarded is a request on its way through goproxy.
type forwarded struct {
	*exchange.Exchange
	f      *Forwarder
	stream *http2.Stream
	ctx    context.Context // of stream
	method string
	w      writer
	inside bool

	expects bool // the client waits for 100 Continue
	upload  upload
}

type key struct{}

// Serve passes r on, which was admitted as x, finishes x, and ends the stream s. inside is
// set if it came on an intercepted connection.
func (f *Forwarder) Serve(s *http2.Stream, r *http2.Request, x *exchange.Exchange, inside bool) {
	fx := &forwarded{Exchange: x, f: f, stream: s, ctx: s.Context(), method: r.Method, inside: inside}
	fx.w = writer{fx: fx, header: http.Header{}}
	fx.upload = upload{fx: fx, trailer: http.Header{}}
	defer fx.end()
	out := newRequest(context.WithValue(fx.ctx, key{}, fx), r)
	fx.expects = out.Header.Get("Expect") != ""
	if out.ContentLength != 0 {
		out.Body = &fx.upload
	}
	f.Proxy.ServeHTTP(&fx.w, out)
}

// newRequest returns r, without its body, as net/http has it.
func newRequest(ctx context.Context, r *http2.Request) *http.Request {
	h := make(http.Header, len(r.Fields))
	for _, f := range r.Fields {
		if name := http.CanonicalHeaderKey(f.Name); name == "Cookie" && h[name] != nil { // RFC 9113, 8.2.3
			h[name][0] += "; " + f.Value
		} else {
			h[name] = append(h[name], f.Value)
		}
	}
	return (&http.Request{
		Method: r.Method, URL: r.URL(), Host: r.Authority, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: h, ContentLength: r.Length, Body: http.NoBody,
	}).WithContext(ctx)
}

// end finishes the exchange and the stream. It is deferred.
func (fx *forwarded) end() {
	fault := recover()
	fx.upload.stop()
	w := &fx.w
	switch {
	case fault != nil && fault != http.ErrAbortHandler:
		fx.f.cfg.Pipeline.Panicked(nil, fault)
		fx.Fail(fmt.Errorf("panic: %v", fault))
	case w.status == 0 || w.own:
	case w.clientErr != nil, w.bodyErr != nil && fx.ctx.Err() != nil:
		fx.Fail(GivenUp(fx.ctx, w.clientErr))
	case w.bodyErr != nil:
		fx.Fail(fmt.Errorf("read the answer's body: %w", w.bodyErr))
	}
	fx.Finish(w.status)
	if fault != nil || w.bodyErr != nil || w.status == 0 { // the answer must not look whole
		fx.stream.Reset(wire.ErrCodeInternal)
	} else {
		w.finish()
	}
}

// GivenUp says why a client does not get its answer, or not all of it: ctx is that of its
// stream, and err what has failed if that goes on.
func GivenUp(ctx context.Context, err error) error {
	err = cmp.Or(context.Cause(ctx), err)
	switch {
	case errors.Is(err, tunnel.ErrShutdown):
		return tunnel.ErrShutdown
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("write to client: %w", err)
	}
	return exchange.ErrClientClosed
}

// request is goproxy's hook for requests: it says how they are sent.
func (f *Forwarder) request(r *http.Request, ctx *goproxy.ProxyCtx) (*http.Request, *http.Response) {
	ctx.RoundTripper = goproxy.RoundTripperFunc(func(r *http.Request, ctx *goproxy.ProxyCtx) (*http.Response, error) {
		return forwardedBy(ctx).roundTrip(r)
	})
	return r, nil
}

// response is goproxy's hook for answers: it makes one of an error.
func (f *Forwarder) response(resp *http.Response, ctx *goproxy.ProxyCtx) *http.Response {
	fx := forwardedBy(ctx)
	if resp == nil {
		return fx.refusal(ctx.Error)
	}
	fx.w.stream = resp.ContentLength < 0
	return resp
}

// forwardedBy is the request that Serve has given to goproxy.
func forwardedBy(ctx *goproxy.ProxyCtx) *forwarded {
	return ctx.Req.Context().Value(key{}).(*forwarded)
}

// refusal makes the answer to a request that failed with err.
func (fx *forwarded) refusal(err error) *http.Response {
	if err == nil {
		err = errors.New("no answer")
	}
	if fx.ctx.Err() != nil {
		fx.Fail(GivenUp(fx.ctx, nil))
		panic(http.ErrAbortHandler)
	}
	if _, ok := errors.AsType[refusal.Refusal](err); !ok {
		fx.Fail(err)
	}
	refused, h, body := fx.Refuse(err)
	fx.w.own, fx.w.length = true, len(body)
	return &http.Response{StatusCode: refused.Status, Header: h, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body))}
}

// passInterim passes an interim answer on. A client that may not expect 100 does not
// get it.
func (fx *forwarded) passInterim(status int, h http.Header) {
	fx.upload.interim()
	if status == http.StatusContinue && !fx.expects {
		return
	}
	_ = fx.stream.WriteHeaders(status, http2.Fields(h), false) // neither 101 nor late ones; a client that has gone shows later
}

// roundTrip asks the origin.
func (fx *forwarded) roundTrip(r *http.Request) (*http.Response, error) {
	req, err := fx.translate(r)
	if err != nil {
		return nil, err
	}
	to := egress.Endpoint{Target: fx.Target, Dial: fx.Decision.Dial, Secure: r.URL.Scheme == "https", HTTP2: true}
	for {
		o, err := req.Connect(fx.ctx, fx.f.cfg.Origins, to)
		if err != nil {
			return nil, err
		}
		req.SetOrigin(o)
		ask := fx.askHTTP1
		if o.HTTP2 != nil {
			ask = fx.askHTTP2
		}
		ctx, cancel := context.WithCancelCause(fx.ctx)
		onTime := fx.upload.whenLate(func() { cancel(&upstream.SlowReply{Err: os.ErrDeadlineExceeded}) })
		resp, err := ask(ctx, r, req, o)
		onTime()
		if err == nil {
			return resp, nil
		}
		cause := cmp.Or(context.Cause(ctx), fx.upload.err()) // whatever the origin made of it
		cancel(nil)
		if cause != nil {
			return nil, cause
		}
		if again, err := req.Again(o, err); !again {
			return nil, err
		}
	}
}

// translate writes r as a request by HTTP/1, which upstream makes others of. What an
// origin could read in another way is refused there.
func (fx *forwarded) translate(r *http.Request) (*upstream.Request, error) {
	path := r.URL.RequestURI()
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.Method, path, r.Host)
	h := r.Header.Clone()
	switch {
	case r.ContentLength < 0:
		h.Set("Transfer-Encoding", "chunked")
	case r.ContentLength == 0 && h.Get("Content-Length") == "" && (r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch):
		h.Set("Content-Length", "0") // some origins want it
	}
	_ = h.Write(&b) // a strings.Builder takes everything
	b.WriteString("\r\n")
	parsed, err := head.ParseRequest([]byte(b.String()))
	if e, ok := errors.AsType[*head.Error](err); ok {
		return nil, fx.Malformed(&exchange.Request{Authority: r.Host, Header: parsed.Fields}, e.Status, err)
	}
	return &upstream.Request{Exchange: fx.Exchange, Head: &parsed, Authority: r.Host, Path: path, Inside: fx.inside}, err
}
