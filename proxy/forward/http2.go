package forward

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"sync"
	"time"

	"espalier/proxy/egress"
	"espalier/proxy/head"
	"espalier/proxy/upstream"
)

// askHTTP2 asks an origin that speaks HTTP/2. Both directions may be open for long: calls
// of gRPC are. again is set if the request may be sent once more.
func (fx *forwarded) askHTTP2(r *http.Request, req *upstream.Request, o *egress.Origin) (resp *http.Response, again bool, err error) {
	ctx, cancel := context.WithCancelCause(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
			fx.passInterim(status, http.Header(h))
			return nil
		},
	}))
	onTime := fx.whenLate(func() { cancel(&upstream.SlowReply{Err: context.DeadlineExceeded}) })
	out := r.WithContext(ctx)
	out.Header = fx.fieldsFor(req, o)
	resp, err = o.HTTP2.RoundTrip(out)
	onTime()
	if err != nil {
		late := context.Cause(ctx)
		cancel(nil)
		switch sent := fx.upload.err(); {
		case late != nil:
			return nil, false, late
		case sent != nil:
			return nil, false, sent
		}
		// An origin that has closed the connection has not seen what it does not answer.
		return nil, o.Reused && o.HTTP2.Err() != nil && req.Repeatable(), err
	}
	maps.DeleteFunc(resp.Header, func(name string, _ []string) bool { return head.Field{Name: []byte(name)}.HopByHop() })
	return resp, false, nil
}

// fieldsFor are the fields of a request as it goes out on o.
func (fx *forwarded) fieldsFor(req *upstream.Request, o *egress.Origin) http.Header {
	h := http.Header{"User-Agent": nil} // net/http says its own otherwise
	sent, _ := head.ParseRequest(req.AppendHead(nil, o))
	for f, rest, ok := sent.Fields.Next(); ok; f, rest, ok = rest.Next() {
		if !f.Is("host") && !f.Is("content-length") && !f.Is("transfer-encoding") { // which HTTP/2 has elsewhere
			h.Add(string(f.Name), string(f.Value))
		}
	}
	if slices.Contains(fx.in.Header["Te"], "trailers") { // servers of gRPC insist
		h.Set("Te", "trailers")
	}
	return h
}

// whenLate calls f when the origin has not begun to answer in time, which begins anew
// while the request's body moves, unless onTime is called.
func (fx *forwarded) whenLate(f func()) (onTime func() bool) {
	var mu sync.Mutex
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	limit := fx.f.cfg.Reply
	timer = time.AfterFunc(limit, func() {
		mu.Lock()
		defer mu.Unlock()
		if left := limit - fx.upload.since(); left > 0 {
			timer.Reset(left)
		} else {
			f()
		}
	})
	return timer.Stop
}
