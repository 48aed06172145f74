package pac

import (
	"strings"
	"testing"
	"time"
)

func TestEvalFaults(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"syntax", `function (`, "script: SyntaxError"},
		{"nonsense", `var {a, b: [c, ...r (l`, "script: the parser cannot read it"},
		{"no function", `var x = 1;`, "script: has no function FindProxyForURL"},
		{"no string", `function FindProxyForURL() { return 7; }`, "returned 7, which is not a string"},
		{"throws", `function FindProxyForURL() { throw "no"; }`, "script: no at"},
		{"browser function", `function FindProxyForURL(u, h) { return myIpAddress(); }`, "myIpAddress is not defined"},
		{"deep", `function FindProxyForURL(u, h) { return FindProxyForURL(u, h); }`, "script: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := evalOnce([]byte(c.script), "https://a.example/", "a.example")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("evalOnce = %q, %v; want an error with %q", got, err, c.want)
			}
		})
	}
}

func evalOnce(script []byte, url, host string) (string, error) {
	e, err := NewEvaluator(script)
	if err != nil {
		return "", err
	}
	return e.FindProxy(url, host)
}

func TestEvalEndsEndlessScripts(t *testing.T) {
	if _, err := newEvaluator([]byte(`for (;;) {}`), time.Millisecond, nil); err == nil || !strings.Contains(err.Error(), "ran longer than 1ms") {
		t.Errorf("an endless outer level: %v", err)
	}
	e, err := NewEvaluator([]byte(`function FindProxyForURL(u, h) { while (h == "loop") {} return "DIRECT"; }`))
	if err != nil {
		t.Fatal(err)
	}
	e.limit = time.Millisecond
	if _, err := e.FindProxy("", "loop"); err == nil {
		t.Error("an endless function returned")
	}
	e.limit = time.Minute
	if got, err := e.FindProxy("", "a"); err != nil || got != "DIRECT" {
		t.Errorf("after an interrupt: %q, %v", got, err)
	}
}

func TestDeviceURL(t *testing.T) {
	for _, c := range []struct{ in, url, host, target string }{
		{"gs.apple.com", "https://gs.apple.com/", "gs.apple.com", "gs.apple.com:443"},
		{"GS.Apple.com.", "https://gs.apple.com./", "gs.apple.com.", "gs.apple.com:443"},
		{"gs.apple.com:5223", "https://gs.apple.com:5223/", "gs.apple.com", "gs.apple.com:5223"},
		{"https://u:p@gs.apple.com:443/a?b#c", "https://gs.apple.com/", "gs.apple.com", "gs.apple.com:443"},
		{"http://u:p@gs.apple.com:8080/a?b#c", "http://gs.apple.com:8080/a?b", "gs.apple.com", "gs.apple.com:8080"},
		{"HTTP://gs.apple.com", "http://gs.apple.com/", "gs.apple.com", "gs.apple.com:80"},
		{"wss://gs.apple.com/a", "wss://gs.apple.com/", "gs.apple.com", "gs.apple.com:443"},
		{"17.0.0.1", "https://17.0.0.1/", "17.0.0.1", "17.0.0.1:443"},
		{"2403:300::1", "https://[2403:300::1]/", "2403:300::1", "[2403:300::1]:443"},
		{"[2403:0300::1]:80", "https://[2403:300::1]:80/", "2403:300::1", "[2403:300::1]:80"},
		{"bücher.example", "https://xn--bcher-kva.example/", "xn--bcher-kva.example", "xn--bcher-kva.example:443"},
	} {
		url, host, target, err := DeviceURL(c.in)
		if err != nil || url != c.url || host != c.host || target.String() != c.target {
			t.Errorf("DeviceURL(%q) = %q, %q, %s, %v; want %q, %q, %s", c.in, url, host, target, err, c.url, c.host, c.target)
		}
	}
	for in, want := range map[string]string{
		"":               `"https://" is no URL, name or host:port: empty host`,
		"gopher://a":     "the scheme is none of http, https, ws, wss, ftp",
		"http://a b/":    "is no URL, name or host:port",
		"http://127.1/":  "looks like an address but is none",
		"a.example:0":    "port is not a number",
		"http://a:99999": "port is not a number",
	} {
		if _, _, _, err := DeviceURL(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("DeviceURL(%q): %v; want an error with %q", in, err, want)
		}
	}
}
