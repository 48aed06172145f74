package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"espalier/policy"
)

// Clients that vanish leave a record of what they had, and nothing that stays.
func TestVanishingClients(t *testing.T) {
	const large = 64 << 20 // more than buffers take
	received := make(chan int64, 1)
	origin := listen(t, "127.0.0.1:0", func(c net.Conn) {
		in := bufio.NewReader(c)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if r.Method == http.MethodPost {
			n, _ := io.Copy(io.Discard, r.Body)
			received <- n
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", large)
		_, _ = io.CopyN(c, pattern{}, large)
	})
	p := launch(t, "egress: {allow: [loopback], connect_timeout: 1s, dns: [\""+nameServer(t, broken)+"\"]}\n")
	const goroutines = "go_goroutines"
	at := func(name string) string { return fmt.Sprintf("%s.example:%d", name, origin.Port) }
	for _, v := range []struct {
		name, host string
		do         func(net.Conn) // until it vanishes
		action     policy.Action  // of its record; empty: it has none
		error      string
		up         int64 // bytes in the record, at least
		down       int64
	}{
		{name: "amid a request's head", do: func(c net.Conn) { fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHos", at("head")) }},
		{name: "without a word", do: func(net.Conn) {}},
		{
			name: "while the name is looked up", host: "silent.lookup.example", action: policy.Error, error: "look up silent",
			do: func(c net.Conn) { fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\n\r\n", at("silent.lookup")) },
		},
		{
			name: "amid a tunnel", host: "tunnel.example", action: policy.Tunnel, error: "client_closed", up: 1, down: 1000,
			do: func(c net.Conn) {
				fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", at("tunnel"))
				_, _ = io.CopyN(io.Discard, c, 1000)
			},
		},
		{
			name: "amid a download", host: "download.example", action: policy.Forward, error: "client_closed", down: 1000,
			do: func(c net.Conn) {
				fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", at("download"))
				_, _ = io.CopyN(io.Discard, c, 1000)
			},
		},
		{
			name: "amid an upload", host: "upload.example", action: policy.Error, error: "", up: 1000,
			do: func(c net.Conn) {
				fmt.Fprintf(c, "POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", at("upload"), large, strings.Repeat("u", 1000))
			},
		},
	} {
		t.Run(v.name, func(t *testing.T) {
			before := p.metric(goroutines)
			counter := fmt.Sprintf("espalier_requests_total{action=%q,service=\"other\"}", v.action)
			counted := p.metric(counter)
			c := p.dial()
			v.do(c)
			if v.down > 0 { // and what was sent has arrived, which a reset would destroy
				_ = c.(*net.TCPConn).SetLinger(0)
			}
			c.Close()
			if v.action == "" {
				p.await("goroutines to end", func() bool { return p.metric(goroutines) <= before+3 })
				return
			}
			r := p.record(v.host)
			if r.Action != v.action || !strings.Contains(r.Error, v.error) || r.Up < v.up || r.Down < v.down || r.Down >= large {
				t.Errorf("record %+v", r)
			}
			if n := p.metric(counter); n != counted+1 {
				t.Errorf("%s went from %v to %v", counter, counted, n)
			}
			if n := p.metric(`espalier_tunnels{service="other"}`); n != 0 {
				t.Errorf("%v tunnels are open", n)
			}
			p.await("goroutines to end", func() bool { return p.metric(goroutines) <= before+3 })
		})
	}
	if n := <-received; n >= large {
		t.Errorf("the origin received %d bytes of an upload that was cut", n)
	}
	if list, _ := p.records(); len(list) != 4 {
		t.Errorf("%d records: %+v", len(list), list)
	}
}

// pattern is endless text.
type pattern struct{}

func (pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a' + byte(i%26)
	}
	return len(p), nil
}

// SIGTERM amid transfers lets them come to their end.
func TestStopAmidTransfers(t *testing.T) {
	const size = 4 << 20
	held := make(chan struct{})
	origin := listen(t, "127.0.0.1:0", func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		if n, err := io.Copy(io.Discard, r.Body); err != nil || r.Method == http.MethodPost && n != size {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		_, _ = io.CopyN(c, pattern{}, size/2)
		<-held
		_, _ = io.CopyN(c, pattern{}, size/2)
	})
	release := sync.OnceFunc(func() { close(held) })
	t.Cleanup(release)
	p := launch(t, loopbackAllowed)
	type transfer struct {
		way    string
		client net.Conn
		body   io.Reader
	}
	var transfers []transfer
	for _, way := range []string{http.MethodConnect, http.MethodGet, http.MethodPost} {
		c, request := p.dial(), ""
		switch way {
		case http.MethodConnect:
			c.Close()
			_, _, c = p.connect(origin.String())
			request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
		case http.MethodGet:
			request = "GET http://" + origin.String() + "/ HTTP/1.1\r\nHost: x\r\n\r\n"
		case http.MethodPost:
			request = fmt.Sprintf("POST http://%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", origin, size, strings.Repeat("u", size))
		}
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(way, resp, err)
		}
		if n, err := io.CopyN(io.Discard, resp.Body, size/4); err != nil {
			t.Fatalf("%s: %d bytes, %v", way, n, err)
		}
		transfers = append(transfers, transfer{way, c, resp.Body})
	}
	p.signal(syscall.SIGTERM)
	p.await("draining", func() bool { st, err := p.status(); return err == nil && st.Draining })
	release()
	for _, tr := range transfers {
		if n, err := io.Copy(io.Discard, tr.body); n != size*3/4 || err != nil {
			t.Errorf("%s: %d bytes after the signal, %v", tr.way, n, err)
		}
		tr.client.Close()
	}
	p.exits(0)
	list, bad := p.records()
	if len(list) != len(transfers) || bad != 0 {
		t.Fatalf("%d bad lines, records %+v", bad, list)
	}
	for _, r := range list {
		if r.Error != "" || r.Status != 200 || r.Down < size || r.Method == http.MethodPost && r.Up != size {
			t.Errorf("record %+v", r)
		}
	}
}

// A configuration that cannot be read leaves the one before in force.
func TestReloadWithoutFile(t *testing.T) {
	p := launch(t, denying("start.example"))
	text, err := os.ReadFile(p.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(p.config); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.await("the failed reload", func() bool { return p.metric("espalier_config_last_reload_successful") == 0 })
	if !p.denies("start.example") {
		t.Error("the configuration before is not in force any more")
	}
	if st, err := p.status(); err != nil || len(st.Reload.Problems) != 1 || !strings.Contains(st.Reload.Problems[0], p.config) {
		t.Errorf("status %+v, %v", st.Reload, err)
	}
	if err := os.WriteFile(p.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.await("a good reload", func() bool { return p.metric("espalier_config_last_reload_successful") == 1 })
}
