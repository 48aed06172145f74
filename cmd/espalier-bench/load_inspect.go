//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// inspectRequests is how many requests a connection of inspect carries.
const inspectRequests = 4

// runInspect opens intercepted connections, each with a whole TLS handshake and
// some requests. It yields the proxy's CPU for one: the first to each name, for
// which it makes a certificate, and those after it.
func runInspect(ctx context.Context, b *bed) (values, error) {
	before, err := b.proc.fds(b.pid)
	if err != nil {
		return nil, err
	}
	n := b.load.inspected
	names := min(labNames, n)
	first, _, err := b.inspectAll(ctx, names, before)
	if err != nil {
		return nil, err
	}
	cost, wall, err := b.inspectAll(ctx, n, before)
	if err != nil {
		return nil, err
	}
	return values{
		"inspect-new-us": float64(first.Microseconds()) / float64(names),
		"inspect-us":     float64(cost.Microseconds()) / float64(n),
		"inspect-rate":   float64(n) / wall.Seconds(),
	}, nil
}

// inspectAll uses n intercepted connections, and returns the proxy's CPU for them
// all and the time it took.
func (b *bed) inspectAll(ctx context.Context, n, fds int) (cpu, wall time.Duration, err error) {
	cpu0, err := b.proc.cpu(b.pid)
	if err != nil {
		return 0, 0, err
	}
	start := time.Now()
	g := newGroup(ctx)
	var next atomic.Int64
	for range b.load.concurrency {
		g.goDo(func(ctx context.Context) error {
			for {
				i := int(next.Add(1))
				if i > n {
					return nil
				}
				if err := b.inspectOne(ctx, i); err != nil {
					return fmt.Errorf("connection %d of %d: %w", i, n, err)
				}
			}
		})
	}
	if err := g.wait(); err != nil {
		return 0, 0, err
	}
	wall = time.Since(start)
	if err := b.settle(ctx, fds); err != nil {
		return 0, 0, err
	}
	cpu1, err := b.proc.cpu(b.pid)
	return cpu1 - cpu0, wall, err
}

// inspectOne is one intercepted connection; or several, where the proxy closes
// before all requests are answered.
func (b *bed) inspectOne(ctx context.Context, i int) error {
	_, port, _ := net.SplitHostPort(b.origin.secureAddr)
	host := net.JoinHostPort(labName(i), port)
	for r := 0; r < inspectRequests; {
		conn, err := b.intercepted(ctx, i, host)
		if err != nil {
			return err
		}
		in := bufio.NewReader(conn)
		for closed := false; r < inspectRequests && !closed; r++ {
			if closed, err = ask(conn, in, host, uint32(i*inspectRequests+r)); err != nil {
				conn.Close()
				return err
			}
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	return nil
}

// intercepted opens a connection to host that the proxy intercepts.
func (b *bed) intercepted(ctx context.Context, i int, host string) (*tls.Conn, error) {
	c, err := b.dial(ctx, i)
	if err != nil {
		return nil, err
	}
	if err := b.connect(c, host); err != nil {
		c.Close()
		return nil, err
	}
	// Each proxy has a CA of its own; that it is not the origin's certificate says
	// that it intercepts. All know this key exchange, so that all do the same work.
	conn := tls.Client(c, &tls.Config{
		ServerName: labName(i), InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, CurvePreferences: []tls.CurveID{tls.X25519},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	if bytes.Equal(conn.ConnectionState().PeerCertificates[0].Raw, b.origin.cert.Certificate[0]) {
		conn.Close()
		return nil, errors.New("the certificate is the origin's: nothing was intercepted")
	}
	return conn, nil
}

// ask makes a request and checks the answer. closed says that it is the last on
// the connection.
func ask(conn net.Conn, in *bufio.Reader, host string, seed uint32) (closed bool, err error) {
	if _, err := io.WriteString(conn, "GET /"+strconv.Itoa(httpSmall)+"/"+strconv.FormatUint(uint64(seed), 10)+
		" HTTP/1.1\r\nHost: "+host+"\r\nUser-Agent: espalier-bench\r\nAccept: */*\r\n\r\n"); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, err
	}
	if resp.StatusCode != http.StatusOK || len(body) != httpSmall {
		return false, fmt.Errorf("answered %q with %d bytes: %.200s", resp.Status, len(body), body)
	}
	return resp.Close, checkPattern(seed, 0, body)
}
