package pac

import (
	"encoding/base64"
	"encoding/json"

	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

const functionsFile = "testdata/functions.txt"

// A functionCall is a row of testdata/functions.txt.
type functionCall struct {
	text string
	// want is what each engine answers; nil for what depends on the time.
	want map[Engine]string
}

// functionCalls reads testdata/functions.txt: a call in a line, a tab and what all engines
// answer, or "ENGINE: ANSWER" after a tab for each where they differ. Lines that
// begin with # are comments.
func functionCalls(t *testing.T) (list []functionCall) {
	t.Helper()
	text, err := os.ReadFile(functionsFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		cells := strings.Split(line, "\t")
		c := functionCall{text: cells[0]}
		for _, engine := range Engines {
			if c.want == nil && len(cells) > 1 {
				c.want = map[Engine]string{}
			}
			for _, cell := range cells[1:] {
				if answer, ok := strings.CutPrefix(cell, string(engine)+": "); ok || len(cells) == 2 {
					c.want[engine] = answer
				}
			}
		}
		list = append(list, c)
	}
	return list
}

// asking is a script that answers call n when asked about the host n.
func asking(list []functionCall) string {
	var texts []string
	for _, c := range list {
		texts = append(texts, c.text)
	}
	quoted, err := json.Marshal(texts)
	if err != nil {
		panic(err)
	}
	var ascii strings.Builder // or each engine reads it in its own encoding
	for _, unit := range utf16.Encode([]rune(string(quoted))) {
		if unit < 0x80 {
			ascii.WriteByte(byte(unit))
		} else {
			fmt.Fprintf(&ascii, `\u%04x`, unit)
		}
	}
	return "var calls = " + ascii.String() + `;
function answer(n) { try { return String(eval(calls[n])); } catch (e) { return "throws"; } }
function FindProxyForURL(url, host) { return answer(+host); }
`
}

// ours is what an Evaluator answers.
func ours(t *testing.T, list []functionCall, b Browser) (answers []string) {
	t.Helper()
	e, err := NewBrowserEvaluator([]byte(asking(list)), b)
	if err != nil {
		t.Fatal(err)
	}
	for n, c := range list {
		answer, err := e.FindProxy("", strconv.Itoa(n))
		if err != nil {
			t.Fatalf("%s: %v", c.text, err)
		}
		answers = append(answers, answer)
	}
	return answers
}

// The functions answer what testdata/functions.txt says.
func TestFunctions(t *testing.T) {
	list := functionCalls(t)
	for _, engine := range Engines {
		for i, answer := range ours(t, list, Browser{Engine: engine}) {
			if want, ok := list[i].want[engine]; ok && answer != want {
				t.Errorf("%s: %s = %q, want %q", engine, list[i].text, answer, want)
			}
		}
	}
}

// The engines themselves answer what testdata/functions.txt says, and what an
// Evaluator does at the same time.
func TestFunctionsAgreeWithEngines(t *testing.T) {
	list := functionCalls(t)
	answers := map[Engine][]string{}
	for engine, ask := range map[Engine]func(*testing.T, []functionCall) []string{Chromium: askChromium, Pacparser: askPacparser} {
		t.Run(string(engine), func(t *testing.T) {
			before := time.Now()
			got := ask(t, list)
			after := time.Now()
			answers[engine] = got
			if *update {
				return
			}
			early, late := ours(t, list, Browser{Engine: engine, Now: before}), ours(t, list, Browser{Engine: engine, Now: after})
			for i, c := range list {
				want, fixed := c.want[engine]
				switch {
				case fixed && got[i] != want:
					t.Errorf("%s = %q, and %s says %q", c.text, got[i], functionsFile, want)
				case !fixed && got[i] != early[i] && got[i] != late[i]:
					t.Errorf("%s = %q; ours says %q", c.text, got[i], late[i])
				}
			}
		})
	}
	if *update && len(answers) == len(Engines) {
		rewrite(t, list, answers)
	}
}

// rewrite writes the answers into testdata/functions.txt.
func rewrite(t *testing.T, list []functionCall, answers map[Engine][]string) {
	text, err := os.ReadFile(functionsFile)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	n := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			fmt.Fprintln(&b, line)
			continue
		}
		b.WriteString(list[n].text)
		first := answers[Engines[0]][n]
		if list[n].want != nil {
			if !slices.ContainsFunc(Engines, func(e Engine) bool { return answers[e][n] != first }) {
				b.WriteString("\t" + first)
			} else {
				for _, engine := range Engines {
					fmt.Fprintf(&b, "\t%s: %s", engine, answers[engine][n])
				}
			}
		}
		b.WriteString("\n")
		n++
	}
	if err := os.WriteFile(functionsFile, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// engineMissing ends the test where a program is missing: make deps installs it.
func engineMissing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// askChromium asks all calls when the script is loaded: alert writes the answers to
// the network log.
func askChromium(t *testing.T, list []functionCall) []string {
	if _, err := exec.LookPath("chromium"); err != nil {
		engineMissing(t, err)
	}
	script := asking(list) + `for (var n = 0; n < calls.length; n++) { alert("answer " + n + " " + answer(n)); }`
	script = strings.Replace(script, "return answer(+host)", `return "DIRECT"`, 1)
	dir := t.TempDir()
	log := filepath.Join(dir, "net.json")
	cmd := exec.CommandContext(t.Context(), "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+filepath.Join(dir, "profile"), "--host-resolver-rules=MAP *.invalid ^NOTFOUND", "--log-net-log="+log,
		"--proxy-pac-url=data:application/x-ns-proxy-autoconfig;base64,"+base64.StdEncoding.EncodeToString([]byte(script)),
		"--dump-dom", "http://127.0.0.1:1/") // which it refuses to ask, after the script
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, out)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var events struct {
		Events []struct {
			Params struct {
				Message string `json:"message"`
			} `json:"params"`
		} `json:"events"`
	}
	if err := json.Unmarshal(text, &events); err != nil {
		t.Fatal(err)
	}
	answers, known := make([]string, len(list)), make([]bool, len(list))
	for _, e := range events.Events {
		rest, ok := strings.CutPrefix(e.Params.Message, "answer ")
		number, answer, _ := strings.Cut(rest, " ")
		if n, err := strconv.Atoi(number); ok && err == nil {
			answers[n], known[n] = answer, true
		}
	}
	if i := slices.Index(known, false); i >= 0 {
		t.Fatalf("chromium does not answer %s", list[i].text)
	}
	return answers
}

func askPacparser(t *testing.T, list []functionCall) []string {
	const python = "/usr/bin/python3" // of Debian: another in the path does not have the module
	if err := exec.CommandContext(t.Context(), python, "-c", "import pacparser").Run(); err != nil {
		engineMissing(t, fmt.Errorf("pacparser: %w", err))
	}
	dir := t.TempDir()
	var asked [][2]string
	for n := range list {
		asked = append(asked, [2]string{"http://a.example/", strconv.Itoa(n)})
	}
	text, err := json.Marshal(asked)
	if err != nil {
		t.Fatal(err)
	}
	script, questions := filepath.Join(dir, "proxy.pac"), filepath.Join(dir, "calls.json")
	for file, b := range map[string][]byte{script: []byte(asking(list)), questions: text} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), python, "testdata/engines/ask.py", script, questions)
	cmd.Env = append(os.Environ(), "PYTHONIOENCODING=utf-8")
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(answers) != len(list) {
		t.Fatalf("%d answers to %d calls", len(answers), len(list))
	}
	return answers
}
