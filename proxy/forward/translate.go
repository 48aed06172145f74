package forward

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"espalier/proxy/egress"
	"espalier/proxy/head"
	"espalier/proxy/upstream"
	"espalier/proxy/wire"
)

// A translation is one end of a pipe: a client of HTTP/1 asks there, and the request goes
// to an origin by HTTP/2. It takes one request, and ends behind the answer.
type translation struct {
	net.Conn
	remote net.Addr
	cancel context.CancelFunc
	err    error // why there is no more of the answer; to be read at the pipe's end
}

// Translate lets a client of HTTP/1 ask o, which speaks HTTP/2 and on which a place is
// reserved: it gives o a Conn that speaks HTTP/1.
func (f *Forwarder) Translate(o *egress.Origin) {
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	t := &translation{Conn: near, remote: o.RemoteAddr(), cancel: cancel}
	origin := *o // with the connection that it has
	go func() {
		defer cancel()
		defer far.Close()
		defer func() {
			if fault := recover(); fault != nil {
				f.cfg.Pipeline.Panicked(nil, fault)
				t.err = fmt.Errorf("panic: %v", fault)
			}
		}()
		t.err = translate(ctx, wire.New(far, nil), &origin)
	}()
	o.Conn = wire.New(t, nil)
}

// RemoteAddr is the origin's.
func (t *translation) RemoteAddr() net.Addr { return t.remote }

// Read implements io.Reader. Its error at the end is that of the origin.
func (t *translation) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if err == io.EOF && t.err != nil {
		err = t.err
	}
	return n, err
}

// Close gives the request up if it has no answer yet.
func (t *translation) Close() error {
	t.cancel()
	return t.Conn.Close()
}

// patience is how long a translation waits for the client's side, which bounds itself.
const patience = 24 * time.Hour

// translate has origin answer the request that comes on c.
func translate(ctx context.Context, c *wire.Conn, origin *egress.Origin) error {
	end := 0
	for end == 0 {
		if err := c.More(patience); err != nil {
			origin.HTTP2.Release()
			return err
		}
		end = head.End(c.Unread(), 0)
	}
	sent, err := head.ParseRequest(bytes.Clone(c.Unread()[:end]))
	if err != nil {
		origin.HTTP2.Release()
		return err
	}
	c.Use(end)
	body := upstream.NewBody(c, sent.Length, patience)
	out := newHTTP2Request(ctx, &sent, io.NopCloser(body), body.Trailer, func(status int, h http.Header) {
		_ = c.Send(answerHead(status, h), patience) // the answer shows that the client has left
	})
	resp, err := origin.RoundTrip(out)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	h, length := resp.Header, resp.ContentLength
	h.Set("Connection", "close")
	if len(resp.Trailer) > 0 {
		h.Set("Trailer", strings.Join(slices.Sorted(maps.Keys(resp.Trailer)), ", "))
	}
	a := head.Response{Status: resp.StatusCode}
	switch {
	case !a.HasBody(sent.Method):
		return c.Send(answerHead(resp.StatusCode, h), patience)
	case length < 0:
		h.Set("Transfer-Encoding", "chunked")
	case length == 0:
		h.Set("Content-Length", "0")
	}
	if err := c.Send(answerHead(resp.StatusCode, h), patience); err != nil {
		return err
	}
	return sendBody(c, resp.Body, length, &resp.Trailer, patience, func() {})
}

// answerHead is the head of an answer by HTTP/1.
func answerHead(status int, h http.Header) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	_ = h.Write(&b) // a bytes.Buffer takes everything
	b.WriteString("\r\n")
	return b.Bytes()
}
