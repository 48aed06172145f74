package proxy

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"espalier/policy"
	"espalier/policy/auth"
)

// noDirectory is one that does not answer.
var noDirectory = auth.LDAPConfig{
	URL: "ldap://127.0.0.1:1", Base: "dc=school,dc=example", Filter: "(uid=%s)", NameAttribute: "uid", Timeout: time.Second,
}

// guessedAt is no host of Apple's.
const guessedAt = "www.example.org"

// guess sends wrong passwords until an answer has that status, and returns how
// many it took; 0 where it never came.
func (r *rig) guess(name string, status int) int {
	r.t.Helper()
	for i := 1; i < 40; i++ {
		c := r.dial()
		c.send(connectTo(guessedAt+":443", basic(name, fmt.Sprint(i))))
		a := c.answer("GET")
		if c.Close(); a.StatusCode == status {
			return i
		}
	}
	return 0
}

// Who guesses has to wait, and is not asked for another password; who has signed
// in goes on, from the same address.
func TestGuessing(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		o := newAnswering(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		r := start(t, setup{users: map[string]string{"alice": "secret", "bob": "hidden"}})
		c := r.dial()
		get := func(name, password string) int {
			t.Helper()
			c.send("GET http://" + o.String() + "/ HTTP/1.1\r\nHost: x\r\n" + basic(name, password) + "\r\n\r\n")
			a := c.answer("GET")
			if seconds, err := strconv.Atoi(a.Header.Get("Retry-After")); (a.StatusCode == 429) != (err == nil && seconds > 0) {
				t.Errorf("%s with Retry-After %q", a.Status, a.Header.Get("Retry-After"))
			}
			if (a.StatusCode == 407) != (a.Header.Get("Proxy-Authenticate") != "") {
				t.Errorf("%s with Proxy-Authenticate %q", a.Status, a.Header.Get("Proxy-Authenticate"))
			}
			return a.StatusCode
		}
		if status := get("alice", "secret"); status != 200 {
			t.Fatalf("alice: %d", status)
		}
		if n := r.guess("bob", 429); n != 7 {
			t.Errorf("the %d. guess has to wait", n)
		}
		if status := get("bob", "hidden"); status != 429 {
			t.Errorf("bob, whose password is guessed: %d", status)
		}
		if status := get("alice", "secret"); status != 200 {
			t.Errorf("alice, beside the guesses: %d", status)
		}
		c.Close()
		wrong, damped := 0, 0
		for _, rec := range r.stop() {
			switch rec.Status {
			case 407:
				wrong++
				if rec.Action != policy.Challenge || rec.Rule != policy.RuleAuth || rec.User != "" || rec.Error != "wrong user or password" {
					t.Errorf("record %+v", rec)
				}
			case 429:
				damped++
				if rec.Action != policy.Deny || rec.Rule != policy.RuleAuth || rec.User != "" || !strings.Contains(rec.Error, "too many sign-ins by this name") {
					t.Errorf("record %+v", rec)
				}
			}
		}
		if wrong != 6 || damped != 2 {
			t.Errorf("%d records of wrong passwords, %d of damped sign-ins", wrong, damped)
		}
	})
}

// No password helps while the directory is down, so nobody is asked for one.
func TestDirectoryDown(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, setup{auth: auth.Config{LDAP: noDirectory}})
		for _, request := range []string{
			connectTo(guessedAt+":443", basic("alice", "secret")),
			"GET http://" + guessedAt + "/ HTTP/1.1\r\nHost: x\r\n" + basic("alice", "secret") + "\r\n\r\n",
		} {
			c := r.dial()
			c.send(request)
			a := c.answer("GET")
			if a.StatusCode != 503 || a.Header.Get("Proxy-Status") != "espalier; error=proxy_internal_error" ||
				a.Header.Get("Proxy-Authenticate") != "" || a.Header.Get("Retry-After") == "" || strings.Contains(a.body, "ldap") {
				t.Errorf("%s %v %q", a.Status, a.Header, a.body)
			}
			c.Close()
		}
		for _, rec := range r.stop() {
			if rec.Action != policy.Error || rec.Rule != policy.RuleAuth || rec.User != "" || !strings.Contains(rec.Error, "connection refused") {
				t.Errorf("record %+v", rec)
			}
		}
	})
}

// Rules see the groups of whoever signs in.
func TestGroups(t *testing.T) {
	groups := filepath.Join(t.TempDir(), "groups")
	if err := os.WriteFile(groups, []byte("staff: alice\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		at := newOrigin(t, echo)
		r := start(t, setup{
			users: map[string]string{"alice": "a", "bob": "b"}, auth: auth.Config{Groups: groups, Realm: `North "School"`},
			rules: []policy.Rule{
				{Name: "staff-only", When: policy.When{Groups: []string{"staff"}}, Then: "allow"},
				{Name: "nobody-else", Then: "deny"},
			},
		})
		for _, tt := range []struct {
			header string
			status int
		}{{"X: y", 407}, {basic("alice", "a"), 200}, {basic("bob", "b"), 403}} {
			c := r.dial()
			c.send(connectTo(at.String(), tt.header))
			a, err := http.ReadResponse(c.in, &http.Request{Method: http.MethodConnect})
			if err != nil {
				t.Fatal(err)
			}
			if a.StatusCode != tt.status {
				t.Errorf("%s: %s", tt.header, a.Status)
			}
			if got := a.Header.Get("Proxy-Authenticate"); tt.status == 407 && got != `Basic realm="North \"School\"", charset="UTF-8"` {
				t.Errorf("Proxy-Authenticate: %s", got)
			}
			c.Close()
		}
		r.stop()
	})
}
