package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"espalier/policy"
	"espalier/proxy/egress"
)

// Bounds on the connections to destinations that are kept for the next request.
const (
	poolTotal     = 1000
	poolForTarget = 64
	poolIdle      = time.Minute
)

// originBuffer is what the head of an answer usually fits in.
const originBuffer = 4 << 10

// An endpoint is where a connection leads to.
type endpoint struct {
	policy.Target
	secure bool // by TLS
}

// An originConn is a connection to a destination, for one request at a time.
type originConn struct {
	net.Conn
	endpoint
	state  *State         // whose rules it was dialed by
	parent *egress.Parent // that it leads to, in the target's place; nil: to the target
	buf    []byte         // what was read and is not used stands in buf[:n]
	n      int
	reused bool
	idle   time.Time                 // since when
	peek   func() (n int, err error) // looks what there is to read, without waiting
}

// newOriginConn returns what is known of conn, which is c or TLS on it.
func newOriginConn(conn net.Conn, c *net.TCPConn, to endpoint, st *State, parent *egress.Parent) *originConn {
	return &originConn{Conn: conn, endpoint: to, state: st, parent: parent, peek: newPeek(c)}
}

// connect returns a connection to the destination of x, by a parent that is not in
// not. errGeneral says that the general way may have more success.
func (q *quick) connect(st *State, x *exchange, to endpoint, not []*egress.Parent) (*originConn, error) {
	for o := q.pool.get(to, st); o != nil; o = q.pool.get(to, st) {
		if o.parent != nil && o.parent.Rests() {
			o.Close()
			continue
		}
		x.rec.Upstream = addrPort(o)
		return o, nil
	}
	began := time.Now()
	defer func() { x.rec.Connect = time.Since(began) }()
	var conn net.Conn
	var parent *egress.Parent
	var err error
	if to.secure {
		conn, err = st.Dialer.Dial(q.dialing, to.Target)
	} else {
		conn, parent, err = st.Dialer.DialOther(q.dialing, to.Target, not)
	}
	if err != nil {
		return nil, err
	}
	tcp := conn.(*net.TCPConn)
	x.rec.Upstream = addrPort(tcp)
	if to.secure {
		if conn, err = q.secure(st, tcp, to.Host); err != nil {
			return nil, err
		}
	}
	return newOriginConn(conn, tcp, to, st, parent), nil
}

// secure begins TLS with the destination host on c. It closes c where that fails.
func (q *quick) secure(st *State, c *net.TCPConn, host string) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(q.dialing, tlsTimeout)
	defer cancel()
	cfg := st.originTLS.Clone()
	cfg.ServerName = host
	cfg.NextProtos = []string{"http/1.1"} // as the client speaks
	conn := tls.Client(c, cfg)
	err := conn.HandshakeContext(ctx)
	if err == nil {
		return conn, nil
	}
	c.Close()
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return nil, fmt.Errorf("%w: %w", errGeneral, err) // perhaps for want of HTTP/2
	}
	return nil, err
}

// Close ends the connection. It does not wait until a destination takes TLS's
// goodbye: that may be five seconds, and others wait for whoever closes.
func (o *originConn) Close() error {
	if !o.secure {
		return o.Conn.Close()
	}
	go o.Conn.Close()
	return nil
}

// cut ends the connection at once, so that who reads from it need not wait for
// Close.
func (o *originConn) cut() {
	if tcp := tcpOf(o.Conn); tcp != nil {
		tcp.Close()
	}
}

// newPeek returns what looks how much there is to read from c, without waiting
// for it or taking it.
func newPeek(c *net.TCPConn) func() (n int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return func() (int, error) { return 0, err }
	}
	// Made once, so that looking does not allocate.
	var n int
	var perr error
	look := func(fd uintptr) {
		var b [1]byte
		n, _, perr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	}
	return func() (int, error) {
		if err := raw.Control(look); err != nil {
			return 0, err
		}
		return n, perr
	}
}

// quiet reports whether the connection is open and has nothing to read. What
// stands there between requests is the destination's goodbye, and no answer.
func (o *originConn) quiet() bool {
	if _, err := o.peek(); err != syscall.EAGAIN {
		return false
	}
	if !o.secure {
		return true
	}
	// TLS may have read ahead. This does not wait for more, nor until an alert, which
	// is the answer to some of that, is taken.
	_ = o.SetDeadline(time.Unix(1, 0))
	var b [1]byte
	n, err := o.Read(b[:])
	return n == 0 && isTimeout(err)
}

// healthy reports whether it was not this connection that failed with err: it
// has more to read or, unless the failure is a time-out, is open.
func (o *originConn) healthy(err error) bool {
	n, perr := o.peek()
	return n > 0 || perr == syscall.EAGAIN && !isTimeout(err)
}

// pool keeps idle connections to destinations. It is safe for concurrent use.
type pool struct {
	mu     sync.Mutex
	idle   map[endpoint][]*originConn // the one used last stands last
	total  int
	sweeps *time.Timer // set while anything is idle
	closed bool
}

// get returns an idle connection that was dialed by the rules of st, nil where
// there is none.
func (p *pool) get(to endpoint, st *State) *originConn {
	for {
		p.mu.Lock()
		list := p.idle[to]
		if len(list) == 0 {
			p.mu.Unlock()
			return nil
		}
		o := list[len(list)-1]
		list[len(list)-1] = nil
		p.keep(to, list[:len(list)-1])
		p.total--
		p.mu.Unlock()
		if o.state == st && o.quiet() {
			o.reused = true
			return o
		}
		o.Close()
	}
}

// put takes a connection back, or closes it where there is no room.
func (p *pool) put(o *originConn) {
	o.n = 0
	if len(o.buf) > originBuffer {
		o.buf = nil
	}
	_ = o.SetDeadline(time.Time{})
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.idle[o.endpoint]
	if p.closed || p.total >= poolTotal || len(list) >= poolForTarget {
		o.Close()
		return
	}
	if p.idle == nil {
		p.idle = map[endpoint][]*originConn{}
	}
	o.idle = time.Now()
	p.idle[o.endpoint] = append(list, o)
	p.total++
	if p.sweeps == nil {
		p.sweeps = time.AfterFunc(poolIdle, p.sweep)
	}
}

// len is the number of idle connections.
func (p *pool) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

func (p *pool) keep(to endpoint, list []*originConn) {
	if len(list) == 0 {
		delete(p.idle, to)
	} else {
		p.idle[to] = list
	}
}

// sweep closes what has been idle for long.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := time.Now().Add(-poolIdle)
	for to, list := range p.idle {
		n := 0
		for n < len(list) && list[n].idle.Before(old) {
			list[n].Close()
			n++
		}
		p.total -= n
		p.keep(to, list[n:])
	}
	if p.sweeps = nil; p.total > 0 {
		p.sweeps = time.AfterFunc(poolIdle/2, p.sweep)
	}
}

// closeIdle closes what is idle now.
func (p *pool) closeIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, list := range p.idle {
		for _, o := range list {
			o.Close()
		}
	}
	p.idle, p.total = nil, 0
	if p.sweeps != nil {
		p.sweeps.Stop()
		p.sweeps = nil
	}
}

// close closes what is idle, and what is put back from now on.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.closeIdle()
}
