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
	first, _, err := b.inspectAll(ctx, labNames, before)
	if err != nil {
		return nil, err
	}
	n := b.load.inspected
	cost, wall, err := b.inspectAll(ctx, n, before)
	if err != nil {
		return nil, err
	}
	return values{
		"inspect-new-us": float64(first.Microseconds()) / labNames,
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

// inspectOne is one intercepted connection.
func (b *bed) inspectOne(ctx context.Context, i int) error {
	c, err := b.dial(ctx, i)
	if err != nil {
		return err
	}
	defer c.Close()
	_, port, _ := net.SplitHostPort(b.origin.secureAddr)
	name := labName(i)
	if err := b.connect(c, net.JoinHostPort(name, port)); err != nil {
		return err
	}
	// Each proxy has a CA of its own; that it is not the origin's certificate says
	// that it intercepts.
	// A key exchange that all of them know, so that all do the same work.
	conn := tls.Client(c, &tls.Config{
		ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, CurvePreferences: []tls.CurveID{tls.X25519},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	if bytes.Equal(conn.ConnectionState().PeerCertificates[0].Raw, b.origin.cert.Certificate[0]) {
		return errors.New("the certificate is the origin's: nothing was intercepted")
	}
	in := bufio.NewReader(conn)
	for r := range inspectRequests {
		seed := uint32(i*inspectRequests + r)
		if _, err := io.WriteString(conn, "GET /"+strconv.Itoa(httpSmall)+"/"+strconv.FormatUint(uint64(seed), 10)+
			" HTTP/1.1\r\nHost: "+net.JoinHostPort(name, port)+"\r\nUser-Agent: espalier-bench\r\nAccept: */*\r\n\r\n"); err != nil {
			return err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK || len(body) != httpSmall {
			return fmt.Errorf("answered %q with %d bytes: %.200s", resp.Status, len(body), body)
		}
		if err := checkPattern(seed, 0, body); err != nil {
			return err
		}
	}
	return conn.Close()
}
