package proxy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"espalier/policy"
)

// payloads are what somebody may try to get into a log, a header or a page.
var payloads = map[string]string{
	"CRLF":              "a\r\nInjected: 1\r\n\r\n<script>",
	"LF":                "a\n{\"action\":\"forward\",\"injected\":1}",
	"CR":                "a\rInjected: 1",
	"encoded CRLF":      "a%0d%0aInjected:%201%0d%0a",
	"NUL":               "a\x00Injected",
	"ANSI escapes":      "a\x1b[2J\x1b]0;Injected\x07",
	"C1 escapes":        "a\xc2\x9b2JInjected",
	"raw C1":            "a\x9b2JInjected",
	"DEL and backspace": "a\x7f\x08\x08Injected",
	"next line":         "a\xc2\x85Injected",
	"line separator":    "a\u2028Injected\u2029",
	"right to left":     "a\u202eInjected\u2066",
	"invalid UTF-8":     "a\xff\xfe\xc3\x28Injected",
	"overlong UTF-8":    "a\xc0\x8d\xc0\x8aInjected",
	"quotes":            `a","injected":"1`,
	"back slash":        `a\",\ninjected`,
	"HTML":              `a"'><script>alert('Injected')</script>`,
	"squid fields":      "a - - TCP_MISS/200 Injected",
	"format verbs":      "a%s%n%x%!d(MISSING)Injected",
	"long":              strings.Repeat("Injected", 2000),
}

// openings are where a client, or an origin, may put a payload. %s is the payload,
// %o the origin.
var openings = map[string]string{
	"CONNECT target":    "CONNECT %s:443 HTTP/1.1\r\nHost: x\r\n\r\n",
	"CONNECT port":      "CONNECT a.test:%s HTTP/1.1\r\nHost: x\r\n\r\n",
	"method":            "%s http://%o/ HTTP/1.1\r\nHost: x\r\n\r\n",
	"URL's host":        "GET http://%s/ HTTP/1.1\r\nHost: x\r\n\r\n",
	"URL's scheme":      "GET %s://%o/ HTTP/1.1\r\nHost: x\r\n\r\n",
	"URL's path":        "GET http://%o/%s HTTP/1.1\r\nHost: x\r\n\r\n",
	"URL's query":       "GET http://%o/?%s HTTP/1.1\r\nHost: x\r\n\r\n",
	"version":           "GET http://%o/ HTTP/1.1%s\r\nHost: x\r\n\r\n",
	"Host":              "GET http://%o/ HTTP/1.1\r\nHost: %s\r\n\r\n",
	"user agent":        "GET http://%o/ HTTP/1.1\r\nHost: x\r\nUser-Agent: %s\r\n\r\n",
	"CONNECT's agent":   "CONNECT denied.test:443 HTTP/1.1\r\nHost: x\r\nUser-Agent: %s\r\n\r\n",
	"name of a header":  "GET http://%o/ HTTP/1.1\r\nHost: x\r\n%s: y\r\n\r\n",
	"language":          "GET http://denied.test/ HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\nAccept-Language: %s\r\n\r\n",
	"denied path":       "GET http://denied.test/%s HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n",
	"user":              "GET http://%o/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic %b\r\n\r\n",
	"scheme of sign-in": "GET http://%o/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: %s\r\n\r\n",
	"Connection":        "GET http://%o/ HTTP/1.1\r\nHost: x\r\nConnection: %s\r\n\r\n",
	"expectation":       "GET http://%o/ HTTP/1.1\r\nHost: x\r\nExpect: %s\r\n\r\n",
	"length":            "POST http://%o/ HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n",
	"chunk":             "POST http://%o/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
	"status line":       "HTTP/1.1 200 %s\r\nContent-Length: 0\r\n\r\n",
	"answer's version":  "%s 200 OK\r\nContent-Length: 0\r\n\r\n",
	"answer's header":   "HTTP/1.1 200 OK\r\nX-A: %s\r\nContent-Length: 0\r\n\r\n",
	"answer's name":     "HTTP/1.1 200 OK\r\n%s: x\r\nContent-Length: 0\r\n\r\n",
	"answer's length":   "HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
	"answer's encoding": "HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n",
	"answer's chunk":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n",
	"no HTTP":           "%s",
}

// Whatever is put wherever: the answer has no header and no markup of it, each
// line of the access log is one record of the proxy's making, and neither it nor
// the operational log has anything that a terminal or a reader acts on.
func TestInjection(t *testing.T) {
	rules := []policy.Rule{{Name: "denied", When: policy.When{Hosts: []string{"denied.test"}}, Then: "deny"}}
	for _, format := range []string{"json", "squid"} {
		everyWay(t, func(t *testing.T, start func(*testing.T, setup) *rig) {
			t.Run(format, func(t *testing.T) {
				c := setup{rules: rules, logFormat: format, users: map[string]string{"alice": "secret"}, dns: []string{zone(t, nothing)}}
				r := start(t, c)
				r.squid = true // it is read here
				open := start(t, setup{rules: rules, logFormat: format, dns: c.dns})
				open.squid = true
				for where, opening := range openings {
					to := open
					if where == "user" || where == "scheme of sign-in" {
						to = r
					}
					for what, payload := range payloads {
						inject(t, to, where+", "+what, opening, payload)
					}
				}
				checkLogs(t, r, format)
				checkLogs(t, open, format)
			})
		})
	}
}

func nothing(string) (none []netip.Addr) { return nil }

// inject sends payload through opening, and looks at the answer.
func inject(t *testing.T, r *rig, name, opening, payload string) {
	t.Helper()
	answer := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	request := strings.ReplaceAll(strings.ReplaceAll(opening, "%s", payload), "%b", base64.StdEncoding.EncodeToString([]byte(payload+":x")))
	if strings.HasPrefix(opening, "HTTP/") || strings.HasPrefix(opening, "%s 200") || opening == "%s" {
		answer, request = request, "GET http://%o/ HTTP/1.1\r\nHost: x\r\n\r\n"
	}
	o, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	go func() {
		for {
			c, err := o.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 32<<10))
			_, _ = io.WriteString(c, answer)
			c.Close()
		}
	}()
	c := dial(t, r.listener.Addr().String())
	defer c.Close()
	c.send(strings.ReplaceAll(request, "%o", o.Addr().String()))
	_ = c.CloseWrite()
	all, _ := io.ReadAll(c.in)
	head, body, _ := bytes.Cut(all, []byte("\r\n\r\n"))
	if !bytes.Contains(head, []byte("\r\nProxy-Status: ")) {
		return // the origin's own words, or none
	}
	if bytes.Contains(bytes.ToLower(all), []byte("injected")) || bytes.Contains(body, []byte("<script")) {
		t.Errorf("%s: answered %.500q", name, all)
	}
	if !bytes.Contains(head, []byte("\r\nX-Content-Type-Options: nosniff")) {
		t.Errorf("%s: no nosniff in %q", name, head)
	}
	for i, b := range all {
		if b < ' ' && b != '\r' && b != '\n' || b == 0x7f || i < len(head) && b > 0x7f {
			t.Errorf("%s: byte %q in %.500q", name, b, all)
			break
		}
	}
}

// checkLogs stops r and looks at its logs.
func checkLogs(t *testing.T, r *rig, format string) {
	t.Helper()
	r.stop()
	requests := int64(0)
	for _, s := range r.counters.Snapshot() {
		for _, n := range s.Requests {
			requests += n
		}
	}
	b, err := os.ReadFile(r.path)
	if err != nil && requests > 0 {
		t.Fatal(err)
	}
	lines := strings.Split(string(b), "\n")
	if n := int64(len(lines) - 1); n != requests || lines[len(lines)-1] != "" {
		t.Errorf("%d lines of %d requests", n, requests)
	}
	for _, line := range lines[:len(lines)-1] {
		if bad := actsOn(line); bad != "" {
			t.Errorf("%s in the line %q", bad, line)
		}
		if format == "squid" {
			if n := len(strings.Fields(line)); n != 10 {
				t.Errorf("%d fields in %q", n, line)
			}
			continue
		}
		fields := map[string]any{}
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Errorf("%v: %q", err, line)
		}
		if _, ok := fields["injected"]; ok || len(fields) != 20 {
			t.Errorf("%d fields in %q", len(fields), line)
		}
	}
	for _, e := range r.ops.All() {
		for _, f := range e.Context {
			if f.Key != "stack" {
				e.Message += fmt.Sprint(" ", f.String)
			}
		}
		if bad := actsOn(e.Message); bad != "" {
			t.Errorf("%s in the log entry %q", bad, e.Message)
		}
	}
}

// actsOn names what in s a terminal or a reader of lines would act on; "" for
// nothing.
func actsOn(s string) string {
	if !utf8.ValidString(s) {
		return "invalid UTF-8"
	}
	for _, c := range s {
		if unicode.IsControl(c) || c == '\u2028' || c == '\u2029' || unicode.Is(unicode.Bidi_Control, c) {
			return fmt.Sprintf("%U", c)
		}
	}
	return ""
}
