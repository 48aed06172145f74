package pac

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Beside goja, which TestScriptAgreesWithPolicy asks, the engines of others say
// what the policy says.
func TestEnginesAgreeWithPolicy(t *testing.T) {
	for _, name := range []string{"default", "extra and internal", "words", "denied", "denied, default direct", "routes by service and host"} {
		v := variants[slices.IndexFunc(variants, func(v variant) bool { return v.name == name })]
		body, list := v.calls(t)
		var asked [][2]string
		for _, c := range list {
			asked = append(asked, [2]string{c.url, c.host})
		}
		text, err := json.Marshal(asked)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		script, calls := filepath.Join(dir, "proxy.pac"), filepath.Join(dir, "calls.json")
		for file, b := range map[string][]byte{script: body, calls: text} {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, engine := range []struct{ name, ready, ask string }{
			{"JavaScriptCore", "jsc -e 0", "jsc ask.js --"},
			// Of Debian: another Python in the path does not have the module.
			{"pacparser", "/usr/bin/python3 -c import\tpacparser", "/usr/bin/python3 ask.py"},
			{"pac-resolver", "node -e import('pac-resolver')", "node ask.mjs"},
		} {
			t.Run(engine.name+"/"+name, func(t *testing.T) {
				run := func(args ...string) ([]byte, error) {
					cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
					cmd.Dir = "testdata/engines"
					cmd.Stderr = t.Output()
					return cmd.Output()
				}
				if _, err := run(strings.Split(engine.ready, " ")...); err != nil {
					missing := fmt.Sprintf("%s: %v (make deps installs it)", engine.ready, err)
					if os.Getenv("CI") != "" {
						t.Fatal(missing)
					}
					t.Skip(missing)
				}
				out, err := run(append(strings.Split(engine.ask, " "), script, calls)...)
				if err != nil {
					t.Fatal(err)
				}
				answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
				if len(answers) != len(list) {
					t.Fatalf("%d answers to %d questions", len(answers), len(list))
				}
				for i, c := range list {
					if answers[i] != c.want {
						t.Errorf("FindProxyForURL(%q, %q) = %q; the policy says %q", c.url, c.host, answers[i], c.want)
					}
				}
			})
		}
	}
}
