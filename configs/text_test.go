package configs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	const example = "a duration such as 30s, 5m, 24h or 30d"
	for _, x := range []struct {
		text string
		want time.Duration
		err  string
	}{
		{text: "0"}, {text: "0s"}, {text: "0d"},
		{text: "90s", want: 90 * time.Second},
		{text: "1h30m", want: 90 * time.Minute},
		{text: "1.5h", want: 90 * time.Minute},
		{text: "30d", want: 720 * time.Hour},
		{text: "1d12h", want: 36 * time.Hour},
		{text: "-2d", want: -48 * time.Hour},
		{text: "-1d1h", want: -25 * time.Hour},
		{text: "106751d", want: 106751 * 24 * time.Hour},
		{text: "30", err: "30 has no unit (wanted: " + example + ")"},
		{text: "1e3", err: "1e3 has no unit (wanted: " + example + ")"},
		{text: "", err: `"" is no duration (wanted: ` + example + ")"},
		{text: "-", err: `"-" is no duration (wanted: ` + example + ")"},
		{text: "d", err: `"d" is no duration (wanted: ` + example + ")"},
		{text: "1.5d", err: `"1.5d" is no duration (wanted: ` + example + ")"},
		{text: "1d-1h", err: `"1d-1h" is no duration (wanted: ` + example + ")"},
		{text: "--1h", err: `"--1h" is no duration (wanted: ` + example + ")"},
		{text: "1d1d", err: `"1d1d" is no duration (wanted: ` + example + ")"},
		{text: "106752d", err: `"106752d" is no duration (wanted: ` + example + ")"},
		{text: "106751d24h", err: `"106751d24h" is no duration (wanted: ` + example + ")"},
		{text: "1w", err: `"1w" is no duration (wanted: ` + example + ")"},
	} {
		got, err := ParseDuration(x.text)
		if got != x.want || fmt.Sprint(err) != cmp.Or(x.err, "<nil>") {
			t.Errorf("%q: got %v, %v; want %v, %s", x.text, got, err, x.want, cmp.Or(x.err, "<nil>"))
		}
	}
}

func TestFormatDurationReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Min(-1<<62).Draw(t, "d"))
		if rapid.Bool().Draw(t, "days") {
			d = d.Truncate(24 * time.Hour)
		}
		text := formatDuration(d)
		if got, err := ParseDuration(text); got != d || err != nil {
			t.Fatalf("%v is written %s and read %v, %v", d, text, got, err)
		}
	})
	for d, want := range map[time.Duration]string{
		0: "0s", 24 * time.Hour: "24h", 720 * time.Hour: "30d", 90 * time.Second: "1m30s", 5 * time.Minute: "5m", time.Hour + time.Second: "1h0m1s",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"listen", "clients", "idle_timeout", "log"}
	for s, want := range map[string]string{
		"listen": "listen", "lisent": "listen", "Listen": "listen", "client": "clients", "idletimeout": "idle_timeout",
		"foo": "", "x": "", "": "", "something_else": "",
	} {
		if got := nearest(s, names); got != want {
			t.Errorf("%q: got %q, want %q", s, got, want)
		}
	}
}

func TestRedact(t *testing.T) {
	for _, x := range []struct{ key, text, want string }{
		{"egress.parent", "http://user:geheim@proxy.example.org:3128", "http://user:xxxxx@proxy.example.org:3128"},
		{"egress.parent", "http://user@proxy.example.org:3128", "http://user@proxy.example.org:3128"},
		{"egress.parent", "http://user:a b%zz@proxy.example.org", "http://xxxxx@proxy.example.org"},
		{"egress.parent", "http://user:a@b c@proxy.example.org", "http://xxxxx@proxy.example.org"},
		{"egress.parent", "http://u:geheim@a.example:1, http://u:geheim@b.example:2,http://c.example:3", "http://u:xxxxx@a.example:1, http://u:xxxxx@b.example:2,http://c.example:3"},
		{"egress.parent", "http://u:gehe,im@a.example:1,http://u:ge,heim@b.example:2", "http://u:xxxxx@a.example:1,http://u:xxxxx@b.example:2"},
		{"egress.parent", "http://a.example:1, u:geheim@b.example:2", "http://xxxxx@b.example:2"},
		{"rules[0].headers.Authorization", "Basic x", "xxxxx"},
		{"rules[0].headers.X-Api-Key", "x", "xxxxx"},
		{"auth.ldap.bind_password", "x", "xxxxx"},
		{"auth.ldap.bind_password", "", ""},
		{"tls.acme.dns.settings", "geheim", "xxxxx"}, // in place of a section
		{"tls.acme.dns.settings.key", "x", "xxxxx"},
		{"tls.acme.eab.mac_key", "x", "xxxxx"},
		{"auth.htpasswd", "/etc/espalier/users", "/etc/espalier/users"},
		{"tls.files.key", "key.pem", "key.pem"},
		{"pac.internal", "a@b", "a@b"},
	} {
		if got := redact(x.key, x.text); got != x.want {
			t.Errorf("%s %s: got %s, want %s", x.key, x.text, got, x.want)
		}
	}
}

// A key with dots in its names leads to the longest that exists.
func TestProblemFindsThePlace(t *testing.T) {
	file := &source{layerFile, "f"}
	root, bad := readDocument(file, []byte(`egress:
  hosts:
    com: 192.0.2.1
    apple.com: 192.0.2.2
    gs.apple.com: 192.0.2.3
    gs: 192.0.2.4
rules:
  - name: a
  - name: b
    when: {hosts: [a.example,
                   b.example]}
`))
	if len(bad) > 0 {
		t.Fatal(bad)
	}
	for text, want := range map[string]string{
		"egress.hosts.gs.apple.com: x: y":         "f:5:19: egress.hosts.gs.apple.com: x: y",
		"egress.hosts.apple.com: x":               "f:4:16: egress.hosts.apple.com: x",
		"egress.hosts.gs: x":                      "f:6:9: egress.hosts.gs: x",
		"egress.hosts.other.example: x":           "f:2:3: egress.hosts.other.example: x",
		"egress.dns[3]: x":                        "f:1:1: egress.dns[3]: x",
		"rules[1].when.hosts[1]: \"x: y\" is bad": `f:11:20: rules[1].when.hosts[1]: "x: y" is bad`,
		"rules[1].then: missing":                  "f:9:5: rules[1].then: missing",
		"rules[7].then: missing":                  "f:7:1: rules[7].then: missing",
		"rules: too many":                         "f:7:1: rules: too many",
		"no key at all: here":                     "f:1:1: no key at all: here",
		"nothing":                                 "f:1:1: nothing",
		"":                                        "f:1:1: ",
	} {
		if got := problem(root, text).Error(); got != want {
			t.Errorf("%q:\n got %s\nwant %s", text, got, want)
		}
	}
}

func TestSplitTakesJoinedErrorsApart(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	several := fmt.Errorf("%w and %w", a, b)
	for _, x := range []struct {
		err  error
		want []error
	}{
		{nil, nil},
		{a, []error{a}},
		{errors.Join(a, errors.Join(b, c)), []error{a, b, c}},
		{errors.Join(several, c), []error{several, c}},
	} {
		if got := split(x.err); !slices.Equal(got, x.want) {
			t.Errorf("%v: got %v, want %v", x.err, got, x.want)
		}
	}
}

func TestProblemIsOneLine(t *testing.T) {
	p := Problem{File: "a\nb.yaml", Line: 1, Column: 2, Key: "k\x1b[1m", Message: "x\r\ny"}
	if got, want := p.Error(), "a b.yaml:1:2: k [1m: x  y"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
