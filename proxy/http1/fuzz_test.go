package http1

import (
	"bytes"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"espalier/policy"
)

// Whatever a client and an origin send, the connection ends in its time, without a panic,
// and nothing stays counted, open or waiting. rig.stop compares the records.
func FuzzConnection(f *testing.F) {
	const get = "GET http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\n"
	const post = "POST http://ORIGIN/ HTTP/1.1\r\nHost: ORIGIN\r\n"
	for _, client := range []string{
		get + "\r\n", get + "\r\n" + get + "Connection: close\r\n\r\n", "\r\n\n" + get + "Authorization: NTLM x\r\n\r\n" + get + "\r\n",
		post + "Content-Length: 5\r\n\r\nhello" + get + "\r\n", post + "Content-Length: 5\r\n\r\nhel",
		post + "Transfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nX: y\r\n\r\n" + get + "\r\n",
		post + "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n", post + "Transfer-Encoding: chunked\r\n\r\n5 1\r\n",
		get + "Connection: upgrade, x\r\nUpgrade: websocket\r\nX: y\r\n\r\nhello", "CONNECT ORIGIN HTTP/1.1\r\n\r\nhello",
		"CONNECT 127.0.0.2:80 HTTP/1.1\r\n\r\n" + get + "\r\n", "GET http://ORIGIN/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"HEAD http://ORIGIN HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"OPTIONS http://ORIGIN HTTP/1.1\r\nHost: x\r\nMax-Forwards: 0\r\n\r\n", "\x16\x03\x01", "GET\n", "TRACE http://ORIGIN/ HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		for _, origin := range []string{
			ok, ok + ok, "HTTP/1.1 100 Continue\r\n\r\n" + ok, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", "HTTP/1.1 200\r\n\r\nuntil the end",
			"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello", "HTTP/1.0 204 x\r\nContent-Length: 5\r\n\r\nhello",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
			"HTTP/1.1 408 x\r\nConnection: close\r\n\r\n", "SSH-2.0\r\n", "",
		} {
			f.Add([]byte(client), []byte(origin), byte(len(client)))
		}
	}
	const soon = 30 * time.Millisecond
	r := start(f, Times{Head: soon, KeepAlive: soon, Reply: soon, Stall: soon, HalfClosed: soon, Watch: time.Millisecond}, func(_ *Config, p *policy.Config) {
		p.Rules = []policy.Rule{
			{Name: "origin", Then: "allow", When: policy.When{Hosts: []string{"127.0.0.1"}}},
			{Name: "others", Then: "deny"},
		}
	})
	l := newOrigin(f)
	var says atomic.Pointer[[]byte]
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // an answer for whatever comes
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(limit))
				for b := make([]byte, 64<<10); ; {
					if _, err := c.Read(b); err != nil {
						return
					}
					if _, err := c.Write(*says.Load()); err != nil {
						return
					}
				}
			}()
		}
	}()
	f.Fuzz(func(t *testing.T, client, origin []byte, split byte) {
		says.Store(&origin)
		c, err := net.Dial("tcp", r.l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(limit))
		client = bytes.ReplaceAll(client, []byte("ORIGIN"), []byte(l.at()))
		at := min(int(split), len(client))
		_, _ = c.Write(client[:at])
		_, _ = c.Write(client[at:])
		_ = c.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Fatal("the connection does not end")
		}
		c.Close()
		await(t, "the end", func() bool {
			tunnels, requests, clients := r.cfg.Pipeline.Limits.Open()
			return r.cfg.Conns.Len() == 0 && tunnels == 0 && requests == 0 && clients == 0 && r.cfg.Room.Len() == 0
		})
		if n := r.cfg.Pipeline.Panics(); n > 0 {
			t.Fatalf("%d panics", n)
		}
	})
}
