package forward

import (
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"espalier/proxy/head"
	"espalier/proxy/http2"
	"espalier/proxy/upstream"
	"espalier/proxy/wire"
)

// An upload is the body of a request, which is counted while it is read.
type upload struct {
	fx      *forwarded
	trailer http.Header // filled when the body ends

	mu      sync.Mutex
	late    *time.Timer // until the answer begins; it begins anew with every byte
	failed  error       // on the way from the client
	stopped bool        // what comes now is not counted any more
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.fx.stream.Read(p)
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.stopped:
	case err == io.EOF:
		clear(u.trailer)
		for _, f := range u.fx.stream.Trailers() {
			u.trailer.Add(f.Name, f.Value)
		}
		cleanTrailer(u.trailer)
	case err != nil:
		u.failed = &upstream.UploadError{Err: err}
	case n > 0:
		u.fx.AddUp(int64(n))
		u.moved()
	}
	return n, err
}

// Close implements io.Closer.
func (u *upload) Close() error { return nil }

// moved notes that something moved. u.mu is held.
func (u *upload) moved() {
	if u.late != nil {
		u.late.Reset(u.fx.f.cfg.Reply)
	}
}

// interim notes an interim answer.
func (u *upload) interim() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.moved()
}

// whenLate calls f when nothing has moved for as long as an origin may take to begin its
// answer, unless onTime is called.
func (u *upload) whenLate(f func()) (onTime func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.late = time.AfterFunc(u.fx.f.cfg.Reply, f)
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.late.Stop()
		u.late = nil
	}
}

func (u *upload) err() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.failed
}

// stop ends reading and counting.
func (u *upload) stop() {
	_ = u.fx.stream.SetReadDeadline(time.Unix(1, 0))
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
}

// cleanTrailer removes what may not be in a trailer.
func cleanTrailer(t http.Header) {
	maps.DeleteFunc(t, func(name string, _ []string) bool { return !upstream.InTrailer(head.Field{Name: []byte(name)}) })
}

// A writer is the answer to the client, as goproxy writes it. It counts, and sends at once
// what has come, for the client may wait for it.
type writer struct {
	fx     *forwarded
	header http.Header         // the fields; once they are taken, those behind the body
	status int                 // 0 until WriteHeader
	fields []hpack.HeaderField // taken from header
	sent   bool                // they are
	// own is set if the answer is the proxy's and does not count as payload; length is
	// that of its body.
	own    bool
	length int
	stream bool // the body's length is not known

	bodyErr, clientErr error // what cut the answer short
}

// Header implements http.ResponseWriter.
func (w *writer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. Status is that of a final answer.
func (w *writer) WriteHeader(status int) {
	if w.own {
		w.header.Set("Content-Length", strconv.Itoa(w.length))
	}
	w.status, w.fields = status, http2.Fields(w.header)
	clear(w.header)
	if w.stream { // the client may wait for the head alone
		_, _ = w.send(nil, false)
	}
}

// send sends p, behind the fields if they have not gone. end says that nothing follows.
func (w *writer) send(p []byte, end bool) (n int, err error) {
	if !w.sent {
		w.sent = true
		if err = w.fx.stream.Answer(w.status, w.fields, p, end); err == nil {
			n = len(p)
		}
	} else if len(p) > 0 || end {
		n, err = w.fx.stream.Send(p, end)
	}
	if err != nil && w.clientErr == nil {
		w.clientErr = err
	}
	if !w.own {
		w.fx.AddDown(int64(n))
	}
	return n, err
}

// bodiless reports whether the answer has no body, whatever its fields say.
func (w *writer) bodiless() bool {
	a := head.Response{Status: w.status}
	return !a.HasBody([]byte(w.fx.method))
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.bodiless() {
		return len(p), nil
	}
	return w.send(p, false)
}

// ReadFrom implements io.ReaderFrom, for goproxy does not tell why a body ended.
func (w *writer) ReadFrom(r io.Reader) (total int64, err error) {
	buf := wire.Buffers.Get().(*[32 << 10]byte)
	defer wire.Buffers.Put(buf)
	for {
		n, err := r.Read(buf[:])
		if n > 0 {
			n, werr := w.Write(buf[:n])
			if total += int64(n); werr != nil {
				return total, werr
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			w.bodyErr = err
			return total, err
		}
	}
}

// Flush implements http.Flusher, which goproxy looks for. Nothing waits but the fields.
func (w *writer) Flush() {
	if !w.sent && !w.bodiless() {
		_, _ = w.send(nil, false)
	}
}

// finish ends the answer.
func (w *writer) finish() {
	trailer := make(http.Header, len(w.header))
	for name, values := range w.header {
		trailer[strings.TrimPrefix(name, http.TrailerPrefix)] = values
	}
	cleanTrailer(trailer)
	if len(trailer) == 0 || w.bodiless() {
		_, _ = w.send(nil, true)
		return
	}
	w.Flush()
	_ = w.fx.stream.WriteTrailers(http2.Fields(trailer))
}
