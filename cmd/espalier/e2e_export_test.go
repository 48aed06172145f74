package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// A running process serves what the export command writes, by the policy in force
// at that moment.
func TestExportOfARunningProcess(t *testing.T) {
	t.Parallel()
	p := launch(t, "")
	get := func(path, tag string) (status int, newTag string) {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, "http://"+p.public+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("If-None-Match", tag)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("ETag")
	}
	compare := func(path, format string) (lines []string) {
		t.Helper()
		want, stderr, code := p.run("catalog", "export", "--for", "devices", "--format", format)
		if code != 0 {
			t.Fatalf("exit status %d: %s", code, stderr)
		}
		got := p.script(path)
		if got != want {
			t.Errorf("%s differs from the command's:\n%s\nwant\n%s", path, got, want)
		}
		return strings.Fields(got)
	}
	reload := func(config string) {
		t.Helper()
		p.write(config)
		if stdout, stderr, code := p.run("reload"); code != 0 {
			t.Fatalf("reload: exit status %d\n%s%s", code, stdout, stderr)
		}
	}
	const list, networks = "/export/devices.txt", "/export/devices-networks.txt"
	before := compare(list, "list")
	for _, host := range []string{"albert.apple.com", "mask.icloud.com", "*.push.apple.com", "guzzoni.apple.com"} {
		if !slices.Contains(before, host) {
			t.Errorf("%s is not in the list", host)
		}
	}
	if lines := compare(networks, "networks"); !slices.Contains(lines, "17.0.0.0/8") {
		t.Errorf("address blocks: %q", lines)
	}
	_, tag := get(list, "")
	if status, _ := get(list, tag); status != http.StatusNotModified {
		t.Errorf("asked for again: %d", status)
	}

	reload("apple: {private_relay: block}\nrules: [{name: no-siri, when: {services: [siri]}, then: deny}]\n")
	if status, _ := get(list, tag); status != http.StatusOK {
		t.Errorf("asked for again after the reload: %d", status)
	}
	after := compare(list, "list")
	for _, host := range []string{"mask.icloud.com", "mask-h2.icloud.com", "guzzoni.apple.com", "*.apple.com"} {
		if slices.Contains(after, host) {
			t.Errorf("%s is refused, and in the list", host)
		}
	}
	if lines := compare(networks, "networks"); len(lines) > 0 {
		t.Errorf("address blocks: %q", lines)
	}
	if status, _ := get(networks, ""); status != http.StatusOK {
		t.Errorf("an empty list: %d", status)
	}

	reload("pac: {routes: {apple: [proxy], apple_unmarked: [proxy]}}\n")
	if enforced := compare(list, "list"); slices.Contains(enforced, "guzzoni.apple.com") || !slices.Contains(enforced, "albert.apple.com") {
		t.Errorf("with the proxy enforced: %q", enforced)
	}
	reload("pac: {routes: {apple: [proxy], apple_unmarked: [proxy], services: {siri: [direct]}}}\n")
	if direct := compare(list, "list"); !slices.Contains(direct, "guzzoni.apple.com") || slices.Contains(direct, "gateway.icloud.com") {
		t.Errorf("with one service direct: %q", direct)
	}
}

// web.export: false switches the lists off.
func TestExportSwitchedOff(t *testing.T) {
	t.Parallel()
	p := prepare(t, "")
	p.spawn(p.command("run", "-c", p.config, "--set", "proxy.listen=127.0.0.1:0", "--set", "web.export=false"))
	p.locate()
	for _, path := range []string{"/export/devices.txt", "/export/devices-networks.txt"} {
		resp, err := http.Get("http://" + p.public + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}
