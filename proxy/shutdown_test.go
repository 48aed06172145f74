package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"espalier/policy"
)

// shutdown starts to drain, and waits until the listener is closed. The channel
// gets the number of tunnels that were cut.
func (r *rig) shutdown(ctx context.Context) <-chan int {
	r.t.Helper()
	cut := make(chan int, 1)
	go func() { cut <- r.server.Shutdown(ctx) }()
	await(r.t, "the listener to be closed", func() bool {
		c, err := net.Dial("tcp", r.listener.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	return cut
}

// slowOrigin answers when it is let.
func slowOrigin(t *testing.T) (addr string, asked <-chan struct{}, answer chan<- struct{}) {
	in, let := make(chan struct{}, 1), make(chan struct{})
	o := newOrigin(t, func(c net.Conn) {
		if _, err := readHead(bufio.NewReader(c)); err != nil {
			return
		}
		in <- struct{}{}
		<-let
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
	})
	return o.String(), in, let
}

// The listener is closed first. What is open goes on to its end.
func TestShutdownDrains(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		for _, method := range []string{"GET", "POST"} { // the short way, and the general one
			t.Run(method, func(t *testing.T) {
				at := newOrigin(t, echo)
				slow, asked, let := slowOrigin(t)
				r := start(t, setup{})
				tunnel, asking := r.dial(), r.dial()
				var waiting *client
				if !r.netHTTP { // net/http would wait 5 s for its request
					waiting = r.dial()
				}
				tunnel.send(connectTo(at.String()) + "a")
				tunnel.expect(established + "a")
				asking.send(method + " http://" + slow + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
				<-asked

				cut := r.shutdown(t.Context())
				if waiting != nil {
					waiting.expectEnd() // it has asked nothing, and should go to the next proxy
				}
				tunnel.send("b")
				tunnel.expect("b")
				close(let)
				if a := asking.answer(method); a.body != "ok" {
					t.Errorf("the request under way: %s %q", a.Status, a.body)
				}
				asking.expectEnd() // not kept
				if !r.server.Draining() || r.server.Tunnels() != 1 {
					t.Errorf("draining %t, %d tunnels", r.server.Draining(), r.server.Tunnels())
				}
				tunnel.finish()
				tunnel.expectEnd()
				if n := <-cut; n != 0 {
					t.Errorf("%d tunnels were cut", n)
				}
				list := r.stop()
				if len(list) != 2 || list[0].Status != 200 || list[0].Error != "" || list[1].Up != 2 || list[1].Error != "" {
					t.Errorf("records %+v", list)
				}
			})
		}
	})
}

// Where another process takes over the listening socket, clients that connected
// before are still answered, and kept connections end with an answer.
func TestShutdownOfSharedSocket(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		web := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		r := start(t, setup{shared: true})
		get := "GET http://" + web.String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n"
		post := "POST http://" + web.String() + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
		toTunnel, toGet := r.dial(), r.dial()
		var silent *client
		if !r.netHTTP { // net/http would wait 5 s for its request
			silent = r.dial()
		}
		// Connections are accepted in their order, so these being answered says that
		// the others have been accepted.
		keptShort, keptGeneral := r.dial(), r.dial()
		keptShort.send(get)
		if a := keptShort.answer("GET"); a.body != "ok" || a.Close {
			t.Errorf("%s %q, close %t", a.Status, a.body, a.Close)
		}
		keptGeneral.send(post)
		if a := keptGeneral.answer("POST"); a.body != "ok" || a.Close {
			t.Errorf("%s %q, close %t", a.Status, a.body, a.Close)
		}
		cut := make(chan int, 1)
		go func() { cut <- r.server.Shutdown(t.Context()) }()
		await(t, "Shutdown", r.server.Draining)
		toTunnel.send(connectTo(at.String()) + "a")
		toTunnel.expect(established + "a")
		for _, c := range []*client{toGet, keptShort} {
			c.send(get)
			if a := c.answer("GET"); a.body != "ok" || !a.Close {
				t.Errorf("%s %q, close %t", a.Status, a.body, a.Close)
			}
			c.expectEnd()
		}
		keptGeneral.send(post)
		if a := keptGeneral.answer("POST"); a.body != "ok" || !a.Close {
			t.Errorf("%s %q, close %t", a.Status, a.body, a.Close)
		}
		keptGeneral.expectEnd()
		if silent != nil {
			silent.expectEnd() // it had its time
		}
		toTunnel.send("b")
		toTunnel.expect("b")
		toTunnel.finish()
		toTunnel.expectEnd()
		if n := <-cut; n != 0 {
			t.Errorf("%d tunnels were cut", n)
		}
		for _, rec := range r.stop() {
			if rec.Status != 200 || rec.Error != "" {
				t.Errorf("record %+v", rec)
			}
		}
		if len(r.records) != 6 {
			t.Errorf("%d records, want 6", len(r.records))
		}
	})
}

// What is left at the deadline is cut, with a record each.
func TestShutdownCuts(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		slow, asked, let := slowOrigin(t)
		defer close(let)
		socket := httpOrigin(t, websocket.Handler(func(c *websocket.Conn) { _, _ = io.Copy(c, c) }).ServeHTTP)
		r := start(t, setup{})
		tunnel, asking, talking := r.dial(), r.dial(), r.dial()
		tunnel.send(connectTo(at.String()) + "a")
		tunnel.expect(established + "a")
		asking.send("POST http://" + slow + "/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
		<-asked
		talking.send("GET http://" + socket + "/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://x\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if resp, err := http.ReadResponse(talking.in, nil); err != nil || resp.StatusCode != 101 {
			t.Fatalf("%v %v", resp, err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		cut := r.shutdown(ctx)
		cancel()
		if n := <-cut; n != 2 { // a WebSocket is one, too
			t.Errorf("%d tunnels were cut, want 2", n)
		}
		for _, c := range []*client{tunnel, asking, talking} {
			if rest, _ := io.ReadAll(c.in); len(rest) > 0 {
				t.Errorf("received %q", rest)
			}
		}
		got := map[policy.Action]int{}
		for _, rec := range r.stop() {
			got[rec.Action]++
			if rec.Status != 101 && rec.Error == "" || rec.Action == policy.Tunnel && !strings.Contains(rec.Error, "shutdown") {
				t.Errorf("record %+v", rec)
			}
		}
		if fmt.Sprint(got) != "map[error:1 forward:1 tunnel:1]" {
			t.Errorf("records %+v", r.records)
		}
	})
}

// Of the tunnels that are left those of push are cut last.
func TestShutdownCutsPushLast(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOriginAt(t, fmt.Sprintf("127.78.%d.%d:5223", os.Getpid()>>8&0xff, os.Getpid()&0xff), echo)
		r := start(t, setup{hosts: map[string]string{"courier.push.apple.com": at.Addr().String()}})
		for _, target := range []string{"courier.push.apple.com:5223", "courier.push.apple.com:5223", at.String(), "courier.push.apple.com:5223"} {
			c := r.dial()
			c.send(connectTo(target) + "a")
			c.expect(established + "a")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if cut := <-r.shutdown(ctx); cut != 4 {
			t.Errorf("%d tunnels were cut, want 4", cut)
		}
		var got []string
		for _, rec := range r.stop() {
			if !strings.Contains(rec.Error, "shutdown") {
				t.Errorf("record %+v", rec)
			}
			got = append(got, rec.Service)
		}
		if want := []string{"other", "push", "push", "push"}; !slices.Equal(got, want) {
			t.Errorf("cut in the order %v, want %v", got, want)
		}
	})
}

// A Server that is shut down serves no more, also where Shutdown came first.
func TestServeAfterShutdown(t *testing.T) {
	r := start(t, setup{}, false)
	r.stop()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.server.Serve(l); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is open")
	}
}

// A listener that fails is an error.
func TestServeFails(t *testing.T) {
	r := start(t, setup{}, true)
	_ = r.listener.Close()
	err := <-r.served
	if err == nil || !strings.Contains(err.Error(), "serve "+r.listener.Addr().String()) {
		t.Errorf("Serve: %v", err)
	}
	r.served <- nil
}
