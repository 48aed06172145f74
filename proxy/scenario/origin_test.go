//go:build linux

package scenario

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// signals by which the two scripts wait for each other.
type signals struct {
	mu   sync.Mutex
	list map[string]chan struct{}
}

func (s *signals) of(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.list[name]
	if c == nil {
		c = make(chan struct{})
		s.list[name] = c
	}
	return c
}

// An origin takes the connections of the proxy. It counts those that carry
// something, and the requests.
type origin struct {
	run      *run
	addr     string
	listener net.Listener // nil: it refuses connections
	conns    chan *h1link
	over     chan struct{} // closed when the script has ended
	handlers sync.WaitGroup

	unlistened int // a socket that holds the port; -1: none

	mu    sync.Mutex
	links []*h1link
	used  []*h1link // by the script
}

// newOrigin takes a port. It refuses connections there if refuse is set.
func newOrigin(ctx context.Context, refuse bool) (*origin, error) {
	o := &origin{conns: make(chan *h1link), over: make(chan struct{}), unlistened: -1}
	if !refuse {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err == nil {
			o.listener, o.addr = l, l.Addr().String()
		}
		return o, err
	}
	// A port that is bound, so that nothing else gets it, and not listened on.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return o, err
	}
	o.unlistened = fd
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		o.close()
		return o, err
	}
	at, err := unix.Getsockname(fd)
	if in4, ok := at.(*unix.SockaddrInet4); ok {
		o.addr = fmt.Sprintf("127.0.0.1:%d", in4.Port)
	}
	return o, err
}

// close closes the port. It may be called again.
func (o *origin) close() {
	if o.listener != nil {
		o.listener.Close()
	}
	if o.unlistened >= 0 {
		unix.Close(o.unlistened)
		o.unlistened = -1
	}
}

func (o *origin) serve() {
	for {
		c, err := o.listener.Accept()
		if err != nil {
			return
		}
		context.AfterFunc(o.run.ctx, func() { c.Close() })
		o.handlers.Go(func() { o.handle(c.(*net.TCPConn)) })
	}
}

// handle hands a connection to the script when a request has begun on it: the
// proxy may open some in advance. A tunnel is handed over at once.
func (o *origin) handle(tcp *net.TCPConn) {
	l := &h1link{tcp: tcp, conn: tcp, in: &decoder{methods: new([]string)}}
	e, s := o.run.entry, o.run.scenario
	in := bufio.NewReader(tcp)
	if e.parent && answerQuestion(tcp, in) {
		tcp.Close()
		return
	}
	switch {
	case s.tunnel && e.parent:
		if h, err := readHead(in); err != nil || h[:8] != "CONNECT " {
			tcp.Close()
			return
		}
		if _, err := io.WriteString(tcp, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			tcp.Close()
			return
		}
	case e.inside:
		shared, _ := secrets()
		secure := tls.Server(tcp, &tls.Config{Certificates: []tls.Certificate{shared.server}})
		if secure.HandshakeContext(o.run.ctx) != nil {
			tcp.Close()
			return
		}
		l.conn, in = secure, bufio.NewReader(secure)
	}
	if l.in.raw = s.tunnel; !s.tunnel {
		if _, err := in.Peek(1); err != nil {
			tcp.Close()
			return
		}
	}
	l.conn = &bufferedConn{l.conn, in}
	o.mu.Lock()
	o.links = append(o.links, l)
	o.mu.Unlock()
	select {
	case o.conns <- l:
	case <-o.over:
		o.drain(l)
	}
}

// answerQuestion answers what a proxy asks its parent for itself, to know whether
// it is well. It reports whether the connection begins with that.
func answerQuestion(c net.Conn, in *bufio.Reader) bool {
	const question = "OPTIONS * "
	if b, _ := in.Peek(len(question)); string(b) != question {
		return false
	}
	if _, err := readHead(in); err == nil {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
	}
	return true
}

// bufferedConn reads through a buffer.
type bufferedConn struct {
	net.Conn
	in *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.in.Read(p) }

// drain reads what comes on l after the script, to count it, and closes l behind
// the first request or when the proxy does.
func (o *origin) drain(l *h1link) {
	defer l.tcp.Close()
	for {
		list, err := l.fill(time.Minute)
		if err != nil {
			return
		}
		for _, e := range list {
			if e.kind == headEvent {
				return
			}
		}
	}
}

// next is the next connection, for the script.
func (o *origin) next() (link, *decoder, error) {
	select {
	case l := <-o.conns:
		o.used = append(o.used, l)
		return l, &decoder{raw: l.in.raw}, nil
	case <-o.run.ctx.Done():
		return nil, nil, o.run.ctx.Err()
	case <-time.After(o.run.limit):
		return nil, nil, fmt.Errorf("no connection in %s", o.run.limit)
	}
}

// play runs the script, and looks after all connections then.
func (o *origin) play() error {
	p := &party{run: o.run, name: "origin", open: o.next}
	err := p.play(o.run.scenario.origin)
	close(o.over)
	for _, e := range p.queue {
		if e.kind == headEvent && err == nil {
			err = fmt.Errorf("origin: got %.300q behind all that is expected", e.text)
		}
	}
	for _, l := range o.used {
		o.handlers.Go(func() { o.drain(l) })
	}
	return err
}

// stop ends the origin, and reports how many connections carried something, and
// how many requests.
func (o *origin) stop() (conns, asked int) {
	o.close()
	o.run.cancel()
	o.handlers.Wait()
	for _, l := range o.links {
		conns++
		asked += l.in.heads
	}
	return conns, asked
}

// closeAll closes every connection.
func (o *origin) closeAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.links {
		l.tcp.Close()
	}
}

var errHalfClose = errors.New("cannot half-close")

// CloseWrite closes the sending side.
func (c *bufferedConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errHalfClose
}
