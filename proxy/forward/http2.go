package forward

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"

	"espalier/proxy/egress"
	"espalier/proxy/head"
	"espalier/proxy/http2"
	"espalier/proxy/upstream"
)

// askHTTP2 asks an origin that speaks HTTP/2. Both directions may be open for long: calls
// of gRPC are.
func (fx *forwarded) askHTTP2(ctx context.Context, r *http.Request, req *upstream.Request, o *egress.Origin) (*http.Response, error) {
	sent, _ := head.ParseRequest(req.AppendHead(nil, o))
	out := newHTTP2Request(ctx, &sent, r.Body, fx.upload.trailer, fx.passInterim)
	if slices.Contains(r.Header["Te"], "trailers") { // servers of gRPC insist
		out.Header.Set("Te", "trailers")
	}
	resp, err := o.RoundTrip(out)
	if err == nil {
		maps.DeleteFunc(resp.Header, func(name string, _ []string) bool { return head.Field{Name: []byte(name)}.HopByHop() })
	}
	return resp, err
}

// newHTTP2Request makes of a head by HTTP/1, as it would go out, the request by HTTP/2.
// trailer is filled when body ends. interim is called with answers before the final one.
func newHTTP2Request(ctx context.Context, sent *head.Request, body io.ReadCloser, trailer http.Header, interim func(int, http.Header)) *http.Request {
	target := http2.Request{Scheme: "https", Authority: string(sent.Host), Path: string(sent.Target)}
	h := http.Header{"User-Agent": nil} // net/http says its own otherwise
	upstream.AddFields(h, sent.Fields, func(f head.Field) bool {
		return !f.Is("host") && !f.Is("content-length") && !f.Is("transfer-encoding") // which HTTP/2 has elsewhere
	})
	out := &http.Request{
		Method: string(sent.Method), URL: target.URL(), Host: target.Authority, Header: h,
		Body: http.NoBody, ContentLength: max(sent.Length, -1),
	}
	if sent.Length != 0 {
		out.Body, out.Trailer = body, trailer // net/http looks for trailers only where it is not nil
	}
	return out.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
			interim(status, http.Header(h))
			return nil
		},
	}))
}
