package streams

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"

	"espalier/policy"
	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/forward"
	"espalier/proxy/http2"
	"espalier/proxy/refusal"
	"espalier/proxy/tunnel"
	"espalier/proxy/wire"
)

// header is the header of a request, as exchange.Header.
type header []hpack.HeaderField

// values are those of the fields with a name in lower case.
func (h header) values(lower string) (list []string) {
	for _, f := range h {
		if f.Name == lower {
			list = append(list, f.Value)
		}
	}
	return list
}

// Get implements exchange.Header.
func (h header) Get(lower string) string { return strings.Join(h.values(lower), ", ") }

// begin starts the account of a request, and makes of it what Admit is asked.
func (k *conn) begin(r *http2.Request) (*exchange.Exchange, *exchange.Request) {
	h := header(r.Fields)
	x := k.cfg.Pipeline.Begin(k.client, r.Method, h.Get("user-agent"))
	ask := &exchange.Request{Door: &policy.Doors.Connect, Header: h, Session: k.session, Authority: r.Authority}
	if r.Method != http.MethodConnect {
		ask.Door, ask.Scheme, ask.Path = &policy.Doors.HTTP2, r.Scheme, r.Path
	} else if n := h.Get("content-length"); n != "" && n != "0" {
		ask.Invalid = errors.New("a CONNECT has a body")
	}
	if k.session != nil {
		k.session.Accepted()
		ask.Door, ask.Scheme = &policy.Doors.InsideTLS, k.session.Scheme()
	}
	return x, ask
}

// answer answers a request.
func (k *conn) answer(s *http2.Stream, r *http2.Request) {
	x, ask := k.begin(r)
	defer func() {
		if fault := recover(); fault != nil {
			if fault != http.ErrAbortHandler {
				k.cfg.Pipeline.Panicked(x, fault)
			}
			panic(http.ErrAbortHandler) // resets the stream
		}
	}()
	if r.Authority == "" { // OPTIONS *, of the proxy itself
		x.Drop()
		status := http.StatusOK
		if k.cfg.Pipeline.Limits.Overloaded() != "" {
			status = http.StatusServiceUnavailable
		}
		_ = s.WriteHeaders(status, nil, true)
		return
	}
	if err := x.Admit(s.Context(), ask); err != nil {
		k.refuse(s, r, x, err)
		return
	}
	switch {
	case r.Method == http.MethodConnect && x.Decision.Action == policy.Tunnel:
		k.connect(s, r, x)
	case r.Method == http.MethodConnect:
		k.inspect(s, r, x)
	case r.Method == http.MethodOptions && ask.Header.Get("max-forwards") == "0":
		_ = s.WriteHeaders(http.StatusOK, nil, true)
		x.Finish(http.StatusOK)
	default:
		r.Scheme = ask.Scheme
		k.cfg.Forward.Serve(s, r, x, k.session != nil)
	}
}

// connect opens a tunnel in a stream.
func (k *conn) connect(s *http2.Stream, r *http2.Request, x *exchange.Exchange) {
	began := time.Now()
	upstream, err := x.State.Dialer.Dial(egress.WithVia(s.Context(), header(r.Fields).values("via")), x.Decision.Dial)
	x.Record.Connect = time.Since(began)
	if err != nil {
		k.fail(s, r, x, err)
		return
	}
	x.Record.Upstream = wire.AddrPort(upstream)
	if !established(s, x) {
		upstream.Close()
		return
	}
	k.cfg.Tunnels.Start(tunnel.Tunnel{Client: s, Upstream: upstream, Service: x.Service(), Owner: x})
}

// inspect hands a CONNECT on that is to be intercepted.
func (k *conn) inspect(s *http2.Stream, r *http2.Request, x *exchange.Exchange) {
	if x.Target.Addr.IsValid() && !x.Decision.Page { // where a name leads is asked for the requests inside
		if _, err := x.State.Dialer.Lookup(s.Context(), x.Target); err != nil {
			k.fail(s, r, x, err)
			return
		}
	}
	if established(s, x) {
		k.cfg.Inspect(x, s)
	}
}

// established tells the client of a CONNECT so. It reports false, and finishes x, if the
// client has left.
func established(s *http2.Stream, x *exchange.Exchange) bool {
	err := s.Tunnel()
	if err != nil {
		x.Fail(forward.GivenUp(s.Context(), err))
		x.Finish(http.StatusOK)
	}
	return err == nil
}

// fail refuses a request that was admitted and failed on the way.
func (k *conn) fail(s *http2.Stream, r *http2.Request, x *exchange.Exchange, err error) {
	if s.Context().Err() != nil {
		x.Fail(forward.GivenUp(s.Context(), err))
		x.Finish(0)
		return
	}
	x.Fail(err)
	k.refuse(s, r, x, err)
}

// refuse tells the client that its request is refused, and finishes it.
func (k *conn) refuse(s *http2.Stream, r *http2.Request, x *exchange.Exchange, err error) {
	refused, h, body := x.Refuse(err)
	if r.Method == http.MethodHead {
		body = ""
	}
	_ = s.Answer(refused.Status, http2.Fields(h), []byte(body), true) // a client that has left needs none
	x.Finish(refused.Status)
	if r.Method != http.MethodConnect {
		_ = s.SetReadDeadline(time.Now().Add(discardTime))
		_, _ = io.CopyN(io.Discard, s, maxDiscard)
	}
}

// Bounds on the body of a refused request that is read, so that its client need not
// learn amid it that it is not wanted.
const (
	maxDiscard  = 64 << 10
	discardTime = 2 * time.Second
)

// malformed refuses a request that is not valid.
func (k *conn) malformed(s *http2.Stream, r *http2.Request, err error) {
	x, ask := k.begin(r)
	status := refusal.Malformed.Status
	if errors.Is(err, http2.ErrHeadTooLarge) {
		status = http.StatusRequestHeaderFieldsTooLarge
	}
	k.refuse(s, r, x, x.Malformed(ask, status, err))
}
