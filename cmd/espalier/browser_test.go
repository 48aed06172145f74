package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A visit is a page that a browser opens, and what the browser is told before.
type visit struct {
	url   string
	pac   string   // URL of its script
	root  string   // file of a root certificate that it trusts
	local []string // names that it finds at 127.0.0.1
	flags []string
}

// A window is a browser that runs, until stop is called or the test ends.
type window struct {
	ended chan struct{} // closed when it has
	out   lockedBuffer
	stop  func()
}

// browse opens a page in chromium or firefox-esr, without a screen and with a
// profile of its own.
func browse(t *testing.T, program string, v visit) *window {
	t.Helper()
	need(t, program)
	need(t, "certutil")
	home, err := os.MkdirTemp("", program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	profile := filepath.Join(home, "profile")
	args, trust := v.chromium(profile), filepath.Join(home, ".pki", "nssdb")
	if program != "chromium" {
		args, trust = v.firefox(t, profile), profile
	}
	if err := os.MkdirAll(trust, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-N", "--empty-password"},
		{"-A", "-n", "espalier", "-t", "C,,", "-i", v.root},
	} {
		if out, err := exec.Command("certutil", append([]string{"-d", "sql:" + trust}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("certutil: %v\n%s", err, out)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	w := &window{ended: make(chan struct{})}
	cmd := exec.CommandContext(ctx, program, append(args, v.url)...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home)
	cmd.Stdout, cmd.Stderr = &w.out, &w.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // browsers are many processes
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() { defer close(w.ended); _ = cmd.Wait() }()
	w.stop = func() { cancel(); <-w.ended }
	t.Cleanup(w.stop)
	return w
}

func (v visit) chromium(profile string) []string {
	args := append([]string{"--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir=" + profile, "--proxy-pac-url=" + v.pac}, v.flags...)
	var rules []string
	for _, name := range v.local {
		rules = append(rules, "MAP "+name+" 127.0.0.1")
	}
	return append(args, "--host-resolver-rules="+strings.Join(rules, ","))
}

// firefox writes the settings into the profile.
func (v visit) firefox(t *testing.T, profile string) []string {
	t.Helper()
	prefs := map[string]any{
		"network.proxy.type":                                          2,
		"network.proxy.autoconfig_url":                                v.pac,
		"network.dns.localDomains":                                    strings.Join(v.local, ","),
		"network.trr.mode":                                            5, // names are the system's affair
		"network.captive-portal-service.enabled":                      false,
		"network.connectivity-service.enabled":                        false,
		"browser.aboutwelcome.enabled":                                false,
		"browser.shell.checkDefaultBrowser":                           false,
		"datareporting.policy.dataSubmissionEnabled":                  false,
		"datareporting.policy.dataSubmissionPolicyBypassNotification": true,
		"app.normandy.enabled":                                        false,
		"app.update.disabledForTesting":                               true,
		"toolkit.telemetry.server":                                    "",
	}
	var text strings.Builder
	for name, value := range prefs {
		fmt.Fprintf(&text, "user_pref(%q, %#v);\n", name, value)
	}
	if err := os.MkdirAll(profile, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return append([]string{"--headless", "--no-remote", "--profile", profile}, v.flags...)
}
