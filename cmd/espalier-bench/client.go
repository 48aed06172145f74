//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A bed is what a scenario runs on: one proxy and one origin.
type bed struct {
	addr   string // the proxy's
	direct bool   // a plain TCP proxy in front of the origin: nothing is asked of it
	pid    int    // the proxy's
	proc   procfs
	origin *origin
	load   load
}

// ipBindAddressNoPort leaves the choice of the source port to connect, so that
// ports are short only for one pair of addresses.
const ipBindAddressNoPort = 24

// dial opens a TCP connection to the proxy. Clients on loopback come from
// several addresses, chosen by i, so that ports do not run short. The
// connection ends with ctx.
func (b *bed) dial(ctx context.Context, i int) (*client, error) {
	d := net.Dialer{KeepAlive: -1}
	if ip, _, _ := net.SplitHostPort(b.addr); net.ParseIP(ip).IsLoopback() {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%100))}
		d.Control = func(_, _ string, c syscall.RawConn) error {
			var err error
			if e := c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
			}); e != nil {
				return e
			}
			return err
		}
	}
	conn, err := d.DialContext(ctx, "tcp4", b.addr)
	if err != nil {
		return nil, err
	}
	c := &client{Conn: conn}
	c.stop = context.AfterFunc(ctx, func() { conn.Close() })
	return c, nil
}

// A client is a connection to the proxy, or through it.
type client struct {
	net.Conn
	stop func() bool // takes back that the context closes the connection
}

func (c *client) Close() error {
	c.stop()
	return c.Conn.Close()
}

// tunnel opens a tunnel through the proxy to the origin.
func (b *bed) tunnel(ctx context.Context, i int) (*client, error) {
	c, err := b.dial(ctx, i)
	if err != nil {
		return nil, err
	}
	if !b.direct {
		if err := b.connect(c, b.origin.addr); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

func (b *bed) connect(c net.Conn, to string) error {
	head := "CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\nUser-Agent: espalier-bench\r\n\r\n"
	if _, err := io.WriteString(c, head); err != nil {
		return fmt.Errorf("CONNECT: %w", err)
	}
	var buf [2048]byte
	for n := 0; ; {
		m, err := c.Read(buf[n:])
		n += m
		if i := bytes.Index(buf[:n], []byte("\r\n\r\n")); i >= 0 {
			status, _, _ := bytes.Cut(buf[:n], []byte("\r\n"))
			if !bytes.HasPrefix(status, []byte("HTTP/1.")) || len(status) < 12 || string(status[9:12]) != "200" {
				return fmt.Errorf("CONNECT: answered %q", status)
			}
			if i+4 != n {
				return fmt.Errorf("CONNECT: %d bytes behind the answer, and the origin has not spoken yet", n-i-4)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("CONNECT: no answer: %w", err)
		}
		if n == len(buf) {
			return errors.New("CONNECT: the head of the answer is larger than 2 KB")
		}
	}
}

// exchange sends a message of len(buf) bytes and checks the answer of the same
// size; buf is scratch.
func exchange(c net.Conn, seed uint32, buf []byte) error {
	putHeader(buf, opMessage, seed, len(buf))
	copy(buf[headerSize:], pattern(seed, 0, len(buf)-headerSize))
	if _, err := c.Write(buf); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, buf); err != nil {
		return err
	}
	return checkPattern(answerSeed(seed), 0, buf)
}

// A getter fetches plain HTTP through the proxy over one connection for as long
// as the proxy keeps it.
type getter struct {
	bed    *bed
	i      int
	upload int // bytes of a body to send by POST; 0: GET
	conn   *client
	br     *bufio.Reader
	buf    []byte
}

func (g *getter) Close() {
	if g.conn != nil {
		g.conn.Close()
		g.conn = nil
	}
}

// get fetches size bytes of the pattern and checks them; progress is told of
// every piece that arrived. A kept connection that turns out to be closed is
// replaced once, as every HTTP client does.
func (g *getter) get(ctx context.Context, size int64, seed uint32, progress func(int64)) error {
	kept := g.conn != nil
	resp, err := g.ask(ctx, size, seed)
	if err != nil && kept && ctx.Err() == nil {
		g.Close()
		resp, err = g.ask(ctx, size, seed)
	}
	if err != nil {
		return fmt.Errorf("GET: no answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET: answered %q", resp.Status)
	}
	pos := int64(0)
	for {
		n, err := resp.Body.Read(g.buf)
		if err := checkPattern(seed, pos, g.buf[:n]); err != nil {
			return fmt.Errorf("GET: %w", err)
		}
		pos += int64(n)
		progress(int64(n))
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("GET: after %d of %d bytes: %w", pos, size, err)
		}
	}
	if pos != size {
		return fmt.Errorf("GET: lost data: %d of %d bytes", pos, size)
	}
	if resp.Close {
		g.Close()
	}
	return nil
}

// ask sends the request and reads the head of the answer.
func (g *getter) ask(ctx context.Context, size int64, seed uint32) (*http.Response, error) {
	if g.conn == nil {
		c, err := g.bed.dial(ctx, g.i)
		if err != nil {
			return nil, err
		}
		g.conn = c
		if g.br == nil {
			g.br = bufio.NewReaderSize(c, 64<<10)
			g.buf = make([]byte, 64<<10)
		}
		g.br.Reset(c)
	}
	method, fields, body := "GET", "", []byte(nil)
	if g.upload > 0 {
		method, body = "POST", pattern(seed, 0, g.upload)
		fields = "Content-Length: " + strconv.Itoa(g.upload) + "\r\n"
	}
	head := method + " http://" + g.bed.origin.addr + "/" + strconv.FormatInt(size, 10) + "/" + strconv.FormatUint(uint64(seed), 10) +
		" HTTP/1.1\r\nHost: " + g.bed.origin.addr + "\r\nUser-Agent: espalier-bench\r\nAccept: */*\r\n" + fields + "\r\n"
	if _, err := g.conn.Write(append([]byte(head), body...)); err != nil {
		return nil, err
	}
	return http.ReadResponse(g.br, nil)
}

// webSocketRequest asks for a WebSocket whose messages come back.
const webSocketRequest = "GET http://%[1]s/websocket HTTP/1.1\r\nHost: %[1]s\r\nUser-Agent: espalier-bench\r\n" +
	"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// webSocket opens a WebSocket, sends a message, and waits until it has come back.
func (b *bed) webSocket(ctx context.Context, i int) error {
	c, err := b.dial(ctx, i)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, webSocketRequest, b.origin.addr); err != nil {
		return err
	}
	br := bufio.NewReaderSize(c, 1<<10)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return fmt.Errorf("WebSocket: no answer: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("WebSocket: answered %q", resp.Status)
	}
	message := pattern(uint32(i), 0, 64)
	if _, err := c.Write(message); err != nil {
		return err
	}
	got := make([]byte, len(message))
	if _, err := io.ReadFull(br, got); err != nil {
		return fmt.Errorf("WebSocket: %w", err)
	}
	return checkPattern(uint32(i), 0, got)
}

// A group runs the load's goroutines and keeps the first error, which cancels
// the others. A panic is an error too, so that the proxies are stopped.
type group struct {
	parent context.Context
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
	err    error
}

func newGroup(ctx context.Context) *group {
	g := &group{parent: ctx}
	g.ctx, g.cancel = context.WithCancel(ctx)
	return g
}

// goDo runs f; what it returns after the group was stopped is of no interest.
func (g *group) goDo(f func(ctx context.Context) error) {
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		defer func() {
			if p := recover(); p != nil {
				g.fail(fmt.Errorf("panic: %v", p))
			}
		}()
		if err := f(g.ctx); err != nil && g.ctx.Err() == nil {
			g.fail(err)
		}
	}()
}

func (g *group) fail(err error) {
	g.once.Do(func() { g.err = err })
	g.cancel()
}

// wait returns the first error once every goroutine has ended by itself; it is
// the context's where that ended them.
func (g *group) wait() error {
	g.wg.Wait()
	g.cancel()
	if g.err == nil {
		return g.parent.Err()
	}
	return g.err
}

// stop ends the goroutines and returns the first error before that.
func (g *group) stop() error {
	g.cancel()
	return g.wait()
}

// sleep waits for d or until ctx ends, and says whether it ended.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
