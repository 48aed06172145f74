package proxy

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// A parent that takes a plain request and says nothing, nor when it is asked for
// itself, keeps that one, whose origin may be long-polled, and no other.
func TestParentIsSilent(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		asked, doubted := make(chan string, 8), make(chan struct{}, 8)
		silent := newOrigin(t, func(c net.Conn) {
			in := bufio.NewReader(c)
			head, err := readHead(in)
			if err != nil {
				return
			}
			line, _, _ := strings.Cut(head, "\r\n")
			asked <- line
			_, _ = io.Copy(io.Discard, in)
			if strings.HasPrefix(line, "OPTIONS ") {
				doubted <- struct{}{}
			}
		})
		second := newOrigin(t, func(c net.Conn) {
			in := bufio.NewReader(c)
			for {
				if _, err := readHead(in); err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")
			}
		})
		r := start(t, setup{parent: "http://" + silent.String() + ",http://" + second.String(), connectTimeout: time.Second / 4, timeouts: Timeouts{HalfClosed: short}})
		first := r.dial()
		first.send("GET http://name.example/ HTTP/1.1\r\nHost: name.example\r\n\r\n")
		for _, want := range []string{"GET http://name.example/ HTTP/1.1", "OPTIONS * HTTP/1.1"} {
			select {
			case got := <-asked:
				if got != want {
					t.Errorf("the parent was asked %q, want %q", got, want)
				}
			case <-time.After(limit):
				t.Fatalf("the parent was not asked %q", want)
			}
		}
		select {
		case <-doubted:
		case <-time.After(limit):
			t.Fatal("the parent's answer is waited for")
		}
		for _, method := range []string{"GET", "POST"} {
			c := r.dial()
			c.send(method + " http://name.example/ HTTP/1.1\r\nHost: name.example\r\nContent-Length: 0\r\n\r\n")
			if a := c.answer(method); a.StatusCode != 200 {
				t.Errorf("%s: %d", method, a.StatusCode)
			}
		}
		first.Close()
	})
}

// A parent that takes connections and closes them, as a load balancer without
// servers does, is found out: the request goes by another, later ones too, and the
// record blames it where there is none.
func TestParentCloses(t *testing.T) {
	closes := func(t *testing.T) netip.AddrPort {
		return newOrigin(t, func(c net.Conn) {
			buf := make([]byte, 1)
			_, _ = c.Read(buf) // nothing is answered
		})
	}
	t.Run("another answers", func(t *testing.T) {
		second := newOrigin(t, func(c net.Conn) {
			in := bufio.NewReader(c)
			for {
				if _, err := readHead(in); err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")
			}
		})
		r := start(t, setup{parent: "http://" + closes(t).String() + ",http://" + second.String()}, false)
		for range 4 {
			c := r.dial()
			c.send("GET http://name.example/ HTTP/1.1\r\nHost: name.example\r\n\r\n")
			if a := c.answer("GET"); a.StatusCode != 200 {
				t.Errorf("%d", a.StatusCode)
			}
			c.Close()
		}
		for _, rec := range r.stop() {
			if rec.Upstream != second || rec.Error != "" {
				t.Errorf("record %+v", rec)
			}
		}
	})
	t.Run("there is no other", func(t *testing.T) {
		everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
			parent := closes(t).String()
			r := start(t, setup{parent: "http://" + parent})
			for _, method := range []string{"GET", "POST", "GET"} {
				c := r.dial()
				c.send(method + " http://name.example/ HTTP/1.1\r\nHost: name.example\r\nContent-Length: 0\r\n\r\n")
				if a := c.answer(method); a.StatusCode != 502 || a.Header.Get("Proxy-Status") != "espalier; error=destination_unavailable" {
					t.Errorf("%s: %d, %q", method, a.StatusCode, a.Header.Get("Proxy-Status"))
				}
				c.Close()
			}
			for _, rec := range r.stop() {
				if !strings.HasPrefix(rec.Error, "parent proxy "+parent+": it closed the connection without an answer") {
					t.Errorf("record %+v", rec)
				}
			}
		})
	})
}
