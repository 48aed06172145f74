package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"espalier/policy/auth"
	"espalier/policy/auth/slapdtest"
	"espalier/web/signin"
)

// Users and groups of a directory and of files, as curl signs in through the
// program: what each may do, how guesses end, what a new file changes, and what
// happens while the directory is down. Apple's hosts ask for nothing meanwhile.
func TestAuthentication(t *testing.T) {
	need(t, "curl")
	directory := slapdtest.Start(t)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "origin", r.Header["Proxy-Authorization"])
	}))
	t.Cleanup(origin.Close)
	dir := t.TempDir()
	users, groups := filepath.Join(dir, "users"), filepath.Join(dir, "groups")
	replace := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	line := func(name string, useBcrypt bool) string {
		t.Helper()
		text, err := auth.Line(name, name+" secret", useBcrypt)
		if err != nil {
			t.Fatal(err)
		}
		return text + "\n"
	}
	ivy, dan := line("ivy", false), line("dan", true)
	replace(users, ivy+dan)
	replace(groups, "staff: ivy\n")
	p := launch(t, fmt.Sprintf(`
egress: {allow: [loopback], hosts: {"*.example": 127.0.0.1, captive.apple.com: 127.0.0.1}}
auth:
  htpasswd: %s
  groups: %s
  realm: School
  ldap: {url: %q, start_tls: true, roots: %s, bind_dn: %q, password: %q, base: %q, group_base: %q}
rules:
  - {name: staff, when: {groups: [staff], hosts: [staff.example]}, then: allow}
  - {name: not-for-others, when: {hosts: [staff.example]}, then: deny}
`, users, groups, directory.URL, directory.Roots, slapdtest.SearchDN, slapdtest.SearchPassword, "ou=people,"+slapdtest.Base, "ou=groups,"+slapdtest.Base))
	port := origin.URL[strings.LastIndexByte(origin.URL, ':'):]
	// curl returns the status of the proxy's answer, or of the origin's behind it.
	curl := func(host, credentials string, tunnel bool) string {
		t.Helper()
		args := []string{"-s", "-o", filepath.Join(dir, "body"), "-w", "%{http_connect} %{http_code}", "-m", "20", "-x", "http://" + p.proxy}
		if credentials != "" {
			args = append(args, "-U", credentials)
		}
		if tunnel {
			args = append(args, "-p")
		}
		stdout, _, _ := outputOf(t, exec.Command("curl", append(args, "http://"+host+port+"/")...))
		connect, code, _ := strings.Cut(stdout, " ")
		if connect != "000" && connect != "200" {
			return connect
		}
		if body, _ := os.ReadFile(filepath.Join(dir, "body")); code == "200" && string(body) != "origin[]" {
			t.Errorf("%s: the origin received %s", host, body)
		}
		return code
	}
	apple := func(when string) {
		t.Helper()
		for _, credentials := range []string{"", "alice:wrong"} {
			for _, tunnel := range []bool{false, true} {
				if got := curl("captive.apple.com", credentials, tunnel); got != "200" {
					t.Errorf("captive.apple.com, %s, by %q: %s", when, credentials, got)
				}
			}
		}
	}
	for _, tunnel := range []bool{false, true} {
		for _, tt := range []struct{ host, credentials, want string }{
			{"www.example", "", "407"},
			{"www.example", "alice:alice secret", "200"},
			{"www.example", "ALICE:alice secret", "200"},
			{"www.example", "bob:bob secret", "200"},
			{"www.example", "ivy:ivy secret", "200"},
			{"www.example", "dan:dan secret", "200"},
			{"www.example", "alice:", "407"},
			{"www.example", "alice:bob secret", "407"},
			{"www.example", "dan:ivy secret", "407"},
			{"staff.example", "", "407"},
			{"staff.example", "alice:alice secret", "200"},
			{"staff.example", "ivy:ivy secret", "200"},
			{"staff.example", "bob:bob secret", "403"},
			{"staff.example", "carol:carol secret", "403"}, // in another staff
			{"staff.example", "dan:dan secret", "403"},
		} {
			if got := curl(tt.host, tt.credentials, tunnel); got != tt.want {
				t.Errorf("%s by %q: %s, want %s", tt.host, tt.credentials, got, tt.want)
			}
		}
	}
	apple("all well")
	if challenge, _, _ := outputOf(t, exec.Command("curl", "-s", "-i", "-x", "http://"+p.proxy, "http://www.example"+port+"/")); !strings.Contains(challenge, "Proxy-Authenticate: Basic realm=\"School\", charset=\"UTF-8\"\r\n") {
		t.Errorf("the challenge:\n%s", challenge)
	}

	// Guesses.
	status := ""
	for i := 0; i < 30 && status != "429"; i++ {
		status = curl("www.example", fmt.Sprint("locked:guess ", i), i%2 == 0)
	}
	if status != "429" {
		t.Errorf("after 30 guesses: %s", status)
	}
	if got := curl("www.example", "alice:alice secret", true); got != "200" {
		t.Errorf("alice, beside the guesses: %s", got)
	}
	apple("while guesses are throttled")
	for _, result := range []string{"ok", "wrong", "throttled"} {
		if p.metric(`espalier_auth_total{result="`+result+`",source="proxy"}`) == 0 {
			t.Errorf("no sign-in is counted as %s", result)
		}
	}

	// New files.
	replace(users, ivy)
	p.await("that dan is gone", func() bool { return curl("www.example", "dan:dan secret", true) != "200" })
	replace(groups, "board: ivy\n")
	p.await("that ivy has left the staff", func() bool { return curl("staff.example", "ivy:ivy secret", false) == "403" })
	replace(users, ivy+"eve:nothing\n")
	p.await("the failed reload in /metrics", func() bool { return p.metric("espalier_config_last_reload_successful") == 0 })
	if got := curl("www.example", "ivy:ivy secret", true); got != "200" {
		t.Errorf("ivy, after a bad file: %s", got)
	}
	apple("with a bad file")

	// No directory.
	directory.Stop()
	if got := curl("www.example", "alice:alice secret", true); got != "200" {
		t.Errorf("alice, who is known, without the directory: %s", got)
	}
	for _, tunnel := range []bool{false, true} {
		if got := curl("www.example", "nobody:knows", tunnel); got != "503" {
			t.Errorf("somebody, without the directory: %s", got)
		}
	}
	apple("without the directory")
	if log := p.stderr.String(); strings.Count(log, "a directory cannot be asked who signs in") != 1 {
		t.Errorf("the log does not say once that the directory is down:\n%s", log)
	}
	for name, text := range map[string]string{"standard error": p.stderr.String(), "the access log": readAll(t, filepath.Join(p.data, "access.log"))} {
		if strings.Contains(text, " secret") || strings.Contains(text, "guess") {
			t.Errorf("a password stands in %s:\n%s", name, text)
		}
	}
}

// 20,000 guesses at the password of a user who is signed in, and at a token: 20 are compared at
// most, the right one is not told from the others, and elsewhere the user and the script go on, also
// right after a restart.
func TestGuessing(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "origin") }))
	t.Cleanup(origin.Close)
	line, err := auth.Line("ann", "right", true)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := prepare(t, fmt.Sprintf("egress: {allow: [loopback]}\nauth: {htpasswd: %s}\n", filepath.Join(dir, "users")))
	token, err := signin.CreateToken(p.data, "script", signin.Viewer, 0)
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{filepath.Join(dir, "users"): line, filepath.Join(p.data, "users"): line + ":admin\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.start()
	client := func(address string) *http.Client {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		transport := &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 8, Proxy: func(r *http.Request) (*url.URL, error) {
			if r.Header.Get("Proxy-Authorization") == "" {
				return nil, nil
			}
			return &url.URL{Scheme: "http", Host: p.proxy}, nil
		}}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	here, elsewhere := client("127.0.0.1"), client("127.0.0.2")
	total := 2000
	if n, err := strconv.Atoi(os.Getenv("ESPALIER_GUESSES")); err == nil {
		total = n
	}
	for _, way := range []struct {
		source, right string
		ok, wrong     int
		request       func(secret string) *http.Request
	}{
		{"proxy", "right", 200, 407, func(secret string) *http.Request {
			r, _ := http.NewRequest("GET", origin.URL, nil)
			r.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("ann:"+secret)))
			return r
		}},
		{"console", "right", 303, 401, func(secret string) *http.Request {
			r, _ := http.NewRequest("POST", "http://"+p.admin+"/signin", strings.NewReader(url.Values{"name": {"ann"}, "password": {secret}}.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			return r
		}},
		{"token", token, 200, 401, func(secret string) *http.Request {
			r, _ := http.NewRequest("GET", "http://"+p.admin+"/api/v1/status", nil)
			r.Header.Set("Authorization", "Bearer "+secret)
			return r
		}},
	} {
		t.Run(way.source, func(t *testing.T) {
			ask := func(c *http.Client, secret string) (status, wait int) {
				resp, err := c.Do(way.request(secret))
				if err != nil {
					t.Error(err)
					return 0, 0
				}
				defer resp.Body.Close()
				_, _ = io.Copy(io.Discard, resp.Body)
				wait, err = strconv.Atoi(resp.Header.Get("Retry-After"))
				if resp.StatusCode == 429 && (err != nil || wait < 1) {
					t.Errorf("Retry-After: %v", err)
				}
				return resp.StatusCode, wait
			}
			send := func(c *http.Client, secret string) int {
				status, _ := ask(c, secret)
				return status
			}
			for _, c := range []*http.Client{here, elsewhere} {
				if got := send(c, way.right); got != way.ok {
					t.Fatalf("at first: %d", got)
				}
			}
			var guesses sync.WaitGroup
			for worker := range 8 {
				guesses.Go(func() {
					for i := range total / 8 {
						// 503: guesses of this client wait for a turn already, and this one is not compared.
						if got := send(here, fmt.Sprint("espalier_", worker, " ", i)); got != way.wrong && got != 429 && got != 503 {
							t.Errorf("a guess: %d", got)
						}
					}
				})
			}
			guesses.Wait()
			if n := p.metric(`espalier_auth_total{result="wrong",source="` + way.source + `"}`); n == 0 || n > 20 {
				t.Errorf("%v guesses were compared", n)
			}
			for _, when := range []string{"among the guesses", "after a restart"} {
				for i, wait := 0, 0; wait < 2; i++ { // not at the end of a wait
					_, wait = ask(here, fmt.Sprint(when, i))
				}
				if got := send(here, way.right); got != 429 {
					t.Errorf("the right one, %s: %d", when, got)
				}
				if got := send(elsewhere, way.right); got != way.ok {
					t.Errorf("elsewhere, %s: %d", when, got)
				}
				p.signal(syscall.SIGTERM)
				p.exits(0)
				p.start()
			}
		})
	}
}

func readAll(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
