package forward

import (
	"io"
	"maps"
	"net/http"
	"sync"
	"time"

	"espalier/proxy/head"
	"espalier/proxy/upstream"
	"espalier/proxy/wire"
)

// An upload is the body of a request, which is counted while it is read. The zero
// value is none.
type upload struct {
	io.ReadCloser
	fx      *forwarded
	trailer http.Header // of the request that goes out; filled when the body ends

	mu      sync.Mutex
	moved   time.Time // when a byte last was read, or an interim answer came
	failed  error     // on the way from the client
	stopped bool      // what comes now is not counted any more
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	n, err := u.ReadCloser.Read(p)
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.stopped:
	case err != nil && err != io.EOF:
		u.failed = &upstream.UploadError{Err: err}
	case n > 0:
		u.fx.AddUp(int64(n))
		u.moved = time.Now()
	}
	if err == io.EOF {
		maps.Copy(u.trailer, u.fx.in.Trailer)
		cleanTrailer(u.trailer)
	}
	return n, err
}

// since is how long ago something moved.
func (u *upload) since() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Since(u.moved)
}

func (u *upload) movedNow() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.moved = time.Now()
}

func (u *upload) err() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.failed
}

// stop ends the counting.
func (u *upload) stop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
}

// cleanTrailer removes what may not be in a trailer.
func cleanTrailer(t http.Header) {
	maps.DeleteFunc(t, func(name string, _ []string) bool { return !upstream.InTrailer(head.Field{Name: []byte(name)}) })
}

// A download is the body of an answer. It remembers what cut it short, since goproxy
// does not say.
type download struct {
	io.ReadCloser
	resp *http.Response
	fx   *forwarded
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		cleanTrailer(d.resp.Trailer)
	case err != nil:
		d.fx.w.bodyErr = err
	}
	return n, err
}

// A writer stands between goproxy and the client: it counts, and sends at once what
// has come.
type writer struct {
	http.ResponseWriter
	fx                 *forwarded
	status             int
	own                bool  // the answer is the proxy's own and does not count as payload
	stream             bool  // the body's length is not known
	bodyErr, clientErr error // what cut the answer short
}

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
	if w.stream { // the client may wait for the head alone
		w.Flush()
	}
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err != nil && w.clientErr == nil {
		w.clientErr = err
	}
	if !w.own {
		w.fx.AddDown(int64(n))
	}
	return n, err
}

// ReadFrom implements io.ReaderFrom. What arrives is passed on at once, for the client
// may wait for it.
func (w *writer) ReadFrom(r io.Reader) (total int64, err error) {
	buf := wire.Buffers.Get().(*[32 << 10]byte)
	defer wire.Buffers.Put(buf)
	for {
		n, err := r.Read(buf[:])
		if n > 0 {
			m, werr := w.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
			if n < len(buf) && err == nil {
				w.Flush()
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// Flush implements http.Flusher, which goproxy looks for.
func (w *writer) Flush() {
	if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil && w.clientErr == nil {
		w.clientErr = err
	}
}

// Unwrap lets http.ResponseController through.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
