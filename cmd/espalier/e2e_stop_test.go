package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"espalier/policy"
)

const loopbackAllowed = "egress: {allow: [loopback]}\n"

// drain sends SIGTERM, and waits for the proxy's listener to be closed.
func (p *process) drain() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.await("the listener to be closed", func() bool {
		c, err := net.Dial("tcp", p.proxy)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

// SIGTERM closes the proxy's listener, and lets tunnels come to their end.
func TestDrain(t *testing.T) {
	at := listen(t, "127.0.0.1:0", echo)
	p := launch(t, loopbackAllowed)
	_, _, c := p.connect(at.String())
	if err := pingPong(c, "before"); err != nil {
		t.Fatal(err)
	}
	ready := func() int {
		resp, err := http.Get("http://" + p.public + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if s := ready(); s != 200 {
		t.Errorf("/readyz says %d before", s)
	}
	p.drain()
	if err := pingPong(c, "while draining"); err != nil {
		t.Error(err)
	}
	if s := ready(); s != 503 {
		t.Errorf("/readyz says %d while draining", s)
	}
	if stdout, _, _ := p.run("status"); !strings.Contains(stdout, "draining") {
		t.Errorf("status: %s", stdout)
	}
	c.Close()
	p.exits(0)
	if rec := p.record("127.0.0.1"); rec.Up != 20 || rec.Down != 20 || rec.Error != "" {
		t.Errorf("record %+v", rec)
	}
}

// At proxy.drain_timeout what is left is cut, with its record.
func TestDrainTimeout(t *testing.T) {
	at := listen(t, "127.0.0.1:0", echo)
	p := launch(t, loopbackAllowed+"proxy: {drain_timeout: 200ms}\n")
	_, _, c := p.connect(at.String())
	if err := pingPong(c, "x"); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code := p.run("drain"); code != 0 || stdout != "draining: no new connections are taken\n" {
		t.Errorf("drain: exit status %d\n%s%s", code, stdout, stderr)
	}
	p.exits(0)
	if rest, _ := io.ReadAll(c); len(rest) > 0 {
		t.Errorf("received %q", rest)
	}
	list, bad := p.records()
	if len(list) != 1 || bad != 0 || list[0].Action != policy.Tunnel || !strings.Contains(list[0].Error, "shutdown") {
		t.Errorf("%d bad lines, records %+v", bad, list)
	}
	if log := p.stderr.String(); !strings.Contains(log, "proxy.drain_timeout") {
		t.Errorf("log: %s", log)
	}
}

// A second signal stops at once, and keeps the records.
func TestSecondSignal(t *testing.T) {
	at := listen(t, "127.0.0.1:0", echo)
	p := launch(t, loopbackAllowed)
	status, _, refused := p.connect("10.0.0.1:443")
	refused.Close()
	_, _, c := p.connect(at.String())
	if err := pingPong(c, "x"); err != nil || status != 403 {
		t.Fatal(status, err)
	}
	p.signal(syscall.SIGTERM)
	p.await("draining", func() bool { st, err := p.status(); return err == nil && st.Draining })
	p.signal(syscall.SIGTERM)
	p.exits(1)
	list, _ := p.records()
	if len(list) != 2 || list[0].Host != "10.0.0.1" || list[1].Host != "127.0.0.1" || list[1].Error != "interrupted" {
		t.Errorf("records %+v", list)
	}
}

// Two processes do not share a data directory.
func TestSecondStart(t *testing.T) {
	p := launch(t, "")
	for _, tt := range []struct {
		name, set, want string
	}{
		{"the same data", "proxy.listen=127.0.0.1:0", "another espalier runs with this data directory"},
		{"the same port", "proxy.listen=" + p.proxy, "proxy.listen: listen tcp " + p.proxy + ": bind: address already in use"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, stderr, code := outputOf(t, p.command("run", "-c", p.config, "--set", tt.set))
			if code != 1 || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit status %d, %s\nwant %q", code, stderr, tt.want)
			}
		})
	}
	if _, err := p.status(); err != nil {
		t.Errorf("the first process suffered: %v", err)
	}
}
