package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// The console as an administrator meets it, with curl: the setup link of the
// first start, sessions, tokens, and what a page of somebody else gets.
func TestConsole(t *testing.T) {
	need(t, "curl")
	p := prepare(t, "")
	out := new(lockedBuffer)
	cmd := p.command("run", "-c", p.config, "--set", "proxy.listen=127.0.0.1:0")
	cmd.Stdout = out
	p.spawn(cmd)
	p.locate()

	jar := filepath.Join(t.TempDir(), "jar")
	// curl returns the status and what follows of an answer.
	curl := func(args ...string) (status, body string) {
		t.Helper()
		cmd := exec.Command("curl", append([]string{"-sS", "--noproxy", "*", "-w", "\n%{http_code}"}, args...)...)
		stdout, stderr, code := outputOf(t, cmd)
		if code != 0 {
			t.Fatalf("curl %q: %d %s", args, code, stderr)
		}
		at := strings.LastIndexByte(stdout, '\n')
		return stdout[at+1:], stdout[:at]
	}
	at := "http://" + p.admin
	expect := func(want string, args ...string) string {
		t.Helper()
		status, body := curl(args...)
		if status != want {
			t.Errorf("curl %q: %s, want %s\n%s", args, status, want, body)
		}
		return body
	}

	// Nobody gets in, but for whoever has the link.
	expect("401", at+"/api/v1/status")
	expect("303", at+"/")
	link := regexp.MustCompile(`http://\S+/setup\?link=\S+`).FindString(out.String())
	if link == "" || strings.Contains(p.stderr.String(), "link=") {
		t.Fatalf("the start prints:\n%s\nand logs:\n%s", out, p.stderr.String())
	}
	secret := link[strings.IndexByte(link, '=')+1:]
	expect("200", link)
	printed, _, code := p.run("setup")
	if code != 0 || !strings.HasPrefix(printed, at+"/setup?link=") || strings.Contains(printed, secret) {
		t.Errorf("%d %s", code, printed)
	}
	expect("410", link) // there is a new one
	secret = strings.TrimSpace(printed[strings.IndexByte(printed, '=')+1:])
	const password = "correct horse battery"
	form := []string{"--data-urlencode", "name=ann", "--data-urlencode", "password=" + password, "--data-urlencode", "again=" + password}
	expect("303", append(form, "-c", jar, "--data-urlencode", "link="+secret, at+"/setup")...)
	expect("410", append(form, "--data-urlencode", "link="+secret, at+"/setup")...)
	if _, stderr, code := p.run("setup"); code != 1 || !strings.Contains(stderr, "has users already") {
		t.Errorf("%d %s", code, stderr)
	}
	info, err := os.Stat(filepath.Join(p.data, "users"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	// The session reads; it changes something only with what its pages hold.
	page := expect("200", "-b", jar, at+"/")
	csrf := regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(page)
	if csrf == nil {
		t.Fatal(page)
	}
	token := "X-CSRF-Token: " + csrf[1]
	expect("403", "-b", jar, "-X", "POST", at+"/api/v1/reload")
	expect("403", "-b", jar, "-X", "POST", "-H", token, "-H", "Origin: https://evil.example", at+"/api/v1/reload")
	expect("421", "-b", jar, "-H", "Host: evil.example", at+"/")
	expect("204", "-b", jar, "-X", "POST", "-H", token, "-H", "Origin: "+at, at+"/api/v1/reload")

	// A user who is added by hand may come in at once, and goes at once.
	line := p.command("passwd", "--role", "viewer", "bob")
	line.Stdin = strings.NewReader(password + "\n")
	bob, _, _ := outputOf(t, line)
	users, err := os.ReadFile(filepath.Join(p.data, "users"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(p.data, "users"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(users) + bob)
	other := filepath.Join(t.TempDir(), "jar")
	signIn := []string{"-c", other, "--data-urlencode", "name=bob", "--data-urlencode", "password=" + password, at + "/signin"}
	p.await("the new user", func() bool {
		status, _ := curl(signIn...)
		return status == "303"
	})
	page = expect("200", "-b", other, at+"/")
	csrf = regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(page)
	expect("403", "-b", other, "-X", "POST", "-H", "X-CSRF-Token: "+csrf[1], at+"/api/v1/drain")
	write(string(users))
	p.await("the end of the session", func() bool {
		status, _ := curl("-b", other, at+"/api/v1/status")
		return status == "401"
	})

	// Scripts have tokens.
	made, _, code := p.run("token", "create", "--name", "script", "--role", "admin")
	if code != 0 {
		t.Fatal(made)
	}
	bearer := "Authorization: Bearer " + strings.TrimSpace(made)
	expect("200", "-H", bearer, at+"/api/v1/status")
	expect("204", "-H", bearer, "-X", "POST", at+"/api/v1/reload")
	if _, stderr, code := p.run("token", "revoke", "script"); code != 0 {
		t.Error(stderr)
	}
	expect("401", "-H", bearer, at+"/api/v1/status")

	expect("303", "-b", jar, "-d", "csrf="+regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(expect("200", "-b", jar, at+"/"))[1], at+"/signout")
	expect("401", "-b", jar, at+"/api/v1/status")
	for _, secret := range []string{password, secret, strings.TrimSpace(made)} {
		if strings.Contains(p.stderr.String(), secret) {
			t.Errorf("the log tells %q", secret)
		}
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
}

// The API with the real program: what went through is found again, explained, and
// seen as it happens; secrets of the configuration are not.
func TestAPI(t *testing.T) {
	need(t, "curl")
	at := listen(t, "127.0.0.1:0", echo)
	p := launch(t, "egress: {allow: [127.0.0.0/8]}\nlists: {ads: {url: \"http://u:geheim@127.0.0.1:1/ads.txt\"}}\npac: {proxies: [\"proxy.example:3128\"]}\n")
	if got := p.console("/api/v1/openapi.json"); !strings.Contains(got, `"3.1.0"`) {
		t.Error(got)
	}
	watch := exec.Command("curl", "-sSN", "--noproxy", "*", "--max-time", "15", "-H", "Authorization: Bearer "+p.token, "http://"+p.admin+"/api/v1/events?tail=1")
	events := new(lockedBuffer)
	watch.Stdout = events
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Process.Kill(); _ = watch.Wait() }()
	p.await("the first event", func() bool { return strings.Contains(events.String(), "event: traffic") })

	status, _, c := p.connect(at.String())
	if err := pingPong(c, "hello"); status != 200 || err != nil {
		t.Fatalf("%d, %v", status, err)
	}
	c.Close()
	p.await("the record among the events", func() bool {
		return regexp.MustCompile(`event: records\ndata: .*"host":"127\.0\.0\.1"`).MatchString(events.String())
	})
	id := p.record("127.0.0.1").ID.String()
	for path, want := range map[string]string{
		"/api/v1/logs?since=1h&client=127.0.0.0/8": `"id": "` + id,
		"/api/v1/logs/" + id:                       `"host": "127.0.0.1"`,
		"/api/v1/logs?format=csv":                  id + ",",
		"/api/v1/traffic?since=1h":                 `"up": 5`,
		"/api/v1/explain?url=gs.apple.com":         `"rule": "apple"`,
		"/api/v1/pac/eval?url=gs.apple.com":        `"host": "gs.apple.com"`,
		"/api/v1/config":                           "http://u:xxxxx@127.0.0.1:1/ads.txt",
		"/api/v1/lists":                            `"name": "ads"`,
	} {
		if got := p.console(path); !strings.Contains(got, want) || strings.Contains(got, "geheim") {
			t.Errorf("%s: %s is missing in\n%s", path, want, got)
		}
	}
	// The socket of the commands has the same, for whoever may open it.
	out, _, code := outputOf(t, exec.Command("curl", "-sS", "--unix-socket", filepath.Join(p.data, "espalier.sock"), "http://x/logs/"+id))
	if code != 0 || !strings.Contains(out, id) {
		t.Errorf("%d %s", code, out)
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
}
