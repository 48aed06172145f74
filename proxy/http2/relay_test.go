package http2_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	wire "golang.org/x/net/http2"

	"espalier/proxy/http2"
	"espalier/proxy/traffic"
	"espalier/proxy/tunnel"
)

type owner chan tunnel.Stats

func (o owner) TunnelDone(s tunnel.Stats)                { o <- s }
func (owner) TunnelOpened(time.Duration, netip.AddrPort) {}
func (owner) TunnelMoved(int64, int64)                   {}
func (owner) TunnelOpening([]byte, int64) tunnel.Verdict { return tunnel.Verdict{} }
func (owner) TunnelTaken(net.Conn)                       {}

// newRelayed returns a client with a tunnel in stream 1 that the proxy's engine
// relays to the origin that is returned.
func newRelayed(t *testing.T) (*peer, *net.TCPConn, owner) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	engine := tunnel.New(tunnel.Config{Idle: time.Hour, HalfClosed: time.Hour})
	ctx, cut := context.WithCancel(context.Background())
	cut()
	t.Cleanup(func() { engine.Shutdown(ctx) })
	done := make(owner, 1)
	p := newPeer(t, http2.Config{}, func(s *http2.Stream, r *http2.Request) {
		upstream, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		if err := s.Tunnel(); err != nil {
			t.Error(err)
		}
		engine.Start(tunnel.Tunnel{Client: s, Upstream: upstream, Service: traffic.New().Service("push"), Owner: done})
	})
	p.request(1, false, connect)
	origin, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { origin.Close() })
	p.expect("HEADERS 1 200")
	return p, origin.(*net.TCPConn), done
}

// Issue 14, 12: the origin's end closes its direction only, and the client may go
// on with its upload.
func TestRelayOriginEnds(t *testing.T) {
	p, origin, done := newRelayed(t)
	_, _ = origin.Write([]byte("bye"))
	_ = origin.CloseWrite()
	p.expect("DATA 1 bye", "DATA 1  end")
	for range 20 { // within the window
		p.must(p.framer.WriteData(1, false, make([]byte, 10_000)))
	}
	p.must(p.framer.WriteData(1, true, []byte("end")))
	if n, err := io.Copy(io.Discard, origin); n != 200_003 || err != nil {
		t.Errorf("the origin got %d bytes, %v", n, err)
	}
	if s := <-done; s.Err != nil || s.Up != 200_003 || s.Down != 3 {
		t.Errorf("got %+v", s)
	}
}

func TestRelayClientEnds(t *testing.T) {
	p, origin, done := newRelayed(t)
	p.must(p.framer.WriteData(1, true, []byte("question")))
	if b, err := io.ReadAll(origin); string(b) != "question" || err != nil {
		t.Errorf("the origin got %q, %v", b, err)
	}
	_, _ = origin.Write([]byte("answer"))
	p.expect("DATA 1 answer")
	origin.Close()
	p.expect("DATA 1  end")
	if s := <-done; s.Err != nil {
		t.Errorf("got %+v", s)
	}
}

// The origin's reset is CONNECT_ERROR (RFC 9113, 8.5), and the connection goes on.
func TestRelayOriginResets(t *testing.T) {
	p, origin, done := newRelayed(t)
	_ = origin.SetLinger(0)
	origin.Close()
	p.expect("RST_STREAM 1 CONNECT_ERROR")
	if s := <-done; !errors.Is(s.Err, syscall.ECONNRESET) {
		t.Errorf("got %+v", s)
	}
	p.must(p.framer.WritePing(false, [8]byte{'o', 'k'}))
	p.expect("PING ack ok")
}

func TestRelayClientResets(t *testing.T) {
	p, origin, done := newRelayed(t)
	p.must(p.framer.WriteRSTStream(1, wire.ErrCodeCancel))
	if s := <-done; !errors.Is(s.Err, syscall.ECONNRESET) {
		t.Errorf("got %+v", s)
	}
	if _, err := io.Copy(io.Discard, origin); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

// An idle tunnel costs no goroutine beside the engine's, and less than 2 KiB.
func TestIdleTunnels(t *testing.T) {
	const tunnels = 500
	streams := make(chan *http2.Stream, tunnels)
	p := newPeer(t, http2.Config{}, func(s *http2.Stream, r *http2.Request) {
		_ = s.Tunnel()
		streams <- s
	})
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := heap()
	for id := uint32(1); id < 2*tunnels; id += 2 {
		p.request(id, false, connect)
		p.expect(fmt.Sprintf("HEADERS %d 200", id))
	}
	open := make([]*http2.Stream, tunnels)
	for i := range open {
		open[i] = <-streams
	}
	for runtime.NumGoroutine() > 50 { // the last handlers are about to return
		runtime.Gosched()
	}
	if each := (heap() - before) / tunnels; each > 2<<10 {
		t.Errorf("%d bytes a tunnel", each)
	}
	runtime.KeepAlive(open)
}
