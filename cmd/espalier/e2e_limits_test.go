package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// limited starts the program with a limit of its own on open files.
func limited(t *testing.T, files int, config string) *process {
	t.Helper()
	p := prepare(t, config)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(p.data, 0o700))
	must(os.WriteFile(filepath.Join(p.data, "access.log"), bytes.Repeat([]byte("{}\n"), 333_000), 0o600)) // soon rotated
	run := p.command("run", "-c", p.config, "--set", "proxy.listen=127.0.0.1:0")
	shell := exec.Command("sh", append([]string{"-c", fmt.Sprintf("ulimit -n %d && exec \"$@\"", files), "sh"}, run.Args...)...)
	shell.Env = run.Env
	p.spawn(shell)
	p.locate()
	return p
}

// At the limit on open files tunnels live on, new clients are told, the process
// can be asked, reloaded and its log rotated, and it recovers by itself.
func TestDescriptorLimit(t *testing.T) {
	const files = 512
	at := listen(t, "127.0.0.1:0", echo)
	page := listen(t, "127.0.0.1:0", pages("page"))
	// The limits on numbers are out of the way: it is descriptors that run out.
	p := limited(t, files, `egress: {allow: [loopback], hosts: {"*.push.apple.com": 127.0.0.1}}
proxy: {max_tunnels: 100000, max_tunnels_per_client: 100000}
log: {access: {rotate: 1MB}}
`)
	apple := fmt.Sprintf("1-courier.push.apple.com:%d", at.Port)
	var open []net.Conn
	for len(open) < files {
		status, proxyStatus, c := p.connect(apple)
		if status == 503 {
			if !strings.Contains(proxyStatus, "connection_limit_reached") {
				t.Errorf("Proxy-Status %q", proxyStatus)
			}
			break
		}
		open = append(open, c)
	}
	if n := len(open); n < files/4 || n == files {
		t.Fatalf("%d tunnels", n)
	}
	t.Logf("%d tunnels at a limit of %d files", len(open), files)

	// Some clients say nothing, so that accepting gets no descriptor.
	for range files {
		c := p.dial()
		defer c.Close()
	}
	for i := range 50 {
		if i%10 == 0 {
			if err := pingPong(open[i], "still there"); err != nil {
				t.Fatalf("tunnel %d: %v", i, err)
			}
		}
		if status, _, c := p.connect(apple); status != 503 {
			t.Fatalf("status %d at the limit", status)
		} else if rest, err := io.ReadAll(c); len(rest) > 0 && err != nil {
			t.Fatalf("%q, %v behind the answer", rest, err)
		}
		resp, err := http.ReadResponse(ask(p, fmt.Sprintf("GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n", page)), nil)
		if err != nil || resp.StatusCode != 503 {
			t.Fatalf("a plain request at the limit: %v, %v", resp, err)
		}
	}
	if st, err := p.status(); err != nil || !strings.Contains(st.Overloaded, "open files") {
		t.Errorf("status: overloaded %q, %v", st.Overloaded, err)
	}
	if stdout, stderr, code := p.run("reload"); code != 0 {
		t.Errorf("reload: exit status %d, %s%s", code, stdout, stderr)
	}
	if n := p.metric("espalier_overloaded"); n != 1 {
		t.Errorf("espalier_overloaded is %v", n)
	}
	if n := p.metric(`espalier_shed_total{reason="descriptors"}`); n < 51 {
		t.Errorf("%v were turned away", n)
	}
	p.await("rotated logs", func() bool {
		old, _ := filepath.Glob(filepath.Join(p.data, "access-*"))
		return len(old) > 0
	})
	if log := p.stderr.String(); strings.Count(log, "\"overloaded:") != 1 || strings.Contains(log, "cannot be") {
		t.Errorf("log: %s", log)
	}

	for _, c := range open[len(open)/2:] {
		c.Close()
	}
	p.await("room for another tunnel", func() bool {
		status, _, c := p.connect(apple)
		c.Close()
		return status == 200
	})
	p.await("the overload to end", func() bool { return p.metric("espalier_overloaded") == 0 })
	for i, c := range open[:len(open)/2] {
		if err := pingPong(c, "after all"); err != nil {
			t.Fatalf("tunnel %d: %v", i, err)
		}
	}
}

// ask sends a request on a connection of its own and returns what comes.
func ask(p *process, request string) *bufio.Reader {
	p.t.Helper()
	c := p.dial()
	if _, err := io.WriteString(c, request); err != nil {
		p.t.Fatal(err)
	}
	return bufio.NewReader(c)
}

// An explicit limit is kept, and told.
func TestMemoryLimit(t *testing.T) {
	p := prepare(t, "")
	run := p.command("run", "-c", p.config, "--set", "proxy.listen=127.0.0.1:0")
	run.Env = append(os.Environ(), "GOMEMLIMIT=1234MiB")
	p.spawn(run)
	p.locate()
	if n := p.metric("go_gc_gomemlimit_bytes"); n != 1234<<20 {
		t.Errorf("the limit is %v", n)
	}
	if log := p.stderr.String(); !strings.Contains(log, `"bytes":1293942784,"from":"GOMEMLIMIT"`) {
		t.Errorf("log: %s", log)
	}
}
