package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"espalier/proxy/tunnel"
)

// hurried is a setup whose phases have shorter bounds than anything else in a
// test.
func hurried(change func(*Timeouts)) setup {
	var c setup
	change(&c.timeouts)
	return c
}

// short is as long as something slow may take in these tests.
const short = 100 * time.Millisecond

// expectCut waits for the end of the connection, in order or by a reset.
func (c *client) expectCut() {
	c.t.Helper()
	rest, err := io.ReadAll(c.in)
	if len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Errorf("received %q, %v; want the end", rest, err)
	}
}

// A client that sends its head slowly is left, on whatever way, at whatever byte.
func TestSlowHead(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		o := newRecording(t)
		for _, tt := range []struct{ name, first, part string }{
			{"a byte", "", "G"},
			{"a method", "", "GET "},
			{"half a line", "", "GET http://a.test/ HT"},
			{"a header", "", "GET http://a.test/ HTTP/1.1\r\nHost: x\r\n"},
			{"all but the last byte", "", "GET http://a.test/ HTTP/1.1\r\nHost: x\r\n\r"},
			{"CONNECT", "", "CONNECT a.test:443 HTTP/1.1\r\nHost: x\r\n"},
			{"empty lines", "", "\r\n\r\n"},
			{"of the second request", get(o, "/", ""), "GET http://a.test/ HTTP/1.1\r\n"},
			{"of the second request, the general way", get(o, "/", "TE: trailers\r\n"), "GET http://a.test/ HTTP/1.1\r\n"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				r := start(t, hurried(func(b *Timeouts) { b.Head = short }))
				c := r.dial()
				if c.send(tt.first + tt.part); tt.first != "" {
					if a := c.answer("GET"); a.body != "GET /" {
						t.Fatalf("%s %q", a.Status, a.body)
					}
				}
				c.expectCut()
			})
		}
	})
}

// A kept connection on which nothing comes is closed.
func TestSilentClient(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		o := newRecording(t)
		for _, fields := range []string{"", "TE: trailers\r\n"} {
			r := start(t, hurried(func(b *Timeouts) { b.KeepAlive = short }))
			c := r.dial()
			c.send(get(o, "/", fields))
			if a := c.answer("GET"); a.body != "GET /" {
				t.Fatalf("%s %q", a.Status, a.body)
			}
			c.expectCut()
		}
	})
}

// An upload that stalls is answered, and its connections end.
func TestSlowUpload(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		for _, tt := range []struct {
			name, part string
			status     int
		}{
			{"of known length", "Content-Length: 10\r\n\r\nhalf", 408},
			{"before its first byte", "Content-Length: 10\r\n\r\n", 408},
			{"in a chunk", "Transfer-Encoding: chunked\r\n\r\na\r\nhalf", 408},
			{"between chunks", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", 408},
			{"in a chunk's size", "Transfer-Encoding: chunked\r\n\r\n4", 408},
			{"in trailers", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nA: b\r\n", 408},
		} {
			t.Run(tt.name, func(t *testing.T) {
				ended := make(chan error, 1)
				o := newOrigin(t, func(c net.Conn) {
					_, err := io.Copy(io.Discard, c)
					ended <- err
				})
				r := start(t, hurried(func(b *Timeouts) { b.Stall = short }))
				c := r.dial()
				c.send("POST http://" + o.String() + "/ HTTP/1.1\r\nHost: x\r\n" + tt.part)
				if a := c.answer("POST"); a.StatusCode != tt.status || !a.Close || a.Header.Get("Proxy-Status") != "espalier; error=http_request_error" {
					t.Errorf("%s %v", a.Status, a.Header)
				}
				c.expectCut()
				<-ended
				if rec := r.record(); rec.Status != tt.status || !strings.HasPrefix(rec.Error, "read the request body: ") {
					t.Errorf("record %+v", rec)
				}
			})
		}
	})
}

// A client that does not read what it asked for holds nothing for long.
func TestClientThatDoesNotRead(t *testing.T) { eachLane(t, clientThatDoesNotRead) }

func clientThatDoesNotRead(t *testing.T, l lane) {
	for name, head := range map[string]string{
		"of known length": fmt.Sprintf("Content-Length: %d\r\n\r\n", 1<<40), "until close": "\r\n",
		"chunked": "Transfer-Encoding: chunked\r\n\r\n40000000\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			for _, fields := range []string{"", "TE: trailers\r\n"} {
				ended := make(chan struct{})
				o := l.newOrigin(t, func(c net.Conn) {
					defer close(ended)
					_, _ = readHead(bufio.NewReader(c))
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+head)
					for buf := make([]byte, 64<<10); ; {
						if _, err := c.Write(buf); err != nil {
							return
						}
					}
				})
				r := l.start(t, hurried(func(b *Timeouts) { b.Stall = 4 * short }))
				c := l.dial(r, o)
				c.send(l.get(o, "/", fields))
				<-ended // although the client has neither read nor left
				if rec := l.record(r); !strings.HasPrefix(rec.Error, "write to client: ") {
					t.Errorf("record %+v", rec)
				}
			}
		})
	}
}

// Destinations that do not answer, or stop in the middle.
func TestSlowOrigin(t *testing.T) { eachLane(t, slowOrigins) }

func slowOrigins(t *testing.T, l lane) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, tt := range []struct {
		name, part string
		status     int // 0: the answer is cut
	}{
		{"no byte", "", 504},
		{"half a status line", "HTTP/1.", 504},
		{"half a head", ok + "A: b\r\n", 504},
		{"an interim answer", "HTTP/1.1 102 Processing\r\n\r\n", 504},
		{"half a body", ok + "Content-Length: 10\r\n\r\nhalf", 0},
		{"half a chunk", ok + "Transfer-Encoding: chunked\r\n\r\na\r\nhalf", 0},
		{"no more chunks", ok + "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", 0},
		{"half a body until close", ok + "\r\nhalf", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, fields := range []string{"", "TE: trailers\r\n"} {
				ended := make(chan struct{})
				o := l.newOrigin(t, func(c net.Conn) {
					defer close(ended)
					in := bufio.NewReader(c)
					_, _ = readHead(in)
					_, _ = io.WriteString(c, tt.part)
					_, _ = in.ReadByte()
				})
				r := l.start(t, hurried(func(b *Timeouts) { b.Reply, b.Stall = short, short }))
				c := l.dial(r, o)
				c.send(l.get(o, "/", fields))
				resp, err := http.ReadResponse(c.in, nil)
				for err == nil && resp.StatusCode == 102 {
					resp, err = http.ReadResponse(c.in, nil)
				}
				if tt.status != 0 {
					if err != nil || resp.StatusCode != tt.status || resp.Header.Get("Proxy-Status") != "espalier; error=http_response_timeout" {
						t.Errorf("%v, %v", resp, err)
					}
				} else {
					if err == nil {
						_, err = io.ReadAll(resp.Body)
					}
					if err == nil {
						t.Error("a cut answer looks whole")
					}
				}
				<-ended
				if rec := l.record(r); rec.Error == "" || rec.Action != "error" {
					t.Errorf("record %+v", rec)
				}
			}
		})
	}
}

// A destination that does not take an upload is left.
func TestOriginThatDoesNotRead(t *testing.T) {
	leave := make(chan struct{})
	o := newOrigin(t, func(c net.Conn) {
		_, _ = readHead(bufio.NewReader(c))
		<-leave
	})
	r := start(t, hurried(func(b *Timeouts) { b.Stall = 4 * short }), false)
	c := r.dial()
	c.send("POST http://" + o.String() + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1099511627776\r\n\r\n")
	go func() {
		buf := make([]byte, 64<<10)
		for {
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}()
	resp, err := http.ReadResponse(c.in, nil)
	if err == nil && resp.StatusCode != 504 {
		t.Errorf("%s", resp.Status)
	}
	c.Close()
	close(leave)
	if rec := r.record(); rec.Status != 504 || rec.Action != "error" {
		t.Errorf("record %+v", rec)
	}
}

// A WebSocket that carries nothing ends as an idle tunnel does.
func TestIdleWebSocket(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := httpOrigin(t, websocket.Handler(func(c *websocket.Conn) { _, _ = io.Copy(c, c) }).ServeHTTP)
		r := start(t, setup{idle: 3 * short})
		c := r.dial()
		c.send("GET http://" + at + "/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://" + at +
			"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if resp, err := http.ReadResponse(c.in, nil); err != nil || resp.StatusCode != 101 {
			t.Fatal(resp, err)
		}
		c.send("\x81\x85\x00\x00\x00\x00hello")
		c.expect("\x81\x05hello")
		c.expectCut()
		if rec := r.record(); rec.Error != tunnel.ErrIdle.Error() || rec.Status != 101 {
			t.Errorf("record %+v", rec)
		}
	})
}

// Half a TLS hello is refused like a whole one.
func TestHalfTLSHello(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		for _, part := range []string{"\x16", "\x16\x03\x01\x02\x00\x01\x00"} {
			r := start(t, setup{})
			c := r.dial()
			c.send(part)
			if got, err := io.ReadAll(c.in); err != nil || string(got) != "\x15\x03\x01\x00\x02\x02\x28" {
				t.Errorf("received % x, %v", got, err)
			}
		}
	})
}
