package lint

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"espalier/pac"
	"espalier/policy"
)

const whole = `function FindProxyForURL(url, host) { return "DIRECT"; }`

func list(found []Finding) string {
	var b strings.Builder
	for _, f := range found {
		fmt.Fprintln(&b, f)
	}
	return b.String()
}

// What each fault is called, and where it is. The line begins at 1:1; whole is
// on the next.
func TestCheckFindsFaults(t *testing.T) {
	for script, want := range map[string]string{
		// Syntax after ES3.
		"let a = 1;":                 "1:1: error: let is not ES3",
		"const a = 1;":               "1:1: error: const is not ES3",
		"var a = `x`;":               "1:9: error: a template is not ES3",
		"var f = () => 1;":           "1:9: error: => is not ES3",
		"var a = [1, ];":             "1:11: error: a comma with nothing behind",
		"var a = {x: 1,};":           "1:14: error: a comma with nothing behind",
		"var a = {get x() { }};":     "1:14: error: a get property is not ES3",
		"var x, a = {x};":            "1:13: error: a property without a value",
		`var a = {["x"]: 1};`:        "error: a computed property name",
		"var a = {default: 1};":      "1:10: error: the property name default without quotes",
		"var a = {}; a.class = 1;":   "1:15: error: the property name class",
		"for (var a of []) {}":       "1:1: error: for … of",
		"for (let a in []) {}":       "error: let or const is not ES3",
		"for (let a = 1; ;) {break}": "error: let is not ES3",
		"class A {}":                 "1:1: error: class is not ES3",
		"var {a} = {};":              "1:5: error: taking an object apart",
		"var [a] = [];":              "1:5: error: taking an array apart",
		"var a; a?.b;":               "error: ?. is not ES3",
		"var a = 2 ** 2;":            "error: ** is not ES3",
		"var a = null ?? 2;":         "error: ?? is not ES3",
		"var a; a ??= 2;":            "error: ??= is not ES3",
		"var a = 0b1;":               "1:9: error: the number 0b1",
		"var a = /x/y;":              "1:9: error: the regular expression /x/y",
		"function f(a = 1) {}":       "error: the default of a parameter",
		"function f(...a) {}":        "error: ... is not ES3",
		"var a = [...[]];":           "error: ... is not ES3",
		"String(1, );":               "1:9: error: a comma",
		"async function f() {}":      "error: such a function is not ES3",
		"function *f() {}":           "error: such a function is not ES3",
		strings.Repeat("[", 2000):    "1:1002: error: the script cannot be checked: brackets nest deeper than 1000",
		"function (":                 "error: syntax error: unexpected",
		// Names.
		"var a = JSON;":                        "1:9: error: JSON is not ES3",
		`"a".trim();`:                          "1:5: warning: trim came after ES3",
		"window.x;":                            "1:1: error: window is not defined",
		"frobnicate();":                        "1:1: error: frobnicate is not defined",
		`eval("1");`:                           "1:1: error: eval runs text",
		`alert("x");`:                          "1:1: error: alert is not there",
		`dnsResolve("x");`:                     "1:1: error: dnsResolve looks the name up",
		`isResolvable("x");`:                   "1:1: error: isResolvable looks",
		`isInNet("x", "17.0.0.0", "255.0.0");`: "1:1: error: isInNet looks",
		"myIpAddress();":                       "1:1: error: myIpAddress answers",
		`shExpMatch("x", "*");`:                "1:1: warning: shExpMatch is slow",
		"weekdayRange(1);":                     "1:1: warning: weekdayRange",
		"function FindProxyForURLEx(u, h) {}":  "error: the script declares FindProxyForURLEx",
		"function shExpMatch(u, h) {}":         "warning: the script declares shExpMatch, which every browser has",
		"with (String) {}":                     "1:1: error: with makes",
		// State.
		"a = 1;":                                        "1:1: error: a is assigned to, but no var",
		"for (a in {}) {}":                              "1:6: error: a is assigned to",
		"var a; function f() { a = 1; }":                "1:23: warning: a, which is global, is changed",
		"var a = 0; function f() { a++; }":              "1:27: warning: a, which is global",
		"var a; function f() { for (a in {}) {} }":      "1:28: warning: a, which is global",
		"function f() { return function () { b = 1; }}": "1:37: error: b is assigned to",
		// Bytes.
		`var a = "é";`:                    "1:9: error: \"é\" is not ASCII",
		"var é;":                          "1:5: error: é is not ASCII",
		"// é":                            "1:4: warning: a character that is not ASCII",
		"// \x01":                         "1:4: error: a control character [control]",
		"\ufeffvar a = 1;":                "1:1: error: the script is UTF-8 with a byte order mark",
		strings.Repeat("// long\n", 1100): "warning: the script has 8857 bytes",
		strings.Repeat("x", pac.MaxInput): "error: the script has 10485817 bytes (at most 10485760)",
		// Running.
		"for (;;) {}": "error: script: ran longer",
		"null.x;":     "error: script: TypeError",
	} {
		found := list(Check([]byte(script+"\n"+whole), nil))
		if !strings.Contains("\n"+found, "\n"+want) && !(strings.HasPrefix(want, "error") && strings.Contains(found, want)) {
			t.Errorf("%.40q:\n%swant %s", script, found, want)
		}
	}
}

// What no line shows.
func TestCheckTriesAnswers(t *testing.T) {
	for body, want := range map[string]string{
		`return 7;`:    "error: for https://a.example/: script: FindProxyForURL returned 7",
		`return null;`: "returned null",
		`if (host == "b.example") { return "DIRECT"; }`: "error: for https://a.example/: script: FindProxyForURL returned undefined",
		`return "";`:                 `error: for https://a.example/ it answers "": it is empty`,
		`return "PROXY a";`:          "missing port",
		`return "PROXY [::1]:80";`:   "IPv6 literal",
		`return "HTTPS a:1";`:        `warning: for https://a.example/ it answers "HTTPS a:1": Apple's devices`,
		`throw "no";`:                "error: for https://a.example/: script: no",
		`return Math.random() + "";`: "warning: for https://a.example/ it answers",
	} {
		script := "function FindProxyForURL(url, host) { " + body + " }"
		if found := list(Check([]byte(script), []string{"a.example", "b.example", "c.example", "d.example", "e.example"})); !strings.Contains(found, want) {
			t.Errorf("%s\n%swant %s", body, found, want)
		}
	}
	for script, want := range map[string]string{
		"var {a, b: [c, ...r (l": "error: syntax error: the parser cannot read it [syntax]\n",
		"":                       "error: script: has no function FindProxyForURL [answer]\nerror: the script declares no FindProxyForURL [missing]\n",
		`function FindProxyForURL(a) { return "DIRECT"; }`: "1:10: error: FindProxyForURL has 1 parameters in place of url and host [missing]\n",
	} {
		if found := list(Check([]byte(script), []string{"a.example"})); found != want {
			t.Errorf("%s:\n%swant\n%s", script, found, want)
		}
	}
}

// Kinds of findings with the text that has one, and one that has none.
func TestCheckKinds(t *testing.T) {
	proxy := `"PROXY p.example:1"`
	for _, c := range []struct {
		name, kind, script, place string
		count                     int
	}{
		{"calls", "shexpmatch", strings.Repeat(`if (shExpMatch(host, "a")) return `+proxy+";\n", 45), "2:5", 45},
		{"names that wait", "dns", `if (dnsResolve(host) == "a" || dnsResolve(host) == "b") return ` + proxy + ";", "2:5", 2},
		{"path in shExpMatch", "https-path", `if (shExpMatch(url, "https://a.example/secret/*")) return ` + proxy + ";", "2:21", 1},
		{"path of any host", "https-path", `if (shExpMatch(url, "*/secret/*")) return ` + proxy + ";", "2:21", 1},
		{"path in indexOf", "https-path", `if (host == "b.example" && url.indexOf("/video") > 0) return ` + proxy + ";", "2:40", 1},
		{"path in an expression", "https-path", `if (/\/secret\//.test(url)) return ` + proxy + ";", "2:5", 1},
		{"path and host in an expression", "https-path", `if (/^https:\/\/a\.example\/secret/i.test(url)) return ` + proxy + ";", "2:5", 1},
		{"end of a path", "https-path", `if (shExpMatch(url, "*.mp4")) return ` + proxy + ";", "2:21", 1},
		{"query", "https-path", `if (url.indexOf("?via=") > 0) return ` + proxy + ";", "2:17", 1},
		{"segment of a path", "https-path", `if (url.split("/")[3] == "admin") return ` + proxy + ";", "2:26", 1},
		{"length", "https-path", `if (url.length > 60) return ` + proxy + ";", "0:0", 1},
		{"whole URL", "https-path", `if (url == "https://a.example/x") return ` + proxy + ";", "2:12", 1},
		{"path of http", "", `if (shExpMatch(url, "http://a.example/secret/*")) return ` + proxy + ";", "", 0},
		{"URL without a path", "", `if (shExpMatch(url, "https://a.example/*")) return ` + proxy + ";", "", 0},
		{"scheme", "", `if (url.substring(0, 6) == "https:") return ` + proxy + ";", "", 0},
		{"table", "table", `var t = {"a.example": 1}; if (t[host]) return ` + proxy + ";", "2:31", 1},
		{"table with in", "table", `var t = {"a.example": 1}; if (host in t) return ` + proxy + ";", "2:39", 1},
		{"table of labels", "table", `var t = {"a": 1}; if (t[host.split(".")[0]]) return ` + proxy + ";", "2:23", 1},
		{"table of answers", "table", `var t = {"a.example": ` + proxy + `}; return t[host] || "DIRECT";`, "2:52", 1},
		{"table by new Object", "table", `var t = new Object(); t["a.example"] = 1; if (t[host]) return ` + proxy + ";", "2:47", 1},
		{"table with a prefix", "", `var t = {"=a.example": 1}; if (t["=" + host]) return ` + proxy + ";", "", 0},
		{"table with hasOwnProperty", "", `var t = {"a.example": 1}; if (t.hasOwnProperty(host)) return ` + proxy + ";", "", 0},
		{"table compared", "", `var t = {"a.example": 1}; if (t[host] === 1) return ` + proxy + ";", "", 0},
		{"nested quantifier", "backtracking", `if (/^(a+)+$/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"nested quantifier in RegExp", "backtracking", `if (new RegExp("^([a-z]+\\.?)*$").test(host)) return ` + proxy + ";", "2:16", 1},
		{"any and dot", "backtracking", `if (/^(.*\.)*a$/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"alternatives alike", "backtracking", `if (/^(a|aa)+$/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"alternatives that overlap", "backtracking", `if (/^(\w|\d)*$/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"a class and one of its characters", "backtracking", `if (/^(?:x|a|[a-c])+$/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"alternatives that others spell", "backtracking", `if (/^(a|b|ab)*$/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"alternatives that begin alike", "", `if (/^(foo|foobar)*$/.test(host)) return ` + proxy + ";", "", 0},
		{"loop in a loop", "backtracking", `if (/(a*?)*b/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"optional parts", "backtracking", `if (/^(a?b?)*$/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"one optional part", "", `if (/^(a?)*(b|)*$/.test(host)) return ` + proxy + ";", "", 0},
		{"loops apart", "", `if (/^(a*b)*(ab*)*(c+d?)?$/.test(host)) return ` + proxy + ";", "", 0},
		{"loop in a loop, not captured", "backtracking", `if (/^(?:a+)+$/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"long bounds", "backtracking", `if (/^(a{1,60}){1,60}$/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"name with bounds", "", `if (/^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}$/.test(host)) return ` + proxy + ";", "", 0},
		{"alternatives of two characters", "backtracking", `if (/^(ab|a.)*$/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"alternatives apart", "", `if (/^(www|ftp|[0-9]|\.)*$/.test(host)) return ` + proxy + ";", "", 0},
		{"any or a line end", "", `if (/^(.|\n)*$/.test(host)) return ` + proxy + ";", "", 0},
		{"words", "backtracking", `if (/^(\w+\s?)*$/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"lookahead", "backtracking", `if (/^(?=a)(a*)*$/.test(host)) return ` + proxy + ";", "2:5", 1},
		{"labels", "", `if (/^([a-z0-9-]+\.)*example\.com$/.test(host)) return ` + proxy + ";", "", 0},
		{"address", "", `if (/^(\d{1,3}\.){3}\d{1,3}$/.test(host)) return ` + proxy + ";", "", 0},
		{"prefix", "", `if (/^(www\.)?a\.example$/.test(host)) return ` + proxy + ";", "", 0},
		{"engine", "engine", `if (isPlainHostName(host)) return ` + proxy + ";", "0:0", 2},
		{"engine without a function", "engine", `if (typeof alert == "undefined") return ` + proxy + ";", "0:0", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			script := "function FindProxyForURL(url, host) {\n" + c.script + "\nreturn \"DIRECT\"; }"
			found := Check([]byte(script), []string{"a.example", "[::1]", "http://[::1]/"})
			for _, f := range found {
				if f.Kind != c.kind {
					if f.Kind == "https-path" || f.Kind == "table" || f.Kind == "backtracking" || f.Kind == "engine" {
						t.Errorf("unexpected: %s", f)
					}
					continue
				}
				if at := fmt.Sprintf("%d:%d", f.Line, f.Column); at != c.place || f.Count != c.count {
					t.Errorf("at %s, %d times; want %s, %d: %s", at, f.Count, c.place, c.count, f)
				}
				c.kind = ""
			}
			if c.kind != "" {
				t.Errorf("no %s among\n%s", c.kind, list(found))
			}
		})
	}
}

// The last definition counts, however far behind the first.
func TestCheckRedefinition(t *testing.T) {
	filler := strings.Repeat("// "+strings.Repeat("x", 97)+"\n", 10_000)
	for name, last := range map[string]string{
		"function":   `function FindProxyForURL(url, host) { return "nonsense"; }`,
		"assignment": `FindProxyForURL = function (url, host) { return "nonsense"; };`,
		"this":       `this.FindProxyForURL = function (url, host) { return "nonsense"; };`,
		"var":        `var FindProxyForURL = function (url, host) { return "nonsense"; };`,
	} {
		found := list(Check([]byte(whole+"\n"+filler+last), []string{"a.example"}))
		for _, want := range []string{"10002:", "FindProxyForURL is defined again", `it answers "nonsense"`} {
			if !strings.Contains(found, want) {
				t.Errorf("%s: %q is not in\n%s", name, want, found)
			}
		}
	}
	if found := list(Check([]byte(`var FindProxyForURL = function (url, host) { return "DIRECT"; };`), []string{"a.example"})); found != "" {
		t.Errorf("of one definition:\n%s", found)
	}
}

// An encoding that engines misread is one finding, and the rest of the script is
// checked all the same.
func TestCheckEncodings(t *testing.T) {
	script := "// first\n" + strings.Replace(whole, `"DIRECT"`, `frobnicate("\u00e9\u00e8")`, 1)
	script = strings.NewReplacer(`\u00e9`, "é", `\u00e8`, "è").Replace(script)
	units := utf16.Encode([]rune(script))
	wide := func(order binary.AppendByteOrder, mark bool) []byte {
		var b []byte
		if mark {
			b = order.AppendUint16(b, 0xfeff)
		}
		for _, u := range units {
			b = order.AppendUint16(b, u)
		}
		return b
	}
	var narrow []byte
	for _, u := range units {
		narrow = append(narrow, byte(u))
	}
	for name, c := range map[string]struct {
		script []byte
		want   string
	}{
		"UTF-16LE":               {wide(binary.LittleEndian, true), "1:1: error: the script is UTF-16 (little-endian)"},
		"UTF-16BE":               {wide(binary.BigEndian, true), "1:1: error: the script is UTF-16 (big-endian)"},
		"UTF-16LE without mark":  {wide(binary.LittleEndian, false), "1:1: error: the script is UTF-16 without a byte order mark"},
		"UTF-16BE without mark":  {wide(binary.BigEndian, false), "1:1: error: the script is UTF-16 without a byte order mark"},
		"UTF-8 with mark":        {[]byte("\ufeff" + script), "1:1: error: the script is UTF-8 with a byte order mark"},
		"Latin-1":                {narrow, "2:"},
		"Latin-1 in a long file": {append([]byte(strings.Repeat("// comment\n", 1000)), narrow...), "1002:"},
	} {
		found := Check(c.script, nil)
		n, frobnicate := 0, false
		for _, f := range found {
			if f.Kind == "encoding" {
				n++
				if !strings.HasPrefix(f.String(), c.want) {
					t.Errorf("%s: %s; want %s", name, f, c.want)
				}
			}
			frobnicate = frobnicate || strings.Contains(f.Message, "frobnicate is not defined")
		}
		if n != 1 || !frobnicate || len(found) > 3 {
			t.Errorf("%s: %d findings about the encoding among\n%s", name, n, list(found))
		}
	}
}

// However large or deep a script is, checking ends.
func TestCheckIsBounded(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"100,000 terms":     {"function FindProxyForURL(url, host) { return " + strings.Repeat(`host == "a.example" || `, 100_000) + "true ? \"DIRECT\" : \"\"; }", "[size]"},
		"100,000 strings":   {"var a = " + strings.Repeat(`"a" + `, 100_000) + `"";` + whole, "[size]"},
		"100,000 else-ifs":  {"function FindProxyForURL(url, host) { " + strings.Repeat(`if (host == "a") return "DIRECT"; else `, 100_000) + `return "DIRECT"; }`, "[size]"},
		"60,000 conditions": {"function FindProxyForURL(url, host) { return " + strings.Repeat(`host == "a" ? "DIRECT" : `, 60_000) + `"DIRECT"; }`, "[size]"},
		"parentheses":       {strings.Repeat("(", 1_000_000), "brackets nest deeper than 1000 [limit]"},
		"brackets":          {strings.Repeat("[", 1_000_000), "brackets nest deeper than 1000 [limit]"},
		"braces":            {strings.Repeat("{", 1_000_000), "brackets nest deeper than 1000 [limit]"},
		"negations":         {strings.Repeat("!", 1_000_000) + "1", "more than 200000 parts; split it [limit]"},
		"large and flat":    {whole + "\n" + strings.Repeat("// "+strings.Repeat("x", 96)+"\n", 90_000), "[size]"},
	} {
		t.Run(name, func(t *testing.T) {
			if found := list(Check([]byte(c.script), []string{"a.example"})); !strings.Contains(found, c.want) || strings.Contains(found, "syntax") {
				t.Errorf("found\n%.1000s\nwant %s", found, c.want)
			}
		})
	}
}

// What ordinary ES3 looks like.
func TestCheckPassesES3(t *testing.T) {
	const script = `
/* A script as people write them. */
var proxy = "PROXY proxy.example:3128", direct = {"class": "DIRECT", x: [1, 2]}, seen;
seen = /^(www|ftp)\./i;
function under(host, domain) {
  try {
    return host == domain || dnsDomainIs(host, "." + domain);
  } catch (e) {
    return e === null;
  }
}
function FindProxyForURL(url, host) {
  var i, names = ["a.example", "b.example"], inner = function again(n) { return n ? again(n - 1) : typeof nowhere; };
  host = host.toLowerCase();
  outer: for (i = 0; i < names.length; i++) {
    if (under(host, names[i])) {
      continue outer;
    }
  }
  for (var key in direct) {
    if (key == "nothing" && inner(2) == arguments.length) { return direct[key]; }
  }
  switch (String(url).substring(0, 5)) {
  case "https":
    return seen.test(host) ? proxy + "; DIRECT" : proxy;
  default:
    return isPlainHostName(host) ? direct["class"] : proxy;
  }
}
`
	if found := Check([]byte(script), []string{"a.example", "http://b.example/", "intranet"}); len(found) > 0 {
		t.Errorf("faults in what has none:\n%s", list(found))
	}
	if found := Check([]byte(strings.ReplaceAll(script, "\n", "\r\n")), nil); len(found) > 0 {
		t.Errorf("faults with line ends of Windows:\n%s", list(found))
	}
}

// Espalier's own scripts have no fault whatever the configuration, and lines that
// people can read.
func TestCheckPassesOwnScripts(t *testing.T) {
	both, last := []string{"proxy", "direct"}, []string{"direct", "proxy"}
	for name, cfg := range map[string]pac.Config{
		"default": {Routes: pac.Routes{Apple: both, AppleUnmarked: both, Internal: []string{"direct"}, Default: []string{"proxy"}}},
		"alike":   {Routes: pac.Routes{Apple: both, AppleUnmarked: both, Internal: both, Default: both}},
		"distinct": {Routes: pac.Routes{Apple: both, AppleUnmarked: last, Internal: []string{"direct"}, Default: []string{"proxy"}},
			Internal: []string{"corp.example", "constructor", "local", "10.0.0.0/8", "fd00::/8", "192.168.6.0/23"}},
	} {
		for _, wide := range []bool{true, false} {
			p, err := policy.New(policy.Config{Apple: policy.Apple{Wide: wide, Extra: []string{"cdn.example:443,8443", "198.51.100.0/25:443"}}})
			if err != nil {
				t.Fatal(err)
			}
			compiled, err := pac.Compile(cfg, p)
			if err != nil {
				t.Fatal(err)
			}
			script, err := compiled.Script("", []string{"192.0.2.1:3128", "proxy.example:3128"})
			if err != nil {
				t.Fatal(err)
			}
			if found := Check(script.Body, pac.Samples(p.Apple().Rows(), cfg.Internal)); len(found) > 0 {
				t.Errorf("%s, wide %v:\n%s", name, wide, list(found))
			}
			for _, line := range strings.Split(string(script.Body), "\n") {
				if len(line) > 120 {
					t.Errorf("%s: a line of %d characters: %s", name, len(line), line)
				}
			}
		}
	}
}

// No script, however broken, makes Check panic.
func FuzzCheck(f *testing.F) {
	f.Add(whole)
	f.Add("var {a, b: [c, ...d]} = {}; for (let [x] of y) { class Z { static #p = `${x}` } } async () => await 1;")
	f.Add("a: for (var i in x) { continue a; } switch (1) { case 1: default: } with (a) b?.[c] ?? d;")
	f.Add("\ufeff// \x00\n//# sourceMappingURL=/etc/hostname\n")
	f.Fuzz(func(t *testing.T, script string) {
		if strings.Contains(script, "for") || strings.Contains(script, "while") || strings.Contains(script, "function") {
			script += "\nthrow 1;" // most endless ones take a second each
		}
		for _, found := range Check([]byte(script), nil) {
			if found.Message == "" || found.Severity != Error && found.Severity != Warning {
				t.Errorf("%+v", found)
			}
		}
	})
}
