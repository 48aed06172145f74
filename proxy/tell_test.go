package proxy

import (
	"strings"
	"testing"

	"espalier/policy"
)

// Browsers get a page, in their language; everybody else a text. A tunnel's
// refusal is a text always.
func TestTell(t *testing.T) {
	const browser = "Accept: text/html,*/*;q=0.8\r\nAccept-Language: sv-SE, en;q=0.5\r\n"
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, setup{
			hosts: map[string]string{"gone.example": "127.0.0.1"}, contact: "Help <desk>", users: map[string]string{"alice": "x"},
			rules: []policy.Rule{
				{Name: "no <games>", Then: "deny", When: policy.When{Hosts: []string{"game.example"}}},
				{Name: "known", Then: "allow", When: policy.When{Hosts: []string{"gone.example"}, Ports: []uint16{1}}},
			},
		})
		known := "Proxy-Authorization: Basic YWxpY2U6eA==\r\n"
		for _, tt := range []struct {
			name, request string
			status        int
			html          bool
			want, without []string
		}{
			{"rule", "GET http://game.example/ HTTP/1.1\r\nHost: game.example\r\n" + browser + "\r\n", 403, true,
				[]string{`<html lang="sv">`, "<dd>no &lt;games&gt;</dd>", "<dd>game.example</dd>", "<dd>Help &lt;desk&gt;</dd>", "Inte tillåtet här", "Reglerna för"}, nil},
			{"rule, text", "GET http://game.example/ HTTP/1.1\r\nHost: game.example\r\nAccept: */*\r\nAccept-Language: sv\r\n\r\n", 403, false,
				[]string{"This network's policy", "Rule: no <games>\n", "Contact: Help <desk>\n"}, nil},
			{"English", "GET http://game.example/ HTTP/1.1\r\nHost: game.example\r\nAccept: text/html\r\n\r\n", 403, true,
				[]string{`<html lang="en">`, "Not allowed here", "This network&#39;s policy"}, nil},
			{"several headers of a name", "GET http://game.example/ HTTP/1.1\r\nHost: game.example\r\nAccept: image/png\r\nAccept: text/html\r\n\r\n", 403, true, nil, nil},
			{"sign in", "GET http://other.example/ HTTP/1.1\r\nHost: other.example\r\n" + browser + "\r\n", 407, true,
				[]string{"Logga in", "<dd>other.example</dd>"}, []string{"<dt>Regel"}},
			{"error", "GET http://gone.example:1/ HTTP/1.1\r\nHost: gone.example:1\r\n" + known + browser + "\r\n", 502, true,
				[]string{"Webbplatsen kan inte nås", "<dd>gone.example</dd>"}, []string{"<dt>Regel"}},
			{"no target", "GET http://127.1/%3Cscript%3E HTTP/1.1\r\nHost: 127.1\r\n" + browser + "\r\n", 403, true,
				[]string{"Inte tillåtet här"}, []string{"<dt>Webbplats", "script"}},
			{"tunnel", "CONNECT game.example:443 HTTP/1.1\r\nHost: game.example:443\r\n" + browser + "\r\n", 403, false,
				[]string{"This network's policy", "Rule: no <games>\n"}, nil},
		} {
			t.Run(tt.name, func(t *testing.T) {
				c := r.dial()
				c.send(tt.request)
				method, _, _ := strings.Cut(tt.request, " ")
				a := c.answer(method)
				kind := a.Header.Get("Content-Type")
				if a.StatusCode != tt.status || strings.HasPrefix(kind, "text/html") != tt.html || (a.Header.Get("Content-Security-Policy") != "") != tt.html {
					t.Errorf("%d %v", a.StatusCode, a.Header)
				}
				if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Proxy-Status") == "" || (a.Header.Get("Proxy-Authenticate") != "") != (tt.status == 407) {
					t.Errorf("%v", a.Header)
				}
				for _, s := range tt.want {
					if !strings.Contains(a.body, s) {
						t.Errorf("no %s in\n%s", s, a.body)
					}
				}
				for _, s := range tt.without {
					if strings.Contains(a.body, s) {
						t.Errorf("%s in\n%s", s, a.body)
					}
				}
			})
		}
	})
}

// The short way, on which no rule decides, tells of errors as the general does.
func TestTellOnBothWays(t *testing.T) {
	everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
		r := start(t, setup{})
		c, refusing := r.dial(), refusingPort(t)
		for _, accept := range []string{"text/html", "text/plain"} {
			c.send("GET http://" + refusing + "/ HTTP/1.1\r\nHost: " + refusing + "\r\nAccept: " + accept + "\r\nAccept-Language: sv\r\n\r\n")
			if a := c.answer("GET"); a.StatusCode != 502 || a.Header.Get("Content-Type") != accept+"; charset=utf-8" || strings.Contains(a.body, "Webbplatsen") != (accept == "text/html") {
				t.Errorf("%s: %d %v\n%s", accept, a.StatusCode, a.Header, a.body)
			}
		}
	})
}
