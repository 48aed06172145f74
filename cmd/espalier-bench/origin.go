//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The origin's own protocol: the client speaks first, with a header that says
// what to do and names the pattern's seed. A connection that begins with GET is
// plain HTTP instead, so one address serves every scenario, as a TCP proxy
// with a single backend needs.
const (
	// opMessage: a message of size bytes, header included, is answered with
	// size bytes of the answer's pattern; then the next header is awaited.
	opMessage = 'M'
	// opSource: the pattern is sent until the client closes, at size bytes a
	// second, or as fast as it goes where size is 0.
	opSource = 'D'
	// opSink: the pattern is read and checked until the client closes.
	opSink = 'U'

	headerSize = 16
	maxMessage = 4096
)

var magic = [4]byte{'E', 'S', 'P', 'B'}

func putHeader(b []byte, op byte, seed uint32, size int) {
	copy(b, magic[:])
	binary.BigEndian.PutUint32(b[4:], uint32(op))
	binary.BigEndian.PutUint32(b[8:], seed)
	binary.BigEndian.PutUint32(b[12:], uint32(size))
}

func parseHeader(b []byte) (op byte, seed uint32, size int, err error) {
	if !bytes.Equal(b[:4], magic[:]) {
		return 0, 0, 0, fmt.Errorf("corrupt data: %q is no header", b[:headerSize])
	}
	return b[7], binary.BigEndian.Uint32(b[8:]), int(binary.BigEndian.Uint32(b[12:])), nil
}

// answerSeed is the seed of the answer to a message.
func answerSeed(seed uint32) uint32 { return ^seed }

// An origin is the server behind the proxies.
type origin struct {
	addr string
	ln   net.Listener
	// The same inside TLS, at an address of its own.
	secureAddr string
	secure     net.Listener
	cert       tls.Certificate
	// sunk counts the bytes that arrived for opSink, headers not included.
	sunk atomic.Int64

	mu     sync.Mutex
	conns  map[net.Conn]struct{} // nil once closed
	failed error
	wg     sync.WaitGroup
}

// startOrigin listens on addr, a loopback address with port 0 for any, and with
// cert on any port.
func startOrigin(addr string, cert tls.Certificate) (*origin, error) {
	// Keepalives of the bench's own would cost the proxy's kernel side.
	lc := net.ListenConfig{KeepAlive: -1}
	ln, err := lc.Listen(context.Background(), "tcp4", addr)
	if err != nil {
		return nil, fmt.Errorf("origin: %w", err)
	}
	secure, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("origin: %w", err)
	}
	o := &origin{addr: ln.Addr().String(), ln: ln, secureAddr: secure.Addr().String(), cert: cert, conns: map[net.Conn]struct{}{}}
	o.secure = tls.NewListener(secure, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
	o.wg.Add(2)
	go o.accept(o.ln)
	go o.accept(o.secure)
	return o, nil
}

// Close ends every connection, waits for their goroutines, and returns the
// first thing that was wrong with what the proxy delivered.
func (o *origin) Close() error {
	o.ln.Close()
	o.secure.Close()
	o.mu.Lock()
	conns := o.conns
	o.conns = nil
	o.mu.Unlock()
	for c := range conns {
		c.Close()
	}
	o.wg.Wait()
	return o.Err()
}

// Err returns the first thing that was wrong with what the proxy delivered.
func (o *origin) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

func (o *origin) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failed == nil {
		o.failed = fmt.Errorf("origin: %w", err)
	}
}

func (o *origin) accept(ln net.Listener) {
	defer o.wg.Done()
	for {
		c, err := ln.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				o.fail(err)
			}
			return
		}
		o.mu.Lock()
		if o.conns == nil {
			o.mu.Unlock()
			c.Close()
			return
		}
		o.conns[c] = struct{}{}
		o.wg.Add(1)
		o.mu.Unlock()
		go o.serve(c)
	}
}

func (o *origin) serve(c net.Conn) {
	defer o.wg.Done()
	defer func() {
		if p := recover(); p != nil {
			o.fail(fmt.Errorf("panic: %v", p))
		}
		c.Close()
		o.mu.Lock()
		delete(o.conns, c)
		o.mu.Unlock()
	}()
	buf := make([]byte, maxMessage)
	have, err := fill(c, buf, 0, 4)
	if err != nil {
		return // closed before it said anything: a probe
	}
	if method := string(buf[:4]); method == "GET " || method == "POST" {
		err = o.serveHTTP(c, buf, have)
	} else {
		err = o.serveTunnel(c, buf, have)
	}
	if err != nil {
		o.fail(err)
	}
}

// fill reads until buf holds at least want bytes, and returns how many it does.
func fill(c net.Conn, buf []byte, have, want int) (int, error) {
	for have < want {
		n, err := c.Read(buf[have:])
		have += n
		if err != nil && have < want {
			return have, err
		}
	}
	return have, nil
}

func (o *origin) serveTunnel(c net.Conn, buf []byte, have int) error {
	for {
		var err error
		if have, err = fill(c, buf, have, headerSize); err != nil {
			if have > 0 && errors.Is(err, io.EOF) {
				return fmt.Errorf("lost data: the stream ends inside a header")
			}
			return nil
		}
		op, seed, size, err := parseHeader(buf)
		if err != nil {
			return err
		}
		switch op {
		case opSource:
			return o.source(c, seed, size)
		case opSink:
			return o.sink(c, seed, buf[headerSize:have])
		case opMessage:
			if size < headerSize || size > len(buf) {
				return fmt.Errorf("corrupt data: message of %d bytes", size)
			}
		default:
			return fmt.Errorf("corrupt data: unknown operation %q", op)
		}
		if have, err = fill(c, buf, have, size); err != nil {
			return nil
		}
		if have > size {
			return fmt.Errorf("corrupt data: %d bytes behind a message of %d", have-size, size)
		}
		if err := checkPattern(seed, 0, buf[headerSize:size]); err != nil {
			return err
		}
		if _, err := c.Write(pattern(answerSeed(seed), 0, size)); err != nil {
			return nil
		}
		have = 0
	}
}

func (o *origin) source(c net.Conn, seed uint32, rate int) error {
	start := time.Now()
	for pos := int64(0); ; pos += chunk {
		if _, err := c.Write(pattern(seed, pos, chunk)); err != nil {
			return nil
		}
		if rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(pos+chunk) * time.Second / time.Duration(rate))))
		}
	}
}

func (o *origin) sink(c net.Conn, seed uint32, first []byte) error {
	if err := checkPattern(seed, 0, first); err != nil {
		return err
	}
	buf := make([]byte, chunk)
	for pos := int64(len(first)); ; {
		n, err := c.Read(buf)
		if err := checkPattern(seed, pos, buf[:n]); err != nil {
			return err
		}
		pos += int64(n)
		o.sunk.Add(int64(n))
		if err != nil {
			return nil
		}
	}
}

// serveHTTP answers GET /SIZE/SEED with SIZE bytes of the pattern, keeping the
// connection as the request asks. It is no server for anybody but a proxy under
// test; net/http would cost more than the proxies do.
func (o *origin) serveHTTP(c net.Conn, buf []byte, have int) error {
	var out []byte
	for {
		end := 0
		for {
			if i := bytes.Index(buf[:have], []byte("\r\n\r\n")); i >= 0 {
				end = i + 4
				break
			}
			if have == len(buf) {
				return errors.New("request head is larger than 4 KB")
			}
			n, err := c.Read(buf[have:])
			if have += n; err != nil {
				return nil
			}
		}
		head := string(buf[:end])
		have = copy(buf, buf[end:have])
		if strings.Contains(head, "\r\nUpgrade: websocket\r\n") {
			return o.serveWebSocket(c, buf, have)
		}
		size, seed, upload, keep, err := parseRequest(head)
		if err != nil {
			return err
		}
		if upload > len(buf) {
			return fmt.Errorf("request body of %d bytes is larger than 4 KB", upload)
		}
		if have, err = fill(c, buf, have, upload); err != nil {
			return nil
		}
		if err := checkPattern(seed, 0, buf[:upload]); err != nil {
			return err
		}
		have = copy(buf, buf[upload:have])

		out = append(out[:0], "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nCache-Control: no-store\r\n"...)
		if !keep {
			out = append(out, "Connection: close\r\n"...)
		}
		out = append(out, "Content-Length: "...)
		out = strconv.AppendInt(out, size, 10)
		out = append(out, "\r\n\r\n"...)
		first := min(size, maxMessage)
		out = append(out, pattern(seed, 0, int(first))...)
		if _, err := c.Write(out); err != nil {
			return nil
		}
		for pos := first; pos < size; {
			n := min(size-pos, chunk)
			if _, err := c.Write(pattern(seed, pos, int(n))); err != nil {
				return nil
			}
			pos += n
		}
		if !keep {
			return nil
		}
	}
}

// serveWebSocket switches, and sends back what comes.
func (o *origin) serveWebSocket(c net.Conn, buf []byte, have int) error {
	if _, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		return nil
	}
	for {
		if _, err := c.Write(buf[:have]); err != nil {
			return nil
		}
		var err error
		if have, err = c.Read(buf); err != nil {
			return nil
		}
	}
}

// parseRequest reads the head of a GET or POST for /SIZE/SEED, in origin or absolute
// form, the length of its body, and whether the connection is to be kept.
func parseRequest(head string) (size int64, seed uint32, upload int, keep bool, err error) {
	line, fields, _ := strings.Cut(head, "\r\n")
	method, rest, _ := strings.Cut(line, " ")
	target, version, ok := strings.Cut(rest, " ")
	if !ok || method != "GET" && method != "POST" {
		return 0, 0, 0, false, fmt.Errorf("invalid request %q: GET or POST is expected", line)
	}
	path := target
	if rest, ok := strings.CutPrefix(target, "http://"); ok {
		_, path, _ = strings.Cut(rest, "/")
	}
	sizeText, seedText, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	size, err1 := strconv.ParseInt(sizeText, 10, 64)
	n, err2 := strconv.ParseUint(seedText, 10, 32)
	if err1 != nil || err2 != nil || size < 0 {
		return 0, 0, 0, false, fmt.Errorf("%q does not ask for /SIZE/SEED", target)
	}
	fields = strings.ToLower(fields)
	if _, length, ok := strings.Cut(fields, "content-length: "); ok {
		length, _, _ = strings.Cut(length, "\r\n")
		if upload, err = strconv.Atoi(length); err != nil {
			return 0, 0, 0, false, fmt.Errorf("request body: %w", err)
		}
	}
	keep = version == "HTTP/1.1" && !strings.Contains(fields, "connection: close") ||
		version == "HTTP/1.0" && strings.Contains(fields, "connection: keep-alive")
	return size, uint32(n), upload, keep, nil
}
