package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// A stream is what flows inside a CONNECT by HTTP/2 (RFC 9113, section 8.5). The
// client can close its direction; the other one cannot be closed alone, since
// net/http does that when the handler ends. It has no deadlines.
type stream struct {
	w       http.ResponseWriter
	body    io.ReadCloser
	control *http.ResponseController
	local   net.Addr
	remote  streamAddr

	mu      sync.Mutex
	closed  bool
	whole   bool           // the destination has ended its direction in order
	writing bool           // a Write is under way
	using   sync.WaitGroup // Reads and Writes, none of which begins once closed is set
	done    chan struct{}  // closed with it
}

// streamAddr is an address as net/http has it.
type streamAddr string

func (a streamAddr) Network() string { return "tcp" }
func (a streamAddr) String() string  { return string(a) }

// newStream answers a CONNECT by HTTP/2.
func newStream(w http.ResponseWriter, r *http.Request) (*stream, error) {
	if m, ok := w.(*multiplexedWriter); ok {
		w = m.ResponseWriter // the engine knows how long a tunnel may be silent
	}
	s := &stream{
		w: w, body: r.Body, control: http.NewResponseController(w),
		remote: streamAddr(r.RemoteAddr), done: make(chan struct{}),
	}
	s.local, _ = r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	w.WriteHeader(http.StatusOK)
	return s, s.control.Flush()
}

// begin reports whether the stream may be used, until using.Done.
func (s *stream) begin(writing bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.using.Add(1)
		s.writing = s.writing || writing
	}
	return !s.closed
}

func (s *stream) Read(p []byte) (int, error) {
	if !s.begin(false) {
		return 0, net.ErrClosed
	}
	defer s.using.Done()
	return s.body.Read(p)
}

// Write sends p at once.
func (s *stream) Write(p []byte) (int, error) {
	if !s.begin(true) {
		return 0, net.ErrClosed
	}
	defer s.using.Done()
	defer s.written()
	n, err := s.w.Write(p)
	if err == nil {
		err = s.control.Flush()
	}
	return n, err
}

func (s *stream) written() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
}

// CloseWrite notes that nothing more is to be sent, and says that only Close
// tells the client.
func (s *stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.whole = true
	return errors.ErrUnsupported
}

// Close ends Reads and Writes, and lets wait return.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	past := time.Unix(1, 0)
	_ = s.control.SetReadDeadline(past)
	if s.writing { // this resets the stream
		_ = s.control.SetWriteDeadline(past)
	}
	close(s.done)
	return nil
}

// wait returns when the stream was closed and nobody uses it any more, until when
// the handler must go on. Where the destination has not ended in order it panics
// with http.ErrAbortHandler, so that the client does not take what it got for the
// whole.
func (s *stream) wait() {
	<-s.done
	s.using.Wait()
	s.mu.Lock()
	whole := s.whole
	s.mu.Unlock()
	if !whole {
		panic(http.ErrAbortHandler)
	}
}

func (s *stream) LocalAddr() net.Addr  { return s.local }
func (s *stream) RemoteAddr() net.Addr { return s.remote }

var errNoDeadline = errors.New("a stream of HTTP/2 has no deadline")

func (s *stream) SetDeadline(time.Time) error      { return errNoDeadline }
func (s *stream) SetReadDeadline(time.Time) error  { return errNoDeadline }
func (s *stream) SetWriteDeadline(time.Time) error { return errNoDeadline }

// piped returns a connection with deadlines to what flows in the stream, for who
// has to look into it. The stream is closed after it.
func (s *stream) piped() net.Conn {
	outer, inner := net.Pipe()
	go func() {
		_, _ = io.Copy(inner, s)
		inner.Close()
	}()
	go func() {
		_, _ = io.Copy(s, inner)
		inner.Close()
		_ = s.CloseWrite()
		s.Close()
	}()
	return &pipedConn{outer, s}
}

type pipedConn struct {
	net.Conn
	s *stream
}

// flushTime is for a client to take what was written before Close.
const flushTime = 10 * time.Second

// Close lets what was written go out, for some time.
func (c *pipedConn) Close() error {
	time.AfterFunc(flushTime, func() { c.s.Close() })
	return c.Conn.Close()
}

func (c *pipedConn) LocalAddr() net.Addr  { return c.s.local }
func (c *pipedConn) RemoteAddr() net.Addr { return c.s.remote }
