package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the packages install as configuration and examples is valid, beside the files
// that the examples speak of.
func TestPackagedConfigurations(t *testing.T) {
	files, err := filepath.Glob("../../packaging/examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	// The one in the ConfigMap, which is the last of its keys.
	manifest, err := os.ReadFile("../../packaging/kubernetes/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, inner, found := strings.Cut(string(manifest), "espalier.yaml: |\n")
	mapped := filepath.Join(t.TempDir(), "configmap.yaml")
	if err := os.WriteFile(mapped, []byte(strings.ReplaceAll("\n"+inner, "\n    ", "\n")), 0o600); err != nil || !found {
		t.Fatal(err, found)
	}
	for _, file := range append(files, mapped, "../../packaging/espalier.yaml", "../../packaging/container/espalier.yaml") {
		t.Run(filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file), func(t *testing.T) {
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

// Every metric that the dashboard asks for is one that the program has.
func TestDashboardMetrics(t *testing.T) {
	text, err := os.ReadFile("../../packaging/grafana/espalier.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil || len(dashboard.Panels) == 0 {
		t.Fatal(err, len(dashboard.Panels))
	}
	var code strings.Builder
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		code.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	known := regexp.MustCompile(`"(espalier_[a-z_]+)"`).FindAllStringSubmatch(code.String(), -1)
	name := regexp.MustCompile(`espalier_[a-z_]+`)
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			for _, metric := range name.FindAllString(target.Expr, -1) {
				metric = strings.TrimSuffix(metric, "_bucket")
				if !slices.ContainsFunc(known, func(m []string) bool { return m[1] == metric }) {
					t.Errorf("%s: there is no %s", p.Title, metric)
				}
			}
		}
	}
}
