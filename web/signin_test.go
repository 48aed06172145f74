package web

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"espalier/policy/auth"
	"espalier/web/signin"
)

const password = "correct horse battery"

// A consoleTest is an admin listener whose users are ann, an admin, and bob, a
// viewer.
type consoleTest struct {
	*testing.T
	srv     *httptest.Server
	desk    *signin.Desk
	data    string
	clock   atomic.Int64 // nanoseconds that sessions believe to be ahead
	drained int
}

func consoleOf(t *testing.T, users ...string) *consoleTest {
	t.Helper()
	c := &consoleTest{T: t, data: t.TempDir()}
	c.desk = signin.NewDesk(c.data, func() time.Time { return time.Now().Add(time.Duration(c.clock.Load())) }, auth.NewGuard(time.Now))
	c.setUsers(users...)
	control := testControl()
	control.Desk = c.desk
	control.Drain = func() { c.drained++ }
	c.srv = httptest.NewServer(AdminServer(control).Handler)
	t.Cleanup(c.srv.Close)
	return c
}

// setUsers replaces the users, each a "name:role".
func (c *consoleTest) setUsers(users ...string) {
	c.Helper()
	file := filepath.Join(c.data, "users")
	var text string
	for _, u := range users {
		name, role, _ := strings.Cut(u, ":")
		line, err := auth.Line(name, password, false)
		if err != nil {
			c.Fatal(err)
		}
		text += line + ":" + role + "\n"
	}
	if text != "" {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			c.Fatal(err)
		}
	}
	opened, err := signin.OpenUsers(file, c.desk.Guard())
	if err != nil {
		c.Fatal(err)
	}
	c.desk.SetUsers(file, opened)
}

// A call is a request as a client sends it.
type call struct {
	method, path string
	header       map[string]string // Host stands for the request's
	form         url.Values        // a body where it is not nil
}

// send sends a call, with a cookie where one is given.
func (c *consoleTest) send(x call, cookie string) (*http.Response, string) {
	c.Helper()
	var body io.Reader
	if x.form != nil {
		body = strings.NewReader(x.form.Encode())
	}
	req, err := http.NewRequest(x.method, c.srv.URL+x.path, body)
	if err != nil {
		c.Fatal(err)
	}
	if x.form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	for k, v := range x.header {
		req.Header.Set(k, v)
	}
	req.Host = x.header["Host"]
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		c.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.Fatal(err)
	}
	return resp, string(text)
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// signIn signs in as a browser would, and returns the cookie and what forms
// repeat.
func (c *consoleTest) signIn(name, cookie string) (session, csrf string) {
	c.Helper()
	resp, body := c.send(call{"POST", "/signin", nil, url.Values{"name": {name}, "password": {password}, "next": {"/?a=b"}}}, cookie)
	if resp.StatusCode != 303 || resp.Header.Get("Location") != "/?a=b" || len(resp.Cookies()) != 1 {
		c.Fatalf("%s %v\n%s", resp.Status, resp.Header, body)
	}
	session = resp.Cookies()[0].Name + "=" + resp.Cookies()[0].Value
	resp, body = c.send(call{method: "GET", path: "/"}, session)
	field := csrfField.FindStringSubmatch(body)
	if resp.StatusCode != 200 || field == nil {
		c.Fatalf("%s\n%s", resp.Status, body)
	}
	return session, field[1]
}

func TestSignIn(t *testing.T) {
	c := consoleOf(t, "ann:admin")
	resp, _ := c.send(call{method: "GET", path: "/?tab=2"}, "")
	if resp.StatusCode != 303 || resp.Header.Get("Location") != "/signin?next=%2F%3Ftab%3D2" {
		t.Errorf("%s %s", resp.Status, resp.Header.Get("Location"))
	}
	resp, body := c.send(call{method: "GET", path: "/signin?next=/?tab=2"}, "")
	if resp.StatusCode != 200 || !strings.Contains(body, `name="next" value="/?tab=2"`) || strings.Contains(body, "proxy-1") {
		t.Errorf("%s\n%s", resp.Status, body)
	}
	resp, _ = c.send(call{"POST", "/signin", nil, url.Values{"name": {"ann"}, "password": {password}}}, "")
	got := resp.Cookies()[0]
	if got.Name != "espalier" || !got.HttpOnly || got.Secure || got.SameSite != http.SameSiteStrictMode || got.Path != "/" || got.Domain != "" || got.MaxAge != 0 {
		t.Errorf("%+v", got)
	}
	resp, _ = c.send(call{"POST", "/signin", map[string]string{"Origin": "https://console.school.example", "Host": "console.school.example"}, url.Values{"name": {"ann"}, "password": {password}}}, "")
	if got := resp.Cookies()[0]; got.Name != "__Host-espalier" || !got.Secure {
		t.Errorf("behind TLS: %+v", got)
	}
	session, _ := c.signIn("ann", "")
	if resp, _ := c.send(call{method: "GET", path: "/signin?next=/x"}, session); resp.StatusCode != 303 || resp.Header.Get("Location") != "/x" {
		t.Errorf("signed in already: %s", resp.Status)
	}
}

// What gets in must be shown to get in, or the refusals below prove nothing.
func TestWhoMay(t *testing.T) {
	c := consoleOf(t, "ann:admin", "bob:viewer")
	ann, annCSRF := c.signIn("ann", "")
	bob, bobCSRF := c.signIn("bob", "")
	viewer, err := signin.CreateToken(c.data, "viewer", signin.Viewer, 0)
	if err != nil {
		t.Fatal(err)
	}
	admin, err := signin.CreateToken(c.data, "admin", signin.Admin, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	expired, err := signin.CreateToken(c.data, "expired", signin.Admin, time.Nanosecond)
	if err != nil {
		t.Fatal(err)
	}
	read, drain := call{method: "GET", path: "/api/v1/status"}, call{method: "POST", path: "/api/v1/drain"}
	with := func(x call, pairs ...string) call {
		x.header = map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			x.header[pairs[i]] = pairs[i+1]
		}
		return x
	}
	own := c.srv.URL
	for _, tt := range []struct {
		name   string
		call   call
		cookie string
		status int
	}{
		{"a viewer reads", read, bob, 200},
		{"an admin drains", with(drain, "X-CSRF-Token", annCSRF), ann, 202},
		{"an admin drains from a page", with(drain, "X-CSRF-Token", annCSRF, "Origin", own, "Sec-Fetch-Site", "same-origin"), ann, 202},
		{"an admin drains by form", call{"POST", "/api/v1/drain", nil, url.Values{"csrf": {annCSRF}}}, ann, 202},
		{"a viewer's token reads", with(read, "Authorization", "Bearer "+viewer), "", 200},
		{"an admin's token drains", with(drain, "Authorization", "bearer "+admin), "", 202},
		{"a name in web.hosts", with(read, "Host", "Console.School.Example.:8081"), bob, 200},

		{"nobody", read, "", 401},
		{"a cookie that is none", read, "espalier=x; espalier=" + strings.Repeat("A", 43), 401},
		{"a stolen cookie without token", drain, ann, 403},
		{"a stolen cookie with another's token", with(drain, "X-CSRF-Token", bobCSRF), ann, 403},
		{"a stolen cookie with an empty token", call{"POST", "/api/v1/drain", nil, url.Values{"csrf": {""}}}, ann, 403},
		{"the wrong role", with(drain, "X-CSRF-Token", bobCSRF), bob, 403},
		{"the wrong role of a token", with(drain, "Authorization", "Bearer "+viewer), "", 403},
		{"an expired token", with(read, "Authorization", "Bearer "+expired), "", 401},
		{"a token that is none", with(read, "Authorization", "Bearer espalier_x"), "", 401},
		{"a wrong token beside a good cookie", with(read, "Authorization", "Bearer espalier_x"), ann, 401},
		{"a password in place of a token", with(read, "Authorization", "Basic YW5uOmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ=="), "", 401},
		{"a token in the URL", call{method: "GET", path: "/api/v1/status?token=" + viewer}, "", 401},
		{"a cross-site page", with(drain, "X-CSRF-Token", annCSRF, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"), ann, 403},
		{"a cross-site page in a browser without Sec-Fetch-Site", with(drain, "X-CSRF-Token", annCSRF, "Origin", "https://evil.example"), ann, 403},
		{"a cross-site page without origin", with(drain, "X-CSRF-Token", annCSRF, "Origin", "null"), ann, 403},
		{"a page of another port", with(drain, "X-CSRF-Token", annCSRF, "Origin", "http://127.0.0.1:1", "Sec-Fetch-Site", "same-site"), ann, 403},
		{"a page of another port reads", with(read, "Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "no-cors"), ann, 401},
		{"a cross-site page reads", with(read, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "cors"), ann, 401},
		{"a rebinding host", with(read, "Host", "evil.example"), ann, 421},
		{"a rebinding host with a token", with(read, "Host", "evil.example", "Authorization", "Bearer "+viewer), "", 421},
		{"a rebinding host signs in", with(call{method: "POST", path: "/signin", form: url.Values{"name": {"ann"}, "password": {password}}}, "Host", "evil.example"), "", 421},
		{"a cross-site page signs in", with(call{method: "POST", path: "/signin", form: url.Values{"name": {"ann"}, "password": {password}}}, "Origin", "https://evil.example"), "", 403},
		{"a viewer decides on a page", call{"POST", "/inspection/refuse", nil, url.Values{"csrf": {bobCSRF}, "host": {"bank.example"}}}, bob, 403},
		{"a viewer reloads on a page", call{"POST", "/settings/reload", nil, url.Values{"csrf": {bobCSRF}}}, bob, 403},
		{"a viewer starts the doctor", call{"POST", "/doctor/run", nil, url.Values{"csrf": {bobCSRF}}}, bob, 403},
		{"a stolen cookie decides on a page", call{"POST", "/inspection/accept", nil, url.Values{"host": {"bank.example"}}}, ann, 403},
		{"a cross-site page sets the language", with(call{method: "POST", path: "/preferences", form: url.Values{"lang": {"sv"}}}, "Origin", "https://evil.example"), "", 403},
		{"another method", with(call{method: "DELETE", path: "/api/v1/drain"}, "X-CSRF-Token", annCSRF), ann, 405},
		{"a method by override", with(call{method: "GET", path: "/api/v1/drain?_method=POST"}, "X-HTTP-Method-Override", "POST", "X-CSRF-Token", annCSRF), ann, 405},
		{"a body without end", call{"POST", "/api/v1/drain", nil, url.Values{"a": {strings.Repeat("a", maxBody)}, "csrf": {annCSRF}}}, ann, 403},
		{"metrics for a proxy on this machine", with(call{method: "GET", path: "/metrics"}, "X-Forwarded-For", "192.0.2.1"), "", 401},
		{"metrics by a name of the console", with(call{method: "GET", path: "/metrics"}, "Host", "console.school.example"), "", 401},
		{"metrics by a token", with(call{method: "GET", path: "/metrics"}, "Host", "console.school.example", "Authorization", "Bearer "+viewer), "", 200},
		{"metrics on this machine", call{method: "GET", path: "/metrics"}, "", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := c.drained
			resp, body := c.send(tt.call, tt.cookie)
			if resp.StatusCode != tt.status {
				t.Errorf("%s\n%s", resp.Status, body)
			}
			if did := c.drained > before; did != (tt.status == 202) {
				t.Errorf("drained: %v", did)
			}
			if tt.status == 401 && resp.Header.Get("WWW-Authenticate") != `Bearer realm="Espalier"` {
				t.Errorf("%v", resp.Header)
			}
			if tt.status >= 400 && strings.Contains(body, "proxy-1") {
				t.Errorf("tells what it is: %s", body)
			}
			if len(resp.Cookies()) > 0 || resp.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%v", resp.Header)
			}
		})
	}
}

// No way of writing a path leads past the gate.
func TestPathTricks(t *testing.T) {
	c := consoleOf(t, "ann:admin")
	for _, path := range []string{
		"/api/v1/status", "//api/v1/status", "/api//v1/status", "/./api/v1/status", "/assets/../api/v1/status", "/assets/%2e%2e/api/v1/status",
		"/assets/..%2fapi/v1/status", "/api/v1/status/", "/api/v1/status;/assets/", "/API/v1/status", "/api/v1/%73tatus", "/signin/../api/v1/status",
		"/api/v1/status%00", "/api/v1/status?/signin", "/%2e/", "/.", "/index.html", "/setup/../", "/metrics/../", "/api/v1/status#/signin", "/api\\v1\\status",
	} {
		for _, method := range []string{"GET", "POST", "CONNECT", "TRACE"} {
			x := call{method: method, path: path}
			for range 4 { // the mux leads the way to the clean path
				resp, body := c.send(x, "")
				if resp.StatusCode < 300 || strings.Contains(body, "proxy-1") {
					t.Errorf("%s %s: %s\n%s", method, path, resp.Status, body)
				}
				to := resp.Header.Get("Location")
				if to == "" || strings.HasPrefix(to, "/signin") {
					break
				}
				if !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") {
					t.Errorf("%s %s leads to %s", method, path, to)
					break
				}
				x.path = to
			}
		}
	}
}

func TestNextStaysHere(t *testing.T) {
	for next, want := range map[string]string{
		"/logs?host=a.example&x=%2F": "/logs?host=a.example&x=%2F", "/": "/", "": "/", "logs": "/",
		"//evil.example": "/", "https://evil.example/": "/", "/\\evil.example": "/", "\\\\evil.example": "/", "/\t/evil.example": "/",
		"javascript:alert(1)": "/", "///evil.example": "/", "/\r\nSet-Cookie: a=b": "/", "/%2f/evil.example": "/%2f/evil.example",
	} {
		if got := ownPath(next); got != want {
			t.Errorf("%q: %q, want %q", next, got, want)
		}
	}
}

// Whoever is led here from elsewhere comes without the cookie at first.
func TestLedHereFromElsewhere(t *testing.T) {
	c := consoleOf(t, "ann:admin")
	resp, body := c.send(call{"GET", `/?q="><script>&b`, map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, nil}, "")
	if resp.StatusCode != 200 || !strings.Contains(body, `content="0;url=/?q=`) || strings.Contains(body, "<script") {
		t.Errorf("%s\n%s", resp.Status, body)
	}
}

func TestFixation(t *testing.T) {
	c := consoleOf(t, "ann:admin", "bob:viewer")
	planted := "espalier=" + strings.Repeat("A", 43)
	session, _ := c.signIn("ann", planted)
	if session == planted {
		t.Error("a planted session is taken over")
	}
	attackers, _ := c.signIn("bob", "")
	session, _ = c.signIn("ann", attackers)
	if session == attackers {
		t.Error("another's session is taken over")
	}
	if resp, _ := c.send(call{method: "GET", path: "/api/v1/status"}, attackers); resp.StatusCode != 401 {
		t.Errorf("the session before goes on: %s", resp.Status)
	}
}

func TestSignOut(t *testing.T) {
	c := consoleOf(t, "ann:admin")
	session, csrf := c.signIn("ann", "")
	if resp, _ := c.send(call{method: "POST", path: "/signout"}, session); resp.StatusCode != 403 {
		t.Errorf("without token: %s", resp.Status)
	}
	resp, _ := c.send(call{"POST", "/signout", nil, url.Values{"csrf": {csrf}}}, session)
	if resp.StatusCode != 303 || resp.Cookies()[0].MaxAge != -1 || resp.Cookies()[0].Value != "" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	if resp, _ := c.send(call{method: "GET", path: "/api/v1/status"}, session); resp.StatusCode != 401 {
		t.Errorf("the session goes on: %s", resp.Status)
	}
}

func TestEndedSession(t *testing.T) {
	c := consoleOf(t, "ann:admin")
	session, csrf := c.signIn("ann", "")
	c.setUsers("ann:viewer")
	for _, x := range []call{{method: "GET", path: "/api/v1/status"}, {"POST", "/api/v1/drain", map[string]string{"X-CSRF-Token": csrf}, nil}} {
		if resp, _ := c.send(x, session); resp.StatusCode != 401 {
			t.Errorf("%s: %s", x.path, resp.Status)
		}
	}
}

func TestExpiredSession(t *testing.T) {
	c := consoleOf(t, "ann:admin")
	session, csrf := c.signIn("ann", "")
	c.clock.Add(int64(time.Hour))
	for _, x := range []call{{method: "GET", path: "/api/v1/status"}, {"POST", "/api/v1/drain", map[string]string{"X-CSRF-Token": csrf}, nil}} {
		if resp, _ := c.send(x, session); resp.StatusCode != 401 || c.drained > 0 {
			t.Errorf("%s: %s", x.path, resp.Status)
		}
	}
	c.signIn("ann", session)
}

// The setup link is of no use from elsewhere.
func TestSetupFromElsewhere(t *testing.T) {
	c := consoleOf(t)
	link, _, err := c.desk.NewLink()
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"link": {link}, "name": {"eve"}, "password": {password}, "again": {password}}.Encode()
	for _, req := range []*http.Request{
		httptest.NewRequest("GET", "http://127.0.0.1/setup?link="+link, nil),
		httptest.NewRequest("POST", "http://127.0.0.1/setup", strings.NewReader(form)),
	} {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.RemoteAddr = "192.0.2.1:4711"
		answer := httptest.NewRecorder()
		c.srv.Config.Handler.ServeHTTP(answer, req)
		if answer.Code != 410 || c.desk.HasUsers() {
			t.Errorf("%s: %d", req.Method, answer.Code)
		}
	}
	if c.desk.CheckLink(link) != nil {
		t.Error("the link is used up")
	}
}

func TestBruteForce(t *testing.T) {
	c := consoleOf(t, "ann:admin")
	guess := func(name, password string) (*http.Response, string) {
		return c.send(call{"POST", "/signin", nil, url.Values{"name": {name}, "password": {password}}}, "")
	}
	var resp *http.Response
	var body string
	guesses := 0
	for ; guesses < 12; guesses++ {
		if resp, body = guess("ann", "guess "+string(rune('a'+guesses))); resp.StatusCode != 401 {
			break
		}
		if len(resp.Cookies()) > 0 || !strings.Contains(body, "wrong") {
			t.Fatalf("%v\n%s", resp.Header, body)
		}
	}
	if resp.StatusCode != 429 || guesses > 8 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "Too many") {
		t.Errorf("after %d guesses: %s %v", guesses, resp.Status, resp.Header)
	}
	if resp, _ := guess("ann", password); resp.StatusCode != 429 {
		t.Errorf("the right one meanwhile: %s", resp.Status)
	}
}

func TestSetupPage(t *testing.T) {
	c := consoleOf(t)
	for path, want := range map[string]int{"/api/v1/status": 401, "/": 303, "/signin": 200, "/setup": 410, "/setup?link=x": 410, "/metrics": 200} {
		if resp, body := c.send(call{method: "GET", path: path}, ""); resp.StatusCode != want || want == 401 && !strings.Contains(body, "espalier setup") {
			t.Errorf("%s: %s\n%s", path, resp.Status, body)
		}
	}
	link, _, err := c.desk.NewLink()
	if err != nil {
		t.Fatal(err)
	}
	form := func(link, name, first, second string) call {
		return call{"POST", "/setup", nil, url.Values{"link": {link}, "name": {name}, "password": {first}, "again": {second}}}
	}
	if resp, body := c.send(call{method: "GET", path: "/setup?link=" + link}, ""); resp.StatusCode != 200 || !strings.Contains(body, link) || resp.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("%s\n%s", resp.Status, body)
	}
	cross := form(link, "eve", password, password)
	cross.header = map[string]string{"Sec-Fetch-Site": "cross-site"}
	for name, tt := range map[string]struct {
		call   call
		status int
		text   string
	}{
		"another link":  {form("x", "eve", password, password), 410, "not valid any more"},
		"a cross-site":  {cross, 403, "not the console"},
		"two passwords": {form(link, "ann", password, password+"x"), 422, "differ"},
		"too short":     {form(link, "ann", "short", "short"), 422, "The password is too short: 12 characters"},
		"a bad name":    {form(link, "a:b", password, password), 422, "cannot be a user"},
	} {
		resp, body := c.send(tt.call, "")
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.text) || strings.Contains(body, password) || len(resp.Cookies()) > 0 {
			t.Errorf("%s: %s\n%s", name, resp.Status, body)
		}
	}
	resp, _ := c.send(form(link, "ann", password, password), "")
	if resp.StatusCode != 303 || len(resp.Cookies()) != 1 {
		t.Fatalf("%s", resp.Status)
	}
	if resp, _ := c.send(call{method: "GET", path: "/"}, "espalier="+resp.Cookies()[0].Value); resp.StatusCode != 200 {
		t.Errorf("not signed in: %s", resp.Status)
	}
	if resp, _ := c.send(form(link, "eve", password, password), ""); resp.StatusCode != 410 {
		t.Errorf("the link again: %s", resp.Status)
	}
	c.signIn("ann", "")
}

// How pages look may be chosen by whoever sees them, and leads nowhere else.
func TestPreferences(t *testing.T) {
	c := consoleOf(t, "ann:admin")
	for _, tt := range []struct {
		name    string
		form    url.Values
		cookies []string
		to      string
	}{
		{"both", url.Values{"lang": {"sv"}, "theme": {"dark"}, "next": {"/logs?host=a.example"}}, []string{"espalier-lang=sv", "espalier-theme=dark"}, "/logs?host=a.example"},
		{"what there is not", url.Values{"lang": {"xx; Domain=example"}, "theme": {"<b>"}}, nil, "/"},
		{"another site", url.Values{"theme": {"system"}, "next": {"//evil.example/"}}, []string{"espalier-theme=system"}, "/"},
	} {
		resp, _ := c.send(call{"POST", "/preferences", nil, tt.form}, "")
		var cookies []string
		for _, k := range resp.Cookies() {
			cookies = append(cookies, k.Name+"="+k.Value)
			if !k.HttpOnly || k.SameSite != http.SameSiteStrictMode {
				t.Errorf("%s: %s", tt.name, k)
			}
		}
		if resp.StatusCode != 303 || resp.Header.Get("Location") != tt.to || !slices.Equal(cookies, tt.cookies) {
			t.Errorf("%s: %s to %s with %q", tt.name, resp.Status, resp.Header.Get("Location"), cookies)
		}
	}
}
