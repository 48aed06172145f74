package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"espalier/proxy/doctor"
	"espalier/proxy/doctor/doctortest"
)

// The whole catalogue on a stage of real servers at the real ports, with hosts
// broken in every way: each is named rightly, from here and through the running
// proxy, in time.
func TestDoctor(t *testing.T) {
	faults := map[string]doctortest.Fault{
		"1-courier.push.apple.com": doctortest.WantsDevice,
		"albert.apple.com":         doctortest.ApplesCA,
		"gdmf.apple.com":           doctortest.NoName,
		"ig.apple.com":             doctortest.NoAddress,
		"skl.apple.com":            doctortest.DNSFails,
		"ppq.apple.com":            doctortest.Refuses,
		"swscan.apple.com":         doctortest.Swallows,
		"xp.apple.com":             doctortest.Expired,
		"guzzoni.apple.com":        doctortest.Intercepted,
		"doh.dns.apple.com":        doctortest.Misnamed,
		"api.ent.apple.com":        doctortest.Resets,
		"api.edu.apple.com":        doctortest.Alerts,
		"idmsa.apple.com":          doctortest.SpeaksHTTP,
		"suconfig.apple.com":       doctortest.Portal,
		"crl.apple.com":            doctortest.Private,
	}
	stage := doctortest.Start(t, fmt.Sprintf("127.79.%d.%d", os.Getpid()>>8&0xff, os.Getpid()&0xff), true, faults)
	p := launch(t, fmt.Sprintf(`
egress: {dns: [%q], allow: [loopback], connect_timeout: 4s}
rules: [{name: no diagnostics, when: {hosts: [diagassets.apple.com]}, then: deny}]
`, stage.DNS))
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, stage.Roots, 0o600); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	stdout, stderr, code := p.run("doctor", "--json", "--through", p.proxy, "--roots", roots)
	took := time.Since(began)
	var r doctor.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 1 || stderr != "" {
		t.Fatalf("status %d, %v, %s\n%s", code, err, stderr, stdout)
	}
	if !r.Complete || took > doctor.DefaultTimeout || r.Proxy != p.proxy {
		t.Errorf("complete %v in %s, through %s", r.Complete, took, r.Proxy)
	}
	by := "the proxy " + p.proxy
	var want []string
	both := func(at, direct, through string) {
		want = append(want, "direct "+at+" "+direct, "proxy "+at+" "+through)
	}
	both("gdmf.apple.com:443", "no-such-name ", "no-such-name ")
	both("ig.apple.com:443", "no-address ", "no-address ")
	both("skl.apple.com:443", "dns-failed ", "dns-failed ")
	both("ppq.apple.com:443", "refused ", "refused ")
	both("swscan.apple.com:443", "timeout ", "timeout ")
	both("xp.apple.com:443", "expired ", "expired ")
	both("guzzoni.apple.com:443", "intercepted "+doctortest.InspectorName, "intercepted "+doctortest.InspectorName)
	both("doh.dns.apple.com:443", "wrong-name ", "wrong-name ")
	both("api.ent.apple.com:443", "reset ", "reset ")
	both("api.edu.apple.com:443", "tls-alert ", "tls-alert ")
	both("idmsa.apple.com:443", "not-tls something that speaks HTTP", "not-tls something that speaks HTTP")
	both("suconfig.apple.com:80", "captive-portal login.portal.example", "captive-portal login.portal.example")
	both("crl.apple.com:80", "address-guard ", "address-guard "+by+", rule address-guard")
	want = append(want, "proxy diagassets.apple.com:443 denied "+by+", rule no diagnostics")
	var got []string
	ok, notes := 0, map[string]bool{}
	for _, s := range r.Services {
		for _, c := range s.Checks {
			if c.State == doctor.OK {
				ok++
				notes[c.Note] = true
			}
			line := fmt.Sprintf("%s %s:%d %s %s", c.Way, c.Host, c.Port, c.Problem, c.By)
			if c.State == doctor.Broken && !slices.Contains(got, line) { // some hosts are in several services
				got = append(got, line)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("broken:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if ok < 200 {
		t.Errorf("%d checks are ok", ok)
	}
	if len(notes) != 2 { // Apple's own CA, and none
		t.Errorf("notes of good checks: %v", notes)
	}
	if rec := p.record("1-courier.push.apple.com"); rec.Service != "push" || rec.Agent != "espalier-doctor" {
		t.Errorf("record: %+v", rec)
	}

	// What a person is told, of one service.
	stdout, _, code = p.run("doctor", "--service", "siri", "--direct", "--roots", roots)
	for _, want := range []string{
		"siri     5 ok, 1 broken, 4 skipped",
		"\nSomebody intercepts TLS: " + doctortest.InspectorName + " (from here)\n",
		"\n  detail   the issuer is no public CA\n  next     Exempt Apple's hosts from inspection there",
		"\n  siri     guzzoni.apple.com:443\n",
		"\n1 of 1 service is broken (",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if code != 1 {
		t.Errorf("status %d", code)
	}
	stdout, _, code = p.run("doctor", "--service", "carrier", "--through", p.proxy, "--roots", roots)
	if !strings.Contains(stdout, "everything that was tried can be reached") || code != 0 {
		t.Errorf("status %d\n%s", code, stdout)
	}

	// The running process does it too, by itself, and remembers what it found.
	api := func(method, role string) *http.Response {
		t.Helper()
		made, _, code := p.run("token", "create", "--name", method+role, "--role", role)
		if code != 0 {
			t.Fatalf("token create: status %d", code)
		}
		req, err := http.NewRequest(method, "http://"+p.admin+"/api/v1/doctor", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(made))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	resp := api("POST", "admin")
	var report doctor.Report
	if err := json.NewDecoder(resp.Body).Decode(&report); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	if report.Proxy != p.proxy || !report.Complete || report.Broken() == 0 {
		t.Errorf("through %s, complete %v", report.Proxy, report.Complete)
	}
	if resp := api("POST", "viewer"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a viewer may start it: %s", resp.Status)
	}
	resp = api("GET", "viewer")
	var status doctor.Status
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	if status.Running || status.Total == 0 || status.Done != status.Total || status.Report == nil || !status.Report.Time.Equal(report.Time) {
		t.Errorf("%+v", status)
	}
}
