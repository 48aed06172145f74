package tunnel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"espalier/proxy/traffic"
	"espalier/proxy/wire"
)

// relay is the portable Engine: two goroutines a tunnel.
type relay struct {
	cfg    Config
	census census

	mu      sync.Mutex
	open    map[*pair]struct{}
	stirred map[*pair]struct{} // of open: those that have relayed since Report
	scan    *time.Timer        // runs while tunnels are open
}

// pair is an open tunnel.
type pair struct {
	Tunnel
	engine *relay
	conn   [2]net.Conn     // by side
	ended  [2]atomic.Bool  // the side has ended in order
	bytes  [2]atomic.Int64 // relayed, by direction
	last   atomic.Int64    // when a byte last moved, in nanoseconds since start
	half   atomic.Bool     // one side has closed
	moved  atomic.Bool     // in stirred
	cause  atomic.Pointer[error]

	picked  bool       // by Cut; guarded by engine.mu
	asking  sync.Mutex // held while the Owner is asked
	service atomic.Pointer[traffic.Service]
	given   atomic.Bool // the client is the Owner's, and has sent
	taken   []byte      // this
}

// newRelay returns an Engine that runs everywhere.
func newRelay(cfg Config) *relay {
	return &relay{cfg: cfg, open: map[*pair]struct{}{}, stirred: map[*pair]struct{}{}}
}

// A direction that carries small messages, or none, has a small buffer; those of
// wire.Buffers are shared by those that carry more.
const smallBuffer = 1 << 10

func (e *relay) Start(t Tunnel) {
	p := &pair{Tunnel: t, engine: e, conn: [2]net.Conn{t.Client, t.Upstream}}
	p.last.Store(e.cfg.clock())
	p.service.Store(t.Service)
	t.Owner.TunnelOpened(0, netip.AddrPort{})
	if !e.enter(p) {
		p.cut(ErrShutdown)
		e.cfg.tell(t.Owner, Stats{Err: ErrShutdown})
		return
	}
	t.Service.TunnelOpened()
	go p.run()
}

// enter makes p one of open. It reports false after Shutdown has cut.
func (e *relay) enter(p *pair) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.census.enter() {
		return false
	}
	e.open[p] = struct{}{}
	if e.scan == nil {
		e.scan = time.AfterFunc(e.cfg.scanInterval(), e.expire)
	}
	return true
}

func (e *relay) Len() int { return e.census.len() }

func (p *pair) run() {
	head := p.Head
	p.Head = nil // not to be kept for days
	var uploading sync.WaitGroup
	uploading.Go(func() {
		if head, ok := p.hear(head); ok {
			p.copy(up, head)
		}
	})
	p.copy(down, nil)
	uploading.Wait()
	p.Upstream.Close()
	defer p.engine.census.leave()
	p.leave()
	if p.given.Load() {
		_ = p.Client.SetDeadline(time.Time{})
		p.Owner.TunnelTaken(Replay(p.Client, p.taken))
		return
	}
	p.Client.Close()
	s := Stats{Up: p.bytes[up].Load(), Down: p.bytes[down].Load()}
	if cause := p.cause.Load(); cause != nil {
		s.Err = *cause
	}
	service := p.service.Load()
	service.TunnelClosed()
	p.engine.cfg.tell(p.Owner, s)
}

// leave takes p out of open, before its Owner is told of its end.
func (p *pair) leave() {
	p.engine.mu.Lock()
	defer p.engine.mu.Unlock()
	delete(p.engine.open, p)
	delete(p.engine.stirred, p)
}

// ask asks the Owner about what the client has sent, head.
func (p *pair) ask(head []byte) Verdict {
	p.asking.Lock()
	defer p.asking.Unlock()
	return ask(p.Owner, head, p.bytes[down].Load())
}

// pick asks the pick of Cut.
func (p *pair) pick(pick func(*traffic.Service, Owner) error) error {
	p.asking.Lock()
	defer p.asking.Unlock()
	return pick(p.service.Load(), p.Owner)
}

// hear reads what the client says first, head and more, until the Owner has judged it, and
// returns it. It reports false if it is not to be relayed: the tunnel ends, or is taken.
func (p *pair) hear(head []byte) ([]byte, bool) {
	defer func() {
		if fault := recover(); p.engine.cfg.caught(fault) {
			p.cut(fmt.Errorf("panic: %v", fault))
		}
	}()
	held := false
	for {
		if len(head) > 0 {
			v := p.ask(head)
			switch v.Step {
			case Relay:
				if held {
					_ = p.Client.SetReadDeadline(time.Time{})
				}
				if v.Service != nil {
					p.service.Swap(v.Service).TunnelClosed()
					v.Service.TunnelOpened()
				}
				return head, true
			case Refuse:
				_ = p.Client.SetWriteDeadline(time.Now().Add(time.Second))
				_, _ = p.Client.Write(v.Say)
				p.cut(v.Err)
				return nil, false
			case Take:
				p.take(head)
				return nil, false
			}
			if !held {
				_ = p.Client.SetReadDeadline(time.Now().Add(holdTime))
				held = true
			}
		}
		if len(head) == cap(head) {
			head = append(make([]byte, 0, max(smallBuffer, 2*cap(head))), head...)
		}
		n, err := p.Client.Read(head[len(head):cap(head)])
		first := len(head) == 0
		head = head[:len(head)+n]
		switch {
		case n > 0:
		case first && errors.Is(err, io.EOF):
			p.pass(up)
			return nil, false
		case errors.Is(err, io.EOF):
			p.cut(errHeldEnded)
			return nil, false
		case errors.Is(err, os.ErrDeadlineExceeded):
			p.cut(errHeldLong)
			return nil, false
		default:
			p.cut(&Error{Client: true, Op: readFrom, Err: err})
			return nil, false
		}
	}
}

// take ends the relay without closing the client, which has sent head.
func (p *pair) take(head []byte) {
	p.service.Load().TunnelClosed()
	p.taken = head
	p.given.Store(true)
	p.Upstream.Close()
	_ = p.Client.SetWriteDeadline(time.Unix(1, 0)) // the other direction may be in a write
}

// copy relays direction d, head first, until its source ends, and passes the end on. An
// error in either connection ends the whole tunnel.
func (p *pair) copy(d int, head []byte) {
	small := make([]byte, smallBuffer)
	buf, chunk := small, head
	var large *[32 << 10]byte
	defer func() {
		if large != nil {
			wire.Buffers.Put(large)
		}
		if fault := recover(); p.engine.cfg.caught(fault) {
			p.cut(fmt.Errorf("panic: %v", fault))
		}
	}()
	for {
		if len(chunk) > 0 && !p.send(d, chunk) {
			return
		}
		switch n := len(chunk); {
		case large == nil && n == len(small):
			large = wire.Buffers.Get().(*[32 << 10]byte)
			buf = large[:]
		case large != nil && n < len(small):
			wire.Buffers.Put(large)
			buf, large = small, nil
		}
		n, err := p.conn[d].Read(buf)
		chunk = buf[:n]
		if err == nil || n > 0 {
			continue
		}
		if errors.Is(err, io.EOF) {
			p.pass(d)
		} else {
			p.cut(&Error{Client: d == client, Op: readFrom, Err: err})
		}
		return
	}
}

// send writes to the destination of d. It reports whether the direction can go on.
func (p *pair) send(d int, chunk []byte) bool {
	ended := p.ended[1-d].Load() // not later: a write takes a reset, and a read then finds an end
	n, err := p.conn[1-d].Write(chunk)
	p.bytes[d].Add(int64(n))
	count(p.service.Load(), d, n)
	p.touch()
	switch {
	case err == nil:
		return true
	case tookAll(ended, err):
		p.cut(nil)
	default:
		// What the destination has sent before still goes to the source, as it would
		// without a proxy. The direction that reads it ends the tunnel.
		err = &Error{Client: 1-d == client, Op: writeTo, Err: err}
		p.cause.CompareAndSwap(nil, &err)
		p.half.Store(true)
	}
	return false
}

// touch notes that bytes have moved.
func (p *pair) touch() {
	p.last.Store(p.engine.cfg.clock())
	if !p.moved.Load() && p.moved.CompareAndSwap(false, true) {
		p.engine.mu.Lock()
		p.engine.stirred[p] = struct{}{}
		p.engine.mu.Unlock()
		p.engine.cfg.stir()
	}
}

// pass tells the destination of d that the source has ended.
func (p *pair) pass(d int) {
	p.ended[d].Store(true)
	p.half.Store(true)
	p.last.Store(p.engine.cfg.clock())
	if p.cause.Load() != nil || wire.CloseWrite(p.conn[1-d]) != nil {
		// The end cannot be passed on any other way, or the source has failed.
		p.cut(nil)
	}
}

// cut ends the tunnel. The first cause counts; what fails after it is only the
// consequence. A reset is passed on as one. A client that is the Owner's is left alone. With a cause it does not block: the goodbye of
// TLS, which may wait for the peer, is left out.
func (p *pair) cut(cause error) {
	p.cause.CompareAndSwap(nil, &cause)
	e, ok := errors.AsType[*Error](cause)
	for side, c := range p.conn {
		if side == client && p.given.Load() {
			continue
		}
		carrier, _ := wire.Carrier(c)
		if tcp, isTCP := carrier.(*net.TCPConn); isTCP && cause != nil {
			if ok && e.Left() {
				_ = tcp.SetLinger(0)
			}
			tcp.Close()
		}
		c.Close()
	}
}

// cutOpen cuts the open tunnels that pick names, and returns their number.
func (e *relay) cutOpen(pick func(*traffic.Service, Owner) error) (cut int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for p := range e.open {
		if p.picked {
			continue
		}
		if err := p.pick(pick); err != nil {
			cut++
			p.picked = true
			p.cut(err)
		}
	}
	return cut
}

func (e *relay) Cut(pick func(*traffic.Service, Owner) error) { e.cutOpen(pick) }

// expire cuts tunnels that have been silent for too long.
func (e *relay) expire() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.cfg.clock()
	for p := range e.open {
		if err := e.cfg.expired(time.Duration(now-p.last.Load()), p.half.Load()); err != nil {
			p.cut(err)
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
	for p := range e.stirred {
		p.moved.Store(false)
		p.Owner.TunnelMoved(p.bytes[up].Load(), p.bytes[down].Load())
	}
	clear(e.stirred)
}

func (e *relay) Shutdown(ctx context.Context) (cut int) {
	e.census.close(ctx)
	cut = e.cutOpen(func(*traffic.Service, Owner) error { return ErrShutdown })
	e.census.close(context.Background()) // they end now
	return cut
}
