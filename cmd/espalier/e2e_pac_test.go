package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// script is what is served at path, "" where the status is not 200.
func (p *process) script(path string) string {
	p.t.Helper()
	resp, err := http.Get("http://" + p.public + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

// A reload puts another script into force, keeps both in the history, and their
// difference is what devices are told otherwise. A token closes the open paths.
// A proxy that drains is named last, by itself too.
func TestPACOfARunningProcess(t *testing.T) {
	t.Parallel()
	at := listen(t, "127.0.0.1:0", echo)
	peer := listen(t, "127.0.0.1:0", echo).String()
	p := launch(t, loopbackAllowed+"pac: {proxies: [\"first.example:3128\"], probe: false}\n")
	if s := p.script("/proxy.pac"); !strings.Contains(s, `"PROXY first.example:3128"`) || s != p.script("/wpad.dat") {
		t.Errorf("the first script:\n%s", s)
	}
	const token = "0123456789abcdef0123456789abcdef"
	p.write(loopbackAllowed + fmt.Sprintf("pac: {proxies: [%q, %q], wpad: false, token: %s}\n", p.proxy, peer, token))
	if stdout, stderr, code := p.run("reload"); code != 0 {
		t.Fatalf("reload: exit status %d\n%s%s", code, stdout, stderr)
	}
	for _, path := range []string{"/proxy.pac", "/wpad.dat", "/wpad.da", "/proxy-x.pac"} {
		if s := p.script(path); s != "" {
			t.Errorf("%s is served:\n%s", path, s)
		}
	}
	const secret = "/proxy-" + token + ".pac"
	order := func(first, second string) string { return fmt.Sprintf(`"PROXY %s; PROXY %s"`, first, second) }
	if s := p.script(secret); !strings.Contains(s, order(p.proxy, peer)) {
		t.Errorf("the second script:\n%s", s)
	}
	if strings.Contains(p.stderr.String(), token) {
		t.Error("the token stands in the log")
	}

	stdout, stderr, code := p.run("pac", "history")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if code != 0 || len(lines) != 3 {
		t.Fatalf("history: exit status %d\n%s%s", code, stdout, stderr)
	}
	newest, oldest := strings.Fields(lines[1])[0], strings.Fields(lines[2])[0]
	if script, _, code := p.run("pac", "history", newest); code != 0 || script != p.script(secret) {
		t.Errorf("history %s: exit status %d\n%s", newest, code, script)
	}
	if stdout, stderr, code := p.run("pac", "diff", oldest, newest); code != exitNo || !strings.Contains(stdout, "first.example:3128") {
		t.Errorf("diff: exit status %d\n%s%s", code, stdout, stderr)
	}
	if stdout, stderr, code := p.run("pac", "diff", newest, p.config); code != 0 {
		t.Errorf("diff with what is in force: exit status %d\n%s%s", code, stdout, stderr)
	}
	if stdout, _, _ := p.run("status"); !strings.Contains(stdout, "PAC fetched    ") || !strings.Contains(stdout, "by tool, site default") {
		t.Errorf("status:\n%s", stdout)
	}

	_, _, c := p.connect(at.String()) // a tunnel, so that draining lasts
	p.signal(syscall.SIGTERM)
	p.await("the draining proxy to stand last", func() bool { return strings.Contains(p.script(secret), order(peer, p.proxy)) })
	if up := p.metric(fmt.Sprintf("espalier_pac_proxy_up{proxy=%q}", p.proxy)); up != 0 {
		t.Errorf("the metric of the draining proxy is %v", up)
	}
	if err := pingPong(c, "while draining"); err != nil {
		t.Error(err)
	}
	c.Close()
	p.exits(0)
}

// An overloaded proxy is named last, by itself and by its peer, and in its place
// again when it has recovered. Its listener stays open.
func TestPACOfAnOverloadedProxy(t *testing.T) {
	at := listen(t, "127.0.0.1:0", echo).String()
	p, peer := launch(t, loopbackAllowed+"proxy: {max_tunnels: 10}\n"), launch(t, loopbackAllowed)
	ordered := func(first, second *process) func() bool {
		want := fmt.Sprintf(`"PROXY %s; PROXY %s"`, first.proxy, second.proxy)
		return func() bool {
			return strings.Contains(p.script("/proxy.pac"), want) && strings.Contains(peer.script("/proxy.pac"), want)
		}
	}
	pac := fmt.Sprintf("pac: {proxies: [%q, %q]}\n", p.proxy, peer.proxy)
	load := func() { // which probes at once
		t.Helper()
		for _, x := range []*process{p, peer} {
			if stdout, stderr, code := x.run("reload"); code != 0 {
				t.Fatalf("reload: exit status %d\n%s%s", code, stdout, stderr)
			}
		}
	}
	p.write(loopbackAllowed + "proxy: {max_tunnels: 10}\n" + pac)
	peer.write(loopbackAllowed + pac)
	load()
	if !ordered(p, peer)() {
		t.Errorf("at first:\n%s", p.script("/proxy.pac"))
	}
	var open []net.Conn
	for range 9 {
		status, _, c := p.connect(at)
		if status != http.StatusOK {
			t.Fatalf("tunnel %d: status %d", len(open), status)
		}
		open = append(open, c)
	}
	if status, _, c := p.connect(at); status != http.StatusServiceUnavailable {
		t.Errorf("beyond nine tenths of max_tunnels: status %d", status)
		c.Close()
	}
	load()
	p.await("the overloaded proxy to stand last", ordered(peer, p))
	if stdout, _, _ := p.run("status"); !strings.Contains(stdout, "says that it is overloaded (503)") {
		t.Errorf("status:\n%s", stdout)
	}
	for _, c := range open {
		c.Close()
	}
	p.await("the end of the overload", func() bool { return p.metric("espalier_overloaded") == 0 })
	load()
	p.await("the proxy to stand in its place", ordered(p, peer))
}
