package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// loadClient makes requests in one of several ways, none of which tries again.
type loadClient struct {
	proxy, echo, web string
	kind             int
	kept             net.Conn // for the next request
	in               *bufio.Reader
}

// kinds of loadClient: a tunnel, a request on a new connection, and requests on
// a kept one, on both ways through the proxy.
const kinds = 4

func (c *loadClient) close() {
	if c.kept != nil {
		c.kept.Close()
		c.kept = nil
	}
}

func (c *loadClient) request(n int) error {
	switch c.kind {
	case 0:
		t, err := openTunnel(c.proxy, c.echo)
		if err != nil {
			return err
		}
		defer t.Close()
		if err := pingPong(t, fmt.Sprintf("exchange %d", n)); err != nil {
			return err
		}
		return errors.Join(t.(*net.TCPConn).CloseWrite(), atEnd(t))
	case 1:
		defer c.close()
		return c.ask("GET", "Connection: close\r\n")
	case 2:
		return c.ask("GET", "")
	}
	return c.ask("POST", "Content-Length: 0\r\n")
}

func (c *loadClient) ask(method, header string) error {
	if c.kept == nil {
		conn, err := net.Dial("tcp", c.proxy)
		if err != nil {
			return err
		}
		c.kept, c.in = conn, bufio.NewReader(conn)
	}
	_ = c.kept.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c.kept, "%s http://%s/ HTTP/1.1\r\nHost: x\r\n%s\r\n", method, c.web, header); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(body) != "page" {
		return fmt.Errorf("%s %q, %w", resp.Status, body, err)
	}
	if resp.Close {
		c.close()
	}
	return nil
}

// A process takes over the listening sockets under load, twice: none of 10,000
// requests is refused or broken, and tunnels that the former ones opened go on.
func TestRestartUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	const requests, workers = 10_000, 16
	at := listen(t, "127.0.0.1:0", echo)
	web := listen(t, "127.0.0.1:0", pages("page"))
	first := prepare(t, loopbackAllowed)
	proxySocket, public, admin := newSocket(t, "proxy"), newSocket(t, "public"), newSocket(t, "admin")
	proxyAddr := proxySocket.Addr().String()
	start := func() *process {
		t.Helper()
		p := &process{t: t, path: first.path, data: first.data, config: first.config, proxy: proxyAddr}
		m := newManager(t)
		list, names := descriptors(t, proxySocket, public, admin)
		cmd := passing(p.command("run", "-c", p.config, "--set", "proxy.listen=127.0.0.1:0"), list, names)
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path)
		p.spawn(cmd)
		p.await("its start", func() bool { said, _ := m.heard(); return said == "READY=1" })
		return p
	}
	now := start()
	var done, broken atomic.Int64
	var clients sync.WaitGroup
	for i := range workers {
		clients.Go(func() {
			c := &loadClient{proxy: proxyAddr, echo: at.String(), web: web.String(), kind: i % kinds}
			defer c.close()
			for {
				n := done.Add(1)
				if n > requests {
					return
				}
				if err := c.request(int(n)); err != nil {
					if broken.Add(1) < 10 {
						t.Errorf("request %d, of kind %d: %v", n, c.kind, err)
					}
					c.close()
				}
			}
		})
	}
	var before []*process
	var tunnels []net.Conn
	for i := range 2 {
		now.await("the load", func() bool { return done.Load() >= int64((i+1)*requests/3) })
		c, err := openTunnel(proxyAddr, at.String())
		if err != nil {
			t.Fatal(err)
		}
		tunnels = append(tunnels, c)
		next := start()
		now.signal(syscall.SIGTERM)
		before = append(before, now)
		now = next
	}
	clients.Wait()
	if n := broken.Load(); n > 0 {
		t.Errorf("%d of %d requests were broken", n, requests)
	}
	for i, c := range tunnels {
		_ = c.SetDeadline(time.Now().Add(patience))
		if err := pingPong(c, "still here"); err != nil {
			t.Errorf("tunnel %d: %v", i, err)
		}
		if err := errors.Join(c.(*net.TCPConn).CloseWrite(), atEnd(c)); err != nil {
			t.Errorf("tunnel %d: %v", i, err)
		}
		c.Close()
	}
	for _, p := range before {
		p.exits(0)
	}
	// The last one has the control socket.
	now.await("the control socket", func() bool { st, err := now.status(); return err == nil && !st.Draining })
	now.signal(syscall.SIGTERM)
	now.exits(0)
	list, bad := now.records()
	if len(list) != requests+len(tunnels) || bad != 0 {
		t.Errorf("%d records and %d bad lines, want %d and none", len(list), bad, requests+len(tunnels))
	}
	for _, r := range list {
		if r.Error != "" || r.Status != 200 {
			t.Errorf("record %+v", r)
		}
	}
	if s := now.stderr.String(); !strings.Contains(s, "sockets that were passed") {
		t.Errorf("log: %s", s)
	}
}
