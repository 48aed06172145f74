package http2

import (
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// HTTP returns a Handler that serves requests with h. The ResponseWriter does what
// net/http's does for HTTP/2: interim answers, Flush, deadlines, trailers
// (http.TrailerPrefix), full duplex; a Connection: close in the answer shuts the
// connection down. It adds no fields of its own but Content-Length, where an
// answer is short and complete. 100 Continue is sent when the body is first read,
// unless h has deleted Expect before and answers it itself.
func HTTP(h http.Handler) Handler {
	return func(s *Stream, r *Request) {
		w := &responseWriter{s: s, header: http.Header{}, head: r.Method == http.MethodHead, length: -1}
		h.ServeHTTP(w, newHTTPRequest(s, r))
		w.finish()
	}
}

// newHTTPRequest returns r as net/http has it, but with what a proxy needs: an absolute
// URL, and the Trailer field as it came. Request.Trailer is set when Body ends.
func newHTTPRequest(s *Stream, r *Request) *http.Request {
	req := (&http.Request{
		Method: r.Method, URL: r.URL(), Host: r.Authority, RequestURI: r.Path,
		Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: make(http.Header, len(r.Fields)), ContentLength: r.Length,
		RemoteAddr: s.RemoteAddr().String(), Body: http.NoBody,
	}).WithContext(s.Context())
	if r.Method == http.MethodConnect {
		req.RequestURI = r.Authority
	}
	for _, f := range r.Fields {
		name := http.CanonicalHeaderKey(f.Name)
		switch have := req.Header[name]; {
		case name == "Cookie" && have != nil: // RFC 9113, 8.2.3
			have[0] += "; " + f.Value
		default:
			req.Header[name] = append(have, f.Value)
		}
	}
	if r.Length != 0 {
		b := &body{s: s, req: req}
		b.expected = strings.EqualFold(req.Header.Get("Expect"), "100-continue")
		req.Body = b
	}
	return req
}

// URL returns the target as an absolute URL. Its RequestURI is Path, byte for byte:
// where net/url would escape it another way, it is in Opaque. One that begins with
// two slashes would name a host there, and is escaped.
func (r *Request) URL() *url.URL {
	u := &url.URL{Scheme: r.Scheme, Host: r.Authority}
	if r.Path == "" {
		return u
	}
	path, query, ok := strings.Cut(r.Path, "?")
	u.RawQuery, u.ForceQuery = query, ok && query == ""
	var err error
	if u.Path, err = url.PathUnescape(path); err != nil {
		u.Path = path
	}
	u.RawPath = path
	if u.EscapedPath() != path && !strings.HasPrefix(path, "//") {
		u.Opaque = path
	}
	return u
}

// body is the body of a request.
type body struct {
	s        *Stream
	req      *http.Request
	expected bool // 100 Continue

	mu     sync.Mutex
	closed bool
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	closed, expected := b.closed, b.expected
	b.expected = false
	b.mu.Unlock()
	if closed {
		return 0, http.ErrBodyReadAfterClose
	}
	if expected && b.req.Header.Get("Expect") != "" {
		_ = b.s.WriteHeaders(http.StatusContinue, nil, false) // not after the answer has begun
	}
	n, err := b.s.Read(p)
	if err == io.EOF {
		for _, f := range b.s.Trailers() {
			if b.req.Trailer == nil {
				b.req.Trailer = http.Header{}
			}
			b.req.Trailer.Add(f.Name, f.Value)
		}
	}
	return n, err
}

func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// bufferSize is how much of an answer waits for more before it is sent.
const bufferSize = 4 << 10

var writeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, bufferSize); return &b }}

// responseWriter is one answer.
type responseWriter struct {
	s      *Stream
	header http.Header
	head   bool // the request is HEAD

	status   int // 0 until the final WriteHeader
	fields   []hpack.HeaderField
	sent     bool // fields have gone
	trailers []string
	length   int64 // by Content-Length; -1 without
	written  int64
	buffer   *[]byte
}

func (w *responseWriter) Header() http.Header { return w.header }

func (w *responseWriter) WriteHeader(status int) {
	if w.status != 0 {
		return
	}
	fields := w.snapshot()
	if status < 200 {
		_ = w.s.WriteHeaders(status, fields, false) // not 101; and a client that has gone shows later
		return
	}
	w.status, w.fields = status, fields
	if strings.EqualFold(w.header.Get("Connection"), "close") {
		w.s.c.Shutdown()
	}
	for _, v := range w.header["Trailer"] {
		for name := range strings.SplitSeq(v, ",") {
			w.trailers = append(w.trailers, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	if n, err := parseLength(w.header.Get("Content-Length")); err == nil {
		w.length = n
	}
}

// snapshot returns the header fields that may be sent.
func (w *responseWriter) snapshot() []hpack.HeaderField {
	fields := make([]hpack.HeaderField, 0, len(w.header))
	for _, name := range slices.Sorted(maps.Keys(w.header)) {
		if !strings.HasPrefix(name, http.TrailerPrefix) {
			fields = appendFields(fields, name, w.header[name])
		}
	}
	return fields
}

// appendFields appends those values that HTTP/2 can carry.
func appendFields(fields []hpack.HeaderField, name string, values []string) []hpack.HeaderField {
	for _, v := range values {
		f := hpack.HeaderField{Name: strings.ToLower(name), Value: strings.Trim(v, " \t")}
		if checkField(f) == nil {
			fields = append(fields, f)
		}
	}
	return fields
}

// bodiless reports whether the answer has no body.
func (w *responseWriter) bodiless() bool {
	return w.head || w.status == http.StatusNoContent || w.status == http.StatusNotModified
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case w.head:
		return len(p), nil
	case w.bodiless():
		return 0, http.ErrBodyNotAllowed
	}
	if w.written += int64(len(p)); w.length >= 0 && w.written > w.length {
		return 0, http.ErrContentLength
	}
	if w.buffer == nil && len(p) < bufferSize {
		w.buffer = writeBuffers.Get().(*[]byte)
	}
	if w.buffer != nil {
		if len(*w.buffer)+len(p) <= bufferSize {
			*w.buffer = append(*w.buffer, p...)
			return len(p), nil
		}
		if err := w.send(false); err != nil {
			return 0, err
		}
	}
	if err := w.sendBytes(p, false); err != nil {
		return 0, err
	}
	return len(p), nil
}

// send sends what is buffered.
func (w *responseWriter) send(end bool) error {
	var p []byte
	if w.buffer != nil {
		p = *w.buffer
		defer func() {
			*w.buffer = p[:0]
			writeBuffers.Put(w.buffer)
			w.buffer = nil
		}()
	}
	return w.sendBytes(p, end)
}

func (w *responseWriter) sendBytes(p []byte, end bool) error {
	if !w.sent {
		w.sent = true
		return w.s.writeHead(w.status, w.fields, p, end)
	}
	_, err := w.s.write(p, end)
	return err
}

// FlushError sends what was written, for http.ResponseController.
func (w *responseWriter) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.send(false)
}

func (w *responseWriter) Flush() { _ = w.FlushError() }

func (w *responseWriter) SetReadDeadline(t time.Time) error  { return w.s.SetReadDeadline(t) }
func (w *responseWriter) SetWriteDeadline(t time.Time) error { return w.s.SetWriteDeadline(t) }

// EnableFullDuplex does nothing: streams are always full duplex.
func (w *responseWriter) EnableFullDuplex() error { return nil }

// finish ends the answer after its handler.
func (w *responseWriter) finish() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.length >= 0 && w.written != w.length && !w.bodiless() {
		_ = w.send(false)
		w.s.Reset(wire.ErrCodeInternal)
		return
	}
	trailers := w.trailerFields()
	if !w.sent && w.length < 0 && !w.bodiless() && trailers == nil {
		w.fields = append(w.fields, hpack.HeaderField{Name: "content-length", Value: strconv.FormatInt(w.written, 10)})
	}
	if w.send(trailers == nil) == nil && trailers != nil {
		_ = w.s.WriteTrailers(trailers)
	}
}

func (w *responseWriter) trailerFields() (fields []hpack.HeaderField) {
	for _, name := range slices.Sorted(maps.Keys(w.header)) {
		plain, prefixed := strings.CutPrefix(name, http.TrailerPrefix)
		if prefixed || slices.Contains(w.trailers, name) {
			fields = appendFields(fields, plain, w.header[name])
		}
	}
	return fields
}
