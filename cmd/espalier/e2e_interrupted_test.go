package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// A tunnel or WebSocket that a process leaves open has its record when the next one
// starts, and only one.
func TestInterruptedTunnels(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(p *process)
	}{
		{"process-killed", func(p *process) { p.signal(syscall.SIGKILL) }},
		{"process-second-signal", func(p *process) {
			p.signal(syscall.SIGTERM)
			p.await("draining", func() bool { st, err := p.status(); return err == nil && st.Draining })
			p.signal(syscall.SIGTERM)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			at := listen(t, "127.0.0.1:0", echo).String()
			p := launch(t, loopbackAllowed)
			_, _, tunnel := p.connect(at)
			for _, c := range []net.Conn{tunnel, p.webSocket(listen(t, "127.0.0.1:0", echoUpgraded).String())} {
				if err := pingPong(c, "before"); err != nil {
					t.Fatal(err)
				}
			}
			// What is younger than a second may be lost.
			p.await("the journal to have both", func() bool { return bytes.Count(p.journals(), []byte("\n=")) == 2 })
			tt.end(p)
			<-p.ended
			written, _ := p.records()
			p.start()
			p.await("two records", func() bool { list, _ := p.records(); return len(list) == 2 })
			left := float64(2 - len(written))
			got := p.metric(`espalier_requests_total{action="tunnel",service="other"}`) + p.metric(`espalier_requests_total{action="forward",service="other"}`)
			if all := p.metric("espalier_access_records_total"); all != left || got != left {
				t.Errorf("%v records are written at the start; the counters say %v records, %v requests", left, all, got)
			}
			p.signal(syscall.SIGKILL) // the first journal may still be there
			<-p.ended
			p.start()
			_, _, c := p.connect(at)
			c.Close()
			p.await("the record of another", func() bool { list, _ := p.records(); return len(list) > 2 })
			p.signal(syscall.SIGTERM)
			p.exits(0)
			list, bad := p.records()
			status := map[int]bool{}
			for i, rec := range list {
				if i == 2 {
					break
				}
				status[rec.Status] = true
				if rec.Error != "interrupted" || rec.Up != 6 || rec.Down != 6 || rec.Duration <= 0 || !rec.Upstream.IsValid() {
					t.Errorf("%+v", rec)
				}
			}
			if bad != 0 || len(list) != 3 || list[2].Error != "" || !status[200] || !status[101] {
				t.Errorf("%d bad lines, records %+v", bad, list)
			}
			if left, _ := filepath.Glob(filepath.Join(p.data, "tunnels-*")); left != nil {
				t.Errorf("%v are left", left)
			}
		})
	}
}

// journals is what the journals of open tunnels have.
func (p *process) journals() (all []byte) {
	paths, _ := filepath.Glob(filepath.Join(p.data, "tunnels-*.journal"))
	for _, path := range paths {
		text, _ := os.ReadFile(path)
		all = append(all, text...)
	}
	return all
}

const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"

// echoUpgraded answers a WebSocket's head, and sends back what comes then.
func echoUpgraded(c net.Conn) {
	in := bufio.NewReader(c)
	if _, err := http.ReadRequest(in); err == nil {
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\n"+upgrade+"\r\n")
		_, _ = io.Copy(c, in)
	}
}

// webSocket opens a WebSocket through the proxy.
func (p *process) webSocket(at string) net.Conn {
	p.t.Helper()
	c := p.dial()
	fmt.Fprintf(c, "GET http://%s/ws HTTP/1.1\r\nHost: %[1]s\r\n"+upgrade+"\r\n", at)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		p.t.Fatal(resp, err)
	}
	return c
}
