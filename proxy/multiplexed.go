package proxy

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A multiplexedWriter answers a request by HTTP/2. net/http has deadlines for the
// connection, which live as long as the client answers pings; this bounds what
// becomes of a single request, so that nobody holds it up by taking nothing, or by
// sending nothing of a body that is waited for.
type multiplexedWriter struct {
	http.ResponseWriter
	stall time.Duration

	unsent bool // something was written that may not be on its way; for the handler

	mu    sync.Mutex
	begun bool // the answer
	ended bool // the handler is about to, and the stream must be left alone
}

// multiplexed bounds how r, which is one of HTTP/2, is answered by w, and how its
// body comes in. end must be called at the end of the handler.
func (s *Server) multiplexed(w http.ResponseWriter, r *http.Request) *multiplexedWriter {
	m := &multiplexedWriter{ResponseWriter: w, stall: s.times.Stall}
	if r.Method != http.MethodConnect && r.ContentLength != 0 {
		r.Body = &multiplexedBody{r.Body, m}
	}
	return m
}

func (m *multiplexedWriter) WriteHeader(status int) {
	if status >= 200 {
		m.answers()
	}
	m.ResponseWriter.WriteHeader(status)
}

func (m *multiplexedWriter) answers() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.begun = true
}

func (m *multiplexedWriter) Write(p []byte) (int, error) {
	m.answers()
	m.unsent = true
	defer m.within()()
	return m.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController.
func (m *multiplexedWriter) FlushError() error {
	m.unsent = false
	defer m.within()()
	return http.NewResponseController(m.ResponseWriter).Flush()
}

// within resets the stream unless done is called in time.
func (m *multiplexedWriter) within() (done func() bool) {
	return time.AfterFunc(m.stall, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.ended {
			_ = http.NewResponseController(m.ResponseWriter).SetWriteDeadline(time.Unix(1, 0))
		}
	}).Stop
}

// Unwrap lets http.ResponseController through.
func (m *multiplexedWriter) Unwrap() http.ResponseWriter { return m.ResponseWriter }

// end sends what net/http would after the handler, when nothing bounds it.
func (m *multiplexedWriter) end() {
	if m.unsent {
		_ = m.FlushError() // a client that is gone needs no answer
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
}

// multiplexedBody is the body of a request. Once the answer has begun it may take
// its time: both directions of a stream may be open for long.
type multiplexedBody struct {
	io.ReadCloser
	m *multiplexedWriter
}

func (b *multiplexedBody) Read(p []byte) (int, error) {
	m := b.m
	defer time.AfterFunc(m.stall, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.ended && !m.begun {
			_ = http.NewResponseController(m.ResponseWriter).SetReadDeadline(time.Unix(1, 0))
		}
	}).Stop()
	return b.ReadCloser.Read(p)
}

// isPath reports whether the target of a request by HTTP/2 is a path, which
// net/http takes as it is: an absolute URL, or one without a path, would stand in
// the request line to the destination, and so would a space.
func isPath(target string) bool {
	return target == "*" || strings.HasPrefix(target, "/") && !strings.ContainsFunc(target, func(c rune) bool { return c <= ' ' || c == 0x7f })
}
