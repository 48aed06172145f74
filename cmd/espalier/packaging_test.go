package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// What the packages install as configuration and examples is valid, beside the files
// that the examples speak of.
func TestPackagedConfigurations(t *testing.T) {
	files, err := filepath.Glob("../../packaging/examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range append(files, "../../packaging/espalier.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			dir := t.TempDir()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Join(dir, "espalier.yaml")
			for path, text := range map[string][]byte{name: text, filepath.Join(dir, "ldap.password"): []byte("secret\n")} {
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			data := "data=" + filepath.Join(dir, "data")
			for _, args := range [][]string{{"ca", "init"}, {"validate"}} {
				root, out := rootCommand(), &bytes.Buffer{}
				root.SetOut(out)
				root.SetErr(out)
				root.SetArgs(append(args, "-c", name, "--set", data))
				if code := execute(root); code != 0 {
					t.Errorf("%s: exit status %d: %s", args, code, out)
				}
			}
		})
	}
}
