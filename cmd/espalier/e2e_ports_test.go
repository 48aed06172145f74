package main

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"espalier/cmd/espalier/app"
	"espalier/configs"
	"espalier/policy"
	"espalier/proxy/accesslog"
)

// What curl is told of ports that proxy.ports does not have, before and after a
// reload.
func TestRefusedPorts(t *testing.T) {
	need(t, "curl")
	const config = "egress: {hosts: {\"*.example\": 127.0.0.1}}\n"
	p := launch(t, config)
	curl := func(args ...string) string {
		out, _ := exec.Command("curl", append([]string{"-si", "-m", "20", "-x", p.proxy}, args...)...).CombinedOutput()
		return string(out)
	}
	const status = "\r\nProxy-Status: espalier; error=http_request_denied\r\n"
	for _, url := range []string{"https://connect.example:25/", "http://plain.example:25/"} {
		if out := curl(url); !strings.HasPrefix(out, "HTTP/1.1 403 Forbidden\r\n") || !strings.Contains(out, status) {
			t.Errorf("%s: %s", url, out)
		}
	}
	if out := curl("http://plain.example:25/"); !strings.Contains(out, "This proxy does not connect to this port.\nRule: proxy-ports\n") {
		t.Error(out)
	}
	for host, port := range map[string]uint16{"connect.example": 25, "plain.example": 25} {
		if r := p.record(host); r.Action != policy.Deny || r.Rule != policy.RulePorts || r.Status != 403 || r.Port != port {
			t.Errorf("%s: %+v", host, r)
		}
	}
	// Loopback is not for clients, which is another refusal.
	p.write(config + "proxy: {ports: [25]}\n")
	p.await("the new ports", func() bool {
		return strings.Contains(curl("http://open.example:25/"), "error=destination_ip_prohibited")
	})
	if out := curl("http://shut.example/"); !strings.Contains(out, status) {
		t.Error(out)
	}
}

// `espalier validate` checks the last 30 days' records against proxy.ports.
func TestValidatePorts(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	id := accesslog.ID(1e15)
	var lines strings.Builder
	records := func(n int, age time.Duration, client, host string, port uint16, rule string) {
		for range n {
			id++
			r := accesslog.Record{
				ID: id, Time: now.Add(-age), Node: "n", Client: netip.MustParseAddr(client), Method: "CONNECT", Host: host, Port: port,
				Service: "other", Action: policy.Tunnel, Rule: rule, Status: 200,
			}
			line, err := json.Marshal(&r)
			if err != nil {
				t.Fatal(err)
			}
			lines.Write(append(line, '\n'))
		}
	}
	const day = 24 * time.Hour
	records(5, time.Hour, "10.1.2.3", "mail.example", 25, "default")
	records(3, 29*day, "10.1.2.4", "smtp.example", 25, "default")
	records(2, 3*day, "10.1.2.3", "a.example", 25, "default")
	records(1, 3*day, "10.1.2.3", "b.example", 25, "default")
	records(1, 0, "10.1.2.3", "192.0.2.1", 22, policy.RulePorts)
	records(1, 2*day, "198.51.100.7", "anonymous.example", 110, "default")
	records(9, 31*day, "10.1.2.3", "old.example", 21, "default")
	records(9, day, "198.51.100.7", "stranger.example", 79, policy.RuleClients)
	records(9, day, "10.1.2.3", "www.example", 443, "default")
	records(9, day, "10.1.2.3", "www.example", 8443, "default")
	records(9, day, "10.1.2.3", "upload.appleschoolcontent.com", 22, "apple")
	records(9, day, "10.1.2.3", "backup.example", 22, "backups")
	records(9, day, "10.1.2.3", "games.example", 23, "default")

	p := prepare(t, `
rules:
  - {name: backups, when: {hosts: [backup.example], ports: [22]}, then: tunnel}
  - {name: no games, when: {hosts: [games.example]}, then: deny}
`)
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "records.log")
	write(file, lines.String())
	validate := func(args ...string) string {
		t.Helper()
		out, stderr, code := p.run(append([]string{"validate"}, args...)...)
		if code != 0 || out != p.config+" is valid\n" {
			t.Errorf("exit status %d, %s", code, out)
		}
		return strings.ReplaceAll(stderr, p.config, "FILE")
	}
	if got := validate(); got != "" {
		t.Errorf("without a store: %s", got)
	}
	if out, stderr, code := p.run("logs", "import", file); code != 0 {
		t.Fatalf("%s%s", out, stderr)
	}
	if got, want := validate(), `warning: FILE:1:1: proxy.ports: port 25 is refused; the last 30 days have 11 requests to it: mail.example (5), smtp.example (3), a.example (2), 1 more
warning: FILE:1:1: proxy.ports: port 22 is refused; the last 30 days have 1 request to it: 192.0.2.1 (1)
warning: FILE:1:1: proxy.ports: port 110 is refused; the last 30 days have 1 request to it: anonymous.example (1)
`; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := validate("--set", "proxy.ports=1-8442"); got != "warning: flag --set proxy.ports: port 8443 is refused; the last 30 days have 9 requests to it: www.example (9)\n" {
		t.Errorf("other ports: %s", got)
	}
	if got := validate("--set", "proxy.ports=1-65535"); got != "" {
		t.Errorf("every port: %s", got)
	}
	if got := validate("--set", "log.store.path="); got != "" {
		t.Errorf("no store is kept: %s", got)
	}
	// Without time for it, what is not known is said.
	loaded, err := configs.Load(configs.Options{File: p.config})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if list, notes, err := app.Check(ctx, loaded); err != nil || len(list) > 0 || !slices.Equal(notes, []string{"recent records were not checked against proxy.ports: reading them takes too long"}) {
		t.Errorf("no time: %q, %q, %v", list, notes, err)
	}
	write(filepath.Join(p.data, "espalier.db"), "no database, but longer than a hundred bytes so that it is read: "+lines.String())
	if got := validate(); !strings.HasPrefix(got, "note: recent records were not checked against proxy.ports: store ") || strings.Count(got, "\n") != 1 {
		t.Errorf("a damaged store: %s", got)
	}
}
