package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"espalier/proxy/traffic"
)

// relay is the portable Engine: two goroutines a tunnel.
type relay struct {
	cfg Config

	mu     sync.Mutex
	open   map[*pair]struct{}
	closed bool          // Shutdown has cut
	scan   *time.Timer   // runs while tunnels are open
	empty  chan struct{} // closed when the last tunnel ends, while somebody waits
}

// pair is an open tunnel.
type pair struct {
	Tunnel
	clock    func() int64
	caught   func(fault any) bool
	up, down atomic.Int64
	last     atomic.Int64 // when a byte last moved, in nanoseconds since start
	told     int64        // bytes that a Follower knows of; guarded by relay.mu
	half     atomic.Bool  // one side has closed

	clientEnded, upstreamEnded atomic.Bool // in order

	cause atomic.Pointer[error]
}

// newRelay returns an Engine that runs everywhere.
func newRelay(cfg Config) *relay {
	return &relay{cfg: cfg, open: map[*pair]struct{}{}}
}

// A direction that carries small messages, or none, has a small buffer; large
// ones are shared by those that carry more.
const smallBuffer = 1 << 10

var largeBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func (e *relay) Start(t Tunnel) {
	p := &pair{Tunnel: t, clock: e.cfg.clock, caught: e.cfg.caught}
	p.last.Store(p.clock())
	opened(t.Owner, 0, netip.AddrPort{})
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		p.cut(ErrShutdown)
		e.cfg.tell(t.Owner, Stats{Err: ErrShutdown})
		return
	}
	e.open[p] = struct{}{}
	if e.scan == nil {
		e.scan = time.AfterFunc(e.cfg.scanInterval(), e.expire)
	}
	e.mu.Unlock()
	t.Service.TunnelOpened()
	go e.run(p)
}

func (e *relay) Len() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.open)
}

func (e *relay) run(p *pair) {
	upDone := make(chan struct{})
	head := p.Head
	p.Head = nil // not to be kept for days
	go func() {
		defer close(upDone)
		p.copy(p.Upstream, p.Client, head, "client", "upstream", &p.clientEnded, &p.upstreamEnded, func(n int64) {
			p.up.Add(n)
			p.Service.AddUp(n)
		})
	}()
	p.copy(p.Client, p.Upstream, nil, "upstream", "client", &p.upstreamEnded, &p.clientEnded, func(n int64) {
		p.down.Add(n)
		p.Service.AddDown(n)
	})
	<-upDone
	p.Client.Close()
	p.Upstream.Close()
	p.Service.TunnelClosed()
	s := Stats{Up: p.up.Load(), Down: p.down.Load()}
	if cause := p.cause.Load(); cause != nil {
		s.Err = *cause
	}
	e.cfg.tell(p.Owner, s)

	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, p)
	if len(e.open) == 0 && e.empty != nil {
		close(e.empty)
		e.empty = nil
	}
}

// copy relays one direction until src ends, which it notes in ended, and passes the
// end on. An error in either connection ends the whole tunnel. dstEnded says that dst
// has ended.
func (p *pair) copy(dst, src net.Conn, head []byte, from, to string, ended, dstEnded *atomic.Bool, count func(int64)) {
	small := make([]byte, smallBuffer)
	buf, chunk := small, head
	var large *[32 << 10]byte
	defer func() {
		if large != nil {
			largeBuffers.Put(large)
		}
		if fault := recover(); p.caught(fault) {
			p.cut(fmt.Errorf("panic: %v", fault))
		}
	}()
	for {
		if len(chunk) > 0 {
			closed := dstEnded.Load() // not later: a write takes a reset, and a read then finds an end
			n, err := dst.Write(chunk)
			count(int64(n))
			p.last.Store(p.clock())
			if err != nil && isGone(err) && closed {
				p.cut(nil) // it closed in order, and wants no more
				return
			}
			if err != nil {
				// What dst has sent before still goes to src, as it would without a
				// proxy. The direction that reads it ends the tunnel.
				err = &Error{Client: to == sideName(true), Op: writeTo, Err: err}
				p.cause.CompareAndSwap(nil, &err)
				p.half.Store(true)
				return
			}
		}
		switch n := len(chunk); {
		case large == nil && n == len(small):
			large = largeBuffers.Get().(*[32 << 10]byte)
			buf = large[:]
		case large != nil && n < len(small):
			largeBuffers.Put(large)
			buf, large = small, nil
		}
		n, err := src.Read(buf)
		chunk = buf[:n]
		if err == nil || n > 0 {
			continue
		}
		if !errors.Is(err, io.EOF) {
			p.cut(&Error{Client: from == sideName(true), Op: readFrom, Err: err})
			return
		}
		ended.Store(true)
		p.half.Store(true)
		p.last.Store(p.clock())
		if c, ok := dst.(interface{ CloseWrite() error }); !ok || p.cause.Load() != nil || c.CloseWrite() != nil {
			// The end cannot be passed on any other way, or src has failed.
			p.cut(nil)
		}
		return
	}
}

// cut ends the tunnel. The first cause counts; what fails after it is only the
// consequence. A reset is passed on as one. With a cause it does not block: the goodbye of
// TLS, which may wait for the peer, is left out.
func (p *pair) cut(cause error) {
	p.cause.CompareAndSwap(nil, &cause)
	e, ok := errors.AsType[*Error](cause)
	for _, c := range []net.Conn{p.Client, p.Upstream} {
		if tcp := tcpOf(c); tcp != nil && cause != nil {
			if ok && e.Left() {
				_ = tcp.SetLinger(0)
			}
			tcp.Close()
		}
		c.Close()
	}
}

// shutDown reports whether p was cut by the shutdown, though it may still be open.
func (p *pair) shutDown() bool {
	cause := p.cause.Load()
	return cause != nil && *cause == ErrShutdown
}

// expire cuts tunnels that have been silent for too long.
func (e *relay) expire() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.cfg.clock()
	for p := range e.open {
		switch silent := time.Duration(now - p.last.Load()); {
		case silent >= e.cfg.Idle:
			p.cut(ErrIdle)
		case p.half.Load() && silent >= e.cfg.HalfClosed:
			p.cut(ErrHalfOpen)
		}
	}
	if len(e.open) == 0 {
		e.scan = nil
		return
	}
	e.scan.Reset(e.cfg.scanInterval())
}

func (e *relay) Report() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for p := range e.open {
		if up, down := p.up.Load(), p.down.Load(); up+down != p.told {
			p.told = up + down
			moved(p.Owner, up, down)
		}
	}
}

func (e *relay) Cut(pick func(*traffic.Service) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for p := range e.open {
		if !p.shutDown() && pick(p.Service) {
			p.cut(ErrShutdown)
		}
	}
}

func (e *relay) Shutdown(ctx context.Context) (cut int) {
	done := ctx.Done()
	for {
		e.mu.Lock()
		if len(e.open) == 0 {
			e.closed = true
			e.mu.Unlock()
			return cut
		}
		if ctx.Err() != nil && !e.closed {
			e.closed, done = true, nil
			for p := range e.open {
				if !p.shutDown() {
					cut++
					p.cut(ErrShutdown)
				}
			}
		}
		if e.empty == nil {
			e.empty = make(chan struct{})
		}
		empty := e.empty
		e.mu.Unlock()
		select {
		case <-empty: // another may have been started meanwhile
		case <-done:
		}
	}
}

// tcpOf returns the TCP connection that carries c; nil if there is none.
func tcpOf(c net.Conn) *net.TCPConn {
	for {
		switch x := c.(type) {
		case *net.TCPConn:
			return x
		case interface{ NetConn() net.Conn }:
			c = x.NetConn()
		default:
			return nil
		}
	}
}
