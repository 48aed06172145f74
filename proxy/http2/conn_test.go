package http2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"espalier/proxy/http2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs a test with a clock of its own.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func with(fs []hpack.HeaderField, nv ...string) []hpack.HeaderField {
	return append(append([]hpack.HeaderField(nil), fs...), fields(nv...)...)
}

func TestRequests(t *testing.T) {
	long := strings.Repeat("x", 40<<10)
	for _, tt := range []struct {
		name   string
		fields []hpack.HeaderField
		body   string // without one the HEADERS end the stream
		want   string // of the handler's account, or of the frame that comes
	}{
		{name: "simple", fields: get, want: "GET https a.example /"},
		{name: "odd bytes in path", fields: fields(":method", "GET", ":scheme", "http", ":authority", "a:80", ":path", "/100%|\"<^é?a?b"), want: "GET http a:80 /100%|\"<^é?a?b"},
		{name: "order of equal names", fields: with(get, "x", "2", "y", "", "x", "1"), want: "GET https a.example / x=2 y= x=1"},
		{name: "host only", fields: fields(":method", "GET", ":scheme", "https", ":path", "/", "host", "a.example"), want: "GET https a.example /"},
		{name: "host as :authority", fields: with(get, "host", "A.example"), want: "GET https a.example /"},
		{name: "te trailers", fields: with(get, "te", "trailers"), want: "GET https a.example / te=trailers"},
		{name: "scheme in upper case", fields: fields(":method", "GET", ":scheme", "HTTPS", ":authority", "a", ":path", "/"), want: "GET https a /"},
		{name: "options *", fields: fields(":method", "OPTIONS", ":scheme", "https", ":authority", "a", ":path", "*"), want: "OPTIONS https a *"},
		{name: "body of its length", fields: with(get, "content-length", "3"), body: "abc", want: "GET https a.example / content-length=3 +abc"},
		{name: "connect", fields: fields(":method", "CONNECT", ":authority", "a:443"), body: "abc", want: "CONNECT a:443 +abc"},
		{name: "connect to an odd target", fields: fields(":method", "CONNECT", ":authority", "a@b/c"), body: "abc", want: "CONNECT a@b/c +abc"},
		{name: "connect with a length", fields: fields(":method", "CONNECT", ":authority", "a:443", "content-length", "1"), body: "abc", want: "CONNECT a:443 content-length=1 +abc"},

		{name: "no method", fields: get[1:], want: "PROTOCOL_ERROR"},
		{name: "no scheme", fields: fields(":method", "GET", ":authority", "a", ":path", "/"), want: "PROTOCOL_ERROR"},
		{name: "no path", fields: get[:3], want: "PROTOCOL_ERROR"},
		{name: "no authority", fields: fields(":method", "GET", ":scheme", "https", ":path", "/"), want: "PROTOCOL_ERROR"},
		{name: "empty path", fields: with(get[:3], ":path", ""), want: "PROTOCOL_ERROR"},
		{name: "absolute path", fields: with(get[:3], ":path", "http://b/"), want: "PROTOCOL_ERROR"},
		{name: "GET *", fields: with(get[:3], ":path", "*"), want: "PROTOCOL_ERROR"},
		{name: "space in path", fields: with(get[:3], ":path", "/a HTTP/1.1"), want: "PROTOCOL_ERROR"},
		{name: "userinfo", fields: fields(":method", "GET", ":scheme", "https", ":authority", "u@a", ":path", "/"), want: "PROTOCOL_ERROR"},
		{name: "slash in authority", fields: fields(":method", "GET", ":scheme", "https", ":authority", "a/b", ":path", "/"), want: "PROTOCOL_ERROR"},
		{name: "method with a space", fields: with(get[1:], ":method", "GET /"), want: "PROTOCOL_ERROR"},
		{name: "two paths", fields: with(get, ":path", "/b"), want: "PROTOCOL_ERROR"},
		{name: "two hosts", fields: with(get, "host", "a.example", "host", "a.example"), want: "PROTOCOL_ERROR"},
		{name: "another host", fields: with(get, "host", "b.example"), want: "PROTOCOL_ERROR"},
		{name: "pseudo behind field", fields: with(get[:3], "a", "b", ":path", "/"), want: "PROTOCOL_ERROR"},
		{name: "unknown pseudo", fields: with(get, ":what", "a"), want: "PROTOCOL_ERROR"},
		{name: "status", fields: with(get, ":status", "200"), want: "PROTOCOL_ERROR"},
		{name: "upper case", fields: with(get, "X-Up", "a"), want: "PROTOCOL_ERROR"},
		{name: "empty name", fields: with(get, "", "a"), want: "PROTOCOL_ERROR"},
		{name: "line feed", fields: with(get, "a", "b\nc: d"), want: "PROTOCOL_ERROR"},
		{name: "carriage return", fields: with(get, "a", "b\r"), want: "PROTOCOL_ERROR"},
		{name: "NUL", fields: with(get, "a", "b\x00"), want: "PROTOCOL_ERROR"},
		{name: "white space around", fields: with(get, "a", " b"), want: "PROTOCOL_ERROR"},
		{name: "connection", fields: with(get, "connection", "close"), want: "PROTOCOL_ERROR"},
		{name: "transfer-encoding", fields: with(get, "transfer-encoding", "chunked"), want: "PROTOCOL_ERROR"},
		{name: "te gzip", fields: with(get, "te", "gzip"), want: "PROTOCOL_ERROR"},
		{name: "two lengths", fields: with(get, "content-length", "3", "content-length", "3"), body: "abc", want: "PROTOCOL_ERROR"},
		{name: "signed length", fields: with(get, "content-length", "+3"), body: "abc", want: "PROTOCOL_ERROR"},
		{name: "length too long", fields: with(get, "content-length", "4"), body: "abc", want: "PROTOCOL_ERROR"},
		{name: "length too short", fields: with(get, "content-length", "2"), body: "abc", want: "PROTOCOL_ERROR"},
		{name: "length without body", fields: with(get, "content-length", "2"), want: "PROTOCOL_ERROR"},
		{name: "connect with scheme", fields: fields(":method", "CONNECT", ":authority", "a:443", ":scheme", "https"), want: "PROTOCOL_ERROR"},
		{name: "connect with path", fields: fields(":method", "CONNECT", ":authority", "a:443", ":path", "/"), want: "PROTOCOL_ERROR"},
		{name: "connect without authority", fields: fields(":method", "CONNECT"), want: "PROTOCOL_ERROR"},
		{name: "connect with host only", fields: fields(":method", "CONNECT", "host", "a:443"), want: "PROTOCOL_ERROR"},
		{name: "extended connect unasked", fields: fields(":method", "CONNECT", ":protocol", "connect-udp", ":scheme", "https", ":authority", "a", ":path", "/"), want: "PROTOCOL_ERROR"},
		{name: "too many bytes", fields: with(get, "a", long, "b", long), want: "431"},
		{name: "too long a value", fields: with(get, "a", long+long), want: "431"},
		{name: "too many fields", fields: with(get, strings.Split(strings.Repeat("a,b,", 201), ",")[:402]...), want: "431"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := make(chan string, 1)
			p := newPeer(t, http2.Config{}, func(s *http2.Stream, r *http2.Request) {
				account := []string{r.Method}
				for _, part := range []string{r.Scheme, r.Authority, r.Path} {
					if part != "" {
						account = append(account, part)
					}
				}
				for _, f := range r.Fields {
					account = append(account, f.Name+"="+f.Value)
				}
				body, err := io.ReadAll(s)
				if err != nil {
					return
				}
				if len(body) > 0 {
					account = append(account, "+"+string(body))
				}
				got <- strings.Join(account, " ")
				short(s, r)
			})
			block := append([]byte(nil), p.encode(tt.fields)...)
			first := block[:min(len(block), 16<<10)]
			p.must(p.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: tt.body == "", EndHeaders: len(first) == len(block)}))
			for block = block[len(first):]; len(block) > 0; block = block[len(first):] {
				first = block[:min(len(block), 16<<10)]
				p.must(p.framer.WriteContinuation(1, len(first) == len(block), first))
			}
			if tt.body != "" {
				p.must(p.framer.WriteData(1, true, []byte(tt.body)))
			}
			switch tt.want {
			case "PROTOCOL_ERROR":
				p.expect("RST_STREAM 1 PROTOCOL_ERROR")
			case "431":
				p.expect("HEADERS 1 431 end")
			default:
				p.expect("HEADERS 1 200 end")
				if got := <-got; got != tt.want {
					t.Errorf("the handler got %q, want %q", got, tt.want)
				}
			}
			// Whatever it was, the connection goes on.
			p.request(3, true, get)
			p.expect("HEADERS 3 200 end")
		})
	}
}

func TestExtendedConnect(t *testing.T) {
	p := newPeer(t, http2.Config{ExtendedConnect: true}, func(s *http2.Stream, r *http2.Request) {
		if r.Protocol != "connect-udp" || r.Path != "/udp" || r.Scheme != "https" {
			t.Errorf("got %+v", r)
		}
		short(s, r)
	})
	p.request(1, true, fields(":method", "CONNECT", ":protocol", "connect-udp", ":scheme", "https", ":authority", "a", ":path", "/udp"))
	p.expect("HEADERS 1 200 end")
	p.request(3, true, with(get, ":protocol", "connect-udp"))
	p.request(5, true, fields(":method", "CONNECT", ":protocol", "connect-udp", ":authority", "a"))
	p.expect("RST_STREAM 3 PROTOCOL_ERROR", "RST_STREAM 5 PROTOCOL_ERROR")
}

// Config.Malformed gets malformed requests as far as they can be read, and may
// answer them.
func TestMalformedIsTold(t *testing.T) {
	p := newPeer(t, http2.Config{Malformed: func(s *http2.Stream, r *http2.Request, err error) {
		if r.Authority != "a.example" || err == nil {
			t.Errorf("got %+v, %v", r, err)
		}
		status := 400
		if errors.Is(err, http2.ErrHeadTooLarge) {
			status = 431
		}
		_ = s.WriteHeaders(status, nil, true)
	}}, short)
	p.request(1, false, with(get, "connection", "close"))
	p.expect("HEADERS 1 400 end", "RST_STREAM 1 PROTOCOL_ERROR")
	p.request(3, true, with(get, "connection", "close"))
	p.expect("HEADERS 3 400 end", "RST_STREAM 3 PROTOCOL_ERROR")
	p.request(5, true, with(get, strings.Split(strings.Repeat("a,b,", 300), ",")[:600]...))
	p.expect("HEADERS 5 431 end")
}

// Faults of framing or header compression end the connection, and the client
// learns why.
func TestConnectionErrors(t *testing.T) {
	raw := func(typ wire.FrameType, flags wire.Flags, id uint32, payload string) func(*peer) {
		return func(p *peer) { _ = p.framer.WriteRawFrame(typ, flags, id, []byte(payload)) } // which may cut it
	}
	for _, tt := range []struct {
		name string
		send func(*peer)
		code wire.ErrCode
	}{
		{"even stream", func(p *peer) { p.request(2, true, get) }, wire.ErrCodeProtocol},
		{"lower stream", func(p *peer) { p.request(5, false, get); p.request(3, true, get) }, wire.ErrCodeProtocol},
		{"data for stream 0", raw(wire.FrameData, 0, 0, "a"), wire.ErrCodeProtocol},
		{"data for idle stream", raw(wire.FrameData, 0, 1, "a"), wire.ErrCodeProtocol},
		{"reset of idle stream", raw(wire.FrameRSTStream, 0, 1, "\x00\x00\x00\x00"), wire.ErrCodeProtocol},
		{"window of idle stream", raw(wire.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x01"), wire.ErrCodeProtocol},
		{"window of 0", raw(wire.FrameWindowUpdate, 0, 0, "\x00\x00\x00\x00"), wire.ErrCodeProtocol},
		{"window above 2^31-1", raw(wire.FrameWindowUpdate, 0, 0, "\x7f\xff\xff\xff"), wire.ErrCodeFlowControl},
		{"continuation alone", raw(wire.FrameContinuation, wire.FlagContinuationEndHeaders, 1, ""), wire.ErrCodeProtocol},
		{"data inside a header list", func(p *peer) {
			p.must(p.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(get)}))
			p.must(p.framer.WriteData(1, true, nil))
		}, wire.ErrCodeProtocol},
		{"invalid compression", func(p *peer) {
			p.must(p.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true}))
		}, wire.ErrCodeCompression},
		{"header list cut", func(p *peer) {
			p.must(p.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x40, 0x05, 'a'}, EndHeaders: true}))
		}, wire.ErrCodeCompression},
		{"padding above the frame, headers", raw(wire.FrameHeaders, wire.FlagHeadersPadded|wire.FlagHeadersEndHeaders, 1, "\x05a"), wire.ErrCodeProtocol},
		{"padding above the frame, data", func(p *peer) {
			p.request(1, false, get)
			raw(wire.FrameData, wire.FlagDataPadded, 1, "\x05a")(p)
		}, wire.ErrCodeProtocol},
		{"data without pad length", func(p *peer) { p.request(1, false, get); raw(wire.FrameData, wire.FlagDataPadded, 1, "")(p) }, wire.ErrCodeFrameSize},
		{"frame too long", raw(wire.FrameData, 0, 1, strings.Repeat("a", 16<<10+1)), wire.ErrCodeFrameSize},
		{"settings of 5 bytes", raw(wire.FrameSettings, 0, 0, "abcde"), wire.ErrCodeFrameSize},
		{"push promise", raw(wire.FramePushPromise, wire.FlagPushPromiseEndHeaders, 1, "\x00\x00\x00\x02"), wire.ErrCodeProtocol},
		{"window by settings above 2^31-1", raw(wire.FrameSettings, 0, 0, "\x00\x04\x80\x00\x00\x00"), wire.ErrCodeFlowControl},
		{"streams' windows above 2^31-1", func(p *peer) {
			p.request(1, false, get)
			p.must(p.framer.WriteWindowUpdate(1, 1<<31-1-65535))
			raw(wire.FrameSettings, 0, 0, "\x00\x04\x00\x01\x00\x00")(p)
		}, wire.ErrCodeFlowControl},
		{"data behind the end of both", func(p *peer) {
			p.request(1, false, with(get, "x-short", ""))
			p.must(p.framer.WriteData(1, true, nil))
			p.expect("HEADERS 1 200", "DATA 1  end")
			p.must(p.framer.WriteData(1, true, nil))
		}, wire.ErrCodeStreamClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPeer(t, http2.Config{}, echo)
			tt.send(p)
			for f := p.next(); ; f = p.next() {
				if f == "closed" {
					t.Fatal("closed without GOAWAY")
				}
				if strings.HasPrefix(f, "GOAWAY") {
					if !strings.HasSuffix(f, " "+tt.code.String()) {
						t.Errorf("got %s, want %s", f, tt.code)
					}
					break
				}
			}
			if err := p.ended(); !isConnError(err, tt.code) {
				t.Errorf("Serve returns %v", err)
			}
		})
	}
}

// Faults of a stream reset it, and what was on its way is ignored.
func TestStreamErrors(t *testing.T) {
	p := newPeer(t, http2.Config{}, func(s *http2.Stream, r *http2.Request) { _, _ = io.Copy(io.Discard, s) })
	p.request(1, false, get)
	p.must(p.framer.WriteData(1, true, nil)) // the handler leaves it unanswered
	p.expect("RST_STREAM 1 INTERNAL_ERROR")
	p.must(p.framer.WriteData(1, true, []byte("late")))
	p.request(3, false, get)
	p.request(3, false, fields("a", "b")) // trailers without an end
	p.expect("RST_STREAM 3 PROTOCOL_ERROR")
	p.request(3, true, fields("a", "b"))
	p.must(p.framer.WriteWindowUpdate(3, 1))
	p.request(5, false, get)
	p.must(p.framer.WriteWindowUpdate(5, 1<<31-1))
	p.expect("RST_STREAM 5 FLOW_CONTROL_ERROR")
	p.request(7, false, get)
	p.request(7, true, fields(":path", "/"))
	p.expect("RST_STREAM 7 PROTOCOL_ERROR")
	p.request(9, false, fields(":method", "CONNECT", ":authority", "a:1"))
	p.request(9, true, fields("a", "b"))
	p.expect("RST_STREAM 9 PROTOCOL_ERROR")
	p.request(11, false, get)
	p.must(p.framer.WriteRSTStream(11, wire.ErrCodeCancel))
	p.must(p.framer.WriteData(11, true, nil))
	p.expect("RST_STREAM 11 STREAM_CLOSED")
	p.request(13, true, get)
	p.expect("RST_STREAM 13 INTERNAL_ERROR")
}

func TestStreamLimit(t *testing.T) {
	leave := make(chan struct{})
	p := newPeer(t, http2.Config{MaxStreams: 2}, func(s *http2.Stream, r *http2.Request) {
		<-leave
		short(s, r)
	})
	for id := uint32(1); id <= 5; id += 2 {
		p.request(id, true, get)
	}
	p.expect("RST_STREAM 5 REFUSED_STREAM")
	// A stream that the client resets keeps its place while its handler runs.
	p.must(p.framer.WriteRSTStream(1, wire.ErrCodeCancel))
	p.request(7, true, get)
	p.expect("RST_STREAM 7 REFUSED_STREAM")
	close(leave)
	p.expect("HEADERS 3 200 end")
}

// Each flood ends the connection with ENHANCE_YOUR_CALM.
func TestFloods(t *testing.T) {
	for _, tt := range []struct {
		name string
		send func(p *peer, i int) error
	}{
		{"rapid reset", func(p *peer, i int) error {
			id := uint32(2*i + 1)
			err := p.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: id, BlockFragment: p.encode(get), EndStream: true, EndHeaders: true})
			return errors.Join(err, p.framer.WriteRSTStream(id, wire.ErrCodeCancel))
		}},
		{"malformed requests", func(p *peer, i int) error {
			return p.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: p.encode(get[:1]), EndStream: true, EndHeaders: true})
		}},
		{"ping", func(p *peer, i int) error { return p.framer.WritePing(false, [8]byte{}) }},
		{"settings", func(p *peer, i int) error { return p.framer.WriteSettings() }},
		{"priority", func(p *peer, i int) error { return p.framer.WritePriority(3, wire.PriorityParam{}) }},
		{"unknown frames", func(p *peer, i int) error { return p.framer.WriteRawFrame(0xfa, 0, 0, nil) }},
		{"window update", func(p *peer, i int) error { return p.framer.WriteWindowUpdate(0, 1) }},
		{"empty data", func(p *peer, i int) error {
			if i == 0 {
				p.request(1, false, get)
			}
			return p.framer.WriteData(1, false, nil)
		}},
		{"data for closed streams", func(p *peer, i int) error {
			if i == 0 {
				p.request(1, true, get)
			}
			return p.framer.WriteData(1, false, nil)
		}},
		{"continuation", func(p *peer, i int) error {
			if i == 0 {
				return p.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: 1})
			}
			return p.framer.WriteContinuation(1, false, nil)
		}},
		{"continuation with fields", func(p *peer, i int) error {
			if i == 0 {
				return p.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: 1})
			}
			return p.framer.WriteContinuation(1, false, p.encode(fields("a", strings.Repeat("a", 10<<10))))
		}},
		{"settings by the thousand", func(p *peer, i int) error {
			return p.framer.WriteRawFrame(wire.FrameSettings, 0, 0, []byte(strings.Repeat("\x00\x04\x00\x00\xff\xff", 2000)))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var running, most atomic.Int64
			p := newPeer(t, http2.Config{MaxStreams: 100}, func(s *http2.Stream, r *http2.Request) {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				<-s.Context().Done()
			})
			sent := 0
			for ; sent < 10000; sent++ {
				if tt.send(p, sent) != nil {
					break
				}
			}
			if sent == 10000 {
				t.Error("it may go on for ever")
			}
			if err := p.ended(); !isConnError(err, wire.ErrCodeEnhanceYourCalm) && !isConnError(err, wire.ErrCodeStreamClosed) {
				t.Errorf("Serve returns %v", err)
			}
			if n := most.Load(); n > 100 {
				t.Errorf("%d handlers ran", n)
			}
		})
	}
}

// Honest clients in bulk do not count as a flood.
func TestHonestBulk(t *testing.T) {
	p := newPeer(t, http2.Config{}, echo)
	open := make(chan struct{}, 1000)
	go func() {
		for i := range uint32(5000) {
			open <- struct{}{}
			id := 2*i + 1
			_ = p.framer.WritePriority(id, wire.PriorityParam{})
			p.request(id, false, get)
			_ = p.framer.WriteWindowUpdate(id, 1<<20)
			_ = p.framer.WriteData(id, true, []byte("x"))
			_ = p.framer.WriteWindowUpdate(0, 10)
		}
	}()
	for ended := 0; ended < 5000; {
		switch f := p.next(); {
		case strings.HasSuffix(f, " end"):
			ended++
			<-open
		case strings.HasPrefix(f, "RST_STREAM"), strings.HasPrefix(f, "GOAWAY"), f == "closed":
			t.Fatalf("got %s after %d streams", f, ended)
		}
	}
}

// Go's clients give windows back by 4 KiB.
func TestSmallWindowUpdates(t *testing.T) {
	const size = 64 << 20
	p, s := newTunnel(t, http2.Config{})
	go func() {
		_, _ = s.Write(make([]byte, size))
		_ = s.CloseWrite()
	}()
	for got := 0; got < size; {
		f := p.next()
		var n int
		if _, err := fmt.Sscanf(f, "DATA 1 %d bytes", &n); err != nil {
			t.Fatalf("got %s after %d bytes", f, got)
		}
		for got += n; n > 0; n -= 4 << 10 {
			for id := range uint32(2) {
				p.must(p.framer.WriteWindowUpdate(id, uint32(min(n, 4<<10))))
			}
		}
	}
}

// The server cuts a client that asks and does not read.
func TestDeafClient(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client, server := newDeafPipe(t)
		served := make(chan error, 1)
		go func() { served <- http2.New(server, http2.Config{Stall: time.Minute}, short).Serve() }()
		framer := wire.NewFramer(client, nil)
		_, _ = io.WriteString(client, wire.ClientPreface)
		_ = framer.WriteSettings()
		begun := time.Now()
		if err := <-served; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != time.Minute {
			t.Errorf("ended after %v with %v", time.Since(begun), err)
		}
	})
}

func TestTimes(t *testing.T) {
	cfg := http2.Config{Stall: time.Minute, IdleTimeout: 3 * time.Minute, PingInterval: 5 * time.Minute, PingTimeout: time.Minute}
	for _, tt := range []struct {
		name  string
		run   func(p *peer) // from a moment when nothing is open
		after time.Duration // the connection ends after it; 0 if it goes on
		code  wire.ErrCode  // 0 for an end in order
	}{
		{"idle", func(*peer) {}, 3 * time.Minute, 0},
		{"idle after a request", func(p *peer) {
			time.Sleep(2 * time.Minute)
			p.request(1, true, get)
			p.expect("HEADERS 1 200 end")
		}, 5 * time.Minute, 0},
		{"header list that does not end", func(p *peer) {
			p.must(p.framer.WriteHeaders(wire.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode(get)}))
			p.expect("GOAWAY 0 ENHANCE_YOUR_CALM")
		}, time.Minute, wire.ErrCodeEnhanceYourCalm},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPeer(t, cfg, short)
				begun := time.Now()
				tt.run(p)
				err := p.ended()
				if took := time.Since(begun); took != tt.after {
					t.Errorf("ended after %v, want %v", took, tt.after)
				}
				if (tt.code == 0) != (err == nil) || tt.code != 0 && !isConnError(err, tt.code) {
					t.Errorf("ended with %v", err)
				}
			})
		})
	}
}

func TestPreface(t *testing.T) {
	for _, tt := range []struct {
		name, sent string
		code       wire.ErrCode
	}{
		{"HTTP/1", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", wire.ErrCodeProtocol},
		{"no settings", wire.ClientPreface + "\x00\x00\x08\x06\x00\x00\x00\x00\x00abcdefgh", wire.ErrCodeProtocol},
		{"silence", "", wire.ErrCodeEnhanceYourCalm},
		{"cut", wire.ClientPreface[:10], wire.ErrCodeEnhanceYourCalm},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newSilentPeer(t, http2.Config{}, short)
				go func() { _, _ = p.conn.Write([]byte(tt.sent)) }()
				p.expect("SETTINGS", "GOAWAY 0 "+tt.code.String(), "closed")
				if err := p.ended(); !isConnError(err, tt.code) {
					t.Errorf("ended with %v", err)
				}
			})
		})
	}
}

// A silent client with a tunnel is asked for a sign of life, and cut if it gives
// none.
func TestPing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, http2.Config{}, func(s *http2.Stream, r *http2.Request) {
			if s.Tunnel() == nil {
				go func() { _, _ = s.Read(make([]byte, 1)); s.Close() }()
			}
		})
		p.request(1, false, fields(":method", "CONNECT", ":authority", "a:1"))
		p.expect("HEADERS 1 200")
		for range 3 {
			begun := time.Now()
			p.expect("PING alive?")
			if took := time.Since(begun); took != 5*time.Minute {
				t.Errorf("asked after %v", took)
			}
			p.must(p.framer.WritePing(true, [8]byte{'a', 'l', 'i', 'v', 'e', '?'}))
		}
		p.expect("PING alive?")
		begun := time.Now()
		p.expect("GOAWAY 1 NO_ERROR", "closed")
		if took := time.Since(begun); took != time.Minute {
			t.Errorf("cut after %v", took)
		}
		if err := p.ended(); err == nil {
			t.Error("an end in order")
		}
	})
}

func TestShutdown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		leave := make(chan struct{})
		p := newPeer(t, http2.Config{}, func(s *http2.Stream, r *http2.Request) { <-leave; short(s, r) })
		p.request(1, true, get)
		synctest.Wait()
		p.server.Shutdown()
		p.server.Shutdown() // again makes no difference
		p.expect("GOAWAY 2147483647 NO_ERROR", "PING drain")
		p.request(3, true, get) // was on its way
		p.must(p.framer.WritePing(true, [8]byte{'d', 'r', 'a', 'i', 'n'}))
		p.expect("GOAWAY 3 NO_ERROR")
		p.request(5, true, get)
		p.expect("RST_STREAM 5 REFUSED_STREAM")
		close(leave)
		for range 2 {
			if f := p.next(); f != "HEADERS 1 200 end" && f != "HEADERS 3 200 end" {
				t.Errorf("got %s", f)
			}
		}
		p.expect("closed")
		if err := p.ended(); err != nil {
			t.Error(err)
		}
	})
	bubble(t, func(t *testing.T) { // without an answer to the ping, and without streams
		p := newPeer(t, http2.Config{}, short)
		p.server.Shutdown()
		p.expect("GOAWAY 2147483647 NO_ERROR", "PING drain", "GOAWAY 0 NO_ERROR", "closed")
		if err := p.ended(); err != nil {
			t.Error(err)
		}
	})
}

// Close cuts what is open, the handlers learn why, and Serve waits for them.
func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var left atomic.Bool
		p := newPeer(t, http2.Config{}, func(s *http2.Stream, r *http2.Request) {
			_, err := s.Read(make([]byte, 1))
			if !errors.Is(err, http2.ErrShutdown) || !errors.Is(context.Cause(s.Context()), http2.ErrShutdown) {
				t.Errorf("Read: %v, context: %v", err, context.Cause(s.Context()))
			}
			time.Sleep(time.Hour)
			left.Store(true)
		})
		p.request(1, false, get)
		synctest.Wait()
		p.server.Close()
		if err := p.ended(); !errors.Is(err, http2.ErrShutdown) || !left.Load() {
			t.Errorf("%v, the handler has returned: %v", err, left.Load())
		}
	})
}

// A panic is told, and ends its stream only.
func TestPanic(t *testing.T) {
	told := make(chan any, 1)
	p := newPeer(t, http2.Config{Panicked: func(r *http2.Request, fault any) { told <- fmt.Sprint(r.Path, " ", fault) }}, func(s *http2.Stream, r *http2.Request) {
		switch r.Path {
		case "/panic":
			panic("ouch")
		case "/abort":
			panic(http.ErrAbortHandler)
		}
		short(s, r)
	})
	p.request(1, true, with(get[:3], ":path", "/abort"))
	p.expect("RST_STREAM 1 INTERNAL_ERROR")
	p.request(3, true, with(get[:3], ":path", "/panic"))
	p.expect("RST_STREAM 3 INTERNAL_ERROR")
	if got := <-told; got != "/panic ouch" {
		t.Errorf("told %v", got)
	}
	p.request(5, true, get)
	p.expect("HEADERS 5 200 end")
}

// The client's leaving ends reads, writes and contexts.
func TestClientLeaves(t *testing.T) {
	for name, leave := range map[string]func(p *peer){
		"reset": func(p *peer) { p.must(p.framer.WriteRSTStream(1, wire.ErrCodeCancel)) },
		"close": func(p *peer) { p.conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			errs := make(chan error, 3)
			p := newPeer(t, http2.Config{}, func(s *http2.Stream, r *http2.Request) {
				_ = s.WriteHeaders(200, nil, false)
				<-s.Context().Done()
				errs <- context.Cause(s.Context())
				_, err := s.Read(make([]byte, 1))
				errs <- err
				_, err = s.Write(make([]byte, 1))
				errs <- err
			})
			p.request(1, false, get)
			p.expect("HEADERS 1 200")
			leave(p)
			for range 3 {
				if err := <-errs; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

// A client that goes on sending reads all the same why the connection ends.
func TestLastWordArrives(t *testing.T) {
	addr := listen(t, nil, http2.Config{}, short)
	for range 20 {
		c, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		framer := wire.NewFramer(c, c)
		_, _ = io.WriteString(c, wire.ClientPreface)
		_ = framer.WriteSettings()
		_ = framer.WriteData(1, false, nil) // of an idle stream
		for range 100 {
			_ = framer.WriteRawFrame(wire.FrameData, 0, 1, make([]byte, 16<<10))
		}
		for {
			f, err := framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if g, ok := f.(*wire.GoAwayFrame); ok {
				if g.ErrCode != wire.ErrCodeProtocol || !strings.Contains(string(g.DebugData()), "idle stream 1") {
					t.Errorf("got %v, %q", g.ErrCode, g.DebugData())
				}
				break
			}
		}
		c.Close()
	}
}
