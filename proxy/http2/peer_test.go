package http2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"espalier/proxy/http2"
)

// A peer is a client that says frame by frame what it wants.
type peer struct {
	t       *testing.T
	conn    net.Conn
	framer  *wire.Framer
	enc     *hpack.Encoder
	encoded bytes.Buffer
	frames  chan frame // closed at the connection's end
	server  *http2.Conn
	served  chan error // what Serve returned
}

// frame is what came from the server, as text: "HEADERS 1 200 end", "DATA 1 hello",
// "RST_STREAM 1 CANCEL", "GOAWAY 5 NO_ERROR", "SETTINGS", "PING ack".
type frame = string

func newPeer(t *testing.T, cfg http2.Config, h http2.Handler) *peer {
	t.Helper()
	p := newSilentPeer(t, cfg, h)
	p.write([]byte(wire.ClientPreface))
	p.must(p.framer.WriteSettings())
	p.expect("SETTINGS", "SETTINGS ack")
	p.must(p.framer.WriteSettingsAck())
	return p
}

// newSilentPeer is newPeer before the client's first word.
func newSilentPeer(t *testing.T, cfg http2.Config, h http2.Handler) *peer {
	t.Helper()
	client, server := net.Pipe()
	p := &peer{t: t, conn: client, frames: make(chan frame, 10000), served: make(chan error, 1)}
	p.framer = wire.NewFramer(client, client)
	p.framer.AllowIllegalWrites = true
	p.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.enc = hpack.NewEncoder(&p.encoded)
	p.server = http2.New(server, cfg, h)
	go func() { p.served <- p.server.Serve(); close(p.served) }()
	go p.read()
	t.Cleanup(func() {
		client.Close()
		for range p.frames {
		}
		<-p.served
	})
	return p
}

func (p *peer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	_, err := p.conn.Write(b)
	p.must(err)
}

func (p *peer) read() {
	defer close(p.frames)
	for {
		f, err := p.framer.ReadFrame()
		if err != nil {
			return
		}
		p.frames <- describe(f)
	}
}

func describe(f wire.Frame) string {
	id := f.Header().StreamID
	end := ""
	if e, ok := f.(interface{ StreamEnded() bool }); ok && e.StreamEnded() {
		end = " end"
	}
	switch f := f.(type) {
	case *wire.SettingsFrame:
		if f.IsAck() {
			return "SETTINGS ack"
		}
		return "SETTINGS"
	case *wire.PingFrame:
		if f.IsAck() {
			return "PING ack " + string(bytes.Trim(f.Data[:], "\x00"))
		}
		return "PING " + string(bytes.Trim(f.Data[:], "\x00"))
	case *wire.MetaHeadersFrame:
		if status := f.PseudoValue("status"); status != "" {
			return fmt.Sprintf("HEADERS %d %s%s", id, status, end)
		}
		return fmt.Sprintf("HEADERS %d %s: %s%s", id, f.Fields[0].Name, f.Fields[0].Value, end)
	case *wire.DataFrame:
		if n := len(f.Data()); n > 100 {
			return fmt.Sprintf("DATA %d %d bytes%s", id, n, end)
		}
		return fmt.Sprintf("DATA %d %s%s", id, f.Data(), end)
	case *wire.RSTStreamFrame:
		return fmt.Sprintf("RST_STREAM %d %s", id, f.ErrCode)
	case *wire.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %d %s", f.LastStreamID, f.ErrCode)
	case *wire.WindowUpdateFrame:
		return fmt.Sprintf("WINDOW_UPDATE %d %d", id, f.Increment)
	}
	return f.Header().String()
}

// next returns the next frame but a WINDOW_UPDATE, "closed" at the end.
func (p *peer) next() frame {
	p.t.Helper()
	for f := range p.frames {
		if !strings.HasPrefix(f, "WINDOW_UPDATE") {
			return f
		}
	}
	return "closed"
}

func (p *peer) expect(want ...frame) {
	p.t.Helper()
	for _, w := range want {
		if got := p.next(); got != w {
			p.t.Fatalf("got %q, want %q", got, w)
		}
	}
}

// fields are names and values in turn.
func fields(nv ...string) (fs []hpack.HeaderField) {
	for i := 0; i < len(nv); i += 2 {
		fs = append(fs, hpack.HeaderField{Name: nv[i], Value: nv[i+1]})
	}
	return fs
}

var get = fields(":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "/")

func (p *peer) encode(fs []hpack.HeaderField) []byte {
	p.encoded.Reset()
	for _, f := range fs {
		p.must(p.enc.WriteField(f))
	}
	return p.encoded.Bytes()
}

// request sends a header list in one HEADERS frame.
func (p *peer) request(id uint32, end bool, fs []hpack.HeaderField) {
	p.t.Helper()
	p.must(p.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(fs), EndStream: end, EndHeaders: true}))
}

// ended waits for Serve and returns its error.
func (p *peer) ended() error {
	p.t.Helper()
	for range p.frames {
	}
	return <-p.served
}

// echo answers with what it gets.
func echo(s *http2.Stream, r *http2.Request) {
	if s.WriteHeaders(200, nil, false) != nil {
		return
	}
	if _, err := io.Copy(struct{ io.Writer }{s}, struct{ io.Reader }{s}); err == nil {
		_ = s.CloseWrite()
	}
}

// short answers at once.
func short(s *http2.Stream, r *http2.Request) { _ = s.WriteHeaders(200, nil, true) }

func isConnError(err error, code wire.ErrCode) bool {
	var ce *http2.ConnError
	return errors.As(err, &ce) && ce.Code == code
}

// newDeafPipe returns a pipe whose client never reads.
func newDeafPipe(t *testing.T) (client, server net.Conn) {
	client, server = net.Pipe()
	t.Cleanup(func() { client.Close() })
	return client, server
}

// newTransport returns net/http's client of HTTP/2 without TLS.
func newTransport(t testing.TB) *http.Transport {
	tr := &http.Transport{Protocols: new(http.Protocols), ExpectContinueTimeout: time.Hour}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}
