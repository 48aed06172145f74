// Package forward passes on the requests that come by HTTP/2: each goes through
// goproxy, by its hooks for requests and answers, and from there to its origin by the
// connections of package egress, in the protocol that the origin speaks.
//
// Package streams answers the clients. This package is apart from it since it needs no
// more of a request than net/http tells.
package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/elazarl/goproxy"
	"go.uber.org/zap"

	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/head"
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
	ctx    context.Context // ends when the client gives the request up, or the proxy ends
	w      *writer
	in     *http.Request // as it came; its trailers are those of the client
	inside bool

	expects bool // the client waits for 100 Continue
	upload  upload

	interim sync.Mutex // of interim answers, which may be reported late
	final   bool       // none is passed on any more
}

type key struct{}

// Serve passes r on, which was admitted as x, and finishes x. Its URL is absolute. The
// context of r ends when the client gives it up, with the reason as its cause. inside
// is set if it came on an intercepted connection. Serve panics with
// http.ErrAbortHandler if the answer must not look whole.
func (f *Forwarder) Serve(w http.ResponseWriter, r *http.Request, x *exchange.Exchange, inside bool) {
	fx := &forwarded{Exchange: x, f: f, ctx: r.Context(), in: r, inside: inside, expects: r.Header.Get("Expect") != ""}
	fx.w = &writer{ResponseWriter: w, fx: fx}
	out := r.Clone(context.WithValue(r.Context(), key{}, fx))
	r.Header.Del("Expect") // the origin says when to go on
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	} else {
		fx.upload.ReadCloser, fx.upload.fx, fx.upload.trailer = r.Body, fx, http.Header{}
		out.Body = &fx.upload
	}
	defer fx.end()
	f.Proxy.ServeHTTP(fx.w, out)
}

// end finishes the exchange. It is deferred, and panics again if something did.
func (fx *forwarded) end() {
	fault := recover()
	_ = http.NewResponseController(fx.w.ResponseWriter).SetReadDeadline(time.Unix(1, 0)) // nothing is read any more
	fx.upload.stop()
	switch broken := fx.w.bodyErr; {
	case fault != nil && fault != http.ErrAbortHandler:
		fx.f.cfg.Pipeline.Panicked(nil, fault)
		fx.Fail(fmt.Errorf("panic: %v", fault))
	case fx.w.status == 0 || fx.w.own:
	case fx.w.clientErr != nil:
		fx.Fail(fx.givenUp())
	case broken != nil && fx.ctx.Err() != nil:
		fx.Fail(fx.givenUp())
	case broken != nil:
		fx.Fail(fmt.Errorf("read the answer's body: %w", broken))
	}
	fx.Finish(fx.w.status)
	if fault != nil || fx.w.bodyErr != nil || fx.w.status == 0 {
		panic(http.ErrAbortHandler)
	}
}

// givenUp says why the client does not get the answer, or not all of it.
func (fx *forwarded) givenUp() error {
	err := context.Cause(fx.ctx)
	if err == nil {
		err = fx.w.clientErr
	}
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
	fx, ok := r.Context().Value(key{}).(*forwarded)
	if !ok {
		return r, nil
	}
	ctx.RoundTripper = goproxy.RoundTripperFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) {
		return fx.roundTrip(r)
	})
	return r, nil
}

// response is goproxy's hook for answers: it makes one of an error.
func (f *Forwarder) response(resp *http.Response, ctx *goproxy.ProxyCtx) *http.Response {
	fx, ok := ctx.Req.Context().Value(key{}).(*forwarded)
	switch {
	case !ok:
		return resp
	case resp == nil:
		return fx.refusal(ctx.Error)
	}
	fx.w.stream = resp.ContentLength < 0
	return resp
}

// refusal makes the answer to a request that failed with err.
func (fx *forwarded) refusal(err error) *http.Response {
	if err == nil {
		err = errors.New("no answer")
	}
	if fx.ctx.Err() != nil {
		fx.Fail(fx.givenUp())
		panic(http.ErrAbortHandler)
	}
	if _, ok := errors.AsType[refusal.Refusal](err); !ok {
		fx.Fail(err)
	}
	refused, h, body := fx.Refuse(err)
	fx.w.own = true
	return &http.Response{StatusCode: refused.Status, Header: h, ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body))}
}

// passInterim passes an interim answer on. A client that may not expect 100 does not
// get it.
func (fx *forwarded) passInterim(status int, h http.Header) {
	fx.upload.movedNow()
	fx.interim.Lock()
	defer fx.interim.Unlock()
	if fx.final || status == http.StatusContinue && !fx.expects {
		return
	}
	own := fx.w.ResponseWriter.Header()
	for name, values := range h {
		own[name] = values
	}
	fx.w.ResponseWriter.WriteHeader(status)
	clear(own)
}

// endInterim waits until no interim answer is being passed on, and lets none follow.
func (fx *forwarded) endInterim() {
	fx.interim.Lock()
	defer fx.interim.Unlock()
	fx.final = true
}

// roundTrip asks the origin.
func (fx *forwarded) roundTrip(r *http.Request) (*http.Response, error) {
	defer fx.endInterim()
	req, err := fx.newRequest(r)
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
		fx.upload.movedNow()
		ask := fx.askHTTP1
		if o.HTTP2 != nil {
			ask = fx.askHTTP2
		}
		resp, again, err := ask(r, req, o)
		if resp != nil {
			resp.Body = &download{resp.Body, resp, fx}
		}
		if !again {
			return resp, err
		}
	}
}

// newRequest writes r as a request by HTTP/1, which upstream makes others of. What an
// origin could read in another way is refused there.
func (fx *forwarded) newRequest(r *http.Request) (*upstream.Request, error) {
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
