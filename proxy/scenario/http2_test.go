//go:build linux

package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2link is a client's link by HTTP/2: every request is a stream, and the
// answers are read in the order of the requests.
type h2link struct {
	conn net.Conn
	in   *decoder // of what the script sends
	done chan struct{}

	writing sync.Mutex
	framer  *http2.Framer // written under writing
	heads   bytes.Buffer
	encoder *hpack.Encoder

	mu      sync.Mutex
	changed *sync.Cond
	streams []*h2stream
	reading int // index of the stream that is read
	window  int64
	initial int64 // window of new streams
	err     error // of the connection
}

type h2stream struct {
	id       uint32
	window   int64
	finished bool // the request is sent
	events   []event
	head     bool // the final one has come
	ended    bool
	err      error
}

const h2window = 16 << 20 // of what the client takes

func newH2Link(conn net.Conn, in *decoder) (*h2link, error) {
	l := &h2link{conn: conn, in: in, done: make(chan struct{}), framer: http2.NewFramer(conn, conn), window: 65535, initial: 65535}
	l.changed = sync.NewCond(&l.mu)
	l.encoder = hpack.NewEncoder(&l.heads)
	l.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, err
	}
	err := errors.Join(
		l.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: h2window}),
		l.framer.WriteWindowUpdate(0, h2window),
	)
	go l.read()
	return l, err
}

func (l *h2link) read() {
	defer close(l.done)
	for {
		f, err := l.framer.ReadFrame()
		l.mu.Lock()
		if err != nil {
			var invalid http2.StreamError
			if errors.As(err, &invalid) {
				err = fmt.Errorf("invalid answer: %w", err)
			}
			if l.err == nil {
				l.err = err
			}
			l.changed.Broadcast()
			l.mu.Unlock()
			return
		}
		l.take(f)
		l.changed.Broadcast()
		l.mu.Unlock()
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				l.write(func() error { return l.framer.WriteSettingsAck() })
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				l.write(func() error { return l.framer.WritePing(true, f.Data) })
			}
		}
	}
}

func (l *h2link) write(f func() error) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return f()
}

func (l *h2link) stream(id uint32) *h2stream {
	for _, s := range l.streams {
		if s.id == id {
			return s
		}
	}
	return &h2stream{}
}

// take is called under mu.
func (l *h2link) take(f http2.Frame) {
	s := l.stream(f.Header().StreamID)
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			for _, s := range l.streams {
				s.window += int64(v) - l.initial
			}
			l.initial = int64(v)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			l.window += int64(f.Increment)
		} else {
			s.window += int64(f.Increment)
		}
	case *http2.RSTStreamFrame:
		if !s.ended { // else the answer is whole, and only the rest of the upload unwanted
			s.err = http2.StreamError{StreamID: f.StreamID, Code: f.ErrCode}
		}
	case *http2.GoAwayFrame:
		if f.ErrCode != http2.ErrCodeNo {
			l.err = fmt.Errorf("GOAWAY after stream %d: %w", f.LastStreamID, http2.ConnectionError(f.ErrCode))
		}
	case *http2.MetaHeadersFrame:
		var b strings.Builder
		for _, h := range f.RegularFields() {
			b.WriteString(h.Name + ": " + h.Value + "\r\n")
		}
		if s.head {
			s.events = append(s.events, event{endEvent, b.String()})
			s.ended = true
			return
		}
		status := f.PseudoValue("status")
		s.head = !strings.HasPrefix(status, "1")
		s.events = append(s.events, event{headEvent, "HTTP/1.1 " + status + " \r\n" + b.String() + "\r\n"})
		if f.StreamEnded() {
			s.events = append(s.events, event{endEvent, ""})
			s.ended = true
		}
	case *http2.DataFrame:
		if len(f.Data()) > 0 {
			s.events = append(s.events, event{dataEvent, string(f.Data())})
		}
		if f.StreamEnded() {
			s.events = append(s.events, event{endEvent, ""})
			s.ended = true
		}
	}
}

// wait waits under mu until ok holds.
func (l *h2link) wait(limit time.Duration, ok func() bool) bool {
	late := false
	defer time.AfterFunc(limit, func() {
		l.mu.Lock()
		late = true
		l.changed.Broadcast()
		l.mu.Unlock()
	}).Stop()
	for !ok() {
		if late {
			return false
		}
		l.changed.Wait()
	}
	return true
}

func (l *h2link) send(p []byte) error {
	list, err := l.in.write(p)
	if err != nil {
		return err
	}
	for i, e := range list {
		last := i+1 < len(list) && list[i+1].kind == endEvent && list[i+1].text == ""
		switch {
		case e.kind == headEvent:
			err = l.open(e.text, last)
		case e.kind == dataEvent:
			err = l.data(e.text, last)
		case i > 0 && e.text == "": // sent with what stands before
		case e.text == "":
			err = l.data("", true)
		default:
			err = l.trailers(e.text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// open begins a stream with the request that has the head h.
func (l *h2link) open(h string, end bool) error {
	start, _, _ := strings.Cut(h, "\r\n")
	part := strings.SplitN(start, " ", 3)
	if len(part) != 3 {
		return fmt.Errorf("request line %q has no form in HTTP/2", start)
	}
	l.mu.Lock()
	s := &h2stream{id: uint32(1 + 2*len(l.streams)), window: l.initial, finished: end}
	l.streams = append(l.streams, s)
	l.mu.Unlock()
	return l.write(func() error {
		l.heads.Reset()
		put := func(name, value string) { _ = l.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) }
		method, target := part[0], part[1]
		put(":method", method)
		if method == "CONNECT" {
			put(":authority", target)
		} else {
			scheme, authority, path := "https", field(h, "Host"), target
			if rest, ok := strings.CutPrefix(target, "http://"); ok {
				scheme, path = "http", "/"
				i := strings.IndexAny(rest, "/?")
				if authority = rest; i >= 0 {
					authority, path = rest[:i], rest[i:]
				}
			}
			put(":scheme", scheme)
			put(":authority", authority)
			put(":path", path)
		}
		for _, f := range fields(h) {
			name, value, _ := strings.Cut(f, ":")
			switch name = strings.ToLower(name); name {
			case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host":
			default:
				put(name, strings.TrimSpace(value))
			}
		}
		return l.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: l.heads.Bytes(), EndStream: end, EndHeaders: true})
	})
}

func (l *h2link) trailers(text string) error {
	s := l.sending()
	return l.write(func() error {
		l.heads.Reset()
		for f := range strings.SplitSeq(strings.TrimSuffix(text, "\r\n"), "\r\n") {
			name, value, _ := strings.Cut(f, ":")
			_ = l.encoder.WriteField(hpack.HeaderField{Name: strings.ToLower(name), Value: strings.TrimSpace(value)})
		}
		s.finished = true
		return l.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: l.heads.Bytes(), EndStream: true, EndHeaders: true})
	})
}

// sending is the stream of the last request.
func (l *h2link) sending() *h2stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.streams) == 0 {
		return &h2stream{}
	}
	return l.streams[len(l.streams)-1]
}

func (l *h2link) data(text string, end bool) error {
	s := l.sending()
	for first := true; first || text != ""; first = false {
		l.mu.Lock()
		n := 0
		ok := l.wait(limitOf(1), func() bool {
			n = int(min(l.window, s.window, 16<<10, int64(len(text))))
			return n > 0 || text == "" || s.err != nil || l.err != nil
		})
		err := errors.Join(s.err, l.err)
		l.window, s.window = l.window-int64(max(0, n)), s.window-int64(max(0, n))
		l.mu.Unlock()
		if !ok {
			return errors.New("the window stays shut")
		}
		if err != nil {
			return err
		}
		piece := text[:n]
		text = text[n:]
		s.finished = s.finished || end && text == ""
		if err := l.write(func() error { return l.framer.WriteData(s.id, end && text == "", []byte(piece)) }); err != nil {
			return err
		}
	}
	return nil
}

func (l *h2link) fill(limit time.Duration) ([]event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []event
	var err error
	ok := l.wait(limit, func() bool {
		for l.reading < len(l.streams) {
			s := l.streams[l.reading]
			if list = s.events; len(list) > 0 {
				s.events = nil
				return true
			}
			if err = s.err; err != nil {
				return true
			}
			if !s.ended || l.reading+1 == len(l.streams) {
				if s.ended {
					err = io.EOF
				}
				break
			}
			l.reading++
		}
		if err == nil {
			err = l.err
		}
		return err != nil
	})
	if !ok {
		return nil, fmt.Errorf("nothing in %s", limit)
	}
	return list, err
}

// next leaves the stream that is read for the next one.
func (l *h2link) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reading++
}

func (l *h2link) complete() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reading < len(l.streams) && l.streams[l.reading].ended
}

func (l *h2link) halfClose() error {
	if l.sending().finished {
		return nil
	}
	return l.data("", true)
}

func (l *h2link) reset() {
	_ = l.write(func() error { return l.framer.WriteRSTStream(l.sending().id, http2.ErrCodeCancel) })
}

func (l *h2link) close() {
	l.conn.Close()
	<-l.done
}
