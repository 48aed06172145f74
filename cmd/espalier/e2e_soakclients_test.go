package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"espalier/policy"
)

// resting rests up to d, so that clients do not march in step; false at the end.
func (s *soaker) resting(d time.Duration) bool {
	select {
	case <-s.stop:
		return false
	case <-time.After(d/2 + rand.N(d/2)):
		return true
	}
}

func (s *soaker) dial() (net.Conn, error) {
	c, err := net.Dial("tcp", s.p.proxy)
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

// tunnel opens one.
func (s *soaker) tunnel(i int) (net.Conn, error) {
	return openTunnel(s.p.proxy, fmt.Sprintf("%d.soak.apple.com:%d", i, s.tunnels))
}

// exchange sends text through a tunnel to an echo and notes it.
func (s *soaker) exchange(c net.Conn, text string) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if err := pingPong(c, text); err != nil {
		return err
	}
	s.add(soakTunnels, "", int64(len(text)), int64(len(text)))
	return nil
}

// ended notes the end of a tunnel.
func (s *soaker) ended() { s.add(soakTunnels, policy.Tunnel, 0, 0) }

// idle keeps a tunnel that carries next to nothing.
func (s *soaker) idle(i int) error {
	c, err := s.tunnel(i)
	if err != nil {
		return err
	}
	defer c.Close()
	for more := true; more; more = s.resting(20 * time.Second) {
		if err := s.exchange(c, "still here"); err != nil {
			return err
		}
	}
	defer s.ended()
	return errors.Join(c.(*net.TCPConn).CloseWrite(), atEnd(c))
}

const resetCommand = "reset!"

// busy opens tunnels that carry something and end in order, by a reset of the
// origin, or by one of the client.
func (s *soaker) busy(i int) error {
	text := strings.Repeat(fmt.Sprintf("%d;", i), 10+97*i)
	for n := i; ; n++ {
		c, err := s.tunnel(i)
		if err != nil {
			return err
		}
		for range 5 {
			if err := s.exchange(c, text); err != nil {
				return err
			}
			if !s.resting(300 * time.Millisecond) {
				break
			}
		}
		switch n % 3 {
		case 0:
			err = errors.Join(c.(*net.TCPConn).CloseWrite(), atEnd(c))
		case 1:
			if _, err = io.WriteString(c, resetCommand); err == nil {
				s.add(soakTunnels, "", int64(len(resetCommand)), 0)
				if _, rerr := c.Read(make([]byte, 1)); !errors.Is(rerr, syscall.ECONNRESET) {
					err = fmt.Errorf("after the origin's reset: %w", rerr)
				}
			}
		case 2:
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		c.Close()
		s.ended()
		if err != nil || !s.resting(time.Millisecond) {
			return err
		}
	}
}

// echoOrReset echoes, and resets when it is told to.
func echoOrReset(c net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if strings.HasSuffix(string(buf[:n]), resetCommand) {
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

const soakPage = 4000

// soakOrigin answers requests as their path says.
func soakOrigin(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		switch r.URL.Path {
		case "/cut":
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", soakPage)
			_, _ = io.CopyN(c, pattern{}, soakPage/4)
			return
		case "/reset":
			_ = c.(*net.TCPConn).SetLinger(0)
			return
		case "/socket":
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			_, _ = io.Copy(c, in)
			return
		case "/endless":
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			_, _ = io.Copy(c, pattern{})
			return
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", soakPage); err != nil {
			return
		}
		if _, err := io.CopyN(c, pattern{}, soakPage); err != nil {
			return
		}
	}
}

// plainKinds are the requests that clients make in turn: to a path, with a body,
// and what becomes of them.
var plainKinds = []struct {
	method, path string
	upload       int
	slow         bool // the request comes in pieces
	action       policy.Action
	status       int
	down         int64
}{
	{method: "GET", path: "/", action: policy.Forward, status: 200, down: soakPage},
	{method: "POST", path: "/", action: policy.Forward, status: 200, down: soakPage},
	{method: "POST", path: "/", upload: 500_000, action: policy.Forward, status: 200, down: soakPage},
	{method: "GET", path: "/", slow: true, action: policy.Forward, status: 200, down: soakPage},
	{method: "GET", path: "/cut", action: policy.Error, status: 200, down: soakPage / 4},
	{method: "POST", path: "/cut", action: policy.Error, status: 200, down: soakPage / 4},
	{method: "GET", path: "/reset", action: policy.Error, status: 502},
	{method: "POST", path: "/reset", upload: 1000, action: policy.Error, status: 502},
}

// plainRequests makes requests of plainKinds, on connections that stay where they can.
func (s *soaker) plainRequests(i int) error {
	var c net.Conn
	var in *bufio.Reader
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for n := i; s.resting(400 * time.Millisecond); n++ {
		k := plainKinds[n%len(plainKinds)]
		if c == nil {
			var err error
			if c, err = s.dial(); err != nil {
				return err
			}
			in = bufio.NewReader(c)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		head := fmt.Sprintf("%s http://127.0.0.1:%d%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", k.method, s.plain, k.path, k.upload)
		if k.slow {
			if _, err := io.WriteString(c, head[:len(head)/2]); err != nil {
				return err
			}
			s.resting(time.Second)
			head = head[len(head)/2:]
		}
		if _, err := io.WriteString(c, head+strings.Repeat("u", k.upload)); err != nil {
			return err
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return fmt.Errorf("%s %s: %w", k.method, k.path, err)
		}
		body, err := io.ReadAll(resp.Body)
		if resp.StatusCode != k.status || k.status == 200 && int64(len(body)) != k.down || (err != nil) != (k.path == "/cut") {
			return fmt.Errorf("%s %s: %s, %d bytes, %w", k.method, k.path, resp.Status, len(body), err)
		}
		s.add(soakPlain, k.action, int64(k.upload), k.down)
		if err != nil || resp.Close {
			c.Close()
			c = nil
		}
	}
	return nil
}

// refusals asks for what is denied, for what is no name, and for names whose
// server has hiccups.
func (s *soaker) refusals(i int) error {
	for n := i; s.resting(500 * time.Millisecond); n++ {
		target, status, action := "no.denied.example:443", 403, policy.Deny
		switch n % 4 {
		case 1:
			target = "10.0.0.1:443"
		case 2:
			target = "[no.name]:443"
		case 3:
			target, status, action = fmt.Sprintf("%d.hiccup.example:%d", s.distinct.Add(1), s.tunnels), 200, policy.Tunnel
		}
		c, err := s.dial()
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
		if err != nil {
			return err
		}
		switch got := resp.StatusCode; {
		case action == policy.Tunnel && got == 502:
			action = policy.Error
		case got != status:
			return fmt.Errorf("CONNECT %s: %s", target, resp.Status)
		}
		c.Close()
		s.add(soakPlain, action, 0, 0)
	}
	return nil
}

// answer is a name server's, which fails now and then.
func (s *soaker) answer(q *dns.Msg, _ bool) *dns.Msg {
	if s.hiccup.Load() {
		return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	return addresses(q, "127.0.0.1")
}

// webSocket exchanges frames.
func (s *soaker) webSocket(int) error {
	for {
		c, err := s.dial()
		if err != nil {
			return err
		}
		fmt.Fprintf(c, "GET http://127.0.0.1:%d/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", s.plain)
		var head []byte
		for b := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, b...) {
			if _, err := c.Read(b); err != nil {
				return fmt.Errorf("WebSocket: %w", err)
			}
		}
		if !strings.HasPrefix(string(head), "HTTP/1.1 101 ") {
			return fmt.Errorf("WebSocket: %q", head)
		}
		var n int64
		for range 5 {
			_ = c.SetDeadline(time.Now().Add(patience))
			if err := pingPong(c, "frame"); err != nil {
				return err
			}
			n += int64(len("frame"))
			if !s.resting(300 * time.Millisecond) {
				break
			}
		}
		c.Close()
		s.add(soakPlain, policy.Forward, n, n)
		if !s.resting(time.Millisecond) {
			return nil
		}
	}
}

// abort resets downloads in full flow, in tunnels and plain, sometimes after it
// has read slowly.
func (s *soaker) abort(i int) error {
	target := fmt.Sprintf("%s:%d", pushHost, pushPort)
	for n := i; s.resting(500 * time.Millisecond); n++ {
		var c net.Conn
		var err error
		action, request := policy.Tunnel, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n"
		if n%2 == 0 {
			c, err = openTunnel(s.p.proxy, target)
		} else {
			action, request = policy.Forward, "GET http://"+target+"/endless HTTP/1.1\r\nHost: x\r\n\r\n"
			c, err = s.dial()
		}
		if err != nil {
			return err
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, request)
		var down int64
		for range 4 {
			m, err := io.CopyN(io.Discard, c, 100_000)
			if err != nil {
				return err
			}
			down += m
			if n%3 == 0 {
				s.resting(200 * time.Millisecond)
			}
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
		s.add(soakCut, action, 0, down)
	}
	return nil
}
