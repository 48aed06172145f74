package http2_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	wire "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"espalier/proxy/http2"
)

var connect = fields(":method", "CONNECT", ":authority", "a.example:443")

// newTunnel returns a client with a tunnel in stream 1, and the proxy's side of it.
func newTunnel(t *testing.T, cfg http2.Config) (*peer, *http2.Stream) {
	t.Helper()
	streams := make(chan *http2.Stream, 10)
	p := newPeer(t, cfg, func(s *http2.Stream, r *http2.Request) {
		if r.Method != http.MethodConnect {
			short(s, r)
			return
		}
		if err := s.Tunnel(); err != nil {
			t.Error(err)
		}
		streams <- s
	})
	p.request(1, false, connect)
	p.expect("HEADERS 1 200")
	return p, <-streams
}

func TestTunnelHalfClose(t *testing.T) {
	t.Run("origin first", func(t *testing.T) {
		p, s := newTunnel(t, http2.Config{})
		_, _ = s.Write([]byte("last words"))
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		p.expect("DATA 1 last words", "DATA 1  end")
		for range 3 { // the client may go on
			p.must(p.framer.WriteData(1, false, []byte("more")))
			if _, err := io.ReadFull(s, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Write([]byte("x")); err == nil {
			t.Error("a Write behind CloseWrite")
		}
		p.must(p.framer.WriteData(1, true, []byte("end")))
		if b, err := io.ReadAll(s); string(b) != "end" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		s.Close()
		p.request(3, true, get)
		p.expect("HEADERS 3 200 end") // and no reset before it
	})
	t.Run("client first", func(t *testing.T) {
		p, s := newTunnel(t, http2.Config{})
		p.must(p.framer.WriteData(1, true, []byte("end")))
		if b, err := io.ReadAll(s); string(b) != "end" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		_, _ = s.Write([]byte("answer"))
		p.expect("DATA 1 answer")
		_ = s.CloseWrite()
		p.expect("DATA 1  end")
		s.Close()
		p.request(3, true, get)
		p.expect("HEADERS 3 200 end")
	})
	t.Run("close behind CloseWrite", func(t *testing.T) {
		p, s := newTunnel(t, http2.Config{})
		_ = s.CloseWrite()
		s.Close()
		p.expect("DATA 1  end", "RST_STREAM 1 NO_ERROR")
	})
	t.Run("cut", func(t *testing.T) {
		p, s := newTunnel(t, http2.Config{})
		s.Close()
		s.Close()
		p.expect("RST_STREAM 1 CONNECT_ERROR")
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read: %v", err)
		}
		if _, err := s.Write(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
	})
	t.Run("cut behind the client's end", func(t *testing.T) {
		p, s := newTunnel(t, http2.Config{})
		p.must(p.framer.WriteData(1, true, nil))
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		s.Close()
		p.expect("RST_STREAM 1 CONNECT_ERROR")
	})
}

func TestTunnelDeadlines(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, s := newTunnel(t, http2.Config{PingInterval: 24 * time.Hour})
		_ = s.SetReadDeadline(time.Now().Add(time.Hour))
		begun := time.Now()
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begun) != time.Hour {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
		time.AfterFunc(time.Minute, func() { _ = s.SetReadDeadline(time.Unix(1, 0)) }) // as who stops a Read
		_ = s.SetReadDeadline(time.Time{})
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		_ = s.SetDeadline(time.Time{})
		p.must(p.framer.WriteData(1, false, []byte("a")))
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Errorf("the stream can be used after a deadline: %v", err)
		}
		big := make([]byte, 100<<10) // above the client's window
		_ = s.SetWriteDeadline(time.Now().Add(time.Hour))
		if n, err := s.Write(big); n != 65535 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d: %v", n, err)
		}
		_ = s.SetWriteDeadline(time.Time{})
		p.must(p.framer.WriteWindowUpdate(0, 1<<20))
		p.must(p.framer.WriteWindowUpdate(1, 1<<20))
		if n, err := s.Write(big); n != len(big) || err != nil {
			t.Errorf("wrote %d: %v", n, err)
		}
	})
}

// A tunnel may be silent, and its client may take nothing, for longer than every
// bound: the tunnel's owner judges that.
func TestTunnelMayWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, s := newTunnel(t, http2.Config{PingInterval: 24 * time.Hour})
		go func() {
			time.Sleep(3 * time.Hour)
			p.must(p.framer.WriteWindowUpdate(1, 1))
			p.must(p.framer.WriteWindowUpdate(0, 1))
			time.Sleep(3 * time.Hour)
			p.must(p.framer.WriteData(1, true, nil))
		}()
		if n, err := s.Write(make([]byte, 65536)); n != 65536 || err != nil {
			t.Errorf("wrote %d: %v", n, err)
		}
		if _, err := s.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		s.Close()
	})
}

// Unread data stays within the window of its stream and of the connection.
func TestReceiveWindows(t *testing.T) {
	cfg := http2.Config{StreamWindow: 100_000, ConnWindow: 150_000}
	p, s := newTunnel(t, cfg)
	send := func(id uint32, n int) {
		for n > 0 {
			k := min(n, 10_000)
			p.must(p.framer.WriteData(id, false, make([]byte, k)))
			n -= k
		}
	}
	send(1, 100_000)
	p.request(3, true, get)
	p.expect("HEADERS 3 200 end") // the others go on
	p.must(p.framer.WriteData(1, false, []byte("x")))
	p.expect("RST_STREAM 1 FLOW_CONTROL_ERROR")
	if _, err := io.Copy(io.Discard, s); err == nil {
		t.Error("a Read of what was reset")
	}
	// What was dropped counts as read.
	p.request(5, false, connect)
	p.expect("HEADERS 5 200")
	send(5, 100_000)
	p.request(7, false, connect)
	p.expect("HEADERS 7 200")
	send(7, 50_000)
	go func() { _ = p.framer.WriteData(7, false, make([]byte, 10_000)) }()
	p.expect("GOAWAY 7 FLOW_CONTROL_ERROR")
}

func TestPaddingIsCredited(t *testing.T) {
	p, s := newTunnel(t, http2.Config{})
	go func() {
		for range 5000 {
			_ = p.framer.WriteDataPadded(1, false, []byte("x"), make([]byte, 255))
		}
		_ = p.framer.WriteData(1, true, nil)
	}()
	if n, err := io.Copy(io.Discard, s); n != 5000 || err != nil {
		t.Errorf("read %d: %v", n, err)
	}
}

// Streams share the connection: a large answer does not hold up a small one, and
// one whose client takes nothing holds up none.
func TestFairness(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPeer(t, http2.Config{}, func(s *http2.Stream, r *http2.Request) {
			size := 50 << 10
			if r.Path == "/large" {
				size = 1 << 20
			}
			_ = s.WriteHeaders(200, nil, false)
			_, _ = s.Write(make([]byte, size))
			_ = s.CloseWrite()
		})
		p.must(p.framer.WriteSettings(wire.Setting{ID: wire.SettingInitialWindowSize, Val: 0}))
		p.must(p.framer.WriteWindowUpdate(0, 1<<30))
		p.request(1, true, with(get[:3], ":path", "/large"))
		for id := uint32(3); id < 11; id += 2 {
			p.request(id, true, get)
		}
		synctest.Wait() // all have something to write
		p.must(p.framer.WriteSettings(wire.Setting{ID: wire.SettingInitialWindowSize, Val: 1 << 20}))
		for large, whole := 0, 0; whole < 4; {
			f := p.next()
			if strings.HasPrefix(f, "DATA 1 ") {
				large++
			} else if strings.HasSuffix(f, " 2048 bytes") { // behind three of 16 KiB
				whole++
			}
			if large > 10 { // of 64
				t.Fatalf("%d frames of the large answer went, and %d small ones are whole", large, whole)
			}
		}
		p.conn.Close()
	})
}

// One stream whose client takes nothing holds up no other.
func TestBlockedStream(t *testing.T) {
	p, s := newTunnel(t, http2.Config{})
	p.must(p.framer.WriteWindowUpdate(0, 1<<20))
	go func() { _, _ = s.Write(make([]byte, 1<<20)) }()
	for got := 0; got < 65535; {
		var n int
		_, _ = fmt.Sscanf(p.next(), "DATA 1 %d bytes", &n)
		got += n
	}
	p.request(3, true, get)
	p.expect("HEADERS 3 200 end")
}

func TestSmallFrames(t *testing.T) {
	p := newPeer(t, http2.Config{}, echo)
	p.must(p.framer.WriteSettings(wire.Setting{ID: wire.SettingInitialWindowSize, Val: 1}))
	p.expect("SETTINGS ack")
	p.request(1, false, get)
	p.must(p.framer.WriteData(1, true, []byte("abc")))
	p.expect("HEADERS 1 200", "DATA 1 a")
	p.must(p.framer.WriteWindowUpdate(1, 1))
	p.expect("DATA 1 b")
	p.must(p.framer.WriteSettings(wire.Setting{ID: wire.SettingInitialWindowSize, Val: 10}))
	p.expect("SETTINGS ack", "DATA 1 c", "DATA 1  end")
}

// The server never cuts a stream that moves, however slowly, and cuts one that
// stopped.
func TestStall(t *testing.T) {
	upload := with(get, "content-length", "1000")
	readAll := func(s *http2.Stream, r *http2.Request) error {
		_, err := io.Copy(io.Discard, s)
		short(s, r)
		return err
	}
	writeAll := func(s *http2.Stream, r *http2.Request) error {
		_ = s.WriteHeaders(200, nil, false)
		_, err := s.Write(make([]byte, 65535+100))
		_ = s.CloseWrite()
		return err
	}
	for _, tt := range []struct {
		name    string
		fields  []string
		handler func(*http2.Stream, *http2.Request) error
		client  func(p *peer)
		err     error
	}{
		{"upload stopped", nil, readAll, func(p *peer) { p.must(p.framer.WriteData(1, false, []byte("x"))) }, http2.ErrStalled},
		{"upload slow but moving", nil, readAll, func(p *peer) {
			for i := range 1000 {
				time.Sleep(4 * time.Minute)
				p.must(p.framer.WriteData(1, i == 999, []byte("x")))
			}
		}, nil},
		{"upload waits behind the answer's begin", nil, func(s *http2.Stream, r *http2.Request) error {
			_ = s.WriteHeaders(200, nil, false)
			_, err := io.Copy(io.Discard, s)
			_ = s.CloseWrite()
			return err
		}, func(p *peer) {
			time.Sleep(5 * time.Hour)
			p.must(p.framer.WriteData(1, true, make([]byte, 1000)))
		}, nil},
		{"answer stopped", nil, writeAll, func(p *peer) {}, http2.ErrStalled},
		{"answer slow but moving", nil, writeAll, func(p *peer) {
			p.must(p.framer.WriteWindowUpdate(0, 1000))
			for range 100 {
				time.Sleep(4 * time.Minute)
				p.must(p.framer.WriteWindowUpdate(1, 1))
			}
		}, nil},
		{"answer waits for the origin", nil, func(s *http2.Stream, r *http2.Request) error {
			time.Sleep(5 * time.Hour)
			_ = s.WriteHeaders(200, nil, false)
			time.Sleep(5 * time.Hour)
			_, err := s.Write([]byte("x"))
			_ = s.CloseWrite()
			return err
		}, func(p *peer) {}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				result := make(chan error, 1)
				p := newPeer(t, http2.Config{PingInterval: 100 * time.Hour}, func(s *http2.Stream, r *http2.Request) { result <- tt.handler(s, r) })
				p.request(1, false, upload)
				go tt.client(p)
				if err := <-result; !errors.Is(err, tt.err) {
					t.Errorf("got %v, want %v", err, tt.err)
				}
				synctest.Wait()
				p.request(3, true, get)
				for f := p.next(); ; f = p.next() {
					if strings.HasPrefix(f, "RST_STREAM 1 ") && (tt.err != nil) != (f == "RST_STREAM 1 CANCEL") && f != "RST_STREAM 1 NO_ERROR" {
						t.Errorf("got %s", f)
					}
					if strings.HasPrefix(f, "HEADERS 3 ") || f == "closed" {
						break
					}
				}
				p.conn.Close()
				<-result
			})
		})
	}
}

// A client that takes 1 KiB in 10 seconds gets the whole, hours later.
func TestSlowConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client, server := newDeafPipe(t)
		const size = 2 << 20
		written := make(chan error, 1)
		served := make(chan error, 1)
		go func() {
			served <- http2.New(server, http2.Config{PingInterval: 100 * time.Hour}, func(s *http2.Stream, r *http2.Request) {
				_ = s.WriteHeaders(200, nil, false)
				_, err := s.Write(make([]byte, size))
				written <- errors.Join(err, s.CloseWrite())
			}).Serve()
		}()
		go func() {
			framer := wire.NewFramer(client, nil)
			p := &peer{t: t, framer: framer}
			p.enc = hpack.NewEncoder(&p.encoded)
			_, _ = io.WriteString(client, wire.ClientPreface)
			_ = framer.WriteSettings(wire.Setting{ID: wire.SettingInitialWindowSize, Val: 1 << 30})
			_ = framer.WriteWindowUpdate(0, 1<<30)
			p.request(1, true, get)
		}()
		for got := 0; got < size; {
			time.Sleep(10 * time.Second)
			n, err := io.ReadFull(client, make([]byte, 1<<10))
			if err != nil {
				t.Fatalf("cut after %d bytes: %v", got, err)
			}
			got += n
		}
		client.Close()
		<-served
		if err := <-written; err != nil {
			t.Error(err)
		}
	})
}

// Bytes arrive as they were sent, in both directions at once, through several
// tunnels and small windows.
func TestTunnelBytes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = http2.New(c, http2.Config{StreamWindow: 70_000, ConnWindow: 100_000}, func(s *http2.Stream, r *http2.Request) {
			if err := s.Tunnel(); err != nil {
				t.Error(err)
			}
			go func() {
				defer s.Close()
				buf := make([]byte, 1+rand.IntN(50_000))
				for {
					n, err := s.Read(buf)
					if _, werr := s.Write(buf[:n]); werr != nil {
						t.Error(werr)
						return
					}
					if err != nil {
						if err != io.EOF {
							t.Error(err)
						}
						_ = s.CloseWrite()
						return
					}
				}
			}()
		}).Serve()
	}()
	tr := newTransport(t)
	tr.MaxConnsPerHost = 1
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			data := make([]byte, 1<<20+rand.IntN(1000))
			for i := range data {
				data[i] = byte(rand.Uint32())
			}
			in, out := io.Pipe()
			go func() {
				for rest := data; len(rest) > 0; {
					n := min(len(rest), 1+rand.IntN(30_000))
					_, _ = out.Write(rest[:n])
					rest = rest[n:]
				}
				out.Close()
			}()
			req, _ := http.NewRequest(http.MethodConnect, "http://"+l.Addr().String(), in)
			req.Host = "a.example:443"
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || sha256.Sum256(got) != sha256.Sum256(data) {
				t.Errorf("got %d bytes of %d, %v", len(got), len(data), err)
			}
		})
	}
	wg.Wait()
}

// An answer's fields that would break HTTP/2 are not sent.
func TestAnswerFields(t *testing.T) {
	for _, f := range [][]string{{"connection", "close"}, {"a b", "c"}, {"a", "b\r\nc"}, {":status", "200"}, {"a", " b"}} {
		p := newPeer(t, http2.Config{}, func(s *http2.Stream, r *http2.Request) {
			if s.WriteHeaders(200, fields(f...), true) == nil {
				t.Errorf("%q is sent", f)
			}
			if s.WriteHeaders(101, nil, false) == nil || s.WriteTrailers(nil) == nil {
				t.Error("out of turn")
			}
			_ = s.WriteHeaders(103, fields("Link", "x"), false)
			_ = s.WriteHeaders(200, nil, false)
			if s.WriteHeaders(200, nil, false) == nil {
				t.Error("two answers")
			}
			_, _ = s.Write([]byte("x"))
			_ = s.WriteTrailers(fields("Sum", "1"))
			if s.WriteTrailers(nil) == nil {
				t.Error("two trailers")
			}
		})
		p.request(1, true, get)
		p.expect("HEADERS 1 103", "HEADERS 1 200", "DATA 1 x", "HEADERS 1 sum: 1 end")
	}
}

// A list that needs several frames arrives whole.
func TestLongAnswerHead(t *testing.T) {
	value := strings.Repeat("x", 9000)
	addr := listen(t, nil, http2.Config{}, func(s *http2.Stream, r *http2.Request) {
		_ = s.WriteHeaders(200, fields("a", value, "b", value, "c", value, "d", value, "e", value), true)
	})
	tr := newTransport(t)
	resp, err := (&http.Client{Transport: tr}).Get("http://" + addr.String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if !bytes.Equal([]byte(resp.Header.Get("E")), []byte(value)) {
		t.Errorf("got %d bytes", len(resp.Header.Get("E")))
	}
}
