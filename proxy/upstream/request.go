// Package upstream asks origins by HTTP/1, and parents in their place, for the clients
// of every protocol: it writes the head of a request, reads the one of its answer,
// and says what may be sent again.
package upstream

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"espalier/proxy/egress"
	"espalier/proxy/exchange"
	"espalier/proxy/head"
	"espalier/proxy/refusal"
	"espalier/proxy/wire"
)

// A Request is one that was admitted, on its way to its origin. One goroutine uses it
// at a time.
type Request struct {
	*exchange.Exchange
	Head      *head.Request // as the client sent it
	Authority string        // of the URL, as sent
	Path      string        // what the origin is asked for, with the query, as sent
	Inside    bool          // it came on an intercepted connection

	answered   bool             // something of an answer has come
	retried    bool             // it was sent a second time
	not        []*egress.Parent // that left it unanswered
	unanswered error            // by the last of them
}

// LastBytes is how long an origin that has answered may take for the last bytes of the
// request's body. Only then is its connection kept.
const LastBytes = 100 * time.Millisecond

// Repeatable reports whether the request may be sent again if the origin closes the
// connection without a byte of an answer (RFC 9110, section 9.2.2).
func (r *Request) Repeatable() bool {
	if r.Head.Length != 0 || r.Head.WebSocket {
		return false
	}
	switch string(r.Head.Method) {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodDelete, http.MethodPut:
		return true
	}
	return false
}

// Connect returns a connection for r. The origin may speak HTTP/2 on it. Only what can be sent again goes on a kept one,
// which the origin may be about to close, and that only once (RFC 9110, section 9.2.2).
func (r *Request) Connect(ctx context.Context, pool *egress.Origins, to egress.Endpoint) (*egress.Origin, error) {
	connect := pool.ConnectAny
	if r.Head.WebSocket { // which needs HTTP/1
		connect = pool.Connect
	}
	o, err := connect(ctx, r.State.Route(), to, r.retried || !r.Repeatable(), r.not)
	if errors.Is(err, egress.ErrNoOtherParent) {
		err = r.unanswered
	}
	return o, err
}

// SetOrigin notes which connection r goes on.
func (r *Request) SetOrigin(o *egress.Origin) {
	if o.Connect > 0 {
		r.Record.Connect = o.Connect
	}
	r.Record.Upstream = wire.AddrPort(o)
}

// Again says what becomes of a request that got no answer on o, but err: whether it may
// go on another connection, and if not what the client is told.
func (r *Request) Again(o *egress.Origin, err error) (bool, error) {
	if r.answered || len(o.Unread()) > 0 || refusal.IsTimeout(err) || isAnswer(err) {
		return false, err
	}
	switch {
	case o.Reused && r.Repeatable() && (o.HTTP2 == nil || o.HTTP2.Err() != nil): // it was about to close
		r.retried = true
		return true, err
	case o.Parent != nil: // it may be a load balancer without a server
		err = o.Parent.Unanswered(err)
		if r.Repeatable() {
			r.not, r.unanswered = append(r.not, o.Parent), err
			return true, err
		}
	}
	return false, err
}

// isAnswer reports whether err is about an answer that came.
func isAnswer(err error) bool {
	_, bad := errors.AsType[*BadAnswer](err)
	_, parent := errors.AsType[*egress.ParentError](err)
	return bad || parent
}

// AppendHead appends the head of the request as it goes out on o: the lines as they
// were sent, but for those that concern the client's connection.
func (r *Request) AppendHead(b []byte, o *egress.Origin) []byte {
	b = append(append(b, r.Head.Method...), ' ')
	if o.Parent != nil { // a proxy wants the absolute form (RFC 9112, 3.2.2)
		b = append(append(b, "http://"...), r.Authority...)
	}
	if o.Parent == nil || r.Path != "*" {
		b = append(b, r.Path...)
	}
	b = append(b, " HTTP/1.1\r\n"...)
	if r.Head.Hosts == 0 {
		b = appendField(b, "Host", r.Authority)
	}
	for f, next, ok := r.Head.Fields.Next(); ok; f, next, ok = next.Next() {
		switch {
		case r.Head.WebSocket && f.Upgrades():
			b = append(b, f.Line...)
		case f.HopByHop(), r.Head.Nominates && r.Head.Fields.Nominates(f.Name), r.Decision.HasHeaders() && r.sets(f):
		case f.Is("host") && string(f.Value) != r.Authority: // what the URL says (RFC 9112, 3.2.2)
			b = appendField(b, string(f.Name), r.Authority)
		case f.Is("transfer-encoding"), f.Is("content-length"):
			b = AppendFraming(b, f)
		case f.Is("expect") && !r.Head.Expect: // it means nothing there (RFC 9110, 10.1.1)
		case f.Is("max-forwards") && string(r.Head.Method) == http.MethodOptions:
			b = append(b, lessForwards(f)...)
		default:
			b = append(b, f.Line...)
		}
	}
	if r.Decision.HasHeaders() {
		b = r.appendSet(b)
	}
	if via := r.Via(o); via != "" {
		b = appendField(b, "Via", via)
	}
	if o.Parent != nil && o.Parent.ProxyAuthorization() != "" {
		b = appendField(b, "Proxy-Authorization", o.Parent.ProxyAuthorization())
	}
	return append(b, "\r\n"...)
}

// appendSet appends the fields that rules and presets set.
func (r *Request) appendSet(b []byte) []byte {
	for name, value := range r.Decision.Headers() {
		b = appendField(b, name, value)
	}
	return b
}

func appendField(b []byte, name, value string) []byte {
	return append(append(append(append(b, name...), ": "...), value...), "\r\n"...)
}

// AppendFraming appends a field that frames a body, so that every recipient reads the
// same: chunked in lower case, a length without zeros before it.
func AppendFraming(b []byte, f head.Field) []byte {
	if digit := f.Value[0]; '1' <= digit && digit <= '9' {
		return append(b, f.Line...)
	}
	value := bytes.TrimLeft(bytes.ToLower(f.Value), "0")
	if len(value) == 0 {
		value = []byte("0")
	}
	return appendField(b, string(f.Name), string(value))
}

// Via is what Via says of this proxy (RFC 9110, section 7.6.3), so that loops are found;
// "" says nothing: Apple's requests are not changed (docs/security.md).
func (r *Request) Via(o *egress.Origin) string {
	switch {
	case r.Decision.Match.Row != nil || r.Inside:
		return ""
	case o.Parent != nil:
		return o.Parent.Via()
	}
	return r.State.Dialer.Via()
}

// sets reports whether a rule or preset sets the field f.
func (r *Request) sets(f head.Field) bool {
	for name := range r.Decision.Headers() {
		if bytes.EqualFold(f.Name, []byte(name)) {
			return true
		}
	}
	return false
}

// lessForwards is the line of a Max-Forwards field that is counted down (RFC 9110,
// section 7.6.2).
func lessForwards(f head.Field) []byte {
	n, err := strconv.ParseUint(string(f.Value), 10, 31)
	if err != nil || n == 0 {
		return f.Line
	}
	return append(append([]byte{}, f.Name...), ": "+strconv.FormatUint(n-1, 10)+"\r\n"...)
}

// Release gives a connection back whose answer was read to its end, and closes it
// unless keep is set. own is the connection if the client has signed in on it: it is
// for that client alone, who must close it.
func (r *Request) Release(p *exchange.Pipeline, pool *egress.Origins, o *egress.Origin, keep bool) (own *egress.Origin) {
	switch {
	case !keep || len(o.Unread()) > 0, r.State != p.State(): // bytes that answer no request; rules of before a reload
		o.Close()
	case r.Head.SignsIn || o.Private:
		o.Private = true
		_ = o.SetDeadline(time.Time{})
		return o
	default:
		pool.Keep(o)
	}
	return nil
}
