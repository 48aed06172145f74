package http2_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"espalier/proxy/http2"
)

// script is a connection whose client sends what it has, takes everything, and
// leaves.
type script struct {
	io.Reader
}

func (script) Write(p []byte) (int, error)      { return len(p), nil }
func (script) Close() error                     { return nil }
func (script) LocalAddr() net.Addr              { return new(net.TCPAddr) }
func (script) RemoteAddr() net.Addr             { return new(net.TCPAddr) }
func (script) SetDeadline(time.Time) error      { return nil }
func (script) SetReadDeadline(time.Time) error  { return nil }
func (script) SetWriteDeadline(time.Time) error { return nil }

// Whatever a client sends, the server neither panics nor hangs nor holds more than
// its windows.
func FuzzServe(f *testing.F) {
	seed := func(say func(fr *wire.Framer)) {
		var b bytes.Buffer
		fr := wire.NewFramer(&b, nil)
		fr.AllowIllegalWrites = true
		_ = fr.WriteSettings()
		say(fr)
		f.Add(b.Bytes())
	}
	head := func(fs []hpack.HeaderField) []byte {
		var b bytes.Buffer
		enc := hpack.NewEncoder(&b)
		for _, f := range fs {
			_ = enc.WriteField(f)
		}
		return b.Bytes()
	}
	seed(func(fr *wire.Framer) {
		_ = fr.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: head(get), EndHeaders: true})
		_ = fr.WriteDataPadded(1, false, []byte("abc"), make([]byte, 3))
		_ = fr.WriteWindowUpdate(1, 7)
		_ = fr.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: head(fields("sum", "1")), EndStream: true, EndHeaders: true})
	})
	seed(func(fr *wire.Framer) {
		_ = fr.WriteHeaders(wire.HeadersFrameParam{StreamID: 3, BlockFragment: head(connect)})
		_ = fr.WriteContinuation(3, true, head(fields("a", "b")))
		_ = fr.WriteData(3, true, []byte("abc"))
		_ = fr.WriteRSTStream(3, wire.ErrCodeCancel)
		_ = fr.WritePing(false, [8]byte{1})
		_ = fr.WritePriority(5, wire.PriorityParam{StreamDep: 1})
		_ = fr.WriteGoAway(0, wire.ErrCodeNo, nil)
		_ = fr.WriteSettings(wire.Setting{ID: wire.SettingInitialWindowSize, Val: 0}, wire.Setting{ID: wire.SettingHeaderTableSize, Val: 0})
	})
	handler := func(s *http2.Stream, r *http2.Request) {
		if r.Method != http.MethodConnect {
			echo(s, r)
			return
		}
		if s.Tunnel() == nil {
			_, _ = io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s})
			_ = s.CloseWrite()
			s.Close()
		}
	}
	f.Fuzz(func(t *testing.T, frames []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		done := make(chan struct{})
		go func() {
			defer close(done)
			cfg := http2.Config{MaxStreams: 100, ExtendedConnect: true, Panicked: func(_ *http2.Request, fault any) { t.Errorf("panic: %v", fault) }}
			_ = http2.New(script{io.MultiReader(bytes.NewReader([]byte(wire.ClientPreface)), bytes.NewReader(frames))}, cfg, handler).Serve()
		}()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatal("it hangs")
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
			t.Errorf("%d bytes were allocated for %d", got, len(frames))
		}
	})
}
