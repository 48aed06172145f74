package pac

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dop251/goja"
)

// What nests, and what only looks like it.
func TestParseLimits(t *testing.T) {
	const many = 300_000
	for _, c := range []struct{ name, script, want string }{
		{"parentheses", strings.Repeat("(", many), "line 1, column 1002: brackets nest deeper than 1000"},
		{"brackets", strings.Repeat("[", many), "brackets nest"},
		{"braces", strings.Repeat("{", many), "brackets nest"},
		{"templates", strings.Repeat("`${", many), "brackets nest"},
		{"groups", "var a = /" + strings.Repeat("(", many) + "/;", "a regular expression nests deeper"},
		{"negations", strings.Repeat("!", many), "more than 200000 parts"},
		{"signs", strings.Repeat("- ", many), "more than"},
		{"typeof", strings.Repeat("typeof ", many), "more than"},
		{"new", strings.Repeat("new ", many), "more than"},
		{"conditions", strings.Repeat("a?b:", many), "more than"},
		{"conditions with calls", strings.Repeat("f(a)||g(b)?b:", many), "more than"},
		{"else if", strings.Repeat("if(a)b;else ", many), "more than"},
		{"else if with blocks", strings.Repeat("if(a){b}else ", many), "more than"},
		{"if in if", strings.Repeat("if(a)", many), "more than"},
		{"loops", strings.Repeat("for(;;)while(a)", many), "more than"},
		{"do", strings.Repeat("do ", many), "more than"},
		{"assignments", strings.Repeat("a=", many), "more than"},
		{"sums", strings.Repeat("a+", many), "more than"},
		{"properties", strings.Repeat("a.", many), "more than"},
		{"calls", "a" + strings.Repeat("()", many), "more than"},
		{"indexes", "a" + strings.Repeat("[0]", many), "more than"},
		{"arrows", strings.Repeat("a=>", many/100), "more than"},
		{"labels", strings.Repeat("a:", many/100), "more than"},
		{"behind a division", "var a = b / 1 + '/'; " + strings.Repeat("(", many), "brackets nest"},
		{"behind an expression", "if (a) /'/.test(b); " + strings.Repeat("(", many), "brackets nest"},
		{"behind a comment", "// \u2028" + strings.Repeat("(", many), "brackets nest"},
		{"behind what may be a division", "{}/ '/" + strings.Repeat("(", many), `"/" may begin a regular expression or divide`},
		{"behind a string without an end", "'\n" + strings.Repeat("(", many), "a string does not end"},
		{"too large", strings.Repeat(" ", MaxInput+1), "the script has 10485761 bytes (at most 10485760)"},

		{"in strings", "var a = \"" + strings.Repeat("(", many) + "\";", ""},
		{"in comments", "// " + strings.Repeat("(", many) + "\n/*" + strings.Repeat("[", many) + "*/", ""},
		{"in classes", "var a = /[" + strings.Repeat("(", many) + "]/;", ""},
		{"escaped", "var a = /" + strings.Repeat(`\(`, 1000) + "/, b = '\\'((('", ""},
		{"statements", strings.Repeat("if (a) { b(); }\n", many), ""},
		{"statements without semicolons", strings.Repeat("a = b(c)\n", many), ""},
		{"elements", "var a = [" + strings.Repeat("'a', ", many) + "1];", ""},
		{"properties of an object", "var a = {" + strings.Repeat("a: 1, ", many) + "b: 2};", ""},
		{"cases", "switch (a) {" + strings.Repeat("case 1: ", many) + "}", ""},
		{"functions", strings.Repeat("function f(a) { return a / 2 }\n", many/3), ""},
		{"terms", "var a = " + strings.Repeat("b('x') ||\n", 150_000) + "c;", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.script)
			limit, exceeded := errors.AsType[*LimitError](err)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (!exceeded || !strings.Contains(limit.Error(), c.want)):
				t.Errorf("%.200v; want %s", err, c.want)
			}
		})
	}
}

var constants = regexp.MustCompile(`\b(\d+|null|undefined)\b|'\w+'`)

// Constants are compiled in time: goja alone takes exponential time.
func TestParseGuardsConstants(t *testing.T) {
	for name, expression := range map[string]string{
		"or": strings.Repeat("0 || ", 40) + "1", "and": strings.Repeat("1 && ", 40) + "1", "nullish": strings.Repeat("null ?? ", 40) + "1",
		"strings": strings.Repeat("'' || ", 5000) + "1", "mixed": strings.Repeat("1 && 0 || ", 40) + "1", "negated": strings.Repeat("!1 || ", 40) + "1",
		"to the right": strings.Repeat("0 || (", 40) + "1" + strings.Repeat(")", 40), "negations": strings.Repeat("!(0 || ", 40) + "1" + strings.Repeat(")", 40),
		"sums": strings.Repeat("1 + (0 || ", 40) + "1" + strings.Repeat(")", 40), "sum": strings.Repeat("1 + (", 400) + "1" + strings.Repeat(")", 400),
		"conditions": strings.Repeat("1 ? (0 || ", 40) + "1" + strings.Repeat(") : 0", 40),
		"both":       strings.Repeat("(0 || ", 40) + "1" + strings.Repeat(" || 0)", 40), "commas": strings.Repeat("(0, 0 || ", 40) + "1" + strings.Repeat(")", 40),
		"compared": strings.Repeat("(0 || 1 == ", 40) + "1" + strings.Repeat(")", 40),
	} {
		done := make(chan error, 1)
		go func() {
			_, err := NewEvaluator([]byte("var a = " + expression + "; function FindProxyForURL() { return a; }"))
			done <- err
		}()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%s: not compiled within 20 s", name)
		}
	}
}

// Regrouping changes no meaning.
func TestParseKeepsMeaning(t *testing.T) {
	terms := func(n int, f func(i int) string, op string) string {
		var list []string
		for i := range n {
			list = append(list, f(i))
		}
		return strings.Join(list, op)
	}
	number := func(i int) string { return fmt.Sprint(i % 7) }
	for name, expression := range map[string]string{
		"or":          terms(1000, func(i int) string { return fmt.Sprintf("(seen += %d, seen == %d && 'found')", i, 300*301/2) }, " || "),
		"and":         terms(1000, func(i int) string { return fmt.Sprintf("(seen++, %d)", 700-i) }, " && "),
		"nullish":     terms(200, func(i int) string { return []string{"null", "undefined", "0"}[min(i/50, 2)] }, " ?? "),
		"sum":         terms(1000, number, " + "),
		"text":        terms(500, number, " + ") + " + 'x' + " + terms(500, number, " + "),
		"difference":  terms(1000, number, " - "),
		"shift":       "1 << 3 >> 1 - " + terms(300, number, " - "),
		"comparison":  terms(1000, number, " < "),
		"mixed":       terms(1000, func(i int) string { return fmt.Sprintf("(seen++, %d) && %d", i%3, i%5) }, " || "),
		"mixed again": terms(500, func(i int) string { return fmt.Sprintf("%d || %d", i%2, i%3) }, " && "),
	} {
		// A call keeps goja from folding constants, which takes it forever here.
		script := "function id(x) { return x; } var seen = id(), answer = 0; seen = 0; answer = " +
			constants.ReplaceAllString(expression, "id($0)") + "; String(answer) + ' ' + seen"
		want, err := goja.New().RunString(script)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := Parse(script)
		if err != nil {
			t.Fatal(err)
		}
		program, err := goja.CompileAST(tree, false)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := goja.New().RunProgram(program); err != nil || got.String() != want.String() {
			t.Errorf("%s: %v, %v; want %v", name, got, err, want)
		}
	}
}

// No text makes Parse panic, or refuse what is small and flat.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"if (a) /x/.test(b); else c / d;", "var {a, b: [c, ...r (l", "`a${`b${c}`}`", "a?.b?.[c] ?? /[/]/g", "x = {}\n/1/g", "do x(); while (y) /re/", "a: for (;;) {}",
		"'\\\r\n' + \"\\\"\"", "<!-- a\n--> b", "0x1e+1 / 2", "/* ", "case 1: default:", "a++ / b++ / c", "async () => await /x/", "\u2028/\u2029/",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script string) {
		_, err := Parse(script)
		if limit, ok := errors.AsType[*LimitError](err); ok && len(script) < 1000 {
			t.Errorf("%q: %v", script, limit)
		}
	})
}

func TestDecode(t *testing.T) {
	for name, c := range map[string]struct {
		script, text string
		encoding     Encoding
	}{
		"empty":               {"", "", ""},
		"ASCII":               {"var a;", "var a;", ""},
		"UTF-8":               {"// é", "// é", ""},
		"UTF-8 with a mark":   {"\ufeffvar a;", "var a;", UTF8Mark},
		"little-endian":       {"\xff\xfea\x00\xe9\x00", "aé", UTF16LE},
		"big-endian":          {"\xfe\xff\x00a\x00\xe9", "aé", UTF16BE},
		"UTF-32 LE":           {"\xff\xfe\x00\x00a\x00\x00\x00\xe9\x00\x00\x00", "aé", UTF32LE},
		"UTF-32 BE":           {"\x00\x00\xfe\xff\x00\x00\x00a\x00\x00", "a", UTF32BE},
		"half a unit":         {"\xff\xfea\x00b", "a", UTF16LE},
		"little, unmarked":    {"v\x00a\x00r\x00 \x00", "var ", UTF16None},
		"big, unmarked":       {"\x00v\x00a\x00r\x00 ", "var ", UTF16None},
		"a zero byte":         {"var a\x00;", "var a\x00;", ""},
		"Latin-1":             {"// \xe9\xff", "// éÿ", Latin1},
		"half a character":    {"// \xc3", "// Ã", Latin1},
		"zeros, nothing else": {"\x00\x00\x00\x00", "\x00\x00\x00\x00", ""},
	} {
		if text, encoding := Decode([]byte(c.script)); text != c.text || encoding != c.encoding {
			t.Errorf("%s: %q, %q; want %q, %q", name, text, encoding, c.text, c.encoding)
		}
	}
}

func panelOf(t *testing.T, body string) []*Evaluator {
	t.Helper()
	panel, err := NewPanel([]byte("function FindProxyForURL(url, host) { "+body+" }"), Browser{}, Engines...)
	if err != nil {
		t.Fatal(err)
	}
	return panel
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		urls           []string
		want           string
	}{
		{"same", `return "DIRECT";`, `return " DIRECT;";`, []string{"a.example", "https://a.example/"}, "[] of 1"},
		{"host", `return "DIRECT";`, `return host == "a.example" ? "PROXY p:1" : "DIRECT";`, []string{"a.example", "http://a.example", "b.example"},
			"[{https://a.example/ DIRECT PROXY p:1 } {http://a.example/ DIRECT PROXY p:1 }] of 3"},
		{"URL", `return "DIRECT";`, `return url.charAt(4) == ":" ? "PROXY p:1" : "DIRECT";`, []string{"a.example", "http://a.example"},
			"[{http://a.example/ DIRECT PROXY p:1 }] of 2"},
		{"URL by arguments", `return "DIRECT";`, `return arguments[0].charAt(4) == ":" ? "PROXY p:1" : "DIRECT";`, []string{"a.example", "http://a.example"},
			"[{http://a.example/ DIRECT PROXY p:1 }] of 2"},
		{"one engine", `return "DIRECT";`, `return isPlainHostName(host) ? "PROXY p:1" : "DIRECT";`, []string{"[::1]", "a.example"},
			"[{https://[::1]/ DIRECT PROXY p:1 pacparser}] of 2"},
		{"one engine, asked again", `return "DIRECT";`, `return isPlainHostName(host) ? "PROXY p:1" : "DIRECT";`, []string{"[::1]", "http://[::1]/"},
			"[{https://[::1]/ DIRECT PROXY p:1 pacparser} {http://[::1]/ DIRECT PROXY p:1 pacparser}] of 2"},
		{"each engine otherwise", `return isPlainHostName(host) ? "PROXY p:1" : "PROXY p:2";`, `return "DIRECT";`, []string{"[::1]"},
			"[{https://[::1]/ PROXY p:2 DIRECT chromium} {https://[::1]/ PROXY p:1 DIRECT pacparser}] of 1"},
		{"same by engine", `return isPlainHostName(host) ? "PROXY p:1" : "PROXY p:2";`, `return isPlainHostName(host) ? "PROXY p:1;" : "PROXY p:2;";`, []string{"[::1]"},
			"[] of 1"},
		{"function that an engine lacks", `return "DIRECT";`, `alert("x"); return "DIRECT";`, []string{"a.example"},
			"[{https://a.example/ DIRECT error: script: ReferenceError: alert is not defined"},
	} {
		t.Run(c.name, func(t *testing.T) {
			changes, asked, err := Compare(t.Context(), panelOf(t, c.old), panelOf(t, c.new), c.urls)
			if got := fmt.Sprintf("%v of %d", changes, asked); err != nil || !strings.HasPrefix(got, c.want) {
				t.Errorf("%s, %v; want %s", got, err, c.want)
			}
		})
	}
	endless := panelOf(t, `for (;;) {}`)
	for _, e := range endless {
		e.limit = time.Millisecond
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("h%d.example", i))
	}
	changes, asked, err := Compare(t.Context(), panelOf(t, `return "DIRECT";`), endless, many)
	if slow, ok := errors.AsType[*SlowError](err); !ok || slow.Old || asked >= len(many) || slow.Asked != asked || slow.URLs != len(many) {
		t.Errorf("with a script that does not end: %d asked, %v", asked, err)
	}
	if len(changes) == 0 || changes[0].New != "error: script: ran longer than 1ms" {
		t.Errorf("with a script that does not end: %v", changes)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Compare(ended, panelOf(t, `return "";`), panelOf(t, `return "";`), []string{"a.example"}); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context ended: %v", err)
	}
}

// What the engine would recurse too deep for, or not return from, is an error.
func TestEvalBoundsCode(t *testing.T) {
	for _, c := range []struct{ name, expression, want string }{
		{"eval", `eval(new Array(1e5).join("("))`, "brackets nest"},
		{"eval by another name", `(function () { var e = eval; return e(new Array(1e5).join("(")); })()`, "brackets nest"},
		{"Function", `Function(new Array(1e5).join("("))`, "brackets nest"},
		{"constructor", `[].constructor.constructor(new Array(3e5).join("!"))`, "more than 200000 parts"},
		{"JSON.parse", `JSON.parse(new Array(1e5).join("["))`, "brackets nest"},
		{"text of an array", `(function () { var a = []; for (var i = 0; i < 1e5; i++) { a = [a]; } return String(a); })()`, "script:"},
		{"JSON.stringify", `(function () { var a = []; for (var i = 0; i < 1e5; i++) { a = [a]; } return JSON.stringify(a); })()`, "script:"},
		{"expression that backtracks", `/^(?=a)(a+)+$/.test(new Array(60).join("a") + "b")`, "ran longer than 1s"},
		{"eval of the caller's names", `(function () { var own = "own"; return eval("own") + eval("1 + 1"); })()`, ""},
		{"Function that is small", `Function("a", "return a + 1")(1) + typeof Function`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			limit := time.Minute // no machine is too slow for it
			if strings.HasPrefix(c.want, "ran longer") {
				limit = time.Second
			}
			_, err := newEvaluator([]byte("var a = "+c.expression+`; function FindProxyForURL(url, host) { return String(a); }`), limit, &Browser{})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%.200v; want %q", err, c.want)
			}
		})
	}
}

// The functions that scripts find are those that lint knows.
func TestBrowserFunctionsAreKnown(t *testing.T) {
	for _, engine := range Engines {
		e, err := NewBrowserEvaluator([]byte(`function FindProxyForURL() { return ""; }`), Browser{Engine: engine})
		if err != nil {
			t.Fatal(err)
		}
		bare := goja.New()
		for _, name := range e.vm.GlobalObject().Keys() {
			if slices.Contains([]string{"FindProxyForURL", "console", checked, aliased}, name) || bare.Get(name) != nil {
				continue
			}
			if _, ok := BrowserFunctions[name]; !ok {
				t.Errorf("%s: BrowserFunctions lacks %s", engine, name)
			}
		}
	}
}
